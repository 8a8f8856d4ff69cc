import jax
import numpy as np
import pytest
from rich.console import Console

from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.errors import ConfigError
from jaxgkd.graphs import from_edges
from jaxgkd.graphs.input_rows import host_inputs
from jaxgkd.nn.encoders import make_student
from jaxgkd.recipes.batched_rows import train_batched_row, without_parts
from jaxgkd.recipes.lingugkd import LinguGKD
from jaxgkd.recipes.node_batches import NodeBatches, one_for_each
from jaxgkd.recipes.node_splits import draw_splits
from jaxgkd.recipes.searched_fit import Budget
from jaxgkd.recipes.student_inputs import student_inputs
from jaxgkd.training.run_dir import RunDirectory

SEEDS = [0, 1]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.fixture(scope="module")
def graph(text_graph_folder, tmp_path_factory):
    return load_text_graph(text_graph_folder(tmp_path_factory.mktemp("data") / "topics"))


def of_kind(graph, kind):
    splits = draw_splits(graph, kind, SEEDS)
    return splits, student_inputs(graph, splits)[0]


class Numbered:
    """Says of every node its number."""

    def of(self, nodes):
        return np.where(nodes >= 0, nodes, 0).astype(np.float32)[:, None, None]


def test_every_node_is_a_seed_once_and_brings_what_belongs_to_it(graph):
    splits, inputs = of_kind(graph, "60-20-20")
    taught = splits.visible & ~splits.test
    batches = NodeBatches(splits, {"taught": taught}, Numbered(), batch_nodes=25, fan_outs=[2, 2], n_hops=3)
    # The test nodes of the two splits differ, so that each has its own stream.
    assert batches.groups == [[0], [1]]
    seeds = []
    for batch in batches.epoch(1, host_inputs(inputs), 0):
        nodes = batch.shared["teacher_states"][:, 2, 0].astype(int)
        assert batch.shared["teacher_states"].shape == (25, 3, 1)
        real = batch.is_seed[batch.rows]
        np.testing.assert_array_equal(batch.of_splits["labels"][:, real], splits.labels[:, nodes[real]])
        np.testing.assert_array_equal(batch.of_splits["taught"][:, real], taught[:, nodes[real]])
        assert not batch.of_splits["train"][:, ~real].any() and not batch.of_splits["taught"][:, ~real].any()
        degrees = np.bincount(splits.receivers, minlength=splits.n_rows)
        np.testing.assert_array_equal(batch.degree[batch.rows][real], degrees[nodes[real]])
        # Those that are taught come first.
        first = np.take_along_axis(batch.of_splits["taught"], batch.of_splits["taught_nodes"], axis=1)
        assert (np.diff(first.astype(int), axis=1) <= 0).all()
        seeds += nodes[real].tolist()
    assert sorted(seeds) == np.flatnonzero(taught[1] | splits.train[1]).tolist()
    assert batches.n_batch(1) * 25 >= len(seeds)


def test_batches_of_an_inductive_split_know_nothing_of_its_test_nodes(graph):
    splits, inputs = of_kind(graph, "inductive")
    batches = NodeBatches(splits, {"taught": splits.visible}, Numbered(), batch_nodes=60, fan_outs=[-1])
    assert batches.groups == [[0], [1]]
    for split in (0, 1):
        edges = batches.training_edges(split)
        hidden = np.flatnonzero(splits.test[split])
        assert not np.isin(edges.indices, hidden).any()
        assert (np.diff(edges.indptr)[hidden] == 0).all()
        (batch,) = batches.epoch(split, host_inputs(inputs), 0)
        seeds = batch.shared["teacher_states"][:, 0, 0].astype(int)[batch.is_seed[batch.rows]]
        assert not np.isin(seeds, hidden).any()
    assert batches.whole.n_edges == len(splits.senders)
    # One shape serves both.
    shapes = [
        {leaf.shape for leaf in jax.tree.leaves(next(iter(batches.epoch(split, host_inputs(inputs), 1))).layouts)}
        for split in (0, 1)
    ]
    assert shapes[0] == shapes[1]


def test_a_row_learns_on_batches_and_predicts_every_node(graph, tmp_path, monkeypatch):
    splits, inputs = of_kind(graph, "60-20-20")
    batches = NodeBatches(splits, {"taught": splits.visible & ~splits.test}, None, batch_nodes=24, fan_outs=[3])
    assert batches.groups == [[0], [1]]
    nodes, layout = from_edges(inputs, splits.senders, splits.receivers, splits.n_rows)

    def train():
        return train_batched_row(
            "row",
            lambda key: make_student("sage", inputs.shape[1], 8, 1, 3, key),
            {"split": np.arange(2), "class_weights": splits.run_data("none")["class_weights"]},
            {"graph": nodes, "layout": layout, "batches": batches},
            SEEDS,
            default={"learning_rate": 0.05, "weight_decay": 1e-4, "dropout": 0.1},
            space={},
            budget=Budget(epochs=5, patience=None, tries=1, search_seeds=1),
            run_dir=RunDirectory(tmp_path / "run", {}, resume=True),
            console=Console(quiet=True),
        )

    row = train()
    assert row.probabilities.shape == (2, splits.n_rows, 3)
    np.testing.assert_allclose(row.probabilities.sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(row.epochs, np.arange(1, 6))
    assert row.hidden.shape == (splits.n_rows, 8)
    assert row.curves["train_loss"][:, -1].max() < row.curves["train_loss"][:, 0].min()
    for seed in SEEDS:
        # The predictions are those of each seed's best epoch.
        valid, curve = splits.valid[seed], row.curves["valid"][seed]
        right = row.probabilities[seed].argmax(axis=-1) == splits.labels[seed]
        assert right[valid].mean() == pytest.approx(curve[row.best_epoch[seed] - 1])
        assert row.best_epoch[seed] == row.epochs[curve.argmax()]
    monkeypatch.setattr("jaxgkd.recipes.batched_rows.fit_stream", lambda *a, **k: pytest.fail("it was trained again"))
    np.testing.assert_array_equal(row.probabilities, train().probabilities)


def test_fan_outs_are_one_for_each_layer_or_one_for_all():
    assert one_for_each([7], 3) == [7, 7, 7]
    assert one_for_each([-1, 4], 2) == [-1, 4]
    for wrong in ([1, 2], [], [-2]):
        with pytest.raises(ConfigError, match="--fan-outs"):
            one_for_each(wrong, 3)


def test_parts_of_the_graph_are_left_out_of_batches():
    assert without_parts(LinguGKD(batch_nodes=8)).terms == ("soft", "local")
    with pytest.raises(ConfigError, match="--terms"):
        without_parts(LinguGKD(batch_nodes=8, terms=("global",)))
    with pytest.raises(ConfigError, match="--fan-outs"):
        without_parts(LinguGKD(batch_nodes=8, fan_outs=(1, 2, 3)))
