"""Dropout at the price of an addition: 8-bit thresholds on a short integer hash instead of a cryptographic one.

Random bits dominate the cost of small graph networks. Four 8-bit numbers come out of every 32-bit hash of a counter,
keyed by an ordinary JAX key, so what a seed draws does not depend on which seeds are trained beside it.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.graphs import MixedRows, SparseRows

NodeInputs = Array | SparseRows | MixedRows


def dropout(values: Array, key: Array, rate: ArrayLike) -> Array:
    """Zero each value with probability ``rate``, and scale the others so that the expectation stays.

    Args:
      values: [...].
      key: a random key.
      rate: in [0, 1), rounded to a multiple of 1/256; may be traced, so that many rates share one program.

    Returns:
      [...] in the dtype of ``values``; at rate 0 the values themselves.
    """
    # Between 1 and 256 of the 256 equally likely bytes keep the value: at 256 all do, and nothing is scaled.
    kept_bytes = jnp.clip(jnp.round((1.0 - jnp.asarray(rate)) * 256.0), 1.0, 256.0)
    keep = random_bytes(key, values.shape) <= (kept_bytes - 1.0).astype(jnp.uint8)
    return jnp.where(keep, values * (256.0 / kept_bytes).astype(values.dtype), 0)


def random_bytes(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform uint8 numbers ``[*shape]`` from two keyed rounds of MurmurHash3's 32-bit finaliser over a counter.

    Good enough to choose what to drop; not a source of randomness for anything else.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    words = -(-math.prod(shape) // 4)
    hashed = _mix(jax.lax.iota(jnp.uint32, words) * jnp.uint32(0x9E3779B9) + first)
    hashed = _mix(hashed ^ second)
    return jax.lax.bitcast_convert_type(hashed, jnp.uint8).reshape(-1)[: math.prod(shape)].reshape(shape)


def _mix(word: Array) -> Array:
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


def input_dropout(nodes: NodeInputs, key: Array, rate: ArrayLike) -> NodeInputs:
    """`dropout` of node inputs [n, f]; of sparse ones only the values that are there need random bits."""
    if isinstance(nodes, SparseRows):
        return SparseRows(nodes.layout, dropout(nodes.values, key, rate))
    if isinstance(nodes, MixedRows):
        dense_key, sparse_key = jax.random.split(key)
        sparse = SparseRows(nodes.sparse.layout, dropout(nodes.sparse.values, sparse_key, rate))
        return MixedRows(dropout(nodes.dense, dense_key, rate), sparse)
    return dropout(nodes, key, rate)
