import numpy as np
import pytest

from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.errors import CheckpointError
from jaxgkd.graphs import undirected
from jaxgkd.teachers.hops import TextEncoder, hop_features, hop_prompts, leading_directions, milliseconds_per_node
from jaxgkd.teachers.prompts import encoder_prompts
from jaxgkd.teachers.rings import distance_rings


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
    return hop_features(graph, encoder, hops=2, max_tokens=24, progress=False)


def test_an_encoder_knows_its_name_and_its_weights(encoder, bert_folder):
    assert encoder.name == bert_folder.name
    assert len(encoder.weights_hash) == 64
    assert encoder.model.width == 16
    with pytest.raises(CheckpointError, match="no such folder"):
        TextEncoder.load("/nowhere/at/all")


def test_hop_0_is_the_own_text_and_further_hops_add_neighbours(graph, encoder):
    prompts = hop_prompts(graph, encoder, hops=2, max_tokens=40)
    assert [len(of_hop) for of_hop in prompts] == [24, 24, 24]
    linked = {int(r): int(s) for s, r in zip(*undirected(graph.senders, graph.receivers), strict=True)}
    node, neighbour = next(iter(linked.items()))
    assert graph.titles[neighbour] not in graph.texts[node]
    assert graph.titles[neighbour] not in prompts[0][node]
    assert any(graph.titles[neighbour] in of_hop[node] for of_hop in prompts[1:])
    assert hop_prompts(graph, encoder, hops=2, max_tokens=40) == prompts


def test_states_are_in_the_order_of_nodes_and_hops(graph, encoder, features):
    assert features.states.shape == (24, 3, 16)
    assert features.states.dtype == np.float32
    prompts = hop_prompts(graph, encoder, hops=2, max_tokens=24)
    assert features.prompts == tuple(tuple(of_hop[i] for of_hop in prompts) for i in range(3))
    for node, hop in ((0, 0), (5, 1), (23, 2)):
        batch = encoder.tokenizer.batch([prompts[hop][node]], max_tokens=24)
        pooled = encoder.model.pooled_states(batch.input_ids, batch.attention_mask, layers=(2,), pooling="mean")
        state = np.asarray(pooled)[0, 0]
        # Half precision on the disk.
        np.testing.assert_allclose(features.states[node, hop], state / np.linalg.norm(state), rtol=2e-3, atol=1e-3)


def test_a_causal_model_is_instructed_and_read_at_the_last_token(graph, causal_folder):
    causal = TextEncoder.load(str(causal_folder))
    assert (causal.is_causal, causal.pooling) == (True, "last")
    features = hop_features(graph, causal, hops=1, max_tokens=200, progress=False)
    prompts = hop_prompts(graph, causal, hops=1, max_tokens=200)
    assert all(prompt.endswith("### Response:\n") for of_hop in prompts for prompt in of_hop)
    assert all(all(name in prompt for name in graph.class_names) for prompt in prompts[1])
    batch = causal.tokenizer.batch([prompts[1][7]], max_tokens=200)
    state = np.asarray(causal.model.hidden_states(batch.input_ids, batch.attention_mask))[-1, 0, -1]
    np.testing.assert_allclose(features.states[7, 1], state / np.linalg.norm(state), rtol=2e-3, atol=2e-3)
    assert milliseconds_per_node(causal, prompts, max_tokens=200) > 0


def test_what_was_asked_before_is_read_from_the_store(graph, encoder, features, monkeypatch):
    monkeypatch.setattr(type(encoder.model), "pooled_states", lambda *a, **k: pytest.fail("the model was asked again"))
    again = hop_features(graph, encoder, hops=2, max_tokens=24, progress=False)
    assert again.folder == features.folder
    np.testing.assert_array_equal(again.states, features.states)
    assert again.report == features.report


def test_the_store_lies_where_it_is_told_to(graph, encoder, own_cache, features, tmp_path):
    assert features.folder.is_relative_to(own_cache)
    there = hop_features(graph, encoder, hops=1, max_tokens=24, root=tmp_path, progress=False)
    assert there.folder.is_relative_to(tmp_path)
    np.testing.assert_array_equal(there.states[:, 0], features.states[:, 0])


def test_prompts_that_were_cut_are_counted(graph, encoder, features):
    senders, receivers = undirected(graph.senders, graph.receivers)
    rings = distance_rings(senders, receivers, graph.n_node, hops=2, max_neighbours=10)
    made = [encoder_prompts(graph, encoder.tokenizer, hop=hop, rings=rings, max_tokens=24) for hop in range(3)]
    assert features.report["n_truncated"] == sum(of_hop.n_truncated for of_hop in made) > 0


def test_the_time_of_a_node_covers_all_its_hops(graph, encoder):
    prompts = hop_prompts(graph, encoder, hops=1, max_tokens=24)
    assert 0 < milliseconds_per_node(encoder, prompts, max_tokens=24) < 1000


def test_leading_directions_are_the_principal_components():
    random = np.random.default_rng(0)
    states = (random.normal(size=(30, 2, 5)) * np.array([5, 3, 1, 0.5, 0.1])).astype(np.float32)
    leading = leading_directions(states, 3)
    flat = states.reshape(30, 10).astype(np.float64)
    u, s, _ = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    scores = u[:, :3] * s[:3]
    scores /= np.sqrt(np.mean(np.sum(scores**2, axis=1)))
    # Each up to its sign.
    np.testing.assert_allclose(np.abs(leading), np.abs(scores), rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(np.sum(leading**2, axis=1).mean(), 1.0, rtol=1e-4)
    assert leading_directions(states, 50).shape == (30, 10)
