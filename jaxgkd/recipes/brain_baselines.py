"""Linear rows over the connectivity of all pairs of regions: ridge, logistic regression, a linear SVM.

There are far more pairs than subjects, so a fold's training subjects are turned into their principal coordinates,
which keep every inner product and therefore every linear model with an L2 penalty. Of each model the penalty is taken
that validates best. Message passing often loses to these rows on connectomes (arXiv 2501.17207).
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import expit

from jaxgkd.data.splits import Split
from jaxgkd.training.metrics import area_under_roc

Baseline = Literal["ridge", "logistic", "svm"]
#: Names for people.
BASELINE_LABELS: Mapping[str, str] = {
    "ridge": "ridge on all connections",
    "logistic": "logistic regression on all connections",
    "svm": "linear SVM on all connections",
}
#: Penalties that are tried, in units of a feature's variance times the number of features.
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

_NEWTON_STEPS = 50


class Linear(NamedTuple):
    """A linear row in a fold: ``scores`` [n], 0 between the classes; ``probabilities`` [n] of class 1; ``penalty``."""

    scores: np.ndarray
    probabilities: np.ndarray
    penalty: float


def principal_coordinates(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Coordinates [n, m ≤ len(train)] float64 whose inner products with training subjects are those of the features.

    Features are centred and scaled by their mean and deviation over the training subjects, and divided by the root of
    their number; one that is constant there is left out.

    Args:
      features: [n, f]; train: rows that train.
    """
    mean, scale = _standard(features, train)
    standard = ((features - mean) * scale).astype(np.float32)
    products = (standard @ standard[train].T).astype(np.float64) / max(np.count_nonzero(scale), 1)
    return products @ _rotation(products[train])


def map_to_coordinates(
    features: np.ndarray, train: np.ndarray, coordinates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`principal_coordinates`, times any number, as a function of any subject's features.

    It rests on the coordinates that there are: computed once more, directions may come out with the other sign.

    Args:
      features: [n, f]; train: rows that train.
      coordinates: [n, m] of the features; columns of 0 stand for no direction.

    Returns:
      mean [f] and directions [f, m], float64: coordinates are ``(features - mean) @ directions``.
    """
    mean, scale = _standard(features, train)
    standard = ((features[train] - mean) * scale).astype(np.float64)
    known = coordinates[train].astype(np.float64)
    # Columns are orthogonal, and inner products of subjects times a column are that column times a number.
    rotation = known / np.maximum(np.sum(known**2, axis=0), 1e-12)
    directions = standard.T @ rotation
    found = standard @ directions
    directions *= np.sum(found * known) / np.sum(found**2)
    return mean.astype(np.float64), scale[:, None] * directions


def _standard(features: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [f] over training subjects and what to multiply with, 0 where a feature is constant there."""
    mean, deviation = features[train].mean(axis=0), features[train].std(axis=0)
    varies = deviation > 1e-7
    return mean, varies / np.where(varies, deviation, 1.0)


def _rotation(products: np.ndarray) -> np.ndarray:
    """[train, m] from inner products of training subjects to their coordinates."""
    values, vectors = np.linalg.eigh(products)
    kept = values > 1e-6 * max(values.max(initial=0.0), 1e-12)
    return vectors[:, kept] / np.sqrt(values[kept])


def fit_linear(kind: Baseline, coordinates: np.ndarray, labels: np.ndarray, split: Split) -> Linear:
    """One linear row in one fold.

    Args:
      kind: ridge (squared error of ±1), logistic, or svm (squared hinge).
      coordinates: [n, m] from `principal_coordinates` of the same fold.
      labels: [n] 0 or 1, anything where they neither train nor validate.
      split: labels of its training part fit, those of its validation part choose the penalty.
    """
    train, valid = split.train, split.valid
    signs = np.where(labels[train] == 1, 1.0, -1.0)
    best: tuple[float, Linear] | None = None
    for penalty in PENALTIES:
        weights, bias = _SOLVERS[kind](coordinates[train], signs, penalty)
        scores = coordinates @ weights + bias
        area = area_under_roc(scores, labels, np.isin(np.arange(len(labels)), valid))
        area = -1.0 if np.isnan(area) else area
        if best is None or area > best[0]:
            # Least squares and margins have no probabilities: theirs come from a logistic curve over their scores.
            shown = expit(scores) if kind == "logistic" else expit(2 * scores)
            best = area, Linear(scores, shown, penalty)
    assert best is not None
    return best[1]


def _ridge(inputs: np.ndarray, signs: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    # The coordinates of training subjects are centred and uncorrelated: every weight by itself.
    bias = signs.mean()
    return inputs.T @ (signs - bias) / (np.square(inputs).sum(axis=0) + penalty), float(bias)


def logistic_weights(inputs: np.ndarray, signs: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Weights [m] and bias of a logistic regression with an L2 penalty on the weights.

    Args:
      inputs: [k, m]; signs: [k] of -1 and 1.
      penalty: divided by 4, so that the same number bends ridge about as much.
    """

    def parts(margins: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        wrong = expit(-margins)
        return float(np.logaddexp(0, -margins).sum()), -wrong, wrong * (1 - wrong)

    # Near 0 the loss of a margin is bent a quarter as much as half a square.
    return _newton(parts, inputs, signs, penalty / 4)


def _svm(inputs: np.ndarray, signs: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    def parts(margins: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        short = np.maximum(0.0, 1.0 - margins)
        return 0.5 * float(np.square(short).sum()), -short, (short > 0).astype(np.float64)

    return _newton(parts, inputs, signs, penalty)


def _newton(
    parts: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]],
    inputs: np.ndarray,
    signs: np.ndarray,
    penalty: float,
) -> tuple[np.ndarray, float]:
    """Weights and bias with the least loss of the margins and ``penalty / 2`` times the squared weights.

    Args:
      parts: from margins [k] to the loss, and its first and second derivatives by each margin.
      inputs: [k, m]; signs: [k]; penalty: above 0.
    """
    extended = np.concatenate([inputs.astype(np.float64), np.ones((len(inputs), 1))], axis=1)
    ridge = np.append(np.full(inputs.shape[1], penalty), 0.0)
    found = np.zeros(extended.shape[1])

    def value(at: np.ndarray) -> float:
        return parts(signs * (extended @ at))[0] + 0.5 * float(ridge @ np.square(at))

    before = value(found)
    for _ in range(_NEWTON_STEPS):
        _, slope, bend = parts(signs * (extended @ found))
        gradient = extended.T @ (signs * slope) + ridge * found
        # Where no margin is bent the bias has no curvature of its own.
        curvature = (extended.T * bend) @ extended + np.diag(ridge + 1e-9)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while (after := value(found - size * step)) > before and size > 1e-4:
            size /= 2
        if after > before:
            break
        found, gain, before = found - size * step, before - after, after
        if gain <= 1e-10 * max(abs(before), 1.0):
            break
    return found[:-1], float(found[-1])


_SOLVERS: Mapping[str, Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, float]]] = {
    "ridge": _ridge,
    "logistic": logistic_weights,
    "svm": _svm,
}
