from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.graphs.compressed import EDGE, NODE, compress_homogeneous
from jaxgkd.graphs.sampling import NeighbourSampler, Request, distinct_integers, sample_neighbours
from tests.graphs.sampled_graphs import CITES, HAS, N_NODE, WRITES, random_edges, typed_graph, walk

SEEDS = {"target": ("paper", np.array([[5, 3, 5], [9, -1, 3]])), "writer": ("author", np.array([7, 0]))}


def taken_edges(graph, sample):
    """Edges of every hop as `walk` gives them."""
    hops = []
    for hop in range(len(next(iter(sample.hops.values())))):
        edges = []
        for relation, each in sample.hops.items():
            one, neighbours = each[hop], graph.relations[relation]
            senders, receivers = sample.nodes[relation[0]][one.senders], sample.nodes[relation[2]][one.receivers]
            # What the sample says of an edge is what the compressed rows say.
            np.testing.assert_array_equal(neighbours.indices[one.positions], senders)
            row = np.searchsorted(neighbours.indptr, one.positions, side="right") - 1
            np.testing.assert_array_equal(row, receivers)
            ids = neighbours.edge_ids[one.positions]
            edges += [(relation, int(s), int(r), int(i)) for s, r, i in zip(senders, receivers, ids, strict=True)]
        hops.append(sorted(edges))
    return hops


def listed(sample):
    return {(kind, int(node)) for kind, ids in sample.nodes.items() for node in ids}


@pytest.mark.parametrize("fan_out", [-1, 1000])
@pytest.mark.parametrize("n_hops", [1, 2, 3])
def test_with_room_for_all_neighbours_a_sample_is_the_neighbourhood(fan_out, n_hops):
    graph, edges = typed_graph(), random_edges()
    sample = NeighbourSampler(graph, [fan_out] * n_hops).sample(Request(SEEDS), 0)
    hops, nodes = walk(edges, SEEDS.values(), [edges] * n_hops)
    assert taken_edges(graph, sample) == hops
    assert listed(sample) == nodes
    assert sum(map(len, sample.nodes.values())) == len(nodes)
    assert sample.n_edges == sum(map(len, hops))


def test_fan_outs_of_relations_and_hops():
    graph, edges = typed_graph(), random_edges()
    sample = NeighbourSampler(graph, [{WRITES: -1, HAS: 2}, {CITES: -1}]).sample(Request(SEEDS), 0)
    hops, nodes = walk(edges, SEEDS.values(), [[WRITES], [CITES]])
    assert taken_edges(graph, sample) == hops
    assert listed(sample) == nodes


def test_seeds_come_first_each_once_and_are_found_by_their_roles():
    sample = NeighbourSampler(typed_graph(), [2]).sample(Request(SEEDS), 0)
    np.testing.assert_array_equal(sample.nodes["paper"][:3], [5, 3, 9])
    np.testing.assert_array_equal(sample.nodes["author"][:2], [7, 0])
    assert sample.n_new["paper"][0] == 3 and sample.n_new["author"][0] == 2 and sample.n_new["venue"] == (0, 0)
    assert sample.seeds["target"][0] == "paper"
    np.testing.assert_array_equal(sample.seeds["target"][1], [[0, 1, 0], [2, -1, 1]])
    np.testing.assert_array_equal(sample.seeds["writer"][1], [0, 1])
    for ids, n_new in ((sample.nodes[kind], sample.n_new[kind]) for kind in N_NODE):
        assert len(np.unique(ids)) == len(ids) == sum(n_new)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.lists(st.integers(0, 4), min_size=1, max_size=3), st.integers(0, 2**20))
