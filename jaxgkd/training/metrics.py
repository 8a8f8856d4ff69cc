"""Scores of predictions: arrays in, scalars out, with a mask for what is not counted.

Those of classes are traced, as training needs them; those of a column of molecule labels are numpy in float64.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.stats import rankdata


def accuracy(logits: Array, labels: Array, where: Array) -> Array:
    """Share of the counted items whose largest logit is at their label.

    Args:
      logits: [n, classes]; labels: [n] integers.
      where: [n] bool, True for counted items; without any the result is NaN.
    """
    right = (jnp.argmax(logits, axis=-1) == labels) & where
    return jnp.sum(right) / jnp.sum(where)


def cross_entropy(logits: Array, labels: Array, where: Array, class_weights: Array | None = None) -> Array:
    """Mean of ``-w[y] log softmax(logits)[y]`` over the counted items, divided by the sum of their weights.

    Args:
      logits: [n, classes]; labels: [n] integers, anything where not counted.
      where: [n] bool or non-negative weights; class_weights: [classes], all ones when not given.

    Returns:
      scalar; 0 when nothing is counted.
    """
    weights = where.astype(logits.dtype)
    # Silenced before and not after: a NaN times 0 would reach the value and every gradient.
    log_probabilities = jax.nn.log_softmax(jnp.where(weights[:, None] > 0, logits, 0.0))
    index = jnp.clip(labels, 0, logits.shape[-1] - 1)
    if class_weights is not None:
        weights = weights * class_weights[index]
    picked = jnp.take_along_axis(log_probabilities, index[:, None], axis=-1)[:, 0]
    return -jnp.sum(weights * picked) / jnp.maximum(jnp.sum(weights), 1e-12)


def mean_absolute_error(predictions: np.ndarray, labels: np.ndarray, where: np.ndarray) -> float:
    """Mean of ``|prediction - label|`` over the counted items, in the unit of the labels.

    Args:
      predictions: [n]; labels: [n], anything where not counted.
      where: [n] bool, True for counted items; without any the result is NaN.
    """
    errors = _errors(predictions, labels, where)
    return float(np.abs(errors).mean()) if errors.size else float("nan")


def root_mean_squared_error(predictions: np.ndarray, labels: np.ndarray, where: np.ndarray) -> float:
    """Root of the mean of (prediction - label)² over the counted items, in the unit of the labels.

    Args:
      predictions: [n]; labels: [n], anything where not counted.
      where: [n] bool, True for counted items; without any the result is NaN.
    """
    errors = _errors(predictions, labels, where)
    return float(np.sqrt(np.square(errors).mean())) if errors.size else float("nan")


def _errors(predictions: np.ndarray, labels: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.asarray(predictions, np.float64)[where] - np.asarray(labels, np.float64)[where]


def area_under_roc(scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> float:
    """Probability that a counted positive scores higher than a counted negative; a tie is worth one half.

    The area under the curve of true against false positives, by the rank sum of Mann and Whitney, 1947.

    Args:
      scores: [n] higher for what is more likely positive, on any scale; labels: [n] 0 or 1, anything where not counted.
      where: [n] bool, True for counted items; without a positive and a negative among them the result is NaN.

    >>> area_under_roc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([1, 1, 0, 0]), np.ones(4, bool))
    0.875
    """
    positive = np.asarray(labels)[where] == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    # Tied scores share the mean of their ranks.
    ranks = rankdata(np.asarray(scores, np.float64)[where])
    above = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def average_precision(scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> float:
    """Mean over the counted positives of the share of positives among all that score as high or higher.

    Tied items are one step of the curve, so a scorer that tells nothing apart gets the share of positives.

    Args:
      scores: [n] higher for what is more likely positive, on any scale; labels: [n] 0 or 1, anything where not counted.
      where: [n] bool, True for counted items; without a positive among them the result is NaN.

    >>> round(average_precision(np.array([0.9, 0.4, 0.4, 0.1]), np.array([1, 1, 0, 0]), np.ones(4, bool)), 4)
    0.8333
    """
    positive = np.asarray(labels)[where] == 1
    if not positive.any():
        return float("nan")
    # The number of items that score as high or higher is the largest rank among equals, from above.
    scores = -np.asarray(scores, np.float64)[where]
    precision = rankdata(scores[positive], method="max") / rankdata(scores, method="max")[positive]
    return float(precision.mean())


def macro_f1(logits: Array, labels: Array, where: Array) -> Array:
    """Mean over classes of the harmonic mean of precision and recall, 2 TP / (predicted + there).

    Classes that are neither predicted nor there among the counted items are left out of the mean.

    Args:
      logits: [n, classes]; labels: [n] integers, anything where not counted.
      where: [n] bool, True for counted items; without any the result is NaN.

    Returns:
      scalar from 0 to 1.
    """
    classes = jnp.arange(logits.shape[-1])
    predicted = (jnp.argmax(logits, axis=-1)[:, None] == classes) & where[:, None]
    there = (labels[:, None] == classes) & where[:, None]
    counts = jnp.sum(predicted, axis=0) + jnp.sum(there, axis=0)
    scores = 2 * jnp.sum(predicted & there, axis=0) / jnp.maximum(counts, 1)
    return jnp.sum(scores) / jnp.sum(counts > 0)


#: Name in a summary → what scores a column of labels.
COLUMN_METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "mae": mean_absolute_error,
    "rmse": root_mean_squared_error,
    "auroc": area_under_roc,
}


def mean_over_columns(metric: str, predictions: np.ndarray, labels: np.ndarray, where: np.ndarray) -> float:
    """A metric of every column of labels, averaged over the columns that have one.

    Args:
      metric: one of `COLUMN_METRICS`.
      predictions: [n, t]; labels: [n, t], anything where not counted.
      where: [n, t] bool, True for counted labels; where no column has a value the result is NaN.
    """
    columns = zip(predictions.T, labels.T, where.T, strict=True)
    values = np.array([COLUMN_METRICS[metric](*column) for column in columns])
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan")


def mean_over_traced_columns(metric: str, predictions: Array, labels: Array, where: Array) -> Array:
    """`mean_over_columns` inside compiled functions, higher being better: errors come with a minus.

    Args:
      metric: one of `COLUMN_METRICS`.
      predictions: [n, t]; labels: [n, t], anything where not counted.
      where: [n, t] bool, True for counted labels; where no column has a value the result is NaN.
    """
    values = jax.vmap(_TRACED[metric], in_axes=1)(predictions, labels, where)
    known = jnp.isfinite(values)
    return jnp.sum(jnp.where(known, values, 0.0)) / jnp.sum(known)


def _traced_area(scores: Array, labels: Array, where: Array) -> Array:
    """`area_under_roc`: for every positive the negatives below it, and half of those beside it."""
    positive, negative = where & (labels == 1), where & (labels == 0)
    ranked = jnp.sort(jnp.where(negative, scores, jnp.inf))
    beside = jnp.searchsorted(ranked, scores, side="left"), jnp.searchsorted(ranked, scores, side="right")
    n_positive, n_negative = jnp.sum(positive), jnp.sum(negative)
    below = jnp.sum(jnp.where(positive, 0.5 * (beside[0] + beside[1]), 0.0))
    # In whole numbers of 32 bits the product would be wrong from some 93,000 items on. NaN lies in no order.
    area = below / (n_positive.astype(jnp.float32) * n_negative)
    return jnp.where(jnp.any(jnp.isnan(scores) & where), jnp.nan, area)


def _traced_error(predictions: Array, labels: Array, where: Array) -> Array:
    return -jnp.sum(jnp.where(where, jnp.abs(predictions - labels), 0.0)) / jnp.sum(where)


def _traced_root(predictions: Array, labels: Array, where: Array) -> Array:
    return -jnp.sqrt(jnp.sum(jnp.where(where, jnp.square(predictions - labels), 0.0)) / jnp.sum(where))


_TRACED = {"mae": _traced_error, "rmse": _traced_root, "auroc": _traced_area}
