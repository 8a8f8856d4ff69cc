import os
from pathlib import Path

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.graphs import aggregate
from jaxgkd.graphs.batching import Batches, ManyGraphs, Position, assemble
from jaxgkd.graphs.budgets import Budget


def random_graphs(n, seed=0, largest=9):
    """One mapping a graph; among them graphs without edges, with loops and with repeated edges."""
    random = np.random.default_rng(seed)
    graphs = []
    for i in range(n):
        n_node = int(random.integers(1, largest + 1))
        n_edge = int(random.integers(0, 2 * n_node + 1))
        graphs.append(
            {
                "nodes": {"x": random.normal(size=(n_node, 3)), "kind": random.integers(1, 9, (n_node, 2), np.uint8)},
                "edges": random.integers(1, 200, (n_edge, 2), np.uint8),
                "senders": random.integers(0, n_node, n_edge),
                "receivers": random.integers(0, n_node, n_edge),
                "globals": {"y": random.normal(size=2), "number": np.int64(i)},
            }
        )
    return graphs


def canonical(nodes, edges, senders, receivers, labels):
    """A graph as nested lists, its edges in an order of their own."""
    order = np.lexsort((*np.asarray(edges).T, senders, receivers))
    parts = (
        nodes["x"],
        nodes["kind"],
        np.asarray(edges)[order],
        np.asarray(senders)[order],
        np.asarray(receivers)[order],
    )
    return [np.asarray(part).tolist() for part in (*parts, labels)]


def unpacked(batch):
    """The real graphs of a batch by their position, through jraph's own unpadding."""
    graphs = jraph.unbatch_np(jax.tree.map(np.asarray, batch.graph))[: int(np.sum(batch.graph_mask))]
    assert len(graphs) == np.sum(np.asarray(batch.index) >= 0)
    return {
        int(i): canonical(graph.nodes, graph.edges, graph.senders, graph.receivers, graph.globals["y"][0])
        for i, graph in zip(np.asarray(batch.index), graphs, strict=False)
    }


def expected(graphs):
    return {
        i: canonical(g["nodes"], g["edges"], g["senders"], g["receivers"], g["globals"]["y"])
        for i, g in enumerate(graphs)
    }


@settings(deadline=None, max_examples=20)
@given(
    n=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    mode=st.sampled_from(["static", "dynamic", "similar"]),
    seed=st.integers(0, 50),
)
def test_an_epoch_holds_every_graph_once_and_whole(n, batch_size, mode, seed):
    graphs = random_graphs(n, seed)
    batches = Batches(ManyGraphs.from_list(graphs), batch_size, mode=mode, seed=seed)
    found = {}
    for step in batches.stream(epochs=1):
        for i, graph in unpacked(step.batch).items():
            assert i not in found
            found[i] = graph
    assert found == expected(graphs)


@settings(deadline=None, max_examples=15)
@given(n=st.integers(1, 20), seed=st.integers(0, 50))
def test_masks_and_padding(n, seed):
    many = ManyGraphs.from_list(random_graphs(n, seed))
    budget = Budget(int(many.n_node.sum()) + 4, int(many.n_edge.sum()) + 9, n + 3, 9)
    batch = assemble(many, np.arange(n), budget)
    graph = batch.graph
    assert (batch.node_mask.shape, batch.edge_mask.shape, batch.graph_mask.shape) == (
        (budget[0],),
        (budget[1],),
        (n + 3,),
    )
    assert [int(mask.sum()) for mask in (batch.node_mask, batch.edge_mask, batch.graph_mask)] == [
        budget.n_node - 4,
        budget.n_edge - 9,
        n,
    ]
    assert int(np.sum(graph.n_node)) == budget.n_node and int(np.sum(graph.n_edge)) == budget.n_edge
    assert np.asarray(graph.n_node)[n:].tolist() == [4, 0, 0] and np.asarray(graph.n_edge)[n:].tolist() == [9, 0, 0]
    for leaf, mask in (
        *((leaf, batch.node_mask) for leaf in jax.tree.leaves(graph.nodes)),
        (graph.edges, batch.edge_mask),
        *((leaf, batch.graph_mask) for leaf in jax.tree.leaves(graph.globals)),
    ):
        assert not np.asarray(leaf)[~mask].any()
    # Padding meets padding only, and none of its nodes has more than its share of edges.
    np.testing.assert_array_equal(batch.node_mask[np.asarray(graph.senders)], batch.edge_mask)
    np.testing.assert_array_equal(batch.node_mask[np.asarray(graph.receivers)], batch.edge_mask)
    assert np.bincount(np.asarray(graph.receivers))[-4:].max() == 3
    assert np.asarray(batch.index)[n:].tolist() == [-1, -1, -1] and batch.largest == 9


