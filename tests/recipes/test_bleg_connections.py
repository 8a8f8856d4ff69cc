import numpy as np
import pytest

from jaxgkd.data.brains import Brains
from jaxgkd.data.splits import Split
from jaxgkd.recipes.bleg_connections import telling_connections


def cohort(n=60, r=6, seed=0):
    random = np.random.default_rng(seed)
    matrices = random.normal(size=(n, r, r)).astype(np.float32)
    matrices = matrices + matrices.swapaxes(1, 2)
    names = tuple(f"region {i}" for i in range(r))
    return Brains(
        name="made", sha256="", subjects=tuple(map(str, range(n))), connectivity=matrices, kind="correlation",
        labels=np.zeros(n, np.int32), class_names=("a", "b"), sites=np.zeros(n, np.int32), site_names=("here",),
        regions=names, networks=tuple(f"network {i % 2}" for i in range(r)), covariates={},
    )  # fmt: skip


def splits_of(n, folds=3):
    rows = np.arange(n, dtype=np.int32)
    others = [np.setdiff1d(rows, part) for part in np.array_split(rows, folds)]
    return [Split(rest[3:], rest[:3], np.setdiff1d(rows, rest), "made", 0) for rest in others]


def test_the_connection_that_the_answer_is_made_of_comes_first():
    brains, splits = cohort(), splits_of(60)
    chosen = brains.connectivity[:, 1, 4]
    said = np.tile(1 / (1 + np.exp(chosen)), (3, 1))
    found = telling_connections(brains, said, splits, most=5)
    assert len(found) == 5 and found[0]["regions"] == ["region 1", "region 4"]
    assert found[0]["networks"] == ["network 1", "network 0"]
    # A stronger connection goes with group 0 here.
    assert found[0]["correlation"] == pytest.approx(-1.0, abs=1e-6)
    strengths = [abs(each["correlation"]) for each in found]
    assert strengths == sorted(strengths, reverse=True)


def test_correlations_are_those_of_numpy_over_test_subjects_alone():
    brains, splits = cohort(seed=1), splits_of(60)
    random = np.random.default_rng(2)
    said = random.uniform(0.01, 0.99, size=(3, 60))
    (first,) = telling_connections(brains, said, splits, most=1)
    a, b = (brains.regions.index(name) for name in first["regions"])
    answers = np.log(said / (1 - said))
    expected = [
        np.corrcoef(brains.connectivity[split.test, a, b], answers[i, split.test])[0, 1]
        for i, split in enumerate(splits)
    ]
    assert first["correlation"] == pytest.approx(np.mean(expected), abs=1e-6)
    # What it says of subjects that train plays no part.
    for i, split in enumerate(splits):
        said[i, split.train] = 0.5
    assert telling_connections(brains, said, splits, most=1)[0] == first


def test_an_answer_that_is_the_same_for_all_tells_nothing():
    assert telling_connections(cohort(), np.full((3, 60), 0.3), splits_of(60)) == []
