import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from jaxgkd.graphs import aggregate, build_layout, sparse_rows
from jaxgkd.graphs.layout import _order


@pytest.mark.parametrize("scale", [1, 2**30])
def test_edges_are_ordered_by_receiver_and_sender_whether_or_not_all_fits_into_one_number(scale, monkeypatch):
    random = np.random.default_rng(0)
    major, minor = random.integers(0, 4, 60) * scale, random.integers(0, 5, 60)
    n_minor, lexsort, calls = 5 * scale, np.lexsort, []
    monkeypatch.setattr(np, "lexsort", lambda keys: (calls.append(1), lexsort(keys))[1])
    # The reference sorts triples, so that equal pairs stay in the order in which they were given.
    expected = sorted(range(60), key=lambda i: (major[i], minor[i], i))
    np.testing.assert_array_equal(_order(major, minor, n_minor), expected)
    np.testing.assert_array_equal(_order(major, np.zeros(1, int), n_minor), np.argsort(major, kind="stable"))
    assert len(calls) == (0 if scale == 1 else 2)


def test_a_layout_is_sorted_and_remembers_where_edges_were():
    # The last sender and the last two receivers have no edges; some edges come twice.
    random = np.random.default_rng(0)
    senders, receivers = random.integers(0, 5, 20), random.integers(0, 5, 20)
    layout = build_layout(senders, receivers, 7, n_senders=6)
    assert layout.n_edges == 20
    np.testing.assert_array_equal(layout.receivers, np.sort(receivers))
    np.testing.assert_array_equal(layout.senders, senders[layout.order])
    np.testing.assert_array_equal(layout.receivers, receivers[layout.order])
    np.testing.assert_array_equal(np.asarray(layout.senders)[layout.transpose_order], np.sort(senders))
    np.testing.assert_array_equal(np.diff(layout.row_start), np.bincount(receivers, minlength=7))
    np.testing.assert_array_equal(np.diff(layout.column_start), np.bincount(senders, minlength=6))
    np.testing.assert_array_equal(layout.degree(), np.bincount(receivers, minlength=7))


def test_a_layout_is_a_pytree_that_can_hold_anything():
    layout = build_layout(np.array([0, 1]), np.array([1, 0]), 2)
    kinds = jax.tree.map(lambda leaf: leaf.dtype.name, layout)
    assert kinds.senders == "int32"
    assert kinds.n_receivers == 2


@pytest.mark.parametrize(
    ("senders", "receivers", "message"),
    [
        ([0, 1], [0], "two"),
        ([0, 3], [0, 1], r"senders hold 0\.\.3, outside the 3"),
        ([0, 1], [-1, 1], r"receivers hold -1\.\.1, outside the 4"),
        ([0, 1], [4, 1], "receivers hold"),
    ],
)
def test_edges_that_lead_nowhere_are_refused(senders, receivers, message):
    with pytest.raises(ValueError, match=message):
        build_layout(np.array(senders), np.array(receivers), 4, n_senders=3)


def test_sparse_rows_multiply_as_the_matrix_does():
    # An entry that is stored twice counts as the sum of both.
    matrix = scipy.sparse.coo_array(([1.0, 2.0, 3.0, 4.0], ([0, 2, 2, 3], [1, 0, 0, 4])), shape=(5, 6))
    layout, values = sparse_rows(matrix)
    kernel = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    product = aggregate(jnp.asarray(kernel), layout, edge_weights=values)
    np.testing.assert_allclose(product, matrix.toarray() @ kernel, atol=1e-5)
