import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxgkd.data.splits import load_split, make_split
from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.errors import DataError
from jaxgkd.graphs import undirected
from jaxgkd.recipes.node_splits import draw_splits, pseudo_labelled

SEEDS = [0, 3]


@pytest.fixture(scope="module")
def graph(text_graph_folder, tmp_path_factory):
    return load_text_graph(text_graph_folder(tmp_path_factory.mktemp("data") / "topics", split=True))


@pytest.fixture(scope="module")
def inductive(graph):
    return draw_splits(graph, "inductive", SEEDS)


def test_every_seed_has_the_masks_of_its_own_split(graph):
    splits = draw_splits(graph, "60-20-20", SEEDS)
    assert (splits.n_rows, splits.n_node, splits.n_classes) == (60, 60, 3)
    for i, seed in enumerate(SEEDS):
        split = make_split(graph, "60-20-20", seed)
        for mask, rows in ((splits.train, split.train), (splits.valid, split.valid), (splits.test, split.test)):
            np.testing.assert_array_equal(np.flatnonzero(mask[i]), rows)
    assert (splits.train[0] != splits.train[1]).any()
    np.testing.assert_array_equal(splits.labels, np.broadcast_to(graph.labels, (2, 60)))
    assert splits.visible.all()
    assert splits.train_layouts is None
    assert "train_layout" not in splits.run_data("none")


def test_the_public_split_is_the_same_for_all_seeds(graph):
    splits = draw_splits(graph, "public", SEEDS)
    np.testing.assert_array_equal(splits.train[0], splits.train[1])
    np.testing.assert_array_equal(np.flatnonzero(splits.test[0]), np.flatnonzero(graph.given_split == "test"))


def test_few_shots_thin_out_the_training_nodes_alone(graph):
    whole, few = (draw_splits(graph, "60-20-20", SEEDS, shots=shots) for shots in (0, 2))
    for i in range(2):
        assert np.bincount(graph.labels[few.train[i]]).tolist() == [2, 2, 2]
        assert not (few.train[i] & ~whole.train[i]).any()
        np.testing.assert_array_equal(few.valid[i], whole.valid[i])
        np.testing.assert_array_equal(few.test[i], whole.test[i])
    with pytest.raises(DataError, match="class 'graph' has 12 training items; keep fewer than 13"):
        draw_splits(graph, "60-20-20", [0], shots=13)


def test_the_published_protocol_validates_on_the_test_nodes(graph):
    splits = draw_splits(graph, "60-20-20", SEEDS, protocol="paper")
    np.testing.assert_array_equal(splits.valid, splits.test)
    assert not (splits.train & splits.test).any()


def test_inductive_layouts_hold_the_edges_between_visible_nodes_and_nothing_else(graph, inductive):
    assert (inductive.n_rows, inductive.n_node) == (61, 60)
    senders, receivers = undirected(graph.senders, graph.receivers)
    for i in range(2):
        np.testing.assert_array_equal(inductive.visible[i, :60], ~inductive.test[i, :60])
        kept = inductive.visible[i, senders] & inductive.visible[i, receivers]
        layout = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), inductive.train_layouts)
        real = layout.receivers < 60
        found = sorted(zip(layout.senders[real], layout.receivers[real], strict=True))
        assert found == sorted(zip(senders[kept], receivers[kept], strict=True))
        # What fills a layout up links the extra row to itself.
        assert (layout.senders[~real] == 60).all()
        assert (layout.receivers[~real] == 60).all()
    # The extra row is nothing to learn from or to be scored on.
    for mask in (inductive.train, inductive.valid, inductive.test, inductive.visible):
        assert not mask[:, 60].any()
    assert (inductive.labels[:, 60] == -1).all()
    data = inductive.run_data("none")
    np.testing.assert_array_equal(data["train_nodes"], inductive.visible)
    assert data["valid_layout"] is data["train_layout"]


def test_padding_adds_rows_of_zeros_where_there_is_an_extra_row(graph, inductive):
    values = np.arange(120.0).reshape(60, 2)
    padded = inductive.pad(values)
    np.testing.assert_array_equal(padded, np.r_[values, np.zeros((1, 2))])
    np.testing.assert_array_equal(draw_splits(graph, "60-20-20", [0]).pad(values), values)


