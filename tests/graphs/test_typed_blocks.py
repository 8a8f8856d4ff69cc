import jax
import jax.numpy as jnp
import numpy as np

from jaxgkd.graphs import aggregate, build_hetero_layout, stack_relations
from jaxgkd.graphs.blocks import assemble_block, largest_budget
from jaxgkd.graphs.sampling import NeighbourSampler, Request
from jaxgkd.graphs.typed_blocks import block_hetero_layout
from tests.graphs.sampled_graphs import N_NODE, random_edges, typed_graph

SEEDS = {"target": ("paper", np.array([5, 3, 5, -1])), "writer": ("author", np.array([7, 0]))}


@jax.jit
def propagate(states, layout, kernels):
    """Two layers of means over relations; a type that no edge reaches keeps its state."""
    for _ in range(2):
        states = {
            kind: values
            + (
                aggregate(
                    stack_relations(
                        {each: states[each[0]] @ kernels[each] for each in layout[kind].edge_types}, layout[kind]
                    ),
                    layout[kind].layout,
                    edge_weights=jnp.asarray(layout[kind].weights),
                )
                if kind in layout
                else 0.0
            )
            for kind, values in states.items()
        }
    return states


def test_an_encoder_on_a_block_of_all_neighbours_is_that_on_the_whole_graph():
    random = np.random.default_rng(0)
    edges, graph = random_edges(), typed_graph()
    features = {kind: jnp.asarray(random.normal(size=(n, 8)), jnp.float32) for kind, n in N_NODE.items()}
    kernels = {kind: random.normal(size=(8, 8)).astype(np.float32) / 3 for kind in edges}
    whole = propagate(features, build_hetero_layout(edges, N_NODE, reverses=False), kernels)

    sampler = NeighbourSampler(graph, [-1, -1])
    n_edges = {relation: neighbours.n_edges for relation, neighbours in graph.relations.items()}
    largest = largest_budget(N_NODE, n_edges, {"paper": 4, "author": 2}, sampler.fan_outs)
    block = assemble_block(sampler.sample(Request(SEEDS), 0), largest)
    layout = block_hetero_layout(block)
    got = propagate({kind: features[kind][ids] for kind, ids in block.nodes.items()}, layout, kernels)
    for role, (kind, ids) in SEEDS.items():
        real = ids >= 0
        np.testing.assert_allclose(got[kind][block.seeds[role]][real], whole[kind][ids[real]], rtol=2e-5, atol=1e-5)


def test_edges_of_padding_pass_nothing():
    graph = typed_graph()
    sampler = NeighbourSampler(graph, [2, 2])
    n_edges = {relation: neighbours.n_edges for relation, neighbours in graph.relations.items()}
    block = assemble_block(
        sampler.sample(Request(SEEDS), 0), largest_budget(N_NODE, n_edges, {"paper": 4, "author": 2}, sampler.fan_outs)
    )
    for kind, edges in block_hetero_layout(block).items():
        real = np.concatenate([block.edge_mask[each] for each in edges.edge_types])[edges.layout.order]
        np.testing.assert_array_equal(edges.kept, real)
        np.testing.assert_array_equal(edges.weights > 0, real)
        # A mean over each relation's neighbours: the weights sum to 1 for every relation that reaches a node.
        total = np.zeros((edges.layout.n_receivers, len(edges.edge_types)))
        np.add.at(total, (edges.layout.receivers, edges.relation), edges.weights)
        assert np.all(np.isclose(total, 1) | (total == 0))
        assert not total[~block.node_mask[kind]].any()