def test_a_sample_takes_as_many_neighbours_as_it_may(graph_seed, fan_outs, seed):
    """No edge twice, of every node in the hop's turn the fan-out or all there are."""
    graph = typed_graph(graph_seed)
    sample = NeighbourSampler(graph, fan_outs).sample(Request(SEEDS), seed)
    taken_edges(graph, sample)
    for relation, hops in sample.hops.items():
        positions = np.concatenate([hop.positions for hop in hops])
        assert len(np.unique(positions)) == len(positions)
        degree = np.diff(graph.relations[relation].indptr)[sample.nodes[relation[2]]]
        starts = np.concatenate([[0], np.cumsum(sample.n_new[relation[2]])])
        for hop, (fan_out, one) in enumerate(zip(fan_outs, hops, strict=True)):
            counts = np.bincount(one.receivers, minlength=len(degree))
            wanted = np.zeros_like(counts)
            turn = slice(starts[hop], starts[hop + 1])
            wanted[turn] = np.minimum(degree[turn], fan_out)
            np.testing.assert_array_equal(counts, wanted)


def test_subsets_are_uniform():
    """All 35 subsets of 3 of 7, from rows that share the draw; and pairs of a larger range."""
    random = np.random.PCG64(1)
    drawn = np.sort(distinct_integers(np.full(20_000, 7), 3, random), axis=1)
    counts = np.bincount(drawn @ [49, 7, 1], minlength=343)
    places = [a * 49 + b * 7 + c for a, b, c in combinations(range(7), 3)]
    assert counts.sum() == counts[places].sum()
    assert scipy.stats.chisquare(counts[places]).pvalue > 1e-3
    pairs = distinct_integers(np.full(50_000, 40), 10, random)
    assert scipy.stats.chisquare(np.bincount(pairs.ravel(), minlength=40)).pvalue > 1e-3


def test_sampled_neighbours_have_the_exact_distribution():
    """Of a star of 12 neighbours, 2 of which are left out, and one of 6: every subset of the fan-out alike."""
    graph = compress_homogeneous(np.r_[2:14, 14:20], np.repeat([0, 1], [12, 6]), 20)
    neighbours = graph.relations[EDGE]
    left_out = neighbours.positions_of_pairs(np.array([4, 13]), np.array([0, 0]))
    random, seen = np.random.PCG64(0), {0: [], 1: []}
    for _ in range(4000):
        rows, positions = sample_neighbours(neighbours, np.array([1, 0]), 4, random, left_out)
        np.testing.assert_array_equal(rows, np.repeat([0, 1], 4))
        seen[1].append(np.sort(neighbours.indices[positions[:4]]))
        seen[0].append(np.sort(neighbours.indices[positions[4:]]))
    for node, there in ((0, [2, 3, *range(5, 13)]), (1, range(14, 20))):
        subsets = {subset: 0 for subset in combinations(there, 4)}
        for subset in seen[node]:
            subsets[tuple(subset.tolist())] += 1
        assert scipy.stats.chisquare(list(subsets.values())).pvalue > 1e-3


def test_two_hops_follow_the_exact_distribution():
    """A tree: which grandchildren are reached is known from the fan-outs alone."""
    children, grandchildren = 6, 5
    senders = np.r_[1 : 1 + children, 7 : 7 + children * grandchildren]
    receivers = np.r_[np.zeros(children, int), np.repeat(np.arange(1, 7), grandchildren)]
    sampler = NeighbourSampler(compress_homogeneous(senders, receivers, 37), [3, 2])
    counts = np.zeros(37)
    n = 1500
    for i in range(n):
        counts[sampler.sample(Request({"target": (NODE, np.array([0]))}), 0, i).nodes[NODE]] += 1
    assert counts[0] == n
    assert scipy.stats.chisquare(counts[1:7], np.full(6, n / 2)).pvalue > 1e-3
    assert scipy.stats.chisquare(counts[7:], np.full(30, n / 2 * 2 / 5)).pvalue > 1e-3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(-1, 3), st.integers(0, 2**20))
