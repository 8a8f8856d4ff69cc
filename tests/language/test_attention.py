import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.language.attention import MASKED, bidirectional_attention, matmul_precision, padding_bias

B, T, HEADS, WIDTH = 3, 7, 2, 4


def inputs(seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    query, key, value = np.float32(scale * generator.normal(size=(3, B, T, HEADS * WIDTH)))
    mask = np.ones((B, T), np.int32)
    mask[1, 4:] = 0
    mask[2, :5] = 0
    return query, key, value, mask


def oracle(query, key, value, mask):
    query, key, value = (array.astype(np.float64).reshape(B, T, HEADS, WIDTH) for array in (query, key, value))
    scores = np.einsum("bthe,bshe->bhts", query, key) / np.sqrt(WIDTH)
    scores = np.where(mask[:, None, None, :] > 0, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhts,bshe->bthe", weights, value).reshape(B, T, HEADS * WIDTH)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_values_against_float64(scale):
    query, key, value, mask = inputs(scale=scale)
    result = bidirectional_attention(query, key, value, padding_bias(mask), n_heads=HEADS)
    np.testing.assert_allclose(result, oracle(query, key, value, mask), rtol=2e-4, atol=2e-6 * scale)


def test_padding_never_reaches_a_real_token():
    query, key, value, mask = inputs()
    bias = padding_bias(mask)
    before = bidirectional_attention(query, key, value, bias, n_heads=HEADS)
    key[mask == 0], value[mask == 0] = 1e6, -1e6
    after = bidirectional_attention(query, key, value, bias, n_heads=HEADS)
    np.testing.assert_array_equal(before, after)


def test_a_row_of_padding_stays_finite():
    query, key, value, mask = inputs()
    mask[0] = 0
    result = bidirectional_attention(query, key, value, padding_bias(mask), n_heads=HEADS)
    assert np.isfinite(result).all()


def test_gradients_against_differences():
    *arrays, mask = inputs()
    direction = np.float32(np.random.default_rng(1).normal(size=(3, B, T, HEADS * WIDTH)))
    readout = np.random.default_rng(2).normal(size=(B, T, HEADS * WIDTH))

    @jax.jit
    def total(query, key, value):
        return (bidirectional_attention(query, key, value, padding_bias(mask), n_heads=HEADS) * readout).sum()

    slope = sum((g * d).sum() for g, d in zip(jax.grad(total, (0, 1, 2))(*arrays), direction, strict=True))
    step = 1e-5

    def moved(sign):
        there = [a.astype(np.float64) + sign * step * d for a, d in zip(arrays, direction, strict=True)]
        return (oracle(*there, mask) * readout).sum()

    np.testing.assert_allclose(slope, (moved(1) - moved(-1)) / (2 * step), rtol=1e-4)


def test_bfloat16_keeps_its_dtype_and_its_scores_exact():
    query, key, value, mask = inputs()
    small = [jnp.asarray(array, jnp.bfloat16) for array in (query, key, value)]
    result = bidirectional_attention(*small, padding_bias(mask), n_heads=HEADS)
    assert result.dtype == jnp.bfloat16
    rounded = [np.asarray(array, np.float32) for array in small]
    np.testing.assert_allclose(np.float32(result), oracle(*rounded, mask), atol=2e-2)


def test_the_bias_tells_padding_from_text():
    np.testing.assert_array_equal(padding_bias(np.array([[1, 0, True]])), [[0, np.float32(MASKED), 0]])


def test_float32_is_multiplied_as_float32():
    assert matmul_precision(jnp.dtype("float32")) == jax.lax.Precision.HIGHEST
    assert matmul_precision(jnp.dtype("bfloat16")) == jax.lax.Precision.DEFAULT
