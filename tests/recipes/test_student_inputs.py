import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.data.bag_of_words import Vocabulary
from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.recipes.node_splits import draw_splits
from jaxgkd.recipes.student_inputs import student_inputs


def dense(rows) -> np.ndarray:
    return np.asarray(rows @ jnp.eye(rows.shape[1]))


@pytest.fixture(scope="module")
def graph(text_graph_folder, tmp_path_factory):
    return load_text_graph(text_graph_folder(tmp_path_factory.mktemp("data") / "topics"))


@pytest.fixture(scope="module")
def with_features(text_graph_folder, tmp_path_factory):
    return load_text_graph(text_graph_folder(tmp_path_factory.mktemp("data") / "topics", features=True))


def test_texts_become_words_whose_list_is_kept(graph, tmp_path):
    splits = draw_splits(graph, "60-20-20", [0])
    rows = student_inputs(graph, splits, tmp_path)
    vocabulary = Vocabulary.load(tmp_path / "vocabulary.json")
    assert rows.shape == (graph.n_node, len(vocabulary.terms))
    np.testing.assert_allclose(dense(rows), vocabulary.transform(graph.student_texts).toarray(), rtol=1e-6)
    assert student_inputs(graph, splits, tmp_path, max_terms=4).shape[1] == 4


def test_features_of_the_data_are_taken_at_unit_length(with_features, tmp_path):
    rows = dense(student_inputs(with_features, draw_splits(with_features, "60-20-20", [0]), tmp_path))
    given = with_features.features.toarray()
    np.testing.assert_allclose(rows, given / np.linalg.norm(given, axis=1, keepdims=True), rtol=1e-6)
    assert not (tmp_path / "vocabulary.json").exists()


def test_a_node_without_any_feature_has_a_row_of_zeros(with_features, text_graph_folder, tmp_path):
    def silence(nodes, edges):
        nodes[7]["abstract"] = "from"

    graph = load_text_graph(text_graph_folder(tmp_path / "topics", features=True, change=silence))
    rows = dense(student_inputs(graph, draw_splits(graph, "60-20-20", [0]), tmp_path))
    assert np.isfinite(rows).all()
    assert not rows[7].any()


def test_positions_stand_beside_the_words_and_do_not_outweigh_them(graph, tmp_path):
    splits = draw_splits(graph, "60-20-20", [0])
    plain, rows = (dense(student_inputs(graph, splits, tmp_path, positions=k)) for k in (0, 3))
    width = plain.shape[1]
    np.testing.assert_array_equal(rows[:, :width], plain)
    assert rows.shape[1] == width + 3
    lengths = np.linalg.norm(rows[:, width:], axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))
    assert (lengths > 0).mean() > 0.5


@pytest.mark.parametrize("positions", [0, 3])
def test_the_extra_row_of_an_inductive_split_is_empty(graph, positions, tmp_path):
    transductive, inductive = (draw_splits(graph, kind, [0]) for kind in ("60-20-20", "inductive"))
    plain, more = (dense(student_inputs(graph, s, tmp_path, positions=positions)) for s in (transductive, inductive))
    assert more.shape == (graph.n_node + 1, plain.shape[1])
    np.testing.assert_array_equal(more[:-1], plain)
    assert not more[-1].any()
