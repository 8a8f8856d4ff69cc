"""Causal attention with shared key heads, sliding windows and capped scores, over one or several stretches of keys.

Tokens are ordered by their positions and not by their columns, so padding may stand on either side and new tokens may
be put anywhere in a cache. What a query may see is a bias per (query, key) that is made once for all layers with the
same window. A cache is a stretch of keys of its own beside the new tokens' keys: the softmax runs over both, and the
cache is neither copied nor repeated. Where there are many scores, some of the queries are answered at a time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxgkd.language.attention import MASKED, matmul_precision

# So many scores are in memory at once, a tenth of a gigabyte; backward, those of a piece are made again.
SCORES_AT_ONCE = 2**25


class Stretch(NamedTuple):
    """Keys that stand together: ``key`` and ``value`` [b, key heads, s, e] and ``bias`` [b, t, s] for each query."""

    key: Array
    value: Array
    bias: Array


def causal_bias(query_position: Array, key_position: Array, key_seen: Array, window: int | None) -> Array:
    """The number to add to each score: 0 where the query may see the key, ``MASKED`` elsewhere.

    A query sees the keys at its own position and before it; with a window, the last ``window`` positions of these.

    Args:
      query_position: [b, t] whole numbers.
      key_position: [b, s].
      key_seen: [b, s] or, to differ between queries, [b, t, s]; True at keys that may be seen at all.
      window: how many positions back a query sees, itself included; None for all.

    Returns:
      [b, t, s], float32.
    """
    distance = query_position[:, :, None] - key_position[:, None, :]
    seen = (distance >= 0) & (key_seen if key_seen.ndim == 3 else key_seen[:, None, :])
    if window is not None:
        seen &= distance < window
    return jnp.where(seen, 0.0, MASKED).astype(jnp.float32)


def grouped_attention(
    query: Array, stretches: Sequence[Stretch], *, scale: Array | float, score_cap: float | None = None
) -> Array:
    """``softmax(cap · tanh(scale · q kᵀ / cap) + bias) v``; several heads of queries share one head of keys.

    Ainslie et al. 2023, https://arxiv.org/abs/2305.13245. Scores and their softmax are float32. Queries that share a
    key head are folded into the rows of one product, so no key is repeated.

    Args:
      query: [b, heads, t, e].
      stretches: one or several; query head i uses key head ``i // (heads // key heads)``.
      scale: factor on the scores.
      score_cap: bound of the scores before the bias; None for none.

    Returns:
      [b, heads, t, e] in the dtype of the values.
    """
    b, heads, t, e = query.shape
    n_scores = b * heads * t * sum(stretch.key.shape[2] for stretch in stretches)
    if n_scores <= SCORES_AT_ONCE or t == 1:
        return _attend(query, stretches, scale, score_cap)

    size = max(1, t * SCORES_AT_ONCE // n_scores)
    pieces = -(-t // size)

    def cut(array: Array, axis: int) -> Array:
        widths = [(0, pieces * size - t if axis == number else 0) for number in range(array.ndim)]
        padded = jnp.pad(array, widths)
        return jnp.moveaxis(padded.reshape(*array.shape[:axis], pieces, size, *array.shape[axis + 1 :]), axis, 0)

    @jax.checkpoint
    def answer(piece: tuple[Array, list[Array]]) -> Array:
        some, biases = piece
        seen = [stretch._replace(bias=bias) for stretch, bias in zip(stretches, biases, strict=True)]
        return _attend(some, seen, scale, score_cap)

    answered = lax.map(answer, (cut(query, 2), [cut(stretch.bias, 1) for stretch in stretches]))
    return jnp.moveaxis(answered, 0, 2).reshape(b, heads, pieces * size, e)[:, :, :t]


def _attend(query: Array, stretches: Sequence[Stretch], scale: Array | float, score_cap: float | None) -> Array:
    b, heads, t, e = query.shape
    key_heads, dtype = stretches[0].key.shape[1], stretches[0].value.dtype
    shared = heads // key_heads
    precision = matmul_precision(dtype)
    query = query.reshape(b * key_heads, shared * t, e)

    def score(stretch: Stretch) -> Array:
        key = stretch.key.reshape(b * key_heads, -1, e)
        product = lax.dot_general(
            query, key, (((2,), (2,)), ((0,), (0,))), precision=precision, preferred_element_type=jnp.float32
        )
        product = product.reshape(b, key_heads, shared, t, -1) * scale
        if score_cap is not None:
            product = score_cap * jnp.tanh(product / score_cap)
        return product + stretch.bias[:, None, None]

    scores = [score(stretch) for stretch in stretches]
    # The shift by the maximum cancels out, so no gradient needs to flow through it.
    highest = jnp.stack([part.max(axis=-1) for part in scores]).max(axis=0)
    weights = [jnp.exp(part - lax.stop_gradient(highest)[..., None]) for part in scores]
    context = sum(
        lax.dot_general(
            part.reshape(b * key_heads, shared * t, -1).astype(dtype),
            stretch.value.reshape(b * key_heads, -1, e),
            (((2,), (1,)), ((0,), (0,))),
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        for part, stretch in zip(weights, stretches, strict=True)
    )
    total = jnp.stack([part.sum(axis=-1) for part in weights]).sum(axis=0)
    return (jnp.reshape(context, (b, heads, t, e)) / total.reshape(b, heads, t, 1)).astype(dtype)
