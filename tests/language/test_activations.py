import jax
import numpy as np
import pytest
from scipy.special import erf, expit

from jaxgkd.language.activations import ACTIVATIONS

VALUES = np.concatenate([np.linspace(-12, 12, 20001), [0.0, 1e-30, -1e-30, 1e4, -1e4]])


def exact(values):
    return values * 0.5 * (1 + erf(values / np.sqrt(2)))


def tanh_form(values):
    return 0.5 * values * (1 + np.tanh(np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)))


ORACLES = {
    "gelu": exact,
    "gelu_python": exact,
    "gelu_new": tanh_form,
    "gelu_pytorch_tanh": tanh_form,
    "relu": lambda values: np.maximum(values, 0),
    "silu": lambda values: values * expit(values),
    "swish": lambda values: values * expit(values),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_against_float64(name):
    values = np.float32(VALUES)
    result = np.asarray(jax.jit(ACTIVATIONS[name])(values))
    expected = ORACLES[name](values.astype(np.float64))
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_gradients_against_float64_differences(name):
    values = np.float32(np.linspace(-6, 6, 400))
    slope = jax.vmap(jax.grad(ACTIVATIONS[name]))(values)
    centre, step = values.astype(np.float64), 1e-5
    expected = (ORACLES[name](centre + step) - ORACLES[name](centre - step)) / (2 * step)
    np.testing.assert_allclose(slope, expected, atol=1e-5)
