"""How high a true link ranks among fixed candidates, and what is reported of the ranks.

Ties share the mean of their ranks, so that a scorer that tells nothing apart gets the middle and not the top. A score
that is not a number is never in the scorer's favour: such a candidate is above, such a positive below all others.
"""

from typing import Any

import numpy as np

# NumPy arrays give NumPy arrays, in float64; those of JAX, traced ones included, give arrays of JAX.
Array = Any


def ranks(positive: Array, candidates: Array, where: Array | None = None) -> Array:
    """Rank of every positive among candidates of its own: 1 + those above + half of those beside it.

    Args:
      positive: [n] scores of the true links.
      candidates: [n, k] scores of their candidates, the true link itself left out.
      where: [n, k] bool, True for candidates that count; all where not given.

    Returns:
      [n] ranks from 1 to k + 1, halves among them.

    >>> ranks(np.array([0.5, 0.5]), np.array([[0.9, 0.1, 0.2], [0.5, 0.5, 0.5]]))
    array([2. , 2.5])
    """
    above, beside = ~(candidates <= positive[:, None]), candidates == positive[:, None]
    if where is not None:
        above, beside = above & where, beside & where
    return 1 + above.sum(axis=1) + 0.5 * beside.sum(axis=1)


def ranks_of_lists(positive: np.ndarray, candidates: np.ndarray, start: np.ndarray) -> np.ndarray:
    """`ranks` for lists of different length, one after another, in numpy.

    Args:
      positive: [n] scores of the true links.
      candidates: [m] scores of all candidates; those of link i are ``candidates[start[i]:start[i + 1]]``.
      start: [n + 1].

    Returns:
      [n] float64; 1 where the list is empty: leave such links out of what is reported.
    """
    owner = np.repeat(np.arange(len(positive)), np.diff(start))
    of_positive = np.asarray(positive)[owner]
    worth = ~(candidates <= of_positive) + 0.5 * (candidates == of_positive)
    return 1.0 + np.bincount(owner, worth, minlength=len(positive))


def mean_reciprocal_rank(ranks: Array, where: Array | None = None) -> Array:
    """Mean of 1/rank over the counted links; NaN where none is counted.

    Args:
      ranks: [n]; where: [n] bool, True for links that count; all where not given.
    """
    return _mean(1.0 / ranks, where)


def hits_at(k: int, ranks: Array, where: Array | None = None) -> Array:
    """Share of the counted links whose rank is k or better; NaN where none is counted.

    A link that shares the first two ranks with a candidate, at 1.5, is no hit at 1.

    Args:
      k: 1 or more.
      ranks: [n]; where: [n] bool, True for links that count; all where not given.

    Raises:
      ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"hits are counted at 1 or more, not at {k}")
    return _mean((ranks <= k) * 1.0, where)


def _mean(values: Array, where: Array | None) -> Array:
    if where is None:
        return values.mean() if len(values) else float("nan")
    if isinstance(values, np.ndarray) and not where.any():
        return float("nan")
    return (values * where).sum() / where.sum()
