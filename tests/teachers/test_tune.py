import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd import language
from jaxgkd.errors import CheckpointError, ConfigError, DataError
from jaxgkd.teachers import tune
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.text_tuning import TuneSettings
from jaxgkd.teachers.tune import deal_folds, tune_encoder, tune_on_splits

N = 200
LEARNS = TuneSettings(tuned_layers=2, max_tokens=16, epochs=8, batch_size=16, learning_rate=3e-3)
QUICK = replace(LEARNS, epochs=4)

pytestmark = pytest.mark.usefixtures("own_cache")  # compiled without optimisation, which takes most of the time


def plain(name, values):
    """Without what random biases, scales and positions add: of that, the mean over tokens would be full."""
    if name.endswith("_scale"):
        return jnp.ones_like(values)
    return jnp.zeros_like(values) if name.endswith("_bias") or name == "position" else values


@pytest.fixture(scope="module")
def encoder(bert_folder):
    read = TextEncoder.load(str(bert_folder))
    weights = {
        group: {name: plain(name, values) for name, values in arrays.items()}
        for group, arrays in read.model.weights().items()
    }
    return replace(read, model=language.Encoder(read.model.config, weights), weights_hash="plain")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def task(n=N, seed=0):
    """Prompts whose class is whether exactly one of two words is there: no sum of word vectors tells them apart."""
    random = np.random.default_rng(seed)
    first, second = random.integers(2, size=(2, n))
    noise = [" ".join(random.choice(["papers", "links", "text", "from"], size=random.integers(0, 4))) for _ in range(n)]
    pairs = zip(first, noise, second, strict=True)
    prompts = [f"{'graph' if a else 'student'} {words} {'network' if b else 'teacher'}" for a, words, b in pairs]
    return prompts, (first ^ second).astype(np.int32)


def masks(n=N, train=0.6, valid=0.2):
    where = np.arange(n) / n
    return where < train, (where >= train) & (where < train + valid)


def state_of(encoder):
    return {f"{k}.{n}": np.array(a) for k, group in encoder.model.weights().items() for n, a in group.items()}


def test_learns_what_a_head_alone_cannot_and_leaves_the_encoder_as_it_was(encoder, cache):
    prompts, labels = task(n=600)
    train, valid = masks(n=600)
    before = state_of(encoder)
    ticks = []
    output = tune_encoder(
        encoder, prompts, labels, train, valid, 2, LEARNS, 0, root=cache, on_progress=lambda *tick: ticks.append(tick)
    )
    assert output.features.shape == (600, 16) and output.log_probs.shape == (600, 2)
    assert output.features.dtype == output.log_probs.dtype == np.float32
    np.testing.assert_allclose(np.exp(output.log_probs).sum(axis=1), 1, rtol=1e-5)
    predicted = output.log_probs.argmax(axis=1)
    test = ~(train | valid)
    assert (predicted == labels)[test].mean() > 0.9 and (predicted == labels)[train].mean() > 0.85
    for k in range(2):
        scores = output.report["valid_accuracy"][k]
        assert len(scores) == 9 and scores[0] < 0.85 and 0.9 < max(scores) == scores[output.report["best_epoch"][k]]
        assert output.report["valid_loss"][k][-1] < output.report["valid_loss"][k][0]
    assert [epoch for epoch, _ in ticks] == list(range(1, 17))
    assert json.loads(json.dumps(output.report)) == output.report
    assert sum(output.report["n_labels"]) == train.sum() and output.report["n_absent_classes"] == [0, 0]
    assert output.report["tuned_parameters"] == encoder.model.n_parameters - sum(
        values.size for values in encoder.model.weights()["embeddings"].values()
    )
    after = state_of(encoder)
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)


def test_a_training_node_is_described_without_its_label(encoder, cache):
    prompts, labels = task(n=600)
    train, valid = masks(n=600)
    run = lambda labels: tune_encoder(encoder, prompts, labels, train, valid, 2, LEARNS, 0, root=cache)  # noqa: E731
    output = run(labels)
    assert min(output.report["best_epoch"]) > 0
    for node in (0, 17):
        flipped = labels.copy()
        flipped[node] = 1 - flipped[node]
        other = run(flipped)
        assert np.array_equal(output.features[node], other.features[node])
        assert np.array_equal(output.log_probs[node], other.log_probs[node])
        assert not np.array_equal(output.features[~train], other.features[~train])
    # Labels of test nodes play no part at all.
    hidden = np.where(train | valid, labels, -7)
    assert np.array_equal(output.features, run(hidden).features)


def test_the_same_arguments_give_the_same_values_and_seeds_differ(encoder, cache):
    prompts, labels = task()
    train, valid = masks()
    outputs = [tune_encoder(encoder, prompts, labels, train, valid, 2, QUICK, seed, root=cache) for seed in (0, 0, 1)]
    assert np.array_equal(outputs[0].features, outputs[1].features)
    assert np.array_equal(outputs[0].log_probs, outputs[1].log_probs)
    assert not np.array_equal(outputs[0].features, outputs[2].features)


