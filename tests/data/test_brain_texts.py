import dataclasses
import json

import numpy as np
import pytest

from jaxgkd.data.brain_measures import profiles
from jaxgkd.data.brain_texts import Length, comparative, describe_subjects, first, fit_text_reference, most, spread
from jaxgkd.data.simulated_brains import simulate_brains
from jaxgkd.errors import DataError

BRAINS = simulate_brains(60, 28, n_time=40)
PROFILES = profiles(BRAINS)
TRAIN = np.arange(40)


def described(brains, rows, train=TRAIN, **settings):
    known = profiles(brains)
    return describe_subjects(brains, known, fit_text_reference(brains, known, train), rows, **settings)


def test_what_is_said():
    text = described(BRAINS, [50])[0]
    assert text.conclusion.startswith("Overall connectivity is ")
    titles = [feature.split(":")[0] for feature in text.key_features]
    assert titles == ["Networks", "Most atypical", "Graph", "Strongest"]
    assert json.loads(json.dumps(text.as_dict())) == text.as_dict()
    assert set(text.as_dict()) == {"key_features", "conclusion"}
    assert text.text == " ".join([text.conclusion, *text.key_features])
    pair = np.argmax(BRAINS.upper[50])
    assert f"({BRAINS.upper[50][pair]:.2f})" in text.key_features[-1]


def test_the_most_atypical_connection_is_said():
    values = BRAINS.connectivity.copy()
    # Left visual 1 and 2, planted far below what is usual.
    values[45, 0, 1] = values[45, 1, 0] = -0.9
    brains = dataclasses.replace(BRAINS, connectivity=values)
    usual = BRAINS.upper[TRAIN].mean(axis=0)[0]
    said = described(brains, [45])[0].key_features[1]
    assert said == f"Most atypical: left visual 1 – left visual 2 extremely weaker (-0.90 for {usual:.2f})."


def test_unusual_networks_are_said():
    values = BRAINS.connectivity.copy()
    limbic = np.array([network == "Limbic" for network in BRAINS.networks])
    values[45] = np.where(np.outer(limbic, limbic) & ~np.eye(28, dtype=bool), -0.6, values[45])
    text = described(dataclasses.replace(BRAINS, connectivity=values), [45])[0]
    assert text.key_features[0].startswith("Networks: within limbic extremely weaker")
    assert "connectivity within limbic is extremely weaker" in text.conclusion


def test_a_subject_like_the_mean_is_usual():
    values = BRAINS.connectivity.copy()
    values[45] = values[TRAIN].mean(axis=0)
    brains = dataclasses.replace(BRAINS, connectivity=values)
    text = described(brains, [45])[0]
    assert text.conclusion == "Overall connectivity is usual."
    assert text.key_features[0] == "Networks: all as usual."


def test_labels_sites_and_other_subjects_take_no_part():
    before = described(BRAINS, [41, 3])
    values = BRAINS.connectivity.copy()
    values[42:] = np.eye(28)
    draw = np.random.default_rng(0)
    changed = dataclasses.replace(
        BRAINS,
        connectivity=values,
        labels=draw.permutation(BRAINS.labels),
        sites=draw.permutation(BRAINS.sites),
        covariates={"age": np.zeros(60, np.float32)},
        class_names=("x", "y"),
    )
    assert described(changed, [41, 3]) == before
    assert described(BRAINS, range(60))[41] == before[0]
    assert described(BRAINS, [3])[0] == before[1]
    # The training subjects do.
    assert described(BRAINS, [41], train=TRAIN[:20])[0] != before[0]


def test_lengths():
    texts = described(BRAINS, range(60))
    words = [len(text.text.split()) for text in texts]
    assert np.mean(words) < 70
    assert max(words) < 85
    longer = described(BRAINS, [50], length=Length(networks=6, atypical=3, strongest=2))[0]
    assert longer.key_features[1].count("–") == 3
    assert longer.key_features[3].count("–") == 2
    shorter = described(BRAINS, [50], length=Length(1, 0, 0))[0]
    assert [feature.split(":")[0] for feature in shorter.key_features] == ["Networks", "Graph"]


def test_no_text_names_a_group_or_a_site():
    for text in described(BRAINS, range(60)):
        assert not any(word in text.text.lower() for word in ("patient", "simulated", "site"))


def test_a_connection_that_never_varies():
    values = BRAINS.connectivity.copy()
    values[:, 0, 1] = values[:, 1, 0] = 0.3
    brains = dataclasses.replace(BRAINS, connectivity=values)
    known = profiles(brains)
    z = fit_text_reference(brains, known, TRAIN).connections.z(brains.upper)
    assert np.abs(z[:, 0]).max() < 0.01


def test_order_and_words():
    assert most(np.array([1.0, -3, 3, 0]), 3) == [1, 2, 0]
    assert first(np.array([2.0, 1, 1, 1]), 2) == [1, 2]
    assert first(np.array([2.0]), 5) == [0]
    assert first(np.array([2.0]), 0) == []
    assert [comparative(z) for z in (-0.69, -0.7, 1.3, 2.0, 3.0)] == [
        "usual",
        "slightly weaker",
        "stronger",
        "much stronger",
        "extremely stronger",
    ]
    values = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(spread(values).z(values).std(axis=0), 1)


def test_references_that_do_not_fit():
    with pytest.raises(DataError, match="2 training subjects tell nothing"):
        fit_text_reference(BRAINS, PROFILES, TRAIN[:2])
    reference = fit_text_reference(BRAINS, PROFILES, TRAIN)
    other = dataclasses.replace(BRAINS, regions=BRAINS.regions[::-1])
    with pytest.raises(DataError, match="other regions than the training subjects"):
        describe_subjects(other, PROFILES, reference, [0])