def test_excluded_edges_are_as_if_they_were_not_there(graph_seed, fan_out, seed):
    graph, edges = typed_graph(graph_seed), random_edges(graph_seed)
    random = np.random.default_rng(seed)
    pairs = {relation: random.integers(0, 20, (2, 15)) for relation in (CITES, WRITES)}
    left_out = {relation: graph.relations[relation].positions_of_pairs(*ends) for relation, ends in pairs.items()}
    # As a batch would give them: in any order, some twice, with padding.
    exclude = {relation: np.r_[where[::-1], where[:3], -1] for relation, where in left_out.items()}
    sample = NeighbourSampler(graph, [fan_out, fan_out]).sample(Request(SEEDS, exclude), seed)
    hidden = {r: set(zip(*pairs[r].tolist(), strict=True)) if r in pairs else set() for r in edges}
    taken = taken_edges(graph, sample)
    assert not any((s, r) in hidden[relation] for hop in taken for relation, s, r, _ in hop)
    kept = {
        relation: [ends for ends in zip(*(end.tolist() for end in both), strict=True) if ends not in hidden[relation]]
        for relation, both in edges.items()
    }
    if fan_out == -1:
        kept = {relation: tuple(np.array(ends, int).reshape(-1, 2).T) for relation, ends in kept.items()}
        wanted, nodes = walk(kept, SEEDS.values(), [kept] * 2)
        assert [[edge[:3] for edge in hop] for hop in taken] == [[edge[:3] for edge in hop] for hop in wanted]
        assert listed(sample) == nodes
    else:
        # Others take the places of those left out: fewer than the fan-out only where fewer are there.
        counts = np.bincount(sample.hops[CITES][0].receivers, minlength=3)
        there = [sum(ends[1] == node for ends in kept[CITES]) for node in sample.nodes["paper"][:3]]
        np.testing.assert_array_equal(counts[:3], np.minimum(there, fan_out))


def test_a_draw_depends_on_its_numbers_alone():
    sampler = NeighbourSampler(typed_graph(), [2, 2])
    first = sampler.sample(Request(SEEDS), 1, 0, 3)
    others = [
        sampler.sample(Request(SEEDS), *numbers) for numbers in ((1, 0, 4), (1, 1, 3), (1, 0), (1,), (1, 0, 3, 0))
    ]
    again = NeighbourSampler(typed_graph(), [2, 2]).sample(Request(SEEDS), 1, 0, 3)
    flat = lambda sample: [hop.positions.tolist() for hops in sample.hops.values() for hop in hops]  # noqa: E731
    assert flat(again) == flat(first)
    for kind in N_NODE:
        np.testing.assert_array_equal(again.nodes[kind], first.nodes[kind])
    assert len({str(flat(sample)) for sample in (first, *others)}) == 6


def test_a_failed_draw_leaves_the_sampler_as_it_was():
    sampler = NeighbourSampler(typed_graph(), [2])
    with pytest.raises(DataError):
        sampler.sample(Request({"target": ("paper", np.array([40]))}), 0)
    wanted = NeighbourSampler(typed_graph(), [2]).sample(Request(SEEDS), 0)
    np.testing.assert_array_equal(sampler.sample(Request(SEEDS), 0).nodes["paper"], wanted.nodes["paper"])


def test_bad_input():
    graph = typed_graph()
    for fan_outs, message in (
        ([], "no hop"),
        ([-2], "-2 neighbours"),
        ([{("paper", "cites", "author"): 1}], "there is no relation"),
    ):
        with pytest.raises(ConfigError, match=message):
            NeighbourSampler(graph, fan_outs)
    sampler = NeighbourSampler(graph, [1])
    for request, message in (
        (Request({"target": ("paper", np.array([-2, 0]))}), "hold -2..0, but paper has 40"),
        (Request({"target": ("town", np.array([0]))}), "no node type 'town'"),
        (Request(SEEDS, {EDGE: np.array([0])}), "no relation"),
        (Request(SEEDS, {HAS: np.array([40])}), "edge 40 of .* cannot be excluded"),
    ):
        with pytest.raises(DataError, match=message):
            sampler.sample(request, 0)
