import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.nn.brain_inputs import BrainInputs
from jaxgkd.nn.brain_problem import contrast_problem, make_batches, say, taught_brain_problem
from jaxgkd.nn.brain_students import brain_student_maker
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.training.loop import fit

N, R, PASSES = 24, 12, 6
MAKE = brain_student_maker("mlp", R * R, 8, 1, 2, 3)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    labels = np.arange(N) % 2
    values = random.normal(0, 0.3, (N, R, R)).astype(np.float32)
    values[:, :4, :4] += 0.6 * labels[:, None, None]
    connectivity = (values + values.swapaxes(1, 2)) / 2
    part = np.arange(N) // 2 % 3
    run = {
        "batches": np.stack([make_batches([np.flatnonzero(part > 0)], 8, PASSES, 0)[0]] * 2),
        "labelled": np.stack([part > 0] * 2),
        # The last one fills up and does not count.
        "valid": np.stack([np.append(np.flatnonzero(part == 0), 0)] * 2),
        "valid_counts": np.stack([np.append(np.ones((part == 0).sum(), bool), False)] * 2),
        "states": random.normal(size=(2, N, 3)).astype(np.float32),
        "answers": random.normal(size=(2, N, 2)).astype(np.float32),
        "settings": {
            "learning_rate": np.full(2, 0.03, np.float32),
            "weight_decay": np.zeros(2, np.float32),
            "dropout": np.full(2, 0.1, np.float32),
            "state_strength": np.array([0, 1], np.float32),
            "answer_strength": np.array([0, 1], np.float32),
            "temperature": np.ones(2, np.float32),
        },
    }
    shared = {"inputs": BrainInputs(jnp.asarray(connectivity.reshape(N, -1))), "labels": jnp.asarray(labels)}
    return jax.tree.map(jnp.asarray, run), shared


@pytest.fixture(scope="module")
def trained(data):
    return train(*data)


def train(run, shared, problem=taught_brain_problem):
    steps = run["batches"].shape[1]
    keys = jnp.stack([jax.random.key(0)] * 2)
    return fit(problem(MAKE, steps), keys, run, shared, epochs=steps, evaluate_every=steps // PASSES)


def test_batches_hold_every_subject_of_a_fold_at_most_once_a_pass():
    folds = [np.arange(20), np.arange(30, 53)]
    batches = make_batches(folds, 6, 3, 1)
    assert batches.shape == (2, 9, 6) and batches.dtype == np.int32
    for rows, of_fold in zip(folds, batches, strict=True):
        for of_pass in of_fold.reshape(3, 18):
            assert len(set(of_pass.tolist())) == 18 and np.isin(of_pass, rows).all()
        assert (of_fold[:3] != of_fold[3:6]).any()
    assert make_batches([np.arange(5), np.arange(9)], 99, 2, 0).shape == (2, 2, 5)
    np.testing.assert_array_equal(make_batches(folds, 6, 3, 1), batches)


def test_labels_are_learned_and_the_teacher_is_approached(data, trained):
    run, shared = data
    assert (np.nanmax(trained.curves["valid"], axis=1) > 0.8).all()
    last = {name: trained.curves[f"loss/{name}"][:, -1] for name in ("label", "state", "answer")}
    assert last["label"][0] < last["label"][1]
    assert last["state"][1] < last["state"][0] and last["answer"][1] < last["answer"][0]
    said = say(
        graphdef_of(MAKE), *jax.tree.map(lambda leaf: leaf[0], (trained.params, trained.rest)), shared["inputs"], 7
    )
    assert said.logits.shape == (N, 2) and said.projected.shape == (N, 3)
    counted = np.asarray(run["valid"][0][:-1])
    positive = np.asarray(said.logits[:, 1] - said.logits[:, 0])[counted]
    labels = np.asarray(shared["labels"])[counted]
    pairs = positive[labels == 1][:, None] - positive[labels == 0]
    np.testing.assert_allclose(np.nanmax(trained.curves["valid"][0]), (pairs > 0).mean() + (pairs == 0).mean() / 2)


def test_what_a_run_does_not_train_on_changes_nothing(data, trained):
    run, shared = data
    hidden = ~np.isin(np.arange(N), np.asarray(run["batches"][0]))
    # Labels of tested subjects; here all that are neither trained nor validated would be, so the states are changed.
    changed = run | {name: jnp.where(hidden[:, None], 99.0, run[name]) for name in ("states", "answers")}
    assert all((changed[name] != run[name]).any() for name in ("states", "answers"))
    again = train(changed, shared)
    for one, other in zip(jax.tree.leaves(trained.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(one, other)


def test_inputs_of_each_run_give_what_shared_ones_give(data, trained):
    run, shared = data
    own = run | {"inputs": jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), shared["inputs"])}
    again = train(own, {name: value for name, value in shared.items() if name != "inputs"})
    # Products of other shapes are summed in another order.
    for one, other in zip(jax.tree.leaves(trained.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_brains_find_their_texts_without_labels(data):
    run, shared = data
    texts = np.asarray(shared["inputs"].rows)[:, [1, 2, 3]]
    texts = (texts - texts.mean(axis=0)) / texts.std(axis=0)
    with_texts = run | {"states": jnp.asarray(np.stack([texts] * 2))}
    found = train(with_texts, shared, contrast_problem)
    assert (found.curves["train_loss"][:, -1] < found.curves["train_loss"][:, 0]).all()
    other = train(with_texts, {**shared, "labels": 1 - shared["labels"]}, contrast_problem)
    for one, same in zip(jax.tree.leaves(found.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(one, same)
    on = train(run | {"start": (found.params, found.rest)}, shared)
    assert np.isfinite(on.curves["train_loss"]).all()
