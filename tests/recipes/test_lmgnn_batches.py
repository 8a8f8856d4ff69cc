"""Blocks with all neighbours say what the whole graph says; sampled ones train a run to its end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.nn.hetero_block_problem import block_states
from jaxgkd.nn.hetero_problem import Drawing, asked_for
from jaxgkd.nn.hetero_tasks import Links, mean_loss
from jaxgkd.recipes.lmgnn import _others
from jaxgkd.recipes.lmgnn_batches import TaskBlocks, compressed, with_inputs
from jaxgkd.recipes.lmgnn_data import task_data
from jaxgkd.recipes.lmgnn_networks import Workplace
from jaxgkd.recipes.lmgnn_texts import graph_texts
from jaxgkd.teachers.hops import TextEncoder
from tests.recipes.hetero_folder import SMALL, predicted, run_films, summary_of, with_features, write_films


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


def follow(metadata, tables):
    """Films that follow films, with a drawn split: some lead back, and some are double."""
    metadata["edge_types"].append(["movie", "follows", "movie"])
    metadata["tasks"]["link_prediction"] = {"edge_type": ["movie", "follows", "movie"]}
    random, films = np.random.default_rng(5), [row["node"] for row in tables["nodes_movie"]]
    pairs = {tuple(random.choice(films, 2, replace=False)) for _ in range(60)}
    pairs |= {(b, a) for a, b in sorted(pairs)[:20]}
    tables["edges_movie__follows__movie"] = [{"src": a, "dst": b} for a, b in sorted(pairs)]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("data") / "films")


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    return with_features(write_films(tmp_path_factory.mktemp("data") / "followed", change=follow))


KINDS = {
    "nodes": ("films", "node_classification", "uniform", "uniform"),
    "edges": ("films", "edge_classification", "uniform", "uniform"),
    "links, uniform": ("films", "link_prediction", "uniform", "uniform"),
    "links, joint": ("films", "link_prediction", "uniform", "joint"),
    "links, candidates": ("films", "link_prediction", "known_for", "candidates"),
    "links that lead back": ("followed", "link_prediction", "uniform", "uniform"),
}


@pytest.fixture(params=KINDS)
def work(request, bert_folder):
    folder, name, candidates, negatives = KINDS[request.param]
    graph = load_hetero_graph(request.getfixturevalue(folder))
    encoder = TextEncoder.load(str(bert_folder))
    texts = graph_texts(graph, encoder, tuned_layers=1, max_tokens=12, on_line=lambda _: None)
    data = task_data(graph, name, candidates=candidates, n_candidates=5, score="distmult", loss="contrastive")
    place = Workplace(data, texts, Drawing(6, negatives, 4), "rgcn", 8, 2, _others(graph))
    return place, jnp.asarray(texts.read(texts.weights))


def blocks_of(place, table, fan_outs, batch_size=7):
    train = place.shared(table)["train"]
    data, graph = place.data, compressed(place.data)
    return TaskBlocks(data, graph, data.task, train, place.drawing, batch_size=batch_size, fan_outs=fan_outs, seed=3)


# Two gradients are compiled for each.
LONG = [
    pytest.param(kind, marks=[pytest.mark.thorough] * (kind in ("edges", "links, joint", "links that lead back")))
    for kind in KINDS
]


@pytest.mark.parametrize("work", LONG, indirect=True)
def test_blocks_of_all_neighbours_have_the_losses_and_gradients_of_the_whole_graph(work):
    place, table = work
    task, shared, make = place.data.task, place.shared(table), place.maker(2)
    chosen = np.arange(len(shared["train"].weights))[1::3][:7]
    block = blocks_of(place, table, [-1, -1]).block(chosen, 0)
    asked, layout = asked_for(task, place.drawing, jax.random.key(0), jnp.asarray(chosen), shared)
    if isinstance(asked, Links):
        # Both are to see the same negatives.
        rows = np.asarray(block.nodes[task.edge_type[2]])[np.asarray(block.asked.negatives)]
        asked = asked._replace(negatives=jnp.asarray(rows), negative_where=jnp.asarray(block.asked.negative_where))
        assert block.asked.negative_where.any()
    graphdef, params, rest = nnx.split(make(jax.random.key(1)), nnx.Param, ...)
    # Weights that begin at 0 would hide what they are multiplied with.
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(2), leaf.shape), params)

    def of_graph(params, block):
        del block
        model = nnx.merge(graphdef, params, rest)
        states = model.states(shared["inputs"], layout)
        return mean_loss(task, model, states, asked), task.losses(model, states, asked)

    def of_block(params, block):
        model = nnx.merge(graphdef, params, rest)
        inputs = {name: shared["inputs"][name][rows] for name, rows in block.nodes.items()}
        states = block_states(model, block, inputs)
        return mean_loss(task, model, states, block.asked), task.losses(model, states, block.asked)

    (mean, losses), gradient = jax.jit(jax.value_and_grad(of_graph, has_aux=True))(params, block)
    (block_mean, block_losses), block_gradient = jax.jit(jax.value_and_grad(of_block, has_aux=True))(params, block)
    np.testing.assert_allclose(block_losses[: len(chosen)], losses, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(block_mean, mean, rtol=2e-4)
    for one, other in zip(*map(jax.tree.leaves, (gradient, block_gradient)), strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-3, atol=2e-5)


def test_an_epoch_asks_for_everything_once_and_repeats(work):
    place, table = work
    blocks, n = blocks_of(place, table, [2, 2]), len(place.shared(table)["train"].weights)
    found = list(with_inputs(blocks.epoch(4), place, [np.asarray(table), 2 * np.asarray(table)]))
    assert len(found) == -(-n // 7) and sum(each.block.asked.weights.sum() for each in found) == n
    for name, first in place.texts.first.items():
        rows = first + found[0].block.nodes[name]
        np.testing.assert_array_equal(found[0].of_tables[name], np.stack([table[rows], 2 * table[rows]]))
    for name, values in found[0].others.items():
        np.testing.assert_array_equal(values, np.asarray(place.others[name])[found[0].block.nodes[name]])
    again = list(blocks_of(place, table, [2, 2]).epoch(4))
    for one, other in zip(found, again, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.block, other)
    other = next(iter(blocks.epoch(5)))
    leaves = [jax.tree.leaves(each.asked) for each in (found[0].block, other)]
    assert any(not np.array_equal(one, two) for one, two in zip(*leaves, strict=True))


@pytest.mark.thorough
@pytest.mark.parametrize("flags", [["--layers", "2", "--fan-outs", "3", "2"], ["--task", "link_prediction"]])
def test_a_run_on_blocks(flags, films, bert_folder, tmp_path):
    small = SMALL | {"batch_nodes": 8, "fan_outs": 3}
    assert run_films(films, tmp_path / "out", bert_folder, *flags, **small) == 0
    summary = summary_of(tmp_path / "out")
    assert {"teacher", "fine_tuned", "cotrained"} <= set(summary["results"])
    if "--task" not in flags:
        assert {"glem", "text_student"} <= set(summary["results"])
        said = predicted(tmp_path / "out", films, tmp_path / "said.csv")
        assert len(said) == 36
