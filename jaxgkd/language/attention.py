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
    b, t, d = query.shape
    width = d // n_heads
    precision = matmul_precision(value.dtype)

    def fold_heads(states: Array) -> Array:
        return states.reshape(b, t, n_heads, width).swapaxes(1, 2).reshape(b * n_heads, t, width)

    query, key, value = fold_heads(query * width**-0.5), fold_heads(key), fold_heads(value)
    scores = lax.dot_general(
        query, key, (((2,), (2,)), ((0,), (0,))), precision=precision, preferred_element_type=jnp.float32
    )
    scores = scores + jnp.repeat(bias, n_heads, axis=0)[:, None, :]
    # The shift by the maximum cancels out, so no gradient needs to flow through it.
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    context = lax.dot_general(
        weights.astype(value.dtype),
        value,
        (((2,), (1,)), ((0,), (0,))),
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    context = (context / weights.sum(axis=-1, keepdims=True)).astype(value.dtype)
    return context.reshape(b, n_heads, t, width).swapaxes(1, 2).reshape(b, t, d)
