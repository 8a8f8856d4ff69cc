import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.errors import ConfigError
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


def test_texts_become_words_whose_list_is_kept(graph):
    splits = draw_splits(graph, "60-20-20", [0])
    rows, vocabulary = student_inputs(graph, splits)
    assert rows.shape == (graph.n_node, len(vocabulary.terms))
    np.testing.assert_allclose(dense(rows), vocabulary.transform(graph.student_texts).toarray(), rtol=1e-6)
    assert student_inputs(graph, splits, max_terms=4)[0].shape[1] == 4


def test_features_of_the_data_are_taken_at_unit_length(with_features):
    rows, vocabulary = student_inputs(with_features, draw_splits(with_features, "60-20-20", [0]))
    given = with_features.features.toarray()
    np.testing.assert_allclose(dense(rows), given / np.linalg.norm(given, axis=1, keepdims=True), rtol=1e-6)
    assert vocabulary is None


def test_a_node_without_any_feature_has_a_row_of_zeros(with_features, text_graph_folder, tmp_path):
    def silence(nodes, edges):
        nodes[7]["abstract"] = "from"

    graph = load_text_graph(text_graph_folder(tmp_path / "topics", features=True, change=silence))
    rows = dense(student_inputs(graph, draw_splits(graph, "60-20-20", [0]))[0])
    assert np.isfinite(rows).all()
    assert not rows[7].any()


def test_positions_stand_beside_the_words_and_do_not_outweigh_them(graph):
    splits = draw_splits(graph, "60-20-20", [0])
    plain, rows = (dense(student_inputs(graph, splits, positions=k)[0]) for k in (0, 3))
    width = plain.shape[1]
    np.testing.assert_array_equal(rows[:, :width], plain)
    assert rows.shape[1] == width + 3
    lengths = np.linalg.norm(rows[:, width:], axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))
    assert (lengths > 0).mean() > 0.5


@pytest.mark.parametrize("positions", [0, 3])
def test_the_extra_row_of_an_inductive_split_is_empty(graph, positions):
    transductive, inductive = (draw_splits(graph, kind, [0]) for kind in ("60-20-20", "inductive"))
    plain, more = (dense(student_inputs(graph, s, positions=positions)[0]) for s in (transductive, inductive))
    assert more.shape == (graph.n_node + 1, plain.shape[1])
    np.testing.assert_array_equal(more[:-1], plain)
    assert not more[-1].any()


def test_positions_need_more_nodes_than_they_have_columns(graph):
    splits = draw_splits(graph, "60-20-20", [0])
    assert student_inputs(graph, splits, positions=59)[0].shape[0] == 60
    with pytest.raises(ConfigError, match="field '--positions': the value is 60; give less than 60"):
        student_inputs(graph, splits, positions=60)
