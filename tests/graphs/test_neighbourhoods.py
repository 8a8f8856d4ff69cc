import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, shortest_path

from jaxgkd.graphs import undirected
from jaxgkd.graphs.neighbourhoods import parts, spectral_positions


def random_graph(seed, n_node, n_edges):
    return undirected(*np.random.default_rng(seed).integers(0, n_node, (2, n_edges)))


def adjacency(senders, receivers, n_node):
    dense = np.zeros((n_node, n_node))
    dense[receivers, senders] = 1
    return dense


@pytest.mark.parametrize("seed", range(3))
def test_parts_are_connected_and_hold_the_nodes_nearest_to_their_centre(seed):
    n_node, n_parts = 60, 7
    senders, receivers = random_graph(seed, n_node, 70)
    number = parts(senders, receivers, n_node, n_parts, seed)
    assert number.dtype == np.int32
    assert set(number) - {-1} == set(range(n_parts))
    dense = adjacency(senders, receivers, n_node)
    centres = np.random.default_rng(seed).choice(n_node, size=n_parts, replace=False)
    np.testing.assert_array_equal(number[centres], np.arange(n_parts))
    distance = shortest_path(csr_array(dense), unweighted=True, indices=centres)
    reached = np.isfinite(distance).any(axis=0)
    np.testing.assert_array_equal(number >= 0, reached)
    nodes = np.flatnonzero(reached)
    np.testing.assert_array_equal(distance[number[nodes], nodes], distance[:, nodes].min(axis=0))
    for part in range(n_parts):
        members = np.flatnonzero(number == part)
        assert connected_components(csr_array(dense[np.ix_(members, members)]))[0] == 1


def test_parts_depend_on_the_seed_alone_and_never_outnumber_the_nodes():
    senders, receivers = random_graph(0, 30, 60)
    np.testing.assert_array_equal(parts(senders, receivers, 30, 5, 1), parts(senders, receivers, 30, 5, 1))
    assert np.any(parts(senders, receivers, 30, 5, 1) != parts(senders, receivers, 30, 5, 2))
    assert sorted(parts(senders, receivers, 30, 99, 0)) == list(range(30))
    alone = parts(np.zeros(0, int), np.zeros(0, int), 4, 2, 0)
    assert sorted(alone) == [-1, -1, 0, 1]


def test_edges_in_one_direction_are_read_in_both():
    one_way = parts(np.array([0, 2]), np.array([1, 1]), 3, 1, 0)
    assert one_way.tolist() == [0, 0, 0]


def dense_positions(senders, receivers, n_node, width):
    """Eigenvectors by the dense solver, those with eigenvalue 1 (one a component) left out."""
    matrix = adjacency(senders, receivers, n_node) + np.eye(n_node)
    root = np.sqrt(matrix.sum(axis=1))
    values, vectors = np.linalg.eigh(matrix / root[:, None] / root)
    inside = values < 1 - 1e-9
    return vectors[:, inside][:, ::-1][:, :width] * np.sqrt(n_node)


def same_up_to_sign(got, expected):
    np.testing.assert_allclose(got * np.sign(np.sum(got * expected, axis=0)), expected, atol=1e-4)


def path(n_node):
    return undirected(np.arange(n_node - 1), np.arange(1, n_node))


@pytest.mark.parametrize(
    ("edges", "n_node"),
    [
        (random_graph(0, 50, 120), 50),
        # Its eigenvectors are in turn symmetric and antisymmetric.
        (path(30), 30),
        # Two components and an isolated node.
        (tuple(np.r_[a, 20 + b] for a, b in zip(path(20), path(13), strict=True)), 34),
    ],
)
def test_positions_are_the_leading_eigenvectors_inside_the_components(edges, n_node):
    got = spectral_positions(*edges, n_node, 4)
    assert got.dtype == np.float32
    same_up_to_sign(got, dense_positions(*edges, n_node, 4))
    np.testing.assert_allclose(np.mean(got**2, axis=0), 1.0, atol=1e-5)


def test_positions_are_repeated_to_the_bit_and_follow_a_permutation_of_the_nodes():
    senders, receivers = random_graph(1, 40, 90)
    got = spectral_positions(senders, receivers, 40, 3)
    np.testing.assert_array_equal(got, spectral_positions(senders, receivers, 40, 3))
    assert np.all(got[np.abs(got).argmax(axis=0), np.arange(3)] > 0)
    to = np.random.default_rng(2).permutation(40)
    same_up_to_sign(spectral_positions(to[senders], to[receivers], 40, 3)[to], got)


def test_positions_where_there_are_none_are_zero():
    # Two pairs have one vector each that is left, isolated nodes have none.
    got = spectral_positions(*undirected(np.array([0, 2]), np.array([1, 3])), 6, 4)
    np.testing.assert_allclose(np.mean(got**2, axis=0), [1, 1, 0, 0], atol=1e-5)
    np.testing.assert_allclose(got[4:], 0, atol=1e-6)


@pytest.mark.parametrize("width", [0, 5, 9])
def test_a_width_that_the_graph_cannot_give_is_refused(width):
    with pytest.raises(ValueError, match=f"1 to 4, not {width}"):
        spectral_positions(*path(5), 5, width)
