import jax
import numpy as np
import pytest

from jaxgkd.data.splits import stratified_folds
from jaxgkd.graphs import from_edges, undirected
from jaxgkd.teachers import heads
from jaxgkd.teachers.heads import HeadEnsemble, HeadSettings, fit_heads

N, CLASSES, SEEDS = 40, 3, [0, 5]
RANDOM = np.random.default_rng(1)
LABELS = np.arange(N) % CLASSES
FEATURES = (RANDOM.normal(size=(N, 6)) + 2 * np.eye(CLASSES, 6)[LABELS]).astype(np.float32)
EDGES = undirected(*RANDOM.integers(0, N, (2, 60)))
TRAIN, VALID = np.arange(N) < 20, (np.arange(N) >= 20) & (np.arange(N) < 30)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


def fitted(*, labels=LABELS, kind="gcn", folds=2, **changed):
    graph, layout = from_edges(FEATURES, *EDGES, N)
    settings = HeadSettings(kind=kind, folds=folds, width=8, epochs=6)
    arrays = [np.stack([values] * len(SEEDS)) for values in (labels, TRAIN, VALID)]
    return fit_heads(graph, layout, *arrays, CLASSES, settings, SEEDS, **changed)


@pytest.fixture(scope="module")
def output():
    return fitted()


def test_every_node_of_every_seed_has_log_probabilities(output):
    assert output.log_probs.shape == (2, N, CLASSES)
    assert output.log_probs.dtype == np.float32
    np.testing.assert_allclose(np.exp(output.log_probs).sum(axis=-1), 1.0, rtol=1e-5)
    assert (output.log_probs[0] != output.log_probs[1]).any()


def test_a_training_node_is_described_without_its_own_label(monkeypatch):
    """Whatever label a node has: its own description does not move by one bit, while others' do."""
    folds = stratified_folds(np.where(TRAIN, LABELS, -1), 2, 0)
    monkeypatch.setattr(heads, "stratified_folds", lambda *arguments: folds)
    node = int(np.flatnonzero(folds == 1)[0])
    labels = LABELS.copy()
    labels[node] = (labels[node] + 1) % CLASSES
    before, after = (fitted(labels=given).log_probs for given in (LABELS, labels))
    # The head of the node's fold describes all training nodes of that fold, and saw none of their labels.
    np.testing.assert_array_equal(before[:, folds == 1], after[:, folds == 1])
    assert (before[:, folds == 0] != after[:, folds == 0]).any(axis=-1).all()
    assert (before[:, ~TRAIN] != after[:, ~TRAIN]).any(axis=-1).all()


@pytest.mark.thorough
def test_a_single_head_describes_what_it_was_fitted_to():
    labels = LABELS.copy()
    labels[0] = (labels[0] + 1) % CLASSES
    before, after = (fitted(labels=given, folds=1).log_probs for given in (LABELS, labels))
    assert (before[:, 0] != after[:, 0]).all()


def test_labels_outside_training_and_validation_play_no_part(output):
    labels = np.where(TRAIN | VALID, LABELS, (LABELS + 1) % CLASSES)
    np.testing.assert_array_equal(output.log_probs, fitted(labels=labels).log_probs)
    unknown = np.where(TRAIN | VALID, LABELS, -1)
    np.testing.assert_array_equal(output.log_probs, fitted(labels=unknown).log_probs)


def test_nodes_that_training_hides_change_no_head(output):
    """Features and edges of hidden nodes differ, the fitted weights do not."""
    hidden = np.arange(N) >= 30
    senders, receivers = EDGES
    seen = ~(hidden[senders] | hidden[receivers])
    _, layout = from_edges(FEATURES, senders[seen], receivers[seen], N)
    layouts = jax.tree.map(lambda leaf: np.stack([leaf] * len(SEEDS)), layout)
    weights = []
    for features in (FEATURES, np.where(hidden[:, None], 7.0, FEATURES).astype(np.float32)):
        graph, whole = from_edges(features, senders, receivers, N)
        arrays = [np.stack([values] * len(SEEDS)) for values in (LABELS, TRAIN, VALID)]
        settings = HeadSettings(folds=2, width=8, epochs=6)
        nodes = np.stack([~hidden] * len(SEEDS))
        given = {"train_layouts": layouts, "train_nodes": nodes}
        weights.append(fit_heads(graph, whole, *arrays, CLASSES, settings, SEEDS, **given).first_heads)
    jax.tree.map(np.testing.assert_array_equal, *weights)


def test_the_predictor_gives_the_mean_of_the_first_seeds_heads(output):
    graph, layout = from_edges(FEATURES, *EDGES, N)
    mean = np.asarray(output.predictor(graph, layout)())
    assert mean.shape == (N, CLASSES)
    np.testing.assert_allclose(mean[~TRAIN], np.exp(output.log_probs[0, ~TRAIN]), rtol=1e-4)
    assert output.parameters == sum(values.size for values in output.first_heads.values()) > 2 * (6 * 8 + 8 * CLASSES)


@pytest.mark.parametrize("kind", ["sage", "mlp"])
def test_only_graph_heads_read_the_neighbours(kind):
    first = fitted(kind=kind)
    graph, _ = from_edges(FEATURES, *EDGES, N)
    _, loose = from_edges(FEATURES, np.zeros(0, np.int32), np.zeros(0, np.int32), N)
    alone = np.asarray(first.predictor(graph, loose)())
    close = np.allclose(alone[~TRAIN], np.exp(first.log_probs[0, ~TRAIN]), rtol=1e-4)
    assert close is (kind == "mlp")


def test_heads_of_several_kinds_speak_with_their_mean(output):
    other = fitted(kind="mlp", folds=1)
    both = HeadEnsemble((output, other))
    mean = (np.exp(output.log_probs) + np.exp(other.log_probs)) / 2
    np.testing.assert_allclose(np.exp(both.log_probs), mean, rtol=1e-5)
    assert both.parameters == output.parameters + other.parameters
    graph, layout = from_edges(FEATURES, *EDGES, N)
    np.testing.assert_allclose(both.predictor(graph, layout)()[~TRAIN], mean[0][~TRAIN], rtol=1e-4)
    np.testing.assert_allclose(HeadEnsemble((output,)).log_probs, output.log_probs, rtol=1e-5, atol=1e-6)
