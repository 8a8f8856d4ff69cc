"""Scores of predictions: arrays in, scalars out, with a mask for what is not counted."""

import jax
import jax.numpy as jnp
from jax import Array


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
    log_probabilities = jax.nn.log_softmax(logits)
    index = jnp.clip(labels, 0, logits.shape[-1] - 1)
    weights = where.astype(logits.dtype)
    if class_weights is not None:
        weights = weights * class_weights[index]
    picked = jnp.take_along_axis(log_probabilities, index[:, None], axis=-1)[:, 0]
    return -jnp.sum(weights * picked) / jnp.maximum(jnp.sum(weights), 1e-12)
