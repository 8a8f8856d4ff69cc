from dataclasses import replace

import numpy as np
import pytest

from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.teachers.hops import TextEncoder, hop_features
from jaxgkd.teachers.zero_shot import zero_shot_probabilities


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.fixture(scope="module")
def encoder(bert_folder):
    return TextEncoder.load(str(bert_folder))


@pytest.fixture(scope="module")
def graph(text_graph_folder, tmp_path_factory):
    return load_text_graph(text_graph_folder(tmp_path_factory.mktemp("data") / "topics", n_per_class=8))


@pytest.fixture(scope="module")
def features(graph, encoder, own_cache):
    return hop_features(graph, encoder, hops=1, max_tokens=24, progress=False)


def test_labels_play_no_part(graph, encoder, features):
    shown = zero_shot_probabilities(graph, features, encoder)
    hidden = zero_shot_probabilities(replace(graph, labels=np.full_like(graph.labels, -1)), features, encoder)
    np.testing.assert_array_equal(shown, hidden)
    np.testing.assert_allclose(shown.sum(axis=1), 1.0)


def test_only_the_own_text_is_compared(graph, encoder, features):
    other = replace(features, states=features.states * np.float32([1, -3])[:, None])
    np.testing.assert_array_equal(
        zero_shot_probabilities(graph, features, encoder), zero_shot_probabilities(graph, other, encoder)
    )


def test_texts_that_are_class_names_are_given_their_class(graph, encoder, text_graph_folder, tmp_path):
    def name_only(nodes, edges):
        for row in nodes:
            row["title"], row["abstract"] = row["label"], ""

    named = load_text_graph(text_graph_folder(tmp_path / "named", change=name_only))
    states = hop_features(named, encoder, hops=1, max_tokens=24, progress=False)
    probabilities = zero_shot_probabilities(named, states, encoder)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), named.labels)


def test_separators_in_class_names_are_read_as_spaces(graph, encoder, features):
    names = {mark: tuple(f"{name}{mark}papers" for name in graph.class_names) for mark in "_- "}
    answers = [zero_shot_probabilities(replace(graph, class_names=n), features, encoder) for n in names.values()]
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])
