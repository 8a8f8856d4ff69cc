"""Losses of link prediction: the score of an edge against those of edges that are not there."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxgkd.losses._arguments import (
    Scalar,
    at_least_float32,
    check_floating,
    check_positive,
    check_rank,
    check_same_examples,
    check_shape,
    check_where,
    shape_of,
    silence,
)

LossKind = Literal["cross_entropy", "log_sigmoid", "self_adversarial", "contrastive", "bpr"]
"""How the score of an edge is set against those of its negatives; see `link_losses`."""


def link_losses(
    kind: LossKind,
    positive: Float[Array, " b"],
    negative: Float[Array, "b k"],
    *,
    where: Bool[Array, " b"] | None = None,
    negative_where: Bool[Array, "b k"] | None = None,
    edge_weights: Float[Array, " b"] | None = None,
    temperature: Scalar = 1.0,
    adversarial_temperature: Scalar = 1.0,
) -> Float[Array, " b"]:
    r"""Loss of every edge, given its score p and the scores n_1 … n_k of its negatives.

    ==================== ================================================================================
    ``cross_entropy``    :math:`-\frac{1}{1 + k} \bigl( w \log \sigma(p) + \sum_j \log \sigma(-n_j) \bigr)`
    ``log_sigmoid``      :math:`-w \log \sigma(p) - \frac{1}{k} \sum_j \log \sigma(-n_j)`
    ``self_adversarial`` :math:`-w \log \sigma(p) - \sum_j a_j \log \sigma(-n_j)`, a the softmax of α n
    ``contrastive``      :math:`-w \log \frac{e^{p / \tau}}{e^{p / \tau} + \sum_j e^{n_j / \tau}}`
    ``bpr``              :math:`-\frac{w}{k} \sum_j \log \sigma(p - n_j)`
    ==================== ================================================================================

    The first weighs all 1 + k pairs alike, the second the edge and its negatives together; the third looks at the
    negatives that score highest, through weights that are held constant. With masks k counts the negatives that are
    left; an edge without any keeps its own term, which ``contrastive`` and ``bpr`` have none of: they give 0.

    Args:
      kind: which of the above.
      positive: scores of the edges, [b].
      negative: scores of their negatives, [b, k].
      where: the edges that count, [b]; the others get 0 and send no gradient.
      negative_where: the negatives that count, [b, k]; False for pairs that are edges themselves.
      edge_weights: w, weights of 0 or more on the terms that hold the score of the edge, [b]; None is 1.
      temperature: τ > 0 of ``contrastive``; a traced value is allowed, and is differentiated.
      adversarial_temperature: α > 0 of ``self_adversarial``: how far the weights follow the scores.

    Returns:
      The loss of each edge in nats, [b]. Average over the edges that count.

    Raises:
      ValueError: if there is no such kind, shapes do not agree, a mask is not boolean, or a temperature is not above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> positive, negative = jnp.array([1.0, 2.0]), jnp.array([[0.0, -1.0], [3.0, 0.0]])
      >>> print(link_losses("contrastive", positive, negative))
      [0.4076... 1.3490...]
      >>> print(link_losses("bpr", positive, negative, negative_where=jnp.array([[True, False], [True, True]])))
      [0.3132... 0.7200...]

    Source:
      Sun et al., `RotatE <https://arxiv.org/abs/1902.10197>`_, 2019, equation 5 (self-adversarial); Rendle et al.,
      `BPR <https://arxiv.org/abs/1205.2618>`_, 2009; van den Oord, Li and Vinyals, `Representation Learning with
      Contrastive Predictive Coding <https://arxiv.org/abs/1807.03748>`_, 2018.
    """
    if kind not in get_args(LossKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(LossKind))}, but it is '{kind}'")
    check_rank(1, positive=positive)
    check_rank(2, negative=negative)
    check_floating(positive=positive, negative=negative)
    if positive.shape[0] != negative.shape[0]:
        raise ValueError(f"positive {shape_of(positive)} and negative {shape_of(negative)} must count the same edges")
    if not negative.shape[1]:
        raise ValueError("negative must hold a column at least; mask it where an edge has no negatives")
    check_where(where, positive.shape)
    check_shape(positive.shape, edge_weights=edge_weights)
    _check_negative_where(negative_where, negative)
    check_positive(temperature=temperature, adversarial_temperature=adversarial_temperature)

    counted = jnp.ones(negative.shape, bool) if negative_where is None else negative_where
    if where is not None:
        counted = counted & where[:, None]
    positive, negative = silence(at_least_float32(positive), where), silence(at_least_float32(negative), counted)
    weights = jnp.ones_like(positive) if edge_weights is None else silence(at_least_float32(edge_weights), where)
    n_negative = jnp.sum(counted, axis=1).astype(positive.dtype)
    if kind == "contrastive":
        values = weights * _contrastive(positive / temperature, negative / temperature, counted)
    elif kind == "bpr":
        values = weights * _mean(jax.nn.softplus(negative - positive[:, None]), counted, n_negative)
    elif kind == "cross_entropy":
        together = jnp.sum(silence(jax.nn.softplus(negative), counted), axis=1)
        values = (weights * jax.nn.softplus(-positive) + together) / (1 + n_negative)
    elif kind == "log_sigmoid":
        values = weights * jax.nn.softplus(-positive) + _mean(jax.nn.softplus(negative), counted, n_negative)
    else:
        logits = jnp.where(counted, adversarial_temperature * lax.stop_gradient(negative), -jnp.inf)
        # The softmax of a row without negatives would be 0/0.
        shares = jax.nn.softmax(jnp.where(n_negative[:, None] > 0, logits, 0.0), axis=1)
        hardest = jnp.sum(silence(lax.stop_gradient(shares) * jax.nn.softplus(negative), counted), axis=1)
        values = weights * jax.nn.softplus(-positive) + hardest
    return silence(values, where)


def _check_negative_where(negative_where: jax.Array | None, negative: jax.Array) -> None:
    if negative_where is None:
        return
    check_same_examples(0, negative_where=negative_where, negative=negative)
    if negative_where.dtype != jnp.bool_:
        raise ValueError(f"negative_where must be boolean, but its dtype is {negative_where.dtype}")


def _mean(values: jax.Array, counted: jax.Array, n_counted: jax.Array) -> jax.Array:
    return jnp.sum(silence(values, counted), axis=1) / jnp.maximum(n_counted, 1.0)


def _contrastive(positive: jax.Array, negative: jax.Array, counted: jax.Array) -> jax.Array:
    some = jnp.any(counted, axis=1)
    # A row of -inf alone has no gradient, so rows without negatives are left to their zeros and masked afterwards.
    together = jax.nn.logsumexp(jnp.where(counted | ~some[:, None], negative, -jnp.inf), axis=1)
    return silence(jax.nn.softplus(together - positive), some)