def test_padding_is_where_jraph_expects_it():
    many = ManyGraphs.from_list(random_graphs(5))
    batch = assemble(many, np.arange(5), Budget(64, 96, 8, 9))
    for jraphs, ours in (
        (jraph.get_node_padding_mask, batch.node_mask),
        (jraph.get_edge_padding_mask, batch.edge_mask),
        (jraph.get_graph_padding_mask, batch.graph_mask),
    ):
        np.testing.assert_array_equal(jraphs(batch.graph), ours)


def test_layouts_sum_over_edges_and_over_the_nodes_of_graphs():
    graphs = random_graphs(12, 3)
    many = ManyGraphs.from_list(graphs)
    rows = np.array([7, 2, 11, 5])
    batch = assemble(many, rows, Budget(64, 128, 6, 9))

    @jax.jit
    def summed(batch):
        x = batch.graph.nodes["x"].astype(jnp.float32)
        weights = batch.graph.edges[:, 0].astype(jnp.float32)
        return aggregate(x, batch.layout, edge_weights=weights), aggregate(x, batch.readout, reduce="mean")

    messages, means = summed(batch)
    at = 0
    for place, i in enumerate(rows):
        graph = graphs[i]
        x = graph["nodes"]["x"]
        oracle = np.zeros_like(x)
        np.add.at(oracle, graph["receivers"], graph["edges"][:, :1] * x[graph["senders"]])
        np.testing.assert_allclose(messages[at : at + len(x)], oracle, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(means[place], x.mean(axis=0), atol=1e-5)
        at += len(x)
    np.testing.assert_array_equal(means[4:], 0)


def test_what_a_graph_gives_does_not_depend_on_its_batch():
    many = ManyGraphs.from_list(random_graphs(12, 4))

    @jax.jit
    def score(batch):
        x = batch.graph.nodes["x"].astype(jnp.float32)
        for _ in range(3):
            x = jnp.tanh(x + aggregate(x, batch.layout, reduce="mean"))
        return aggregate(x, batch.readout)

    small = score(assemble(many, np.array([6]), Budget(16, 32, 2, 9)))[0]
    for rows in ([6, 1, 2], [0, 3, 6], [11, 6]):
        batch = assemble(many, np.array(rows), Budget(64, 96, 8, 9))
        np.testing.assert_allclose(score(batch)[rows.index(6)], small, atol=1e-6)


@settings(deadline=None, max_examples=10)
@given(mode=st.sampled_from(["static", "dynamic", "similar"]), seed=st.integers(0, 20), stop=st.integers(0, 15))
def test_going_on_equals_not_having_stopped(mode, seed, stop):
    many = ManyGraphs.from_list(random_graphs(14, seed))
    new = lambda: Batches(many, 4, mode=mode, seed=seed)  # noqa: E731
    whole = [np.asarray(step.batch.index).tolist() for step in new().stream(epochs=4)]
    first, position = [], Position()
    stream = new().stream(epochs=4)
    for _ in range(min(stop, len(whole))):
        step = next(stream)
        first.append(np.asarray(step.batch.index).tolist())
        position = step.position
    rest = [np.asarray(step.batch.index).tolist() for step in new().stream(position, epochs=4)]
    assert first + rest == whole
    assert position.batch < new().n_batch(position.epoch)


def test_epochs_and_seeds_differ_and_evaluation_keeps_the_order():
    many = ManyGraphs.from_list(random_graphs(30))
    orders = {tuple(Batches(many, 8, seed=seed).plan(epoch).order.tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    rows = np.array([3, 9, 4, 20])
    kept = Batches(many, 3, rows=rows, shuffle=False)
    assert [np.asarray(step.batch.index)[:3].tolist() for step in kept.stream(epochs=1)] == [[3, 9, 4], [20, -1, -1]]
    chosen = Batches(many, 3, rows=rows, seed=1).plan(5)
    assert sorted(chosen.order.tolist()) == sorted(rows.tolist())


def test_the_order_of_the_graphs_permutes_the_positions_only():
    graphs = random_graphs(15, 8)
    order = np.random.default_rng(0).permutation(15)
    one = Batches(ManyGraphs.from_list(graphs), 4, shuffle=False, rows=order)
    other = Batches(ManyGraphs.from_list([graphs[i] for i in order]), 4, shuffle=False)
    for a, b in zip(one.stream(epochs=1), other.stream(epochs=1), strict=True):
        inside = np.asarray(a.batch.graph_mask)
        np.testing.assert_array_equal(a.batch.index[inside], order[b.batch.index[inside]])
        jax.tree.map(np.testing.assert_array_equal, a.batch.graph, b.batch.graph)
        jax.tree.map(np.testing.assert_array_equal, a.batch.layout, b.batch.layout)


@pytest.mark.parametrize("mode", ["static", "dynamic", "similar"])
def test_a_program_is_compiled_once_a_shape(mode):
    many = ManyGraphs.from_list(random_graphs(150, 2, largest=30))
    batches = Batches(many, 16, mode=mode)
    compiled = []

    @jax.jit
    def run(batch):
        compiled.append(batch.graph.n_node.shape)
        return aggregate(batch.graph.nodes["x"].astype(jnp.float32), batch.layout).sum() + batch.largest

    for step in batches.stream(epochs=3):
        run(step.batch)
    report = batches.report(3)
    assert len(compiled) == report.shapes <= 4
    assert report.n_batch == sum(batches.n_batch(epoch) for epoch in range(3)) == sum(report.batches_of.values())
    assert str(report) == f"{100 * report.padded_share:.1f} % padding, {report.shapes} compiled shapes"


def test_the_report_counts_slots():
    graphs = [
        dict(g, senders=g["senders"][:2], receivers=g["receivers"][:2], edges=g["edges"][:2]) for g in random_graphs(9)
    ]
    graphs = [
        dict(g, nodes=jax.tree.map(lambda x: x[:1], g["nodes"]), senders=0 * g["senders"], receivers=0 * g["receivers"])
        for g in graphs
    ]
    many = ManyGraphs.from_list(graphs)
    report = Batches(many, 3, budgets=[Budget(4, 6, 4, 2)]).report(2)
    assert report.n_batch == 6 and report.shapes == 1
    assert report.padded_share == pytest.approx(1 - (9 + many.n_edge.sum()) / 30)
    assert report.padded_rows == pytest.approx(0.5)
    assert "1 compiled shape" in str(report) and "shapes" not in str(report)


def test_a_part_of_the_graphs_is_these_graphs_alone():
    graphs = ManyGraphs.from_list(random_graphs(7, 3))
    part = graphs.part(2, 5)
    budget = Budget(16, 32, 2, 9)
    assert len(part) == 3
    for i in range(3):
        whole, own = assemble(graphs, np.array([2 + i]), budget), assemble(part, np.array([i]), budget)
        jax.tree.map(np.testing.assert_array_equal, whole.graph, own.graph)


def test_what_cannot_be_put_into_batches():
    many = ManyGraphs.from_list(random_graphs(5))
    with pytest.raises(DataError, match="there is no graph"):
        Batches(many, 2, rows=np.zeros(0, int))
    for options in ({"batch_size": 0}, {"batch_size": 2, "seed": -1}):
        with pytest.raises(ConfigError, match="cannot be made"):
            Batches(many, **options)
    with pytest.raises(DataError, match="more than there is room for"):
        Batches(many, 2, budgets=[Budget(2, 2, 2, 1)])
    with pytest.raises(ValueError, match="do not fit"):
        assemble(many, np.arange(5), Budget(4, 4, 9, 9))
    with pytest.raises(ValueError, match="senders hold an array of 3 rows"):
        ManyGraphs(np.zeros(2), None, np.zeros(3, int), np.zeros(2, int), None, np.array([0, 2]), np.array([0, 2]))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.skipif("JAXGKD_DATA" not in os.environ, reason="JAXGKD_DATA is not set")
@pytest.mark.parametrize("name", ["qm7", "lipo", "bbbp"])
@pytest.mark.parametrize("mode", ["static", "dynamic", "similar"])
def test_little_is_padded_on_real_molecules(name, mode, cache):
    from jaxgkd.data.molecules import load_molecules

    folder = Path(os.environ["JAXGKD_DATA"]) / "molecules"
    options = (
        {"sdf": folder / "qm7.sdf.gz", "labels": ["hof_kcal_mol"], "hydrogens": "explicit"} if name == "qm7" else {}
    )
    molecules = load_molecules(folder / f"{name}.csv", root=cache, **options)
    graphs = molecules.graphs()
    report = Batches(graphs, 128, mode=mode).report(10)
    assert report.padded_share <= 0.15 and report.shapes <= 4, report
