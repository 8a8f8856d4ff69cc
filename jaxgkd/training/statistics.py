"""The statistics of a report: means over seeds, the paired test, and Holm's correction for several runs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jaxgkd.errors import DataError


def _numbers(values: ArrayLike) -> np.ndarray:
    """The values as float64 [n]; ``None`` and anything not finite become NaN."""
    numbers = np.atleast_1d(np.asarray(values, dtype=np.float64))
    return np.where(np.isfinite(numbers), numbers, np.nan)


def mean_std(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (n − 1) of one value per seed.

    Args:
      values: [n]; ``None`` or NaN marks a seed that gave no value and is left out.

    Returns:
      Mean and standard deviation. One value has a deviation of 0.0; without any value both are NaN.

    >>> mean_std([0.5, 0.75, None])
    (0.625, 0.1767766952966369)
    """
    numbers = _numbers(values)
    numbers = numbers[np.isfinite(numbers)]
    if numbers.size == 0:
        return float("nan"), float("nan")
    return float(numbers.mean()), float(numbers.std(ddof=1)) if numbers.size > 1 else 0.0


def paired_difference(a: ArrayLike, b: ArrayLike) -> dict[str, float | int | None]:
    """How much ``a`` is above ``b``, seed by seed, with the two-sided paired t-test.

    Args:
      a: [n] one value per seed, for a summary those of the distilled student.
      b: [n] the same seeds of what it is compared with, for a summary the student alone.

    Returns:
      ``mean`` and ``std`` of a − b, its ``p_value`` and the number ``n`` of pairs used. A pair in which either value is
      ``None`` or not finite is left out. Identical arrays have p = 1; one pair has p ``None``; without pairs ``mean``
      and ``std`` are ``None`` too.

    Raises:
      DataError: the arrays differ in length.
    """
    left, right = _numbers(a), _numbers(b)
    if left.shape != right.shape or left.ndim != 1:
        raise DataError(
            f"cannot pair values of shapes {list(left.shape)} and {list(right.shape)}",
            mend="give one value per seed, in the same order, for both",
        )
    both = np.isfinite(left) & np.isfinite(right)
    left, right = left[both], right[both]
    difference = left - right
    if difference.size == 0:
        return {"mean": None, "std": None, "p_value": None, "n": 0}
    mean, std = mean_std(difference)
    if difference.size == 1:
        p_value = None
    elif np.ptp(difference) == 0:
        # The statistic is 0/0 or x/0 here: no difference at all, or one without any spread.
        p_value = 1.0 if mean == 0 else 0.0
    else:
        statistic = mean / (std / np.sqrt(difference.size))
        p_value = float(2 * stats.t.sf(abs(statistic), difference.size - 1))
    return {"mean": mean, "std": std, "p_value": p_value, "n": int(difference.size)}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction: the family-wise error stays below the level for any dependence between tests.

    Args:
      p_values: one per test; ``None`` (no test was possible) stays ``None`` and does not count as a test.

    Returns:
      The corrected p-values in the given order. Source: S. Holm, Scandinavian Journal of Statistics 6 (1979), 65–70.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    order = sorted((p, position) for position, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, position) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[position] = largest
    return corrected


def corrected_difference(
    a: ArrayLike, b: ArrayLike, test_to_train: float, *, level: float = 0.95
) -> dict[str, float | int | None]:
    """How much ``a`` is above ``b`` fold by fold, where folds share most of their training items.

    Values of overlapping folds are not independent, and a paired t-test takes their spread for more than it tells. The
    variance of the mean is therefore σ² (1 / n + test / train) instead of σ² / n.

    Args:
      a, b: [n] one value a fold, of all repeats one after another.
      test_to_train: test items of a fold divided by its training items, 1 / (k − 1) for k folds.
      level: of the interval.

    Returns:
      ``mean``, ``low``, ``high`` of the interval, ``p_value`` (two-sided, t with n − 1 degrees of freedom) and the
      number ``n`` of pairs; what needs two pairs is ``None`` with fewer, and so is ``mean`` without any.

    Raises:
      DataError: the arrays differ in length, or the ratio is below 0.

    Source:
      Nadeau and Bengio, `Inference for the Generalization Error <https://doi.org/10.1023/A:1024068626366>`_, Machine
      Learning 52 (2003), 239–281.
    """
    if not test_to_train >= 0:
        raise DataError(f"test to train items are {test_to_train}", mend="give a ratio of at least 0")
    plain = paired_difference(a, b)
    mean, n = plain["mean"], plain["n"]
    assert n is not None
    if mean is None or plain["std"] is None or n < 2:
        return {"mean": mean, "low": None, "high": None, "p_value": None, "n": n}
    error = plain["std"] * np.sqrt(1 / n + test_to_train)
    p_value = plain["p_value"] if plain["std"] == 0 else float(2 * stats.t.sf(abs(mean) / error, n - 1))
    half = float(stats.t.ppf(0.5 + level / 2, n - 1) * error)
    return {"mean": mean, "low": mean - half, "high": mean + half, "p_value": p_value, "n": n}
