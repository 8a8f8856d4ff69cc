"""Where arrays go: onto which devices, and how an array gets there without being held twice."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Sharding

# One sharding for all arrays, or a function of an array's path ("layers/up_kernel") and stacked shape.
Placement = Sharding | Callable[[str, tuple[int, ...]], Sharding]

# A part of an array: (start, stop) of each axis.
Bounds = tuple[tuple[int, int], ...]

# Buffers that begin on a cache line become arrays on a CPU without being copied.
_CACHE_LINE = 64


def sharding_of(path: str, shape: tuple[int, ...], placement: Placement | None) -> Sharding:
    """The sharding of one array; all of it on the default device where there is no placement."""
    if placement is None:
        return jnp.zeros(()).sharding
    return placement if isinstance(placement, Sharding) else placement(path, shape)


def place(
    path: str, shape: tuple[int, ...], read: Callable[[Bounds], np.ndarray], placement: Placement | None
) -> Array:
    """Make an array out of ``read(bounds)``, which gives any rectangular part of it, on the devices it belongs to.

    Args:
      path: the array's, for ``placement``.
      shape: of the whole array.
      read: from (start, stop) of each axis to the values there.
      placement: see ``Placement``; None for the default device.

    Returns:
      The array.
    """
    if placement is None:
        return jax.device_put(read(tuple((0, size) for size in shape)))

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        slices = index or ()
        return read(tuple(piece.indices(size)[:2] for piece, size in zip(slices, shape, strict=True)))

    return jax.make_array_from_callback(shape, sharding_of(path, shape, placement), part)


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array that begins on a cache line, which a CPU takes over without a copy."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + _CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % _CACHE_LINE
    return raw[start : start + size].view(dtype).reshape(shape)