def test_saved_splits_are_those_of_the_seeds(graph, inductive, tmp_path):
    inductive.save(tmp_path)
    for i, seed in enumerate(SEEDS):
        split = load_split(tmp_path / "splits" / f"seed-{seed}.json", n_node=60)
        np.testing.assert_array_equal(split.test, np.flatnonzero(inductive.test[i]))
    assert json.loads((tmp_path / "splits" / "seed-3.json").read_text())["name"] == "inductive"


def test_parts_are_nonempty_and_every_node_is_in_one_at_most(graph, inductive):
    for splits in (draw_splits(graph, "60-20-20", [0]), inductive):
        layout = splits.part_layout(8)
        assert (layout.n_senders, layout.n_receivers) == (splits.n_rows, 8)
        assert len(np.unique(layout.senders)) == layout.n_edges
        assert set(np.asarray(layout.receivers)) == set(range(8))
        assert 60 not in np.asarray(layout.senders)
    assert inductive.part_layout(1000).n_receivers == 60


def test_balanced_class_weights_give_every_class_the_same_say(graph):
    def thin_out(labels):
        labels = labels.copy()
        labels[np.flatnonzero(labels == 0)[:12]] = -1
        return labels

    splits = draw_splits(replace(graph, labels=thin_out(graph.labels)), "60-20-20", SEEDS)
    weights = np.asarray(splits.run_data("balanced")["class_weights"])
    for i in range(2):
        counts = np.bincount(splits.labels[i][splits.train[i]], minlength=3)
        assert len(set(counts.tolist())) > 1
        np.testing.assert_allclose(weights[i] * counts, counts.sum() / 3, rtol=1e-6)
    np.testing.assert_array_equal(splits.run_data("none")["class_weights"], 1.0)


@pytest.fixture
def guesses(graph):
    """A teacher that errs on every fourth node; of the nodes of a class the first are the surest."""
    predicted = np.where(np.arange(60) % 4 == 0, (graph.labels + 1) % 3, graph.labels)
    return np.where(np.eye(3, dtype=bool)[predicted], np.linspace(0.9, 0.5, 60)[:, None], 0.05)


def test_pseudo_labels_are_the_surest_guesses_and_leave_test_nodes_alone(graph, guesses):
    splits = draw_splits(graph, "60-20-20", SEEDS)
    pseudo = pseudo_labelled(splits, guesses, share=0.5)
    for i in range(2):
        supervised = pseudo.train[i] | pseudo.valid[i]
        assert not (pseudo.train[i] & pseudo.valid[i]).any()
        assert not (supervised & splits.test[i]).any()
        np.testing.assert_array_equal(pseudo.labels[i][supervised], guesses.argmax(axis=1)[supervised])
        np.testing.assert_array_equal(pseudo.labels[i][splits.test[i]], graph.labels[splits.test[i]])
        assert (pseudo.labels[i][~supervised & ~splits.test[i]] == -1).all()
        for c in range(3):
            candidates = np.flatnonzero((guesses.argmax(axis=1) == c) & ~splits.test[i])
            chosen = candidates[: len(candidates) // 2]
            np.testing.assert_array_equal(np.flatnonzero(supervised & (pseudo.labels[i] == c)), chosen)
            assert pseudo.valid[i][chosen].sum() == len(chosen) // 4


def test_pseudo_labels_do_not_know_the_true_ones(graph, guesses):
    """Labels of nodes that are not tested may be anything."""
    splits = draw_splits(graph, "60-20-20", SEEDS)
    other = replace(splits, labels=np.where(splits.test, splits.labels, 2 - splits.labels))
    one, two = pseudo_labelled(splits, guesses), pseudo_labelled(other, guesses)
    for field in ("labels", "train", "valid"):
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field))


def test_a_class_that_the_teacher_never_sees_is_named(graph, guesses):
    guesses[:, 2] = 0.0
    with pytest.raises(DataError, match="predicts class 2 for 0 nodes"):
        pseudo_labelled(draw_splits(graph, "60-20-20", SEEDS), guesses)


def test_a_graph_without_a_split_of_its_own_is_refused(text_graph_folder, tmp_path):
    graph = load_text_graph(text_graph_folder(tmp_path / "topics"))
    with pytest.raises(DataError, match="topics comes without a split"):
        draw_splits(graph, "public", [0])
