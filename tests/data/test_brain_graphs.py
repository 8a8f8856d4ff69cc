import numpy as np
import pytest
import scipy.sparse.csgraph
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.data.brain_graphs import brain_graphs, normalised_adjacency, spanning_trees
from jaxgkd.errors import ConfigError


def matrices(n=3, r=9, seed=0, ties=False):
    values = np.random.default_rng(seed).uniform(-1, 1, size=(n, r, r))
    values = np.round(values, 1) if ties else values
    values = np.triu(values, 1)
    return (values + values.swapaxes(1, 2) + np.eye(r)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 999),
    st.booleans(),
    st.sampled_from([("top", 0.3), ("threshold", 0.2), ("nearest", 2), ("tree", 0.4)]),
)
def test_every_graph(seed, ties, how):
    given_values = matrices(seed=seed, ties=ties)
    binary = brain_graphs(given_values, *how)
    assert binary.dtype == np.float32
    assert set(np.unique(binary)) <= {0, 1}
    np.testing.assert_array_equal(binary, binary.swapaxes(1, 2))
    assert not np.diagonal(binary, axis1=1, axis2=2).any()
    np.testing.assert_array_equal(brain_graphs(given_values, *how, weights="weighted"), binary * given_values)
    # A subject's graph does not depend on the others.
    np.testing.assert_array_equal(brain_graphs(given_values[1:2], *how)[0], binary[1])


@pytest.mark.parametrize("ties", [False, True])
def test_top_keeps_the_largest(ties):
    values = matrices(ties=ties)
    graphs = brain_graphs(values, "top", 0.25)
    for graph, value in zip(graphs, values, strict=True):
        upper = value[np.triu_indices(9, 1)]
        kept = graph[np.triu_indices(9, 1)] > 0
        assert kept.sum() == 9  # a quarter of 36
        np.testing.assert_array_equal(np.flatnonzero(kept), np.sort(np.argsort(-upper, kind="stable")[:9]))
    assert brain_graphs(np.zeros((1, 9, 9)), "top", 0.25).sum() == 18
    assert brain_graphs(values, "top", 1).sum() == 3 * 72


def test_threshold_and_nearest():
    values = matrices()
    assert (brain_graphs(values, "threshold", 0.3) > 0).sum() == (values > 0.3).sum() - 27
    graph = brain_graphs(values, "nearest", 2)[0]
    assert (graph.sum(axis=1) >= 2).all()
    without = values[0] - 2 * np.eye(9)
    assert all(graph[i, np.argmax(without[i])] for i in range(9))
    assert 9 <= graph.sum() / 2 <= 18


def test_trees_are_those_of_scipy():
    values = matrices(n=5, r=12)
    trees = spanning_trees(values)
    for tree, value in zip(trees, values, strict=True):
        expected = scipy.sparse.csgraph.minimum_spanning_tree(2 - value + np.eye(12)).toarray() > 0
        np.testing.assert_array_equal(tree, expected | expected.T)
    graphs = brain_graphs(values, "tree", 0.5)
    assert (graphs.sum(axis=(1, 2)) == 66).all()
    assert (graphs[trees] == 1).all()
    assert (brain_graphs(values, "tree", 0.01).sum(axis=(1, 2)) == 22).all()


def test_normalised_adjacency():
    graph = brain_graphs(matrices(), "top", 0.3)
    with_loops = graph[0].astype(float) + np.eye(9)
    root = np.diag(with_loops.sum(axis=1) ** -0.5)
    np.testing.assert_allclose(normalised_adjacency(graph)[0], root @ with_loops @ root, rtol=1e-6)
    assert normalised_adjacency(graph).dtype == np.float32
    # Also where weights are negative the largest eigenvalue stays within 1.
    signed = matrices() - np.eye(9, dtype=np.float32)
    assert np.abs(np.linalg.eigvalsh(normalised_adjacency(signed))).max() <= 1 + 1e-6


def test_settings_that_do_not_fit():
    for arguments, said in (
        (("best",), "no sparsity 'best'"),
        (("top", 0.0), "a share of 0.0"),
        (("tree", 1.2), "a share of 1.2"),
        (("nearest", 9), "9 neighbours of 9 regions"),
        (("nearest", 1.5), "1.5 neighbours"),
    ):
        with pytest.raises(ConfigError, match=said):
            brain_graphs(matrices(), *arguments)
    with pytest.raises(ConfigError, match="no weights 'signed'"):
        brain_graphs(matrices(), weights="signed")
