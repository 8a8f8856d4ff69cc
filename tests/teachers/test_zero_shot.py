from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.teachers.hops import TextEncoder, hop_features, hop_prompts
from jaxgkd.teachers.zero_shot import zero_shot_probabilities


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.fixture(scope="module")
def encoder(bert_folder):
    return TextEncoder.load(str(bert_folder))


@pytest.fixture(scope="module")
def causal(causal_folder):
    return TextEncoder.load(str(causal_folder))


@pytest.fixture(scope="module")
def graph(text_graph_folder, tmp_path_factory):
    return load_text_graph(text_graph_folder(tmp_path_factory.mktemp("data") / "topics", n_per_class=8))


@pytest.fixture(scope="module")
def features(graph, encoder, own_cache):
    return hop_features(graph, encoder, hops=1, max_tokens=24, progress=False)


def test_labels_play_no_part(graph, encoder, features):
    shown = zero_shot_probabilities(graph, features, encoder, max_tokens=24)
    hidden = zero_shot_probabilities(
        replace(graph, labels=np.full_like(graph.labels, -1)), features, encoder, max_tokens=24
    )
    np.testing.assert_array_equal(shown, hidden)
    np.testing.assert_allclose(shown.sum(axis=1), 1.0)


def test_only_the_own_text_is_compared(graph, encoder, features):
    other = replace(features, states=features.states * np.float32([1, -3])[:, None])
    np.testing.assert_array_equal(
        zero_shot_probabilities(graph, features, encoder, max_tokens=24),
        zero_shot_probabilities(graph, other, encoder, max_tokens=24),
    )


def test_texts_that_are_class_names_are_given_their_class(graph, encoder, text_graph_folder, tmp_path):
    def name_only(nodes, edges):
        for row in nodes:
            row["title"], row["abstract"] = row["label"], ""

    named = load_text_graph(text_graph_folder(tmp_path / "named", change=name_only))
    states = hop_features(named, encoder, hops=1, max_tokens=24, progress=False)
    probabilities = zero_shot_probabilities(named, states, encoder, max_tokens=24)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), named.labels)


def test_separators_in_class_names_are_read_as_spaces(graph, encoder, features):
    names = {mark: tuple(f"{name}{mark}papers" for name in graph.class_names) for mark in "_- "}
    answers = [
        zero_shot_probabilities(replace(graph, class_names=n), features, encoder, max_tokens=24) for n in names.values()
    ]
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_a_causal_model_is_read_by_how_likely_it_finds_each_class_name(graph, causal):
    features = hop_features(graph, causal, hops=0, max_tokens=200, progress=False)
    got = zero_shot_probabilities(graph, features, causal, max_tokens=200)
    prompts = hop_prompts(graph, causal, hops=0, max_tokens=200)[0]
    for node in (0, 17):
        scores = []
        for name in graph.class_names:
            prompt = causal.tokenizer.batch([prompts[node]], max_tokens=200).input_ids
            answer = causal.tokenizer.batch([name], max_tokens=20).input_ids
            both = np.concatenate([prompt, answer], axis=1)
            log_probs = jax.nn.log_softmax(causal.model.logits(both, np.ones_like(both))[0])
            ahead = range(prompt.shape[1] - 1, both.shape[1] - 1)
            scores.append(np.mean([log_probs[i, both[0, i + 1]] for i in ahead]))
        np.testing.assert_allclose(got[node], jax.nn.softmax(np.array(scores)), rtol=1e-3)
