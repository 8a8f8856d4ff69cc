import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.language import causal_attention
from jaxgkd.language.attention import MASKED
from jaxgkd.language.causal_attention import Stretch, causal_bias, grouped_attention

B, HEADS, KEY_HEADS, T, WIDTH = 2, 4, 2, 7, 6


def inputs(seed=0):
    random = np.random.default_rng(seed)
    query = random.normal(size=(B, HEADS, T, WIDTH))
    key, value = random.normal(size=(2, B, KEY_HEADS, T, WIDTH))
    mask = np.ones((B, T), bool)
    mask[1, :3] = False
    return np.float32(query), np.float32(key), np.float32(value), mask


def oracle(query, key, value, mask, *, scale, window=None, cap=None):
    query, key, value = (array.astype(np.float64) for array in (query, key, value))
    result = np.zeros_like(query)
    for row, head, t in np.ndindex(B, HEADS, T):
        first = 0 if window is None else max(0, t - window + 1)
        columns = [s for s in range(first, t + 1) if mask[row, s]]
        if not columns:
            continue
        group = head // (HEADS // KEY_HEADS)
        scores = scale * key[row, group, columns] @ query[row, head, t]
        scores = scores if cap is None else cap * np.tanh(scores / cap)
        weights = np.exp(scores - scores.max())
        result[row, head, t] = weights / weights.sum() @ value[row, group, columns]
    return result


def bias(mask, window=None):
    positions = np.broadcast_to(np.arange(T), (B, T))
    return causal_bias(positions, positions, mask, window)


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("cap", [None, 0.4])
def test_values_against_float64(window, cap):
    query, key, value, mask = inputs()
    result = grouped_attention(query, [Stretch(key, value, bias(mask, window))], scale=0.7, score_cap=cap)
    expected = oracle(query, key, value, mask, scale=0.7, window=window, cap=cap)
    real = np.broadcast_to(mask[:, None], (B, HEADS, T))
    np.testing.assert_allclose(np.asarray(result)[real], expected[real], rtol=1e-4, atol=1e-6)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("cap", [None, 0.4])
def test_keys_in_two_stretches_are_one_sequence(cap):
    query, key, value, mask = inputs()
    whole = bias(mask, 4)
    stretches = [
        Stretch(key[:, :, part], value[:, :, part], whole[:, :, part]) for part in (slice(0, 4), slice(4, None))
    ]
    together = grouped_attention(query, [Stretch(key, value, whole)], scale=0.7, score_cap=cap)
    apart = grouped_attention(query, stretches, scale=0.7, score_cap=cap)
    np.testing.assert_allclose(apart, together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("queries", [pytest.param(1, marks=pytest.mark.thorough), 3, 5])
def test_queries_may_be_answered_some_at_a_time(monkeypatch, queries):
    *arrays, mask = inputs()
    readout = np.float32(np.random.default_rng(1).normal(size=(B, HEADS, T, WIDTH)))

    def total(query, key, value):
        whole = bias(mask, 4)
        stretches = [
            Stretch(key[:, :, part], value[:, :, part], whole[:, :, part]) for part in (slice(0, 4), slice(4, None))
        ]
        return (grouped_attention(query, stretches, scale=0.7, score_cap=0.9) * readout).sum()

    value_and_slopes = jax.value_and_grad(total, (0, 1, 2))
    together = value_and_slopes(*arrays)
    monkeypatch.setattr(causal_attention, "SCORES_AT_ONCE", queries * B * HEADS * T)
    assert "while" in str(jax.jit(total).lower(*arrays).as_text())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), value_and_slopes(*arrays), together
    )


def test_order_is_that_of_positions_not_of_columns():
    query, key, value, mask = inputs()
    shuffle = np.array([3, 0, 6, 2, 5, 1, 4])
    positions = np.broadcast_to(np.arange(T), (B, T))
    straight = grouped_attention(query, [Stretch(key, value, bias(mask, 3))], scale=0.7)
    shuffled_bias = causal_bias(positions, positions[:, shuffle], mask[:, shuffle], 3)
    shuffled = grouped_attention(query, [Stretch(key[:, :, shuffle], value[:, :, shuffle], shuffled_bias)], scale=0.7)
    np.testing.assert_allclose(shuffled, straight, rtol=1e-5, atol=1e-6)


def test_what_may_not_be_seen_never_matters():
    query, key, value, mask = inputs()
    before = grouped_attention(query, [Stretch(key, value, bias(mask))], scale=0.7)
    hidden = ~mask[:, None, :, None]
    key, value = np.where(hidden, 1e6, key), np.where(hidden, -1e6, value)
    after = np.asarray(grouped_attention(query, [Stretch(key, value, bias(mask))], scale=0.7))
    real = np.broadcast_to(mask[:, None], (B, HEADS, T))
    np.testing.assert_array_equal(after[real], np.asarray(before)[real])


def test_the_bias_of_single_queries():
    seen = np.array([[[True, True, False], [True, False, True]]])
    result = causal_bias(np.array([[1, 2]]), np.array([[0, 1, 2]]), seen, None)
    np.testing.assert_array_equal(np.asarray(result) == 0, [[[True, True, False], [True, False, True]]])
    assert np.asarray(result).min() == np.float32(MASKED)


def test_gradients_against_differences():
    *arrays, mask = inputs()
    random = np.random.default_rng(1)
    direction = [np.float32(random.normal(size=array.shape)) for array in arrays]
    readout = random.normal(size=(B, HEADS, T, WIDTH)) * mask[:, None, :, None]

    @jax.jit
    def total(query, key, value):
        stretch = Stretch(key, value, bias(mask, 3))
        return (grouped_attention(query, [stretch], scale=0.7, score_cap=1.5) * readout).sum()

    slope = sum((g * d).sum() for g, d in zip(jax.grad(total, (0, 1, 2))(*arrays), direction, strict=True))
    step = 1e-5

    def moved(sign):
        there = [a.astype(np.float64) + sign * step * d for a, d in zip(arrays, direction, strict=True)]
        return (oracle(*there, mask, scale=0.7, window=3, cap=1.5) * readout).sum()

    np.testing.assert_allclose(slope, (moved(1) - moved(-1)) / (2 * step), rtol=1e-4)


def test_bfloat16_keeps_its_dtype_and_its_scores_exact():
    query, key, value, mask = inputs()
    small = [jnp.asarray(array, jnp.bfloat16) for array in (query, key, value)]
    result = grouped_attention(small[0], [Stretch(small[1], small[2], bias(mask))], scale=0.7)
    assert result.dtype == jnp.bfloat16
    rounded = [np.asarray(array, np.float32) for array in small]
    real = np.broadcast_to(mask[:, None], (B, HEADS, T))
    expected = oracle(*rounded, mask, scale=0.7)
    np.testing.assert_allclose(np.float32(result)[real], expected[real], rtol=2e-2, atol=2e-2)
