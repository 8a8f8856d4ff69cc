import numpy as np
import pytest
import scipy.sparse.csgraph
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.errors import DataError
from jaxgkd.teachers import distance_rings
from jaxgkd.teachers import rings as rings_module

EDGES = st.integers(1, 14).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30))
)


def ends(edges):
    return np.array(edges, dtype=np.int32).reshape(-1, 2).T


@settings(deadline=None, max_examples=60)
@given(EDGES)
def test_rings_are_the_nodes_at_exactly_that_undirected_distance(case):
    n, edges = case
    senders, receivers = ends(edges)
    rings = distance_rings(senders, receivers, n, hops=3, max_neighbours=n)
    adjacency = np.zeros((n, n))
    adjacency[senders, receivers] = 1
    distance = scipy.sparse.csgraph.shortest_path(adjacency, directed=False, unweighted=True)
    for i in range(n):
        for h in (1, 2, 3):
            ring = rings.ring(i, h)
            assert sorted(ring.tolist()) == np.flatnonzero((distance[i] == h) & (np.arange(n) != i)).tolist()


@settings(deadline=None, max_examples=40)
@given(EDGES, st.integers(0, 3), st.integers(0, 9))
def test_a_cap_keeps_a_prefix_and_other_centres_change_nothing(case, cap, seed):
    n, edges = case
    every = distance_rings(*ends(edges), n, hops=2, max_neighbours=n, seed=seed)
    capped = distance_rings(*ends(edges), n, hops=2, max_neighbours=cap, seed=seed)
    centres = np.arange(n)[::-2]
    some = distance_rings(*ends(edges), n, hops=2, max_neighbours=cap, seed=seed, nodes=centres)
    for i in range(n):
        for h in (1, 2):
            assert capped.ring(i, h).tolist() == every.ring(i, h)[:cap].tolist()
    for i, node in enumerate(centres):
        assert some.ring(i, 1).tolist() == capped.ring(node, 1).tolist()


def test_the_seed_samples_evenly_and_reproducibly():
    # A star: every leaf should be kept by about a tenth of 400 seeds.
    senders, receivers = np.zeros(100, dtype=np.int32), np.arange(1, 101)
    kept = np.zeros(101)
    for seed in range(400):
        kept[distance_rings(senders, receivers, 101, hops=1, max_neighbours=10, seed=seed).ring(0, 1)] += 1
    assert kept.sum() == 4000
    # 40 expected, standard deviation 6.
    assert kept[1:].min() > 16 and kept[1:].max() < 66
    one, same, other = (distance_rings(senders, receivers, 101, hops=1, seed=s).ring(0, 1).tolist() for s in (3, 3, 4))
    assert one == same != other


def test_a_large_ring_is_sampled_as_if_all_of_it_were_sorted(monkeypatch):
    senders, receivers = np.zeros(3000, dtype=np.int32), np.arange(1, 3001)
    nodes = np.array([0, 5])
    every = distance_rings(senders, receivers, 3001, hops=2, max_neighbours=3000, nodes=nodes)
    capped = distance_rings(senders, receivers, 3001, hops=2, max_neighbours=7, nodes=nodes)
    for i, h in ((0, 1), (1, 2)):
        assert capped.ring(i, h).tolist() == every.ring(i, h)[:7].tolist()
    # Hashes that leave no candidate below the threshold must not leave the ring empty.
    monkeypatch.setattr(
        rings_module, "_priority", lambda seed, centres, found: np.full(len(found), 2**64 - 1, np.uint64)
    )
    assert distance_rings(senders, receivers, 3001, hops=1, max_neighbours=7).ring(0, 1).size == 7


def test_more_centres_than_a_block_give_the_same_rings():
    rng = np.random.default_rng(0)
    senders, receivers = rng.integers(0, 6000, (2, 9000))
    rings = distance_rings(senders, receivers, 6000, hops=2)
    late = distance_rings(senders, receivers, 6000, hops=2, nodes=np.arange(5990, 6000))
    for i in range(10):
        assert rings.ring(5990 + i, 2).tolist() == late.ring(i, 2).tolist()


def test_no_hops_and_no_edges():
    none = np.zeros(0, dtype=np.int32)
    assert distance_rings(none, none, 3, hops=0).hops == 0
    assert distance_rings(none, none, 3, hops=2).ring(1, 2).size == 0
    assert distance_rings(none, none, 3, hops=1, nodes=none).nodes.size == 0


@pytest.mark.parametrize(
    "name, edge, nodes", [("senders", (3, 0), [0]), ("receivers", (0, -1), [0]), ("nodes", (0, 1), [3])]
)
def test_indices_outside_the_graph_are_refused(name, edge, nodes):
    with pytest.raises(DataError, match=rf"field '{name}': an index lies outside 0..2"):
        distance_rings(np.array([edge[0]]), np.array([edge[1]]), 3, hops=1, nodes=np.array(nodes))
