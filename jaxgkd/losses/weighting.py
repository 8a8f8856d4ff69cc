"""Weights that are learned with the student: several losses become the one number that is minimised.

Fixed weights need no function: ``jnp.dot(weights, losses)``.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgkd.losses._arguments import at_least_float32, check_floating, check_rank, check_same_shape


def layer_adaptive(per_layer_losses: Float[Array, "l"], layer_logits: Float[Array, "l"]) -> Float[Array, ""]:
    r"""Sum of losses under learned weights that are positive and sum to 1.

    .. math::
      L = \sum_l \mathrm{softmax}(w)_l \, L_l

    The gradient of w moves weight from the terms above the weighted mean to those below it: minimised to the end, all
    of it goes to the easiest term. Report ``jax.nn.softmax(layer_logits)`` beside the result.

    Args:
      per_layer_losses: one reduced loss per layer (or per task), [l].
      layer_logits: the learned w; equal values start from equal weights, [l].

    Returns:
      The weighted sum, a scalar.

    Raises:
      ValueError: if the arguments are not two floating-point vectors of one length.

    Example:
      >>> import jax.numpy as jnp
      >>> float(layer_adaptive(jnp.array([1.0, 2.0, 6.0]), jnp.ones(3)))
      3.0

    Source:
      Hu et al., `Large Language Model Meets Graph Neural Network in Knowledge Distillation
      <https://arxiv.org/abs/2402.05894>`_, 2024.
    """
    check_rank(1, per_layer_losses=per_layer_losses, layer_logits=layer_logits)
    check_same_shape(per_layer_losses=per_layer_losses, layer_logits=layer_logits)
    check_floating(per_layer_losses=per_layer_losses, layer_logits=layer_logits)

    return jnp.sum(jax.nn.softmax(at_least_float32(layer_logits)) * at_least_float32(per_layer_losses))


def uncertainty_weighted(losses: Float[Array, "l"], log_variances: Float[Array, "l"]) -> Float[Array, ""]:
    r"""Sum of losses, each divided by a learned variance that is paid for.

    .. math::
      L = \frac{1}{2} \sum_l \bigl( e^{-v_l} L_l + v_l \bigr), \qquad v_l = \log \sigma_l^2

    At the minimum over v each variance equals its loss, so that terms of different scale weigh alike and none can be
    dropped: v grows in its stead. Losses are to be positive, or v falls without end.

    Args:
      losses: one reduced loss per task, [l].
      log_variances: the learned v; zeros start from weights of 1/2, [l].

    Returns:
      The weighted sum, a scalar; it may be negative.

    Raises:
      ValueError: if the arguments are not two floating-point vectors of one length.

    Example:
      >>> import jax.numpy as jnp
      >>> float(uncertainty_weighted(jnp.array([1.0, 3.0]), jnp.zeros(2)))
      2.0

    Source:
      Kendall, Gal and Cipolla, `Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics
      <https://arxiv.org/abs/1705.07115>`_, 2018.
    """
    check_rank(1, losses=losses, log_variances=log_variances)
    check_same_shape(losses=losses, log_variances=log_variances)
    check_floating(losses=losses, log_variances=log_variances)

    log_variances = at_least_float32(log_variances)
    return 0.5 * jnp.sum(jnp.exp(-log_variances) * at_least_float32(losses) + log_variances)
