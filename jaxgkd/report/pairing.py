"""Which runs may be held against each other value by value, and the tests between those that may.

Two values are a pair where everything but the method is the same: the data by its hash, what is predicted, the metric,
the seed, and the split by its hash. Runs without a single such pair are not tested, and the reason is said instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from jaxgkd.report.run_directory import TEST, TRAIN, Run
from jaxgkd.report.wording import row_values
from jaxgkd.training.statistics import corrected_difference, holm
from jaxgkd.training.summary import STUDENTS


@dataclass(frozen=True)
class Pair:
    """One run against another.

    Attributes:
      first, second: their positions among the runs.
      n: pairs of values, 0 where they may not be paired.
      mean: of second minus first, None without a pair.
      p_value: two-sided; None with fewer than two pairs.
      p_corrected: the same after Holm's correction for all tests between these runs.
      reason: why they are not paired, "" where they are.
      notes: what to know about the pairs, such as "5 of 10 seeds shared".
    """

    first: int
    second: int
    n: int = 0
    mean: float | None = None
    p_value: float | None = None
    p_corrected: float | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


def gain(run: Run) -> dict[str, float | int | None]:
    """Distilled minus alone of one run: ``mean``, its 95 % interval ``low`` to ``high``, ``p_value`` and ``n``."""
    if "corrected_difference" in run.summary:
        return dict(run.summary["corrected_difference"])
    alone, distilled = (row_values(run.summary, row, "test") for row in STUDENTS)
    return corrected_difference(distilled, alone, _test_to_train(run))


def gains_corrected(runs: Sequence[Run]) -> list[float | None]:
    """The p-value of every run's `gain` after Holm's correction for all of them."""
    return holm([gain(run)["p_value"] for run in runs])


def pairs_of(runs: Sequence[Run], row: str = "student_distilled") -> list[Pair]:
    """Every run against every later one, by the test values of a row.

    Values of seeds are compared by the two-sided paired t-test. Values of folds share training items, so their variance
    is corrected after Nadeau and Bengio by the ratio of test to training items.

    Args:
      runs: in the order of the report.
      row: of the summaries.
    """
    found = [_pair(runs, first, second, row) for first, second in combinations(range(len(runs)), 2)]
    corrected = holm([pair.p_value for pair in found])
    return [replace(pair, p_corrected=p_value) for pair, p_value in zip(found, corrected, strict=True)]


def _pair(runs: Sequence[Run], first: int, second: int, row: str) -> Pair:
    one, other = runs[first].summary, runs[second].summary
    if reason := _difference(one, other):
        return Pair(first, second, reason=reason)
    left, right = _values(one, row), _values(other, row)
    if not left or not right:
        return Pair(first, second, reason="a summary does not say by its hash what the splits are")
    shared = [key for key in left if key in right]
    if not shared:
        same_seeds = {key[0] for key in left} & {key[0] for key in right}
        return Pair(first, second, reason="other splits: the hashes differ" if same_seeds else "no seed in common")
    before, after = (np.array([values[key] for key in shared]) for values in (left, right))
    ratio = max(_test_to_train(runs[i]) for i in (first, second))
    test = corrected_difference(after, before, ratio)
    n = int(test["n"] or 0)
    if n == 0:
        return Pair(first, second, reason=f"no pair of values of '{row.replace('_', ' ')}' is there")
    notes = (f"{n} pairs of {len(left)} and {len(right)} values",) if n < max(len(left), len(right)) else ()
    notes += ("variance corrected for folds",) if ratio else ()
    return Pair(first, second, n, test["mean"], test["p_value"], notes=notes)


def _test_to_train(run: Run) -> float:
    """Test items of a fold divided by its training items; 0 for a run with one value a seed."""
    folds = len(run.summary["results"]["student_alone"]["test"]) // len(run.summary["seeds"])
    if folds < 2:
        return 0.0
    if run.predictions is None:
        return 1 / (folds - 1)
    test, train = ((run.predictions.split == part).sum(axis=1) for part in (TEST, TRAIN))
    return float(np.mean(test / np.maximum(train, 1)))


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first reason why no value of two summaries can be paired, or ""."""
    if one["data"]["sha256"] != other["data"]["sha256"]:
        return "other data: the hashes differ"
    for field, name in (("tasks", "labels"), ("candidates_sha256", "candidates")):
        if one["data"].get(field) != other["data"].get(field):
            return f"other {name}"
    for field in ("metric", "higher_is_better", "unit"):
        if one.get(field) != other.get(field):
            return "another metric"
    return ""


def _values(summary: Mapping[str, Any], row: str) -> dict[tuple[int, int, str], float]:
    """(seed, fold, hash of the split) → the test value; empty where hashes are missing."""
    values, seeds, hashes = row_values(summary, row, "test"), summary["seeds"], summary["data"].get("split_sha256")
    per_seed = len(values) // len(seeds)
    if isinstance(hashes, str):
        hashes = [hashes] * len(values)
    if not isinstance(hashes, list) or len(hashes) != len(values):
        return {}
    keys = [(seed, fold) for seed in seeds for fold in range(per_seed)]
    return {(*key, each): value for key, each, value in zip(keys, hashes, values.tolist(), strict=True)}
