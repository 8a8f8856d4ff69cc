"""What every loss does with its arguments before the maths: check shapes, silence masked examples, stop the teacher.

Shape errors are ``ValueError``: they are mistakes in a program, not in a user's data.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Scalar = float | int | Float[Array, ""]
"""A number that may be a Python number or a traced array of rank 0, such as a learned temperature."""

AxisName = str | tuple[str, ...]
"""The name, or names, of the mapped axis that examples are spread over inside ``shard_map`` or ``vmap``."""


def shape_of(array: jax.Array) -> str:
    """The shape as the docstrings write it, ``[2, 3]``."""
    return f"[{', '.join(map(str, array.shape))}]"


def check_rank(rank: int, **arrays: jax.Array) -> None:
    """Refuse arrays whose rank is not ``rank``."""
    for name, array in arrays.items():
        if array.ndim != rank:
            raise ValueError(f"{name} must have rank {rank}, but its shape is {shape_of(array)}")


def check_rank_at_least(rank: int, **arrays: jax.Array) -> None:
    """Refuse arrays whose rank is smaller than ``rank``."""
    for name, array in arrays.items():
        if array.ndim < rank:
            raise ValueError(f"{name} must have rank {rank} or more, but its shape is {shape_of(array)}")


def check_floating(**arrays: jax.Array) -> None:
    """Refuse arrays that hold no floating-point numbers."""
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must hold floating-point numbers, but its dtype is {array.dtype}")


def check_integer(**arrays: jax.Array | None) -> None:
    """Refuse arrays that hold no integers."""
    for name, array in arrays.items():
        if array is not None and not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"{name} must hold integers, but its dtype is {array.dtype}")


def check_same_shape(**arrays: jax.Array) -> None:
    """Refuse arrays whose shapes differ."""
    if len({array.shape for array in arrays.values()}) > 1:
        listed = " and ".join(f"{name} {shape_of(array)}" for name, array in arrays.items())
        raise ValueError(f"shapes must be equal, but they are {listed}")


def check_same_examples(axes: int, **arrays: jax.Array) -> None:
    """Refuse arrays that differ in the axes before the last ``axes``; those last ones may differ."""
    if len({array.shape[: array.ndim - axes] for array in arrays.values()}) > 1:
        listed = " and ".join(f"{name} {shape_of(array)}" for name, array in arrays.items())
        raise ValueError(f"shapes must be equal but for the width, but they are {listed}")


def check_shape(shape: Sequence[int], **arrays: jax.Array | None) -> None:
    """Refuse arrays whose shape is not ``shape``; ``None`` passes."""
    for name, array in arrays.items():
        if array is not None and array.shape != tuple(shape):
            raise ValueError(
                f"{name} must have shape [{', '.join(map(str, shape))}], one value per example, "
                f"but its shape is {shape_of(array)}"
            )


def check_where(where: jax.Array | None, shape: Sequence[int]) -> None:
    """Refuse a mask that is not boolean or not one value per example."""
    check_shape(shape, where=where)
    if where is not None and where.dtype != jnp.bool_:
        raise ValueError(f"where must be boolean, but its dtype is {where.dtype}")


def check_positive(**numbers: object) -> None:
    """Refuse Python numbers that are not above 0; a traced number cannot be looked at and passes."""
    for name, number in numbers.items():
        if isinstance(number, int | float) and not number > 0:
            raise ValueError(f"{name} must be above 0, but it is {number}")


def check_block_size(block_size: int | None) -> None:
    """Refuse a block that holds no rows."""
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size must be 1 or more, but it is {block_size}")


def at_least_float32(array: jax.Array) -> jax.Array:
    """Widen half precision, in which sums over classes, dimensions or examples would lose their small terms."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def teacher_side(array: jax.Array, stop_teacher_gradient: bool) -> jax.Array:
    """The teacher's array, as a constant unless its gradient is asked for."""
    return lax.stop_gradient(array) if stop_teacher_gradient else array


def silence(array: jax.Array, where: jax.Array | None) -> jax.Array:
    """Put 0 in place of masked examples; ``where`` has the leading axes of ``array``.

    Done to inputs it keeps whatever padding holds, NaN included, out of values and gradients alike;
    a mask on the output alone would let ``0 · NaN`` back in through the gradient.
    """
    if where is None:
        return array
    where = where.reshape(where.shape + (1,) * (array.ndim - where.ndim))
    return jnp.where(where, array, jnp.zeros((), array.dtype))


def gather(array: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """The examples of all devices, in device order: [n, ...] → [n · devices, ...]."""
    return array if axis_name is None else lax.all_gather(array, axis_name, tiled=True)


def total(array: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """The sum over devices."""
    return array if axis_name is None else lax.psum(array, axis_name)


def example_index(n: int, axis_name: AxisName | None) -> jax.Array:
    """The place of this device's ``n`` examples among those that ``gather`` returns, [n]."""
    index = jnp.arange(n, dtype=jnp.int32)
    return index if axis_name is None else index + n * lax.axis_index(axis_name)
