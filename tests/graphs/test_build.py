import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxgkd.graphs import MixedRows, SparseRows, aggregate, from_edges, undirected


def random_matrix(seed=0):
    return scipy.sparse.random_array((6, 9), density=0.3, format="csr", rng=np.random.default_rng(seed))


def test_sparse_rows_times_a_kernel_is_the_dense_product_with_its_gradients():
    matrix = random_matrix()
    rows, dense = SparseRows.from_scipy(matrix), jnp.asarray(matrix.toarray(), jnp.float32)
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(9, 4)), jnp.float32)
    assert rows.shape == (6, 9)

    def loss(nodes, kernel):
        return jnp.sum(jnp.sin(out := nodes @ kernel)), out

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), allow_int=True, has_aux=True))
    (_, product), (to_rows, to_kernel) = both(rows, kernel)
    (_, dense_product), (to_dense, expected) = both(dense, kernel)
    np.testing.assert_allclose(product, dense_product, atol=1e-5)
    np.testing.assert_allclose(to_kernel, expected, atol=1e-5)
    at_values = np.asarray(to_dense)[np.asarray(rows.layout.receivers), np.asarray(rows.layout.senders)]
    np.testing.assert_allclose(to_rows.values, at_values, atol=1e-5)


def test_mixed_rows_are_the_columns_side_by_side():
    matrix = random_matrix()
    first = jnp.asarray(np.random.default_rng(3).normal(size=(6, 2)), jnp.float32)
    mixed = MixedRows(first, SparseRows.from_scipy(matrix))
    whole = jnp.concatenate([first, jnp.asarray(matrix.toarray(), jnp.float32)], axis=1)
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(11, 4)), jnp.float32)
    assert mixed.shape == (6, 11)

    def loss(kernel, nodes):
        return jnp.sum(jnp.sin(out := nodes @ kernel)), out

    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), both(kernel, mixed), both(kernel, whole))
    many = jax.jit(jax.vmap(lambda nodes: nodes @ kernel))(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), mixed))
    np.testing.assert_allclose(many[1], whole @ kernel, atol=1e-5)


def test_sparse_rows_of_many_members_are_a_loop():
    rows = SparseRows.from_scipy(random_matrix())
    kernels = jnp.asarray(np.random.default_rng(2).normal(size=(3, 9, 2)), jnp.float32)
    scale = jnp.array([1.0, -2.0, 0.5])
    members = SparseRows(rows.layout, scale[:, None] * rows.values)
    axes = SparseRows(None, 0)  # type: ignore[arg-type]
    got = jax.jit(jax.vmap(lambda rows, kernel: rows @ kernel, in_axes=(axes, 0)))(members, kernels)
    expected = np.asarray(scale)[:, None, None] * (random_matrix().toarray() @ np.asarray(kernels))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_undirected_edges_come_once_in_both_directions_without_loops():
    senders, receivers = undirected(np.array([0, 1, 2, 2, 0]), np.array([1, 0, 2, 0, 1]))
    assert list(zip(receivers.tolist(), senders.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 0), (2, 0)]
    assert senders.dtype == receivers.dtype == np.int32
    empty = undirected(np.zeros(0, int), np.zeros(0, int))
    assert [len(index) for index in empty] == [0, 0]


def test_a_graph_has_the_edges_of_its_layout_and_goes_through_jit():
    senders, receivers = np.array([2, 0, 1, 2]), np.array([1, 2, 0, 0])
    nodes = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    graph, layout = from_edges(nodes, senders, receivers, 4)
    assert graph.n_node.tolist() == [4]
    assert graph.n_edge.tolist() == [4]
    np.testing.assert_array_equal(graph.receivers, np.sort(receivers))
    pairs = set(zip(np.asarray(graph.senders).tolist(), np.asarray(graph.receivers).tolist(), strict=True))
    assert pairs == set(zip(senders.tolist(), receivers.tolist(), strict=True))
    compiled = jax.jit(lambda graph, layout: (aggregate(graph.nodes, layout), graph.n_node + 1))
    summed, n_node = compiled(graph, layout)
    expected = np.zeros((4, 3))
    np.add.at(expected, receivers, np.asarray(nodes)[senders])
    np.testing.assert_allclose(summed, expected, atol=1e-5)
    assert n_node.tolist() == [5]
    # Mapped over runs, a graph that they share stays as it is.
    together = jax.jit(jax.vmap(lambda scale: aggregate(scale * graph.nodes, layout)))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(together[1], 2 * summed, atol=1e-5)
