import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.data.brain_splits import (
    brain_folds,
    keep_label_share,
    leave_one_site_out,
    read_subject_split,
    site_label_strata,
)
from jaxgkd.data.brain_subjects import read_subjects
from jaxgkd.data.simulated_brains import simulate_brains
from jaxgkd.data.splits import few_shot
from jaxgkd.errors import ConfigError, DataError

BRAINS = simulate_brains(120, 14, n_time=20)
REAL = pytest.mark.skipif(not os.environ.get("JAXGKD_DATA"), reason="JAXGKD_DATA is not set")


def with_labels(seed, n=120, sites=6):
    draw = np.random.default_rng(seed)
    labels = draw.integers(-1, 2, n).astype(np.int32)
    labels[:20] = np.arange(20) % 2
    site = np.minimum(draw.geometric(0.4, n) - 1, sites - 1).astype(np.int32)
    return dataclasses.replace(BRAINS, labels=labels, sites=site, site_names=tuple("abcdef"))


def check_folds(brains, splits, k):
    labelled = np.flatnonzero(brains.labels >= 0)
    tested = np.concatenate([split.test for split in splits])
    np.testing.assert_array_equal(np.sort(tested), labelled)
    for split in splits:
        everyone = np.concatenate([split.train, split.valid, split.test])
        np.testing.assert_array_equal(np.sort(everyone), labelled)
    strata = site_label_strata(brains, k)
    for number in range(strata.max() + 1):
        counts = [int((strata[split.test] == number).sum()) for split in splits]
        assert max(counts) - min(counts) <= 1
    for label in (0, 1):
        counts = [int((brains.labels[split.test] == label).sum()) for split in splits]
        assert max(counts) - min(counts) <= 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(2, 6))
def test_folds_are_balanced(seed, k):
    brains = with_labels(seed)
    splits = brain_folds(brains, k, seeds=(seed,))
    assert len(splits) == k
    check_folds(brains, splits, k)
    for split in splits:
        rest = len(split.train) + len(split.valid)
        assert abs(len(split.valid) - 0.15 * rest) <= 1
        shares = [brains.labels[part].mean() for part in (split.train, split.valid)]
        assert abs(shares[0] - shares[1]) < 1.5 / len(split.valid) + 0.01


def test_repeats():
    splits = brain_folds(BRAINS, 4, seeds=(3, 5))
    assert [(split.name, split.seed) for split in splits][3:5] == [("4 folds, fold 3", 3), ("4 folds, fold 0", 5)]
    assert splits[0].sha256 != splits[4].sha256
    assert splits[4].sha256 == brain_folds(BRAINS, 4, seeds=(5,))[0].sha256


def test_small_strata_are_pooled():
    brains = with_labels(0)
    strata = site_label_strata(brains, 5)
    assert np.bincount(strata[strata >= 0]).min() >= 1
    sizes = [np.sum((brains.labels == label) & (brains.sites == site)) for label in (0, 1) for site in range(6)]
    large, small = sum(size >= 5 for size in sizes), any(0 < size < 5 for size in sizes)
    assert small
    assert large <= strata.max() + 1 <= large + 2
    assert (strata[brains.labels < 0] == -1).all()
    # A stratum never mixes labels.
    assert all(len(np.unique(brains.labels[strata == number])) == 1 for number in range(strata.max() + 1))


def test_leave_one_site_out():
    splits = leave_one_site_out(BRAINS)
    assert tuple(splits) == BRAINS.site_names
    for number, split in enumerate(splits.values()):
        np.testing.assert_array_equal(split.test, np.flatnonzero(BRAINS.sites == number))
        assert number not in BRAINS.sites[np.concatenate([split.train, split.valid])]
        assert len(split.train) + len(split.valid) + len(split.test) == 120
    alone = dataclasses.replace(BRAINS, sites=np.zeros(120, np.int32), site_names=("a",))
    with pytest.raises(DataError, match="has one site"):
        leave_one_site_out(alone)


def test_fewer_labels():
    split = brain_folds(BRAINS)[0]
    before = set(split.train.tolist())
    for share in (0.7, 0.4, 0.1):
        kept = keep_label_share(split, BRAINS, share, seed=2)
        assert abs(len(kept.train) - share * len(split.train)) <= 1
        assert set(kept.train.tolist()) <= before
        assert abs(BRAINS.labels[kept.train].mean() - BRAINS.labels[split.train].mean()) < 1 / len(kept.train) + 0.01
        np.testing.assert_array_equal(kept.test, split.test)
        before = set(kept.train.tolist())
    shots = few_shot(split, BRAINS.labels, 2, seed=0)
    assert np.bincount(BRAINS.labels[shots.train]).tolist() == [2, 2]
    with pytest.raises(DataError, match=r"keeps no training label at a share of 0.001"):
        keep_label_share(split, BRAINS, 0.001)
    with pytest.raises(ConfigError, match="a share of 0 labels"):
        keep_label_share(split, BRAINS, 0)


def test_a_given_split(tmp_path):
    path = tmp_path / "split.csv"
    names = ["train"] * 80 + ["val"] * 20 + ["test"] * 15 + [""] * 5
    lines = [f"{subject},{name}" for subject, name in zip(BRAINS.subjects, names, strict=True)]
    path.write_text("\n".join(["subject,split", *lines, "stranger,test"]) + "\n")
    split = read_subject_split(path, BRAINS)
    assert (split.name, split.seed) == ("given by split.csv", None)
    assert [len(part) for part in (split.train, split.valid, split.test)] == [80, 20, 15]
    np.testing.assert_array_equal(split.test, np.arange(100, 115))
    # Spreadsheets take zeros away from the front of numbers.
    path.write_text("\n".join(["subject,split", *(f"{i},{name}" for i, name in enumerate(names))]) + "\n")
    numbered = dataclasses.replace(BRAINS, subjects=tuple(f"{i:05}" for i in range(120)))
    np.testing.assert_array_equal(read_subject_split(path, numbered).test, split.test)
    for line, said in (
        (lines[0], "row 3.*is also in row 2"),
        ("x,testing", "row 3, field 'split': 'testing' is not a part"),
    ):
        path.write_text(f"subject,split\n{lines[0]}\n{line}\n")
        with pytest.raises(DataError, match=said):
            read_subject_split(path, BRAINS)
    path.write_text(f"subject,split\n{lines[0]}\n")
    with pytest.raises(DataError, match="no labelled subject of simulated is in the valid part"):
        read_subject_split(path, BRAINS)


def test_settings_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"'valid_fraction'.*a share of 1"):
        brain_folds(BRAINS, valid_fraction=1.0)
    with pytest.raises(ConfigError, match=r"'seed'.*the seed is -1"):
        leave_one_site_out(BRAINS, seed=-1)
    with pytest.raises(DataError, match="cannot be divided into 1 folds"):
        brain_folds(BRAINS, 1)


@REAL
def test_abide():
    # The table alone: reading the scans takes longer than everything else here.
    table = read_subjects(Path(os.environ["JAXGKD_DATA"]) / "brain" / "abide_schaefer200_subjects.csv")
    fields = {"subjects": table.ids, "labels": table.labels, "sites": table.sites, "site_names": table.site_names}
    brains = dataclasses.replace(BRAINS, **fields)
    splits = brain_folds(brains, 5, seeds=(0,))
    check_folds(brains, splits, 5)
    assert {len(split.test) for split in splits} == {164}
    sites = np.stack([np.bincount(brains.sites[split.test], minlength=19) for split in splits])
    assert (np.ptp(sites, axis=0) <= 4).all()
    assert len(leave_one_site_out(brains)) == 19
