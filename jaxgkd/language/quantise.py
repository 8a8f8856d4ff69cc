"""Frozen weights in 8 or 4 bits: a base for adapters in a quarter or an eighth of the memory of float32.

The kernels of the layers' linear maps become whole numbers of 8 bits, or the sixteen levels of NF4, with one scale for
every ``BLOCK`` inputs of an output; norms, biases and token tables stay as they are. A layer's kernels are put back
into floating point while they are used, and once more for the gradient (see ``projection``), so never more than one
layer's stand in memory. This is the frozen base of QLoRA (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314,
section 3), without its second quantisation, of the scales. The arithmetic is qwix's.
"""

import math
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxgkd.errors import ConfigError
from jaxgkd.language.decoder import Decoder
from jaxgkd.language.lora import KERNEL
from jaxgkd.language.projection import is_quantised

Bits = Literal[8, 4]

# Inputs that share a scale, as in the paper.
BLOCK = 64


def quantise(model: Decoder, bits: Bits) -> Decoder:
    """A model whose linear maps are kept in few bits; the given one stays as it is.

    Adapters are trained beside it, and it is asked, like any other. It cannot be trained itself, merged or saved.

    Args:
      model: the base.
      bits: 8 for whole numbers, 4 for NF4.

    Returns:
      The model: what it gives differs from the base's by the rounding of its kernels.

    Raises:
      ConfigError: ``bits`` is neither, the model is quantised already, or qwix is not installed.
    """
    if bits not in get_args(Bits):
        raise ConfigError(f"weights are not kept in {bits} bits", field="bits", mend="choose 8 or 4")
    try:
        import qwix  # noqa: F401
    except ImportError:
        raise ConfigError(
            "few bits need the package qwix", field="bits", mend='pip install "jaxgkd[quantised]"'
        ) from None
    weights = model.weights()
    if any(map(is_quantised, weights["layers"].values())):
        raise ConfigError("the model is quantised already", field="bits", mend="quantise the model it was made from")
    layers = {
        name: _quantised(array, bits) if name.endswith(KERNEL) else array for name, array in weights["layers"].items()
    }
    made = Decoder(model.config, {**weights, "layers": layers})
    made.config_json = model.config_json
    return made


@partial(jax.jit, static_argnames="bits")
def _quantised(stack: Array, bits: Bits) -> Any:
    """A stack of kernels [layers, in, out] as a quantised array of the same shape."""
    import qwix

    inputs = stack.shape[1]
    block = math.gcd(inputs, BLOCK)
    return qwix.quantize(
        stack,
        jnp.int8 if bits == 8 else "nf4",
        channelwise_axes=(0, 2),
        # A width that no block divides gets one scale an output.
        tiled_axes={1: block if block >= BLOCK // 4 else inputs},
    )
