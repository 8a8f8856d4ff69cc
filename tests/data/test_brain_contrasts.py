import dataclasses

import numpy as np
import pytest

from jaxgkd.data.brain_contrasts import ContrastLength, describe_contrasts, fit_contrast
from jaxgkd.data.brain_measures import profiles
from jaxgkd.data.simulated_brains import simulate_brains
from jaxgkd.errors import ConfigError, DataError
from jaxgkd.training.metrics import area_under_roc

BRAINS = simulate_brains(120, 28, n_time=60, effect=3.0)
PROFILES = profiles(BRAINS)
TRAIN, TEST = np.arange(0, 120, 2), np.arange(1, 120, 2)
GRADES = ["very strongly", "strongly", "clearly", "slightly"]


def grade(text):
    """The lean of a conclusion as a number."""
    if "between" in text.conclusion:
        return 0
    size = next(4 - i for i, word in enumerate(GRADES) if word in text.conclusion)
    return size if "second" in text.conclusion else -size


def area(rows, texts):
    return area_under_roc(np.array([grade(text) for text in texts]), BRAINS.labels[rows], np.ones(len(rows), bool))


@pytest.mark.parametrize("weighting", ["t", "ridge"])
def test_sides_are_those_of_the_groups_and_training_texts_do_not_know_their_labels(weighting):
    texts = describe_contrasts(BRAINS, PROFILES, TRAIN, np.arange(120), weighting=weighting)
    tested, trained = area(TEST, [texts[i] for i in TEST]), area(TRAIN, [texts[i] for i in TRAIN])
    assert tested > 0.75
    assert abs(trained - tested) < 0.15
    # What is fitted on its own labels would know them better.
    leans = fit_contrast(BRAINS, PROFILES, TRAIN, weighting).leans(BRAINS.upper[TRAIN])[:, 0]
    assert area_under_roc(leans, BRAINS.labels[TRAIN], np.ones(60, bool)) > trained + 0.03


def test_leans_add_up_and_weights_agree_with_their_formulas():
    upper, labels = BRAINS.upper[TRAIN].astype(float), BRAINS.labels[TRAIN]
    ridge = fit_contrast(BRAINS, PROFILES, TRAIN, "ridge")
    leans = ridge.leans(BRAINS.upper[TEST])
    np.testing.assert_allclose(leans[:, 0], leans[:, 1:].sum(axis=1), atol=1e-9)
    assert leans.shape == (60, 29)
    centred, target = upper - upper.mean(axis=0), labels - labels.mean()
    penalty = np.square(centred).sum() / 60
    gram = centred.T @ centred + penalty * np.eye(upper.shape[1])
    np.testing.assert_allclose(ridge.weights, np.linalg.solve(gram, centred.T @ target), atol=1e-8)
    t = fit_contrast(BRAINS, PROFILES, TRAIN, "t").weights
    first, second = (upper[labels == label] for label in (0, 1))
    pooled = ((len(first) - 1) * first.var(0, ddof=1) + (len(second) - 1) * second.var(0, ddof=1)) / 58
    expected = (second.mean(0) - first.mean(0)) / (pooled * np.sqrt(1 / len(first) + 1 / len(second)))
    np.testing.assert_allclose(t, expected, rtol=1e-6)
    for j in (0, 100, 377):
        names = {BRAINS.networks[end[j]] for end in ridge.usual.ends}
        assert set(PROFILES.averages.pairs[ridge.pair_of[j]]) == names


def test_what_is_said():
    texts = describe_contrasts(BRAINS, PROFILES, TRAIN, TEST)
    clear = next(text for text in texts if "strongly" in text.conclusion)
    side = "second" if "second" in clear.conclusion else "first"
    assert clear.key_features[0].startswith(f"On the {side} side most of all: ")
    assert clear.key_features[1].startswith("Telling: ")
    assert clear.key_features[1].count("–") == 1
    for text in texts:
        assert not ("first" in text.text and "second" in text.text)
        assert "patient" not in text.text
        assert len(text.text.split()) < 70
    bare = describe_contrasts(BRAINS, PROFILES, TRAIN, TEST[:3], length=ContrastLength(0, 0))
    assert [text.text for text in bare] == [text.conclusion for text in texts[:3]]


def test_nobody_outside_training_takes_part():
    rows = [*TRAIN[:5].tolist(), 1]
    before = describe_contrasts(BRAINS, PROFILES, TRAIN, rows)
    values, labels = BRAINS.connectivity.copy(), BRAINS.labels.copy()
    values[TEST[1:]] = np.eye(28)
    labels[TEST] = 1 - labels[TEST]
    changed = dataclasses.replace(BRAINS, connectivity=values, labels=labels, class_names=("x", "y"))
    assert describe_contrasts(changed, profiles(changed), TRAIN, rows) == before
    assert describe_contrasts(BRAINS, PROFILES, TRAIN, np.arange(120))[1] == before[-1]


def test_the_label_of_a_training_subject_does_not_reach_its_own_weights():
    # Its fold is left out, so flipping labels within one class-balanced pair of a fold changes other folds only.
    from jaxgkd.data.splits import stratified_folds

    folds = stratified_folds(BRAINS.labels[TRAIN], 5, 0)
    members = TRAIN[folds == 2]
    texts = describe_contrasts(BRAINS, PROFILES, TRAIN, members)
    contrast = fit_contrast(BRAINS, PROFILES, TRAIN[folds != 2])
    signs = np.sign(contrast.leans(BRAINS.upper[members])[:, 0])
    named = np.array([grade(text) for text in texts])
    assert np.corrcoef(signs, named)[0, 1] > 0.6


def test_other_features_may_be_weighed():
    given = BRAINS.upper * 2 + 1
    # Ridge penalises in proportion to the features' own size, so their unit and origin do not matter.
    assert describe_contrasts(BRAINS, PROFILES, TRAIN, TEST, features=given) == describe_contrasts(
        BRAINS, PROFILES, TRAIN, TEST
    )
    with pytest.raises(DataError, match=r"features are \[120, 3\]"):
        fit_contrast(BRAINS, PROFILES, TRAIN, features=given[:, :3])


def test_settings_that_do_not_fit():
    three = dataclasses.replace(BRAINS, class_names=("a", "b", "c"))
    with pytest.raises(ConfigError, match="has 3 classes, and a contrast is between two"):
        fit_contrast(three, PROFILES, TRAIN)
    with pytest.raises(ConfigError, match="no weighting 'svm'"):
        fit_contrast(BRAINS, PROFILES, TRAIN, "svm")
    few = np.flatnonzero(BRAINS.labels == 0)[:20].tolist() + np.flatnonzero(BRAINS.labels == 1)[:2].tolist()
    with pytest.raises(DataError, match="class 'simulated patient' has 2 training subjects"):
        fit_contrast(BRAINS, PROFILES, np.array(few))
