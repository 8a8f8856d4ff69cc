import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from jaxgkd.graphs import MixedRows, SparseRows
from jaxgkd.nn.dropout import dropout, input_dropout, random_bytes

N = 200_000
compiled = jax.jit(dropout)


def kept(key, rate, n=N):
    return np.asarray(compiled(jnp.ones(n), key, rate)) > 0


@pytest.mark.parametrize("rate", [0.0, 1 / 256, 0.1, 0.3, 0.5, 0.9, 0.99, 0.9999])
def test_the_share_that_is_kept_is_binomial_and_the_expectation_stays(rate):
    # Rates are multiples of 1/256, and never drop all.
    share = max(round((1 - rate) * 256), 1) / 256
    out = np.asarray(compiled(jnp.full(N, 3.0), jax.random.key(0), rate))
    assert abs(np.mean(out > 0) - share) <= 5 * np.sqrt(share * (1 - share) / N)
    np.testing.assert_allclose(out[out > 0], 3.0 / share, rtol=1e-6)


def test_rate_zero_is_the_identity():
    values = jnp.asarray(np.random.default_rng(0).normal(size=(7, 5)), jnp.float32)
    np.testing.assert_array_equal(compiled(values, jax.random.key(0), 0.0), values)


def test_the_gradient_is_the_mask_times_the_scale():
    values = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)

    @jax.jit
    def value_and_gradient(values):
        out, pull = jax.vjp(lambda v: dropout(v, jax.random.key(0), 0.25), values)
        return out, pull(jnp.ones_like(out))[0]

    out, gradient = value_and_gradient(values)
    np.testing.assert_allclose(gradient, np.where(np.asarray(out) == 0, 0, 4 / 3), rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (5, 3), (2, 3, 7), (0, 4)])
def test_every_shape_and_dtype_stays(shape):
    out = jax.eval_shape(dropout, jnp.ones(shape, jnp.bfloat16), jax.random.key(0), 0.5)
    assert out.shape == shape
    assert out.dtype == jnp.bfloat16
    drawn = jax.eval_shape(lambda key: random_bytes(key, shape), jax.random.key(0))
    assert drawn.shape == shape
    assert drawn.dtype == jnp.uint8


def test_a_key_gives_one_mask_and_another_key_another():
    one, two = kept(jax.random.key(0), 0.5), kept(jax.random.key(1), 0.5)
    np.testing.assert_array_equal(one, kept(jax.random.key(0), 0.5))
    # Masks of different keys agree where two fair coins do.
    assert abs(np.mean(one == two) - 0.5) < 5 * 0.5 / np.sqrt(N)


def test_masks_of_neighbouring_keys_and_of_split_keys_are_unrelated():
    keys = [*jax.random.split(jax.random.key(3), 3), *(jax.random.fold_in(jax.random.key(4), i) for i in range(3))]
    masks = np.array([kept(key, 0.5) for key in keys]) * 2.0 - 1
    correlation = masks @ masks.T / N - np.eye(len(keys))
    assert np.abs(correlation).max() < 5 / np.sqrt(N)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_neighbouring_positions_are_unrelated(rate):
    mask = kept(jax.random.key(4), rate).astype(float)
    centred = (mask - mask.mean()) / mask.std()
    # Four bytes come out of one word; rows of 16, 128 and 256 values are common widths.
    for lag in (1, 2, 3, 4, 5, 8, 16, 128, 256):
        assert abs(np.mean(centred[lag:] * centred[:-lag])) < 5 / np.sqrt(N - lag)


def test_every_byte_of_a_word_is_uniform():
    drawn = np.asarray(random_bytes(jax.random.key(5), (N,))).reshape(-1, 4)
    for position in range(4):
        counts = np.bincount(drawn[:, position], minlength=256)
        expected = len(drawn) / 256
        chi_square = np.sum((counts - expected) ** 2 / expected)
        assert abs(chi_square - 255) < 5 * np.sqrt(2 * 255)


def test_what_a_member_draws_does_not_depend_on_the_others():
    keys = jax.random.split(jax.random.key(0), 4)
    values = jnp.asarray(np.random.default_rng(0).normal(size=(4, 9, 5)), jnp.float32)
    rates = jnp.array([0.0, 0.2, 0.5, 0.8])
    together = jax.jit(jax.vmap(dropout))(values, keys, rates)
    for i in range(4):
        np.testing.assert_array_equal(together[i], compiled(values[i], keys[i], rates[i]))
    few = jax.jit(jax.vmap(dropout))(values[1:3], keys[1:3], rates[1:3])
    np.testing.assert_array_equal(few, together[1:3])


def test_many_rates_share_one_program():
    program = jax.jit(lambda values, key, rate: dropout(values, key, rate))
    for rate in (0.0, 0.25, 0.5):
        program(jnp.ones(8), jax.random.key(0), rate)
    assert program._cache_size() == 1


def test_sparse_inputs_drop_the_values_that_are_there():
    matrix = scipy.sparse.random_array((20, 30), density=0.5, rng=np.random.default_rng(0))
    rows = SparseRows.from_scipy(matrix)
    out = jax.jit(input_dropout)(rows, jax.random.key(0), 0.5)
    assert isinstance(out, SparseRows)
    np.testing.assert_array_equal(out.layout.senders, rows.layout.senders)
    dropped = np.asarray(out.values) == 0
    assert 0.35 < dropped.mean() < 0.65
    np.testing.assert_allclose(np.asarray(out.values)[~dropped], 2 * np.asarray(rows.values)[~dropped], rtol=1e-6)
    dense = jnp.ones((4, 3))
    got = jax.jit(input_dropout)(dense, jax.random.key(1), 0.5)
    np.testing.assert_array_equal(got, compiled(dense, jax.random.key(1), 0.5))


def test_mixed_inputs_drop_both_parts_by_themselves():
    matrix = scipy.sparse.csr_array(np.ones((50, 40)))
    mixed = MixedRows(jnp.ones((50, 40)), SparseRows.from_scipy(matrix))
    out = jax.jit(input_dropout)(mixed, jax.random.key(0), 0.5)
    assert isinstance(out, MixedRows)
    dense, sparse = np.asarray(out.dense).ravel() > 0, np.asarray(out.sparse.values) > 0
    for kept_here in (dense, sparse, dense == sparse):
        assert abs(kept_here.mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)
