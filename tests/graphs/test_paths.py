from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.errors import DataError
from jaxgkd.graphs import ManyGraphs
from jaxgkd.graphs.paths import FARTHEST, shortest_paths


def many(graphs):
    """Graphs given as (n, directed edges)."""
    return ManyGraphs.from_list(
        [
            {
                "nodes": np.zeros(n),
                "senders": np.array([i for i, _ in edges], np.int64),
                "receivers": np.array([j for _, j in edges], np.int64),
            }
            for n, edges in graphs
        ]
    )


def distances(n, edges):
    """By breadth-first search from every node, one after another."""
    out = np.full((n, n), FARTHEST + 1)
    for source in range(n):
        out[source, source] = 0
        waiting = deque([source])
        while waiting:
            at = waiting.popleft()
            for i, j in edges:
                if i == at and out[source, j] > FARTHEST:
                    out[source, j] = out[source, at] + 1
                    waiting.append(j)
    return out


def walks(n, edges, kinds, source, target, steps):
    """The kinds of edges along every walk of so many steps."""
    if steps == 0:
        return {()} if source == target else set()
    found = set()
    for (i, j), kind in zip(edges, kinds, strict=True):
        if i == source:
            found |= {(kind, *rest) for rest in walks(n, edges, kinds, j, target, steps - 1)}
    return found


@st.composite
def small_graphs(draw):
    n = draw(st.integers(1, 6))
    pairs = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=10, unique=True))
    return n, [(i, j) for i, j in pairs if i != j]


@settings(deadline=None, max_examples=40)
@given(graphs=st.lists(small_graphs(), min_size=1, max_size=4), n_hop=st.integers(0, 4), seed=st.integers(0, 9))
def test_a_pair_has_its_distance_and_the_kinds_along_a_shortest_path(graphs, n_hop, seed):
    n_edge = sum(len(edges) for _, edges in graphs)
    kinds = np.random.default_rng(seed).integers(0, 127, n_edge)
    paths = shortest_paths(many(graphs), kinds, n_hop=n_hop)
    of_pairs = np.split(paths.kind, np.cumsum([n * n for n, _ in graphs])[:-1])
    of_edges = np.split(kinds, np.cumsum([len(edges) for _, edges in graphs])[:-1])
    for (n, edges), numbers, edge_kinds in zip(graphs, of_pairs, of_edges, strict=True):
        expected = distances(n, edges)
        np.testing.assert_array_equal(paths.distance[numbers].reshape(n, n), expected)
        for i, j in np.ndindex(n, n):
            hops = paths.hops[numbers.reshape(n, n)[i, j]]
            steps = int(expected[i, j]) if expected[i, j] <= FARTHEST else 0
            shown = min(steps, n_hop)
            assert not hops[shown:].any()
            if not shown:
                continue
            heads = {walk[:shown] for walk in walks(n, edges, edge_kinds.tolist(), i, j, steps)}
            assert tuple((hops[:shown] - 1).tolist()) in heads


def test_of_several_shortest_paths_the_edge_stored_first_ends_it():
    graph = many([(4, [(0, 1), (0, 2), (2, 3), (1, 3)])])
    paths = shortest_paths(graph, np.array([10, 20, 30, 40]), n_hop=2)
    np.testing.assert_array_equal(paths.hops[paths.kind[3]], [21, 31])


def test_long_chains_end_where_distances_are_told_apart():
    n = FARTHEST + 5
    paths = shortest_paths(many([(n, [(i, i + 1) for i in range(n - 1)])]), np.zeros(n - 1, int))
    from_first = paths.distance[paths.kind[:n]]
    np.testing.assert_array_equal(from_first, np.minimum(np.arange(n), FARTHEST + 1))
    np.testing.assert_array_equal(paths.hops[paths.kind[n - 1]], np.zeros(5))


def test_graphs_are_the_same_in_one_go_and_one_by_one(monkeypatch):
    graphs = many([(5, [(0, 1), (1, 2), (3, 4)]), (1, []), (6, [(i, (i + 1) % 6) for i in range(6)])])
    kinds = np.arange(9)
    whole = shortest_paths(graphs, kinds)
    monkeypatch.setattr("jaxgkd.graphs.paths._AT_ONCE", 1)
    single = shortest_paths(graphs, kinds)
    for one, other in zip(whole, single, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_numbered_is_refused():
    graph = many([(2, [(0, 1)])])
    with pytest.raises(ValueError, match="8 hops cannot be told apart"):
        shortest_paths(graph, np.array([0]), n_hop=8)
    with pytest.raises(ValueError, match="numbers from 0 to 126"):
        shortest_paths(graph, np.array([127]))
    empty = ManyGraphs(np.zeros(0), None, np.zeros(0, int), np.zeros(0, int), None, np.zeros(1, int), np.zeros(1, int))
    with pytest.raises(DataError, match="there is no graph"):
        shortest_paths(empty, np.zeros(0, int))
