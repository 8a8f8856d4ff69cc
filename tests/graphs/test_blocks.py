from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.graphs import aggregate
from jaxgkd.graphs.blocks import BlockBudget, assemble_block, chosen_budgets, largest_budget, square
from jaxgkd.graphs.compressed import EDGE, NODE, compress_homogeneous
from jaxgkd.graphs.sampling import NeighbourSampler, Request
from tests.graphs.sampled_graphs import CITES, N_NODE, WRITES, random_edges, typed_graph

SEEDS = {"target": ("paper", np.array([5, 3, 5, -1])), "writer": ("author", np.array([[7], [0]]))}
N_SEEDS = {"paper": 4, "author": 2}


def budget_of(graph, fan_outs):
    n_edges = {relation: neighbours.n_edges for relation, neighbours in graph.relations.items()}
    return largest_budget(graph.n_node, n_edges, N_SEEDS, NeighbourSampler(graph, fan_outs).fan_outs)


def block_of(graph, fan_outs, seed=0, extra=0):
    sample = NeighbourSampler(graph, fan_outs).sample(Request(SEEDS), seed)
    largest = budget_of(graph, fan_outs)
    more = lambda parts: tuple((k, tuple(s + extra * (s > 0) for s in sizes)) for k, sizes in parts)  # noqa: E731
    return sample, assemble_block(sample, BlockBudget(more(largest.nodes), more(largest.edges)), np.arange(4))


@pytest.mark.parametrize("fan_outs", [[2, 3], [3, 1, 2]])
def test_a_block_holds_the_sample(fan_outs):
    graph = typed_graph()
    sample, block = block_of(graph, fan_outs)
    assert set(block.nodes) == {"paper", "author"} and not len(sample.nodes["venue"])
    for kind in block.nodes:
        ids = sample.nodes[kind]
        np.testing.assert_array_equal(block.nodes[kind][block.node_mask[kind]], ids)
        assert not block.nodes[kind][~block.node_mask[kind]].any()
    for role, (kind, ids) in SEEDS.items():
        rows = block.seeds[role]
        assert rows.shape == ids.shape
        np.testing.assert_array_equal(block.node_mask[kind][rows], ids >= 0)
        np.testing.assert_array_equal(block.nodes[kind][rows][ids >= 0], ids[ids >= 0])
    np.testing.assert_array_equal(block.index, np.arange(4))
    for relation, layout in block.layers[0].items():
        mask, neighbours = block.edge_mask[relation], graph.relations[relation]
        positions = block.edges[relation][mask]
        taken = np.concatenate([hop.positions for hop in sample.hops[relation]])
        np.testing.assert_array_equal(np.sort(positions), np.sort(taken))
        senders, receivers = np.asarray(layout.senders), np.asarray(layout.receivers)
        np.testing.assert_array_equal(block.nodes[relation[0]][senders[mask]], neighbours.indices[positions])
        rows = np.searchsorted(neighbours.indptr, positions, side="right") - 1
        np.testing.assert_array_equal(block.nodes[relation[2]][receivers[mask]], rows)
        # Real edges join real nodes, edges of padding nodes of padding.
        np.testing.assert_array_equal(block.node_mask[relation[0]][senders], mask)
        np.testing.assert_array_equal(block.node_mask[relation[2]][receivers], mask)


@pytest.mark.parametrize("fan_outs", [[2, 3], [3, 1, 2]])
def test_later_layers_are_beginnings_of_the_first(fan_outs):
    sample, block = block_of(typed_graph(), fan_outs)
    assert len(block.layers) == len(fan_outs)
    for number, layer in enumerate(block.layers):
        hops = len(fan_outs) - number
        computed = block.n_computed(number)
        for relation, layout in layer.items():
            first = block.layers[0][relation]
            np.testing.assert_array_equal(layout.senders, first.senders[: layout.n_edges])
            np.testing.assert_array_equal(layout.receivers, first.receivers[: layout.n_edges])
            assert layout.n_receivers == computed[relation[2]]
            assert layout.n_senders == dict(block.ends)[relation[0]][hops]
            real = block.edge_mask[relation][: layout.n_edges].sum()
            assert real == sum(len(hop.positions) for hop in sample.hops[relation][:hops])
        # Nodes that are computed are those that earlier hops brought in.
        for kind, mask in block.node_mask.items():
            assert mask[: computed[kind]].sum() == sum(sample.n_new[kind][:hops])


