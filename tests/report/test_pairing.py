import numpy as np
import pytest

from jaxgkd.report.pairing import gain, gains_corrected, pairs_of
from jaxgkd.report.run_directory import read_run
from jaxgkd.training.statistics import corrected_difference, holm, paired_difference

HASHES = [f"{seed:064x}" for seed in range(20)]


@pytest.fixture
def run(run_directory, summary):
    """Makes a run whose splits have hashes: ``run("name", seeds=5, distilled=0.9)``."""

    def make(name: str, *, hashes: object = None, seeds: int = 5, data: dict | None = None, **settings):
        changed = {key: settings.pop(key) for key in ("metric_seeds", "unit") if key in settings}
        given = summary(seeds=seeds, **settings)
        given["data"] |= {"split_sha256": HASHES[:seeds] if hashes is None else hashes} | (data or {})
        if "metric_seeds" in changed:
            given["seeds"] = changed["metric_seeds"]
        if "unit" in changed:
            given["unit"] = changed["unit"]
        return read_run(run_directory(name, summary=given, metrics={}, predictions={}))

    return make


def distilled(run) -> np.ndarray:
    return np.array(run.summary["results"]["student_distilled"]["test"])


def test_values_of_the_same_seeds_and_splits_are_paired(run):
    runs = [run("a"), run("b", distilled=0.88), run("c", distilled=0.83, noise=0.02)]
    pairs = pairs_of(runs)
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (0, 2), (1, 2)]
    for pair in pairs:
        expected = paired_difference(distilled(runs[pair.second]), distilled(runs[pair.first]))
        assert (pair.n, pair.mean, pair.p_value) == pytest.approx((5, expected["mean"], expected["p_value"]))
        assert pair.reason == "" and pair.notes == ()
    assert [pair.p_corrected for pair in pairs] == holm([pair.p_value for pair in pairs])
    assert max(pair.p_corrected or 0 for pair in pairs) > max(pair.p_value or 0 for pair in pairs) / 2


def test_shared_seeds_alone_are_paired_whatever_their_order(run):
    first = run("a", seeds=5)
    second = run("b", seeds=4, metric_seeds=[3, 9, 0, 1], hashes=[HASHES[3], HASHES[9], HASHES[0], HASHES[1]])
    (pair,) = pairs_of([first, second])
    expected = paired_difference(distilled(second)[[0, 2, 3]], distilled(first)[[3, 0, 1]])
    assert (pair.n, pair.mean, pair.p_value) == pytest.approx((3, expected["mean"], expected["p_value"]))
    assert pair.notes == ("3 pairs of 5 and 4 values",)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"data": {"sha256": "00" * 32}}, "other data"),
        ({"data": {"tasks": ["solubility"]}}, "other labels"),
        ({"metric": "rmse", "higher_is_better": False}, "another metric"),
        ({"unit": "kcal/mol"}, "another metric"),
        ({"hashes": HASHES[5:10]}, "other splits"),
        ({"hashes": HASHES[:3]}, "does not say"),
        ({"hashes": 7}, "does not say"),
        ({"metric_seeds": [5, 6, 7, 8, 9]}, "no seed in common"),
    ],
)
def test_what_differs_is_not_paired(run, changed, reason):
    (pair,) = pairs_of([run("a"), run("b", **changed)])
    assert reason in pair.reason
    assert (pair.n, pair.mean, pair.p_value, pair.p_corrected) == (0, None, None, None)


def test_a_split_of_the_data_counts_for_all_seeds(run):
    (pair,) = pairs_of([run("a", hashes=HASHES[0]), run("b", hashes=HASHES[0], seeds=3)])
    assert pair.n == 3
    (pair,) = pairs_of([run("c", hashes=HASHES[0]), run("d", hashes=HASHES[1])])
    assert "other splits" in pair.reason


def test_folds_that_share_training_items_widen_the_test(run):
    runs = [
        run(name, seeds=10, hashes=HASHES[:10], metric_seeds=[0, 1], alone=alone)
        for name, alone in (("a", 0.832), ("b", 0.84))
    ]
    values = runs[1].summary["results"]["student_distilled"]["test"]
    values[:] = [value + 0.01 * (-1) ** i + 0.004 for i, value in enumerate(values)]
    (pair,) = pairs_of(runs)
    expected = corrected_difference(distilled(runs[1]), distilled(runs[0]), 0.25)
    assert pair.p_value == pytest.approx(expected["p_value"])
    assert pair.p_value > (paired_difference(distilled(runs[1]), distilled(runs[0]))["p_value"] or 0)
    assert pair.notes == ("variance corrected for folds",)
    assert gain(runs[0])["n"] == 10


def test_gain_of_seeds_is_the_plain_paired_test(run):
    runs = [run("a"), run("b", distilled=0.833, noise=0.02)]
    for each in runs:
        difference, found = each.summary["difference"], gain(each)
        assert found["p_value"] == pytest.approx(difference["p_value"])
        assert found["mean"] == pytest.approx(difference["mean"])
        assert found["low"] < found["mean"] < found["high"]
    assert gains_corrected(runs) == pytest.approx(holm([gain(each)["p_value"] for each in runs]))


def test_seeds_without_a_value_are_no_pair(run_directory, summary):
    runs = []
    for name in ("a", "b"):
        given = summary()
        given["data"]["split_sha256"] = HASHES[:5]
        given["results"]["student_distilled"]["test"] = [None] * 5
        given["difference"] = {"mean": None, "std": None, "p_value": None}
        runs.append(read_run(run_directory(name, summary=given, metrics={}, predictions={})))
    (pair,) = pairs_of(runs)
    assert "student distilled" in pair.reason
