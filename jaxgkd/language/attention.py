"""Bidirectional multi-head attention, arranged so that a CPU spends its time in matrix products.

``softmax(q kᵀ / √e + bias) v`` with three rearrangements that leave the values alone: the heads are folded into the
batch, so that both products are plain batched ones; the bias is repeated per head beforehand, so that it is added
while the scores are shifted and exponentiated; and the division by the row sums comes after the product with ``v``,
where there are ``e`` numbers a row to divide and not ``t``.
"""

import jax.numpy as jnp
from jax import Array, lax

# Far below any score and far from the end of float32: exp gives exactly 0, and a row without real tokens stays finite.
MASKED = -1e30


def padding_bias(attention_mask: Array) -> Array:
    """The number to add to every score of a key: 0 for a real token, ``MASKED`` for padding.

    Args:
      attention_mask: [b, t]; above 0 at real tokens.

    Returns:
      [b, t], float32.
    """
    return jnp.where(attention_mask > 0, 0.0, MASKED).astype(jnp.float32)


def matmul_precision(dtype: jnp.dtype) -> lax.Precision:
    """How exactly to multiply: float32 stays float32 on accelerators too, which would otherwise round it first."""
    return lax.Precision.HIGHEST if dtype == jnp.float32 else lax.Precision.DEFAULT


def fold_heads(states: Array, n_heads: int) -> Array:
    """[b, t, heads · e], heads side by side, to [b · heads, t, e]."""
    b, t, d = states.shape
    return states.reshape(b, t, n_heads, d // n_heads).swapaxes(1, 2).reshape(b * n_heads, t, d // n_heads)


def unfold_heads(states: Array, n_heads: int) -> Array:
    """[b · heads, t, e] to [b, t, heads · e]: the inverse of ``fold_heads``."""
    n, t, width = states.shape
    return states.reshape(n // n_heads, n_heads, t, width).swapaxes(1, 2).reshape(n // n_heads, t, n_heads * width)


def head_products(left: Array, right: Array) -> Array:
    """The product of every vector with every other, head by head: [n, t, e] and [n, s, e] to [n, t, s], float32."""
    precision = matmul_precision(left.dtype)
    return lax.dot_general(
        left, right, (((2,), (2,)), ((0,), (0,))), precision=precision, preferred_element_type=jnp.float32
    )


def attend(query: Array, key: Array, value: Array, bias: Array) -> Array:
    """``softmax(query keyᵀ + bias) value`` of folded heads; scores and their softmax are float32.

    Args:
      query: [n, t, e], scaled.
      key: [n, s, e].
      value: [n, s, e].
      bias: added to the scores; any shape that broadcasts to [n, t, s].

    Returns:
      [n, t, e], in the dtype of ``value``.
    """
    scores = head_products(query, key) + bias
    # The shift by the maximum cancels out, so no gradient needs to flow through it.
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    context = lax.dot_general(
        weights.astype(value.dtype),
        value,
        (((2,), (1,)), ((0,), (0,))),
        precision=matmul_precision(value.dtype),
        preferred_element_type=jnp.float32,
    )
    return (context / weights.sum(axis=-1, keepdims=True)).astype(value.dtype)


def bidirectional_attention(query: Array, key: Array, value: Array, bias: Array, *, n_heads: int) -> Array:
    """Every token attends to every token whose bias is 0.

    Vaswani et al. 2017, section 3.2, https://arxiv.org/abs/1706.03762. Scores and their softmax are float32.

    Args:
      query: [b, t, d], heads side by side along d.
      key: [b, t, d].
      value: [b, t, d].
      bias: [b, t], added to the scores of each key (see ``padding_bias``).
      n_heads: number of heads; divides d.

    Returns:
      [b, t, d], in the dtype of ``value``.
    """
    scale = (query.shape[-1] // n_heads) ** -0.5
    query, key, value = (fold_heads(states, n_heads) for states in (query * scale, key, value))
    return unfold_heads(attend(query, key, value, jnp.repeat(bias, n_heads, axis=0)[:, None, :]), n_heads)