def propagate(block, features):
    """Two layers of sums over one relation, with a layout a layer."""
    state = features[block.nodes[NODE]]
    for number, layer in enumerate(block.layers):
        state = jnp.tanh(state[: block.n_computed(number)[NODE]] + aggregate(state, layer[EDGE], reduce="mean"))
    return state[block.seeds["target"]]


def test_a_network_on_a_block_of_all_neighbours_is_that_on_the_whole_graph():
    random = np.random.default_rng(0)
    senders, receivers, features = *random.integers(0, 30, (2, 90)), random.normal(size=(30, 8)).astype(np.float32)
    graph = compress_homogeneous(senders, receivers, 30)
    request = Request({"target": (NODE, np.array([4, 9, 2, 9]))})
    sample = NeighbourSampler(graph, [-1, -1]).sample(request, 0)
    largest = largest_budget(graph.n_node, {EDGE: 90}, {NODE: 4}, [{EDGE: -1}] * 2)
    state = features.astype(np.float64)
    for _ in range(2):
        means = np.stack(
            [state[senders[receivers == i]].mean(0) if i in receivers else 0 * state[0] for i in range(30)]
        )
        state = np.tanh(state + means)
    compiled = jax.jit(propagate)
    wider = BlockBudget(
        tuple((kind, tuple(size + 5 for size in sizes)) for kind, sizes in largest.nodes),
        tuple((kind, tuple(size + 9 for size in sizes)) for kind, sizes in largest.edges),
    )
    for budget in (largest, wider):
        got = compiled(assemble_block(sample, budget), features)
        np.testing.assert_allclose(got, state[[4, 9, 2, 9]], rtol=1e-5, atol=1e-6)


def test_square_layouts_add_receivers_without_edges():
    _, block = block_of(typed_graph(), [2, 3])
    layout = block.layers[0][CITES]
    values = jnp.asarray(np.random.default_rng(0).normal(size=(layout.n_senders, 4)), jnp.float32)

    @jax.jit
    def both(values, layout):
        run = lambda layout: jax.value_and_grad(  # noqa: E731
            lambda v: (lambda out: (jnp.sum(jnp.square(out)), out))(aggregate(v, layout, reduce="mean")), has_aux=True
        )(values)
        return run(square(layout)), run(layout)

    ((_, got), gradient), ((_, wanted), wanted_gradient) = both(values, layout)
    assert got.shape == values.shape
    np.testing.assert_allclose(got[: layout.n_receivers], wanted, rtol=1e-6)
    assert not np.any(got[layout.n_receivers :])
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="reads only"):
        square(replace(layout, n_senders=3))


def test_the_largest_budget_fits_whatever_is_drawn_and_others_are_refused():
    graph = typed_graph()
    for fan_outs in ([2, 3], [-1, -1], [{WRITES: 2}, {CITES: 1}]):
        largest = budget_of(graph, fan_outs)
        sampler = NeighbourSampler(graph, fan_outs)
        assert all(largest.fits(sampler.sample(Request(SEEDS), seed)) for seed in range(10))
    # The second hop cannot reach anything: venues were not reached, papers take no citations of authors.
    none = dict(budget_of(graph, [{WRITES: 2}, {CITES: 1}]).edges)
    assert none[CITES][0] == 0 and none[WRITES][1] == 0
    _, block = block_of(graph, [{WRITES: 2}, {CITES: 1}])
    assert set(block.layers[0]) == {WRITES} and "venue" not in block.nodes
    full = NeighbourSampler(graph, [-1, -1]).sample(Request(SEEDS), 0)
    with pytest.raises(ValueError, match="does not fit"):
        assemble_block(full, budget_of(graph, [2, 3]))


def test_budgets_grow_until_they_fit_everything():
    graph, fan_outs = typed_graph(), [2, 3]
    sampler = NeighbourSampler(graph, fan_outs)
    samples = [sampler.sample(Request({"target": ("paper", np.array([seed, 2]))}), seed) for seed in range(3)]
    largest = budget_of(graph, fan_outs)
    budgets = chosen_budgets(samples, largest)
    assert budgets[-1] == largest and len(set(budgets)) == len(budgets)
    assert all(one.slots < other.slots for one, other in pairwise(budgets))
    assert all(budgets[0].fits(sample) for sample in samples)
    assert {kind for kind, _ in budgets[0].nodes} == set(N_NODE)
    assert {relation for relation, _ in budgets[0].edges} == set(random_edges())
