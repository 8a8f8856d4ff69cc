import numpy as np
import pytest

from jaxgkd.data.splits import Split
from jaxgkd.recipes.bleg_teacher import components_of, teach

N, D = 60, 20
RANDOM = np.random.default_rng(0)
LABELS = np.arange(N) % 2
STATES = RANDOM.normal(size=(N, D)).astype(np.float32)
STATES[:, 0] += 2 * LABELS
ROWS = np.arange(N, dtype=np.int32)
SPLIT = Split(ROWS[:40], ROWS[40:48], ROWS[48:], "given", None)


def test_components_have_the_variance_of_the_states_together():
    found = components_of(STATES, SPLIT.train, D)
    centred = STATES - STATES[SPLIT.train].mean(axis=0)
    total = np.square(centred[SPLIT.train]).sum() / 40
    np.testing.assert_allclose(found @ found.T, centred @ centred.T / total, atol=1e-5)
    variances = found[SPLIT.train].var(axis=0)
    np.testing.assert_allclose(variances.sum(), 1, rtol=1e-5)
    assert (np.diff(variances) <= 1e-7).all()
    np.testing.assert_array_equal(components_of(STATES, SPLIT.train, 3), found[:, :3])


def test_other_labels_play_no_part_and_a_training_subject_is_described_without_its_own():
    taught = teach(STATES, LABELS, SPLIT, SPLIT.train, components=4, folds=5)
    assert taught.states.shape == (N, 4) and taught.answers.shape == (N, 2)
    assert ((taught.probabilities > 0.5) == LABELS)[SPLIT.test].mean() > 0.7
    hidden = np.where(np.isin(ROWS, SPLIT.train), LABELS, -1)
    np.testing.assert_array_equal(
        teach(STATES, hidden, SPLIT, SPLIT.train, components=4, folds=5).answers, taught.answers
    )
    # States that are drawn at random say nothing of labels that they were not fitted to.
    noise = RANDOM.normal(size=(N, 200)).astype(np.float32)
    honest = teach(noise, LABELS, SPLIT, SPLIT.train, components=4, folds=5)
    right = ((honest.probabilities > 0.5) == LABELS)[SPLIT.train].mean()
    assert right < 0.75


@pytest.mark.parametrize("k", [1, 2])
def test_a_few_labels_teach_and_the_others_are_described(k):
    few = Split(np.arange(2 * k, dtype=np.int32), SPLIT.valid, SPLIT.test, "few", None)
    taught = teach(STATES, LABELS, few, SPLIT.train, components=4, folds=5)
    assert np.isfinite(taught.answers).all() and np.isfinite(taught.states).all()
