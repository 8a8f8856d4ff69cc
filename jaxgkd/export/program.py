"""A student as one function of named arrays, lowered once for all platforms and sizes."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, export

PLATFORMS = ("cpu", "cuda", "tpu")
#: Symbols of what a graph may have none of: edges, of several relations, and values. JAX's own stand for 1 and more.
MAY_BE_EMPTY = re.compile(r"e\d*|v")


class Input(NamedTuple):
    """An array that a program takes.

    Fields:
      shape: sizes, or symbols such as ``n`` and ``n + 1``, shared between inputs; those in `MAY_BE_EMPTY` may be 0.
      dtype: its name.
      about: what it holds, in words.
    """

    shape: tuple[int | str, ...]
    dtype: str
    about: str


class Program(NamedTuple):
    """What is exported.

    Fields:
      call: from the weights of one member by name, and the inputs by name, to an array.
      inputs: name → what goes in.
      output: shape in words; about: what comes out, in words.
      limits: what holds of symbols, such as ``t <= 64``.
      beside: name → weights that the run does not keep, the same for all members.
      files: name → content of what goes with the program beside what the run keeps.
    """

    call: Callable[[Mapping[str, Array], Mapping[str, Array]], Array]
    inputs: Mapping[str, Input]
    output: tuple[int | str, ...]
    about: str
    limits: tuple[str, ...] = ()
    beside: Mapping[str, np.ndarray] = MappingProxyType({})
    files: Mapping[str, bytes] = MappingProxyType({})


def lower(program: Program, weights: Mapping[str, np.ndarray]) -> export.Exported:
    """StableHLO of the mean over members for every platform, with symbols for sizes that are not fixed.

    Args:
      program: of one member.
      weights: name → [members, ...].
    """
    scope = export.SymbolicScope(program.limits)
    given = {
        name: jax.ShapeDtypeStruct(
            export.symbolic_shape(", ".join(map(_symbol, each.shape)) + ",", scope=scope), np.dtype(each.dtype)
        )
        for name, each in program.inputs.items()
    }
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}

    def mean(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> Array:
        said = jax.lax.map(lambda one: program.call(one, inputs), weights)
        return jax.numpy.mean(said, axis=0)

    return export.export(jax.jit(mean), platforms=PLATFORMS)(shapes, given)


def _symbol(size: int | str) -> str:
    return f"{size} - 1" if MAY_BE_EMPTY.fullmatch(str(size)) else str(size)


def described(inputs: Mapping[str, Input]) -> dict[str, Any]:
    """Inputs as JSON values."""
    return {
        name: {"shape": list(each.shape), "dtype": each.dtype, "about": each.about} for name, each in inputs.items()
    }
