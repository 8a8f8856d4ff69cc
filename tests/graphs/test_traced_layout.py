import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax import export

from jaxgkd.graphs import aggregate, build_layout
from jaxgkd.graphs.traced_layout import layout_of_starts, one_more, traced_layout, traced_sparse_rows


@pytest.fixture
def edges():
    random = np.random.default_rng(0)
    return random.integers(0, 7, 40).astype(np.int32), random.integers(0, 5, 40).astype(np.int32)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_sums_are_those_over_a_layout_made_beforehand(edges, reduce):
    values = jnp.asarray(np.random.default_rng(1).normal(size=(7, 3)), jnp.float32)
    senders, receivers = edges

    @jax.jit
    def traced(senders, receivers):
        return aggregate(values, traced_layout(senders, receivers, 5, 7), reduce=reduce)

    expected = aggregate(values, build_layout(senders, receivers, 5, n_senders=7), reduce=reduce)
    np.testing.assert_allclose(traced(senders, receivers), expected, rtol=1e-5)


@pytest.mark.parametrize("empty", [[], [0], [4], [3, 4], [0, 1, 2, 3, 4]])
def test_rows_without_values_keep_their_place(empty):
    matrix = np.random.default_rng(2).random((5, 6)).astype(np.float32)
    matrix[empty] = 0
    rows = scipy.sparse.csr_array(matrix)
    layout = layout_of_starts(one_more(jnp.asarray(rows.indices)), jnp.asarray(rows.indptr), 6)
    np.testing.assert_array_equal(layout.receivers, [*rows.tocoo().coords[0], 5])
    kernel = jnp.asarray(np.random.default_rng(3).normal(size=(6, 2)), jnp.float32)
    found = traced_sparse_rows(*map(jnp.asarray, (rows.indptr, rows.indices, rows.data)), 6) @ kernel
    np.testing.assert_allclose(found, matrix @ kernel, rtol=1e-5)


def test_sums_over_symbols_lower_for_every_platform(edges):
    senders, receivers = edges

    def summed(values, senders, receivers):
        n = values.shape[0]
        return aggregate(values, traced_layout(senders, receivers, n, n), reduce="mean")

    n, e = export.symbolic_shape("n, e")
    shapes = (jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (((n, 3), "f4"), ((e,), "i4"), ((e,), "i4")))
    program = export.export(jax.jit(summed), platforms=("cpu", "cuda", "tpu"))(*shapes)
    values = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    expected = aggregate(jnp.asarray(values), build_layout(senders, receivers, 7), reduce="mean")
    np.testing.assert_allclose(program.call(values, senders, receivers), expected, rtol=1e-5, atol=1e-6)
