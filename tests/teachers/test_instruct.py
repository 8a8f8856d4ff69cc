from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxgkd import language
from jaxgkd.errors import ConfigError, UnsupportedModelError
from jaxgkd.language.projection import is_quantised
from jaxgkd.teachers import instruct
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.instruct import InstructSettings, class_answers, instruct_on_splits

pytestmark = pytest.mark.usefixtures("own_cache")

N = 48
NAMES = ("graph neural", "graph")
EVERY_MAP = ("query", "key", "value", "output", "gate", "up", "down")
SETTINGS = InstructSettings(
    max_tokens=32,
    tuning=language.TuningSettings(epochs=12, batch_size=16, learning_rate=2e-2),
    lora=language.LoraConfig(rank=8, targets=EVERY_MAP),
)


@pytest.fixture(scope="module")
def encoder(causal_folder):
    return TextEncoder.load(str(causal_folder))


@pytest.fixture(scope="module")
def task():
    """Prompts of two hops whose last word tells the class, and one split."""
    random = np.random.default_rng(0)
    labels = random.integers(2, size=N).astype(np.int32)
    own = [
        f"{random.choice(['papers', 'links', 'text'])} {i} {'student' if y else 'molecules'}"
        for i, y in enumerate(labels)
    ]
    train, valid = np.arange(N) < 32, np.arange(N) >= 40
    return (own, [f"papers; {text}" for text in own]), labels, train, valid


def tuned(encoder, task, root, labels=None, settings=SETTINGS, **changed):
    prompts, true, train, valid = task
    labels = true if labels is None else labels
    arguments = (encoder, prompts, labels[None], train[None], valid[None], NAMES, settings, [0])
    return instruct_on_splits(*arguments, root=root, **changed)[0]


@pytest.fixture(scope="module")
def output(encoder, task, tmp_path_factory):
    return tuned(encoder, task, tmp_path_factory.mktemp("cache"))


def test_the_class_is_learned_by_nodes_whose_label_was_not_seen(encoder, task, output):
    _, labels, train, _ = task
    assert output.features.shape == (N, 2, 16) and output.log_probs.shape == (N, 2)
    np.testing.assert_allclose(np.exp(output.log_probs).sum(axis=1), 1, rtol=1e-5)
    right = output.log_probs.argmax(axis=1) == labels
    assert right[train].mean() > 0.8 and right[~train].mean() > 0.8
    assert all(losses[-1] < 0.5 * losses[0] for losses in output.report["train_loss"])
    assert output.report["n_labels"] == [16, 16]


def test_a_training_node_is_described_without_its_label(encoder, task, output, tmp_path):
    _, labels, train, _ = task
    for node in (0, 17):
        flipped = labels.copy()
        flipped[node] = 1 - flipped[node]
        other = tuned(encoder, task, tmp_path, flipped)
        np.testing.assert_array_equal(output.features[node], other.features[node])
        np.testing.assert_array_equal(output.log_probs[node], other.log_probs[node])
        assert not np.array_equal(output.features[~train], other.features[~train])


def test_the_base_stays_and_what_was_tuned_is_kept(encoder, task, tmp_path, monkeypatch):
    quick = replace(SETTINGS, tuning=replace(SETTINGS.tuning, epochs=1))
    before = jax.tree.map(np.array, encoder.model.weights())
    ticks = []
    first = tuned(encoder, task, tmp_path, settings=quick, on_progress=lambda *tick: ticks.append(tick))
    jax.tree.map(np.testing.assert_array_equal, encoder.model.weights(), before)
    assert [epoch for epoch, _ in ticks] == [1, 2]
    monkeypatch.setattr(instruct.language, "tune_adapters", None)
    again = tuned(encoder, task, tmp_path, settings=quick)
    np.testing.assert_array_equal(first.features, again.features)
    assert first.report == again.report


@pytest.mark.thorough
def test_a_base_in_few_bits_is_tuned_beside_and_asked(encoder, task, output, tmp_path, monkeypatch):
    asked, answer_scores = [], instruct.answer_scores

    def noted(tuned, *rest, **more):
        asked.append(tuned)
        return answer_scores(tuned, *rest, **more)

    monkeypatch.setattr(instruct, "answer_scores", noted)
    _, labels, train, _ = task
    few = tuned(encoder, task, tmp_path, settings=replace(SETTINGS, base_bits=4))
    kernels = [array for tuned in asked for name, array in tuned.model.weights()["layers"].items() if "kernel" in name]
    assert kernels and all(map(is_quantised, kernels))
    assert (few.log_probs.argmax(axis=1) == labels)[~train].mean() > 0.8
    assert not np.array_equal(few.features, output.features)


def test_an_answer_ends_where_the_tokenizer_has_an_end(encoder, monkeypatch):
    bare = class_answers(encoder, NAMES)
    assert encoder.tokenizer.end_id is None and all(bare)
    monkeypatch.setattr(encoder.tokenizer, "end_id", 7)
    assert class_answers(encoder, NAMES) == [[*answer, 7] for answer in bare]


def test_what_cannot_be_tuned_is_refused(encoder, task, bert_folder, tmp_path):
    room = 256 - max(map(len, class_answers(encoder, NAMES)))
    with pytest.raises(ConfigError, match=f"allow at most {room}") as caught:
        tuned(encoder, task, tmp_path, settings=replace(SETTINGS, max_tokens=room + 1))
    assert caught.value.field == "max_tokens"
    with pytest.raises(UnsupportedModelError, match="only a causal model"):
        tuned(TextEncoder.load(str(bert_folder)), task, tmp_path)