def test_folds_are_even_keep_equal_texts_together_and_leave_others_out():
    random = np.random.default_rng(0)
    rows, train = random.permutation(np.r_[np.arange(60), np.arange(30)]), random.random(90) < 0.7
    folds = deal_folds(rows, train, 3, seed=1)
    assert (folds >= 0).tolist() == train.tolist()
    of_text = {row: set(folds[train & (rows == row)].tolist()) for row in rows[train]}
    assert all(len(found) == 1 for found in of_text.values())
    counts = np.bincount([found.pop() for found in of_text.values()], minlength=3)
    assert counts.max() - counts.min() <= 1
    assert (deal_folds(rows, train, 1, seed=1) == -1).all()
    assert not np.array_equal(folds, deal_folds(rows, train, 3, seed=2))
    with pytest.raises(DataError, match="1 training texts do not make 2 folds"):
        deal_folds(np.zeros(4, int), np.ones(4, bool), 2, seed=0)


def test_a_single_fold_describes_all_nodes_by_the_same_encoder(encoder, cache):
    prompts, labels = task()
    train, valid = masks()
    output = tune_encoder(encoder, prompts, labels, train, valid, 2, replace(QUICK, folds=1), 0, root=cache)
    # Some nodes that train have the text of some that do not.
    pairs = [(i, j) for i in np.flatnonzero(train) for j in np.flatnonzero(~train) if prompts[i] == prompts[j]]
    assert pairs and all(np.array_equal(output.features[i], output.features[j]) for i, j in pairs)
    assert output.report["n_labels"] == [int(train.sum())] and output.report["cosine_between_folds"] == pytest.approx(1)


def test_what_was_tuned_is_read_the_next_time(encoder, cache, monkeypatch):
    prompts, labels = task()
    train, valid = masks()
    # Seeds 0 and 1 have the same split, seed 2 another one.
    rows = [np.stack([mask, mask, np.roll(mask, 40)]) for mask in (train, valid)]
    labels = np.stack([labels] * 3)
    ticks = []

    def run(settings=QUICK, root=cache / "own", prompts=prompts):
        ticks.clear()
        return tune_on_splits(
            encoder, prompts, labels, *rows, 2, settings, [0, 1, 2], root=root, on_progress=lambda e, _: ticks.append(e)
        )

    outputs = run()
    assert outputs[0] is outputs[1] and not np.array_equal(outputs[0].features, outputs[2].features)
    assert ticks == list(range(1, 17))
    alone = tune_encoder(encoder, prompts, labels[0], rows[0][0], rows[1][0], 2, QUICK, 0, root=cache)
    assert np.array_equal(alone.features, outputs[0].features)

    def refuse(*args, **kwargs):
        raise AssertionError("tuned again")

    with monkeypatch.context() as patch:
        patch.setattr(tune, "_prepare", refuse)
        again = run()
        assert ticks == [8, 16]
        for one, other in zip(outputs, again, strict=True):
            assert np.array_equal(one.features, other.features) and np.array_equal(one.log_probs, other.log_probs)
            assert one.report == other.report
        with pytest.raises(AssertionError, match="tuned again"):
            run(replace(QUICK, epochs=1))
        with pytest.raises(AssertionError, match="tuned again"):
            run(prompts=[*prompts[1:], prompts[0]])
    folders = sorted((cache / "own" / "tuned").iterdir())
    assert len(folders) == 2
    damaged = max((file for file in folders[0].rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        run()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"tuned_layers": 0}, "tuned_layers"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"folds": 0}, "folds"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"warmup": 1.0}, "warmup"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(changed, field):
    with pytest.raises(ConfigError) as error:
        TuneSettings(**changed)
    assert error.value.field == field


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (replace(QUICK, tuned_layers=3), "tuned_layers"),
        (replace(QUICK, max_tokens=41), "max_tokens"),
        (replace(QUICK, max_tokens=2), "max_tokens"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(encoder, cache, settings, field):
    prompts, labels = task()
    with pytest.raises(ConfigError) as error:
        tune_encoder(encoder, prompts, labels, *masks(), 2, settings, 0, root=cache)
    assert error.value.field == field


def test_training_that_diverges_is_reported(encoder, cache):
    prompts, labels = task()
    settings = replace(QUICK, learning_rate=1e38)
    with pytest.raises(ConfigError, match="not finite in epoch 1 of the tuning; lower it"):
        tune_encoder(encoder, prompts, labels, *masks(), 2, settings, 0, root=cache)


def test_masks_and_labels_that_do_not_fit_are_refused(encoder, cache):
    prompts, labels = task()
    train, valid = masks()
    for changed, what in [
        ({"labels": labels[:-1]}, "not the labels of 200 nodes"),
        ({"labels": np.where(np.arange(N) == 3, 2, labels)}, "not within 0..1"),
        ({"labels": np.where(np.arange(N) == 3, -1, labels)}, "not within 0..1"),
        ({"train": train[:-1]}, "no mask of 200 nodes"),
        ({"train": train.astype(int)}, "no mask of 200 nodes"),
        ({"train": np.zeros(N, bool)}, "has no node"),
        ({"valid": np.zeros(N, bool)}, "has no node"),
        ({"valid": valid | (np.arange(N) == 5)}, "node 5 trains and validates"),
    ]:
        given = {"labels": labels, "train": train, "valid": valid, **changed}
        with pytest.raises(DataError, match=what):
            tune_encoder(encoder, prompts, **given, n_classes=2, settings=QUICK, seed=0, root=cache)
