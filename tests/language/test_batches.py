import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.language import batches
from jaxgkd.language.batches import check_batch, check_pooling, in_blocks, pool, rows_per_block

LIMITS = {"vocabulary_size": 10, "max_tokens": 4}


@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    side=st.sampled_from(["right", "left"]),
)
@settings(deadline=None, max_examples=15)
def test_pooling_looks_at_real_tokens_only(seed, lengths, side):
    states = np.random.default_rng(seed).normal(size=(len(lengths), 6, 3)).astype(np.float32)
    real = np.arange(6) < np.array(lengths)[:, None]
    real = real if side == "right" else real[:, ::-1]
    rows = [row[kept] for row, kept in zip(states, real, strict=True)]
    expected = {
        "mean": [r.mean(0) for r in rows],
        "weighted": [np.average(r, axis=0, weights=1 + np.arange(len(r))) for r in rows],
        "cls": [r[0] for r in rows],
        "last": [r[-1] for r in rows],
    }
    states[~real] = 1e3
    for pooling, values in expected.items():
        np.testing.assert_allclose(pool(states, real.astype(np.int32), pooling), values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "weighted", "cls", "last"])
def test_a_row_without_tokens_pools_to_zero(pooling):
    states = jnp.ones((2, 3, 4), jnp.bfloat16)
    result = pool(states, np.array([[0, 0, 0], [1, 0, 0]]), pooling)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, [[0] * 4, [1] * 4])


def test_unknown_pooling_is_refused():
    check_pooling("mean")
    with pytest.raises(ConfigError, match="mean, weighted, cls, last"):
        check_pooling("max")


@pytest.mark.parametrize("rows", [1, 4, 5, 8, 11])
@pytest.mark.parametrize("tokens", [1, 3, 8, 100])
def test_blocks_give_what_the_whole_batch_gives(monkeypatch, rows, tokens):
    monkeypatch.setattr(batches, "TOKENS_PER_BLOCK", 16)
    ids = np.arange(rows * 2, dtype=np.int32).reshape(rows, 2)
    run = lambda inputs: {"sum": inputs[0].sum(1), "first": inputs[1] * 2}  # noqa: E731
    whole = run((ids, ids[:, :1]))
    in_parts = in_blocks(run, (ids, ids[:, :1]), tokens)
    jax.tree.map(np.testing.assert_array_equal, in_parts, whole)


def test_blocks_are_powers_of_two_that_hold_about_the_same_tokens():
    sizes = {tokens: rows_per_block(64, tokens) for tokens in (8, 64, 128, 160, 256, 512, 4096)}
    assert sizes == {8: 64, 64: 32, 128: 16, 160: 8, 256: 8, 512: 4, 4096: 1}


def test_an_accelerator_gets_the_whole_batch(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert rows_per_block(64, 4096) == 64


def test_a_good_batch_passes():
    check_batch(np.zeros((2, 4), np.int64), np.ones((2, 4)), **LIMITS)


@pytest.mark.parametrize(
    ("ids", "mask", "error", "message"),
    [
        (np.zeros((2, 5), int), np.ones((2, 5)), ConfigError, "5 tokens wide and the model reads at most 4"),
        (np.zeros((2, 3), int), np.ones((2, 4)), DataError, r"\[2, 3\].*\[2, 4\]"),
        (np.zeros(3, int), np.ones(3), DataError, "batch, tokens"),
        (np.zeros((0, 3), int), np.ones((0, 3)), DataError, "batch, tokens"),
        (np.zeros((2, 3)), np.ones((2, 3)), DataError, "float64"),
        (np.full((2, 3), 10), np.ones((2, 3)), DataError, "10 is outside the model's vocabulary of 10"),
        (np.full((2, 3), -1), np.ones((2, 3)), DataError, "-1 is outside"),
    ],
)
def test_bad_batches_are_refused(ids, mask, error, message):
    with pytest.raises(error, match=message):
        check_batch(ids, mask, **LIMITS)


def test_shapes_are_checked_inside_jit_too():
    with pytest.raises(ConfigError):
        jax.jit(lambda ids: check_batch(ids, ids, **LIMITS))(np.zeros((2, 5), np.int32))
    jax.jit(lambda ids: check_batch(ids, ids, **LIMITS))(np.full((2, 3), 99, np.int32))
