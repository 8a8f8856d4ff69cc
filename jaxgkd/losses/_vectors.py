"""Rows of vectors: their lengths, safe where a length is 0, and work done one block of rows at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def length(vectors: jax.Array) -> jax.Array:
    """Euclidean length over the last axis, [..., d] → [...], with gradient 0 at the zero vector.

    The plain square root has an infinite slope there, which would turn the gradient of a batch into NaN.
    """
    return safe_sqrt(jnp.sum(jnp.square(vectors), axis=-1))


def safe_sqrt(squares: jax.Array) -> jax.Array:
    """Square root of values that are 0 or more, with value and gradient 0 where they vanish."""
    nonzero = squares > jnp.finfo(squares.dtype).tiny
    return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, squares, 1.0)), 0.0)


def safe_divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The quotient, with value and gradient 0 where the denominator is 0."""
    nonzero = denominator != 0
    return jnp.where(nonzero, numerator / jnp.where(nonzero, denominator, 1.0), 0.0)


def unit(vectors: jax.Array) -> jax.Array:
    """Vectors scaled to length 1 over the last axis, [..., d] → [..., d]; the zero vector stays, with gradient 0."""
    return safe_divide(vectors, length(vectors)[..., None])


def map_row_blocks(function: Callable[..., Any], rows: tuple[jax.Array, ...], block_size: int) -> Any:
    """``function`` of rows whose results do not depend on each other, at most ``block_size`` of them at a time.

    Blocks are of equal size (2,708 rows in blocks of at most 512 are 6 of 452, not 5 of 512 and one of 148) and the
    last is filled with zeros, whose results are dropped.

    Args:
      function: of arrays [block, ...], one for each of ``rows``; returns a tree of arrays [block, ...].
      rows: arrays [n, ...].
      block_size: the most rows that are worked on together.

    Returns:
      The tree that ``function`` returns, with arrays [n, ...].
    """
    n = rows[0].shape[0]
    n_block = max(1, -(-n // block_size))
    size = -(-n // n_block)

    def split(array: jax.Array) -> jax.Array:
        padded = jnp.pad(array, [(0, n_block * size - n)] + [(0, 0)] * (array.ndim - 1))
        return padded.reshape(n_block, size, *array.shape[1:])

    results = lax.map(lambda block: function(*block), tuple(map(split, rows)))
    return jax.tree.map(lambda array: array.reshape(n_block * size, *array.shape[2:])[:n], results)
