"""A student as one function of named arrays, lowered once for all platforms and sizes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, export

PLATFORMS = ("cpu", "cuda", "tpu")


class Input(NamedTuple):
    """An array that a program takes.

    Fields:
      shape: sizes, or symbols such as ``n`` and ``n + 1``, shared between inputs.
      dtype: its name.
      about: what it holds, in words.
    """

    shape: tuple[int | str, ...]
    dtype: str
    about: str


class Program(NamedTuple):
    """What is exported.

    Fields:
      call: from the weights by name and the inputs by name to an array.
      inputs: name → what goes in.
      output: shape in words; about: what comes out, in words.
    """

    call: Callable[[Mapping[str, Array], Mapping[str, Array]], Array]
    inputs: Mapping[str, Input]
    output: tuple[int | str, ...]
    about: str


def lower(program: Program, weights: Mapping[str, np.ndarray]) -> export.Exported:
    """StableHLO of a program for every platform, with symbols for sizes that are not fixed."""
    scope = export.SymbolicScope()
    given = {
        name: jax.ShapeDtypeStruct(
            export.symbolic_shape(", ".join(map(str, each.shape)) + ",", scope=scope), np.dtype(each.dtype)
        )
        for name, each in program.inputs.items()
    }
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}
    return export.export(jax.jit(program.call), platforms=PLATFORMS)(shapes, given)


def described(inputs: Mapping[str, Input]) -> dict[str, Any]:
    """Inputs as JSON values."""
    return {
        name: {"shape": list(each.shape), "dtype": each.dtype, "about": each.about} for name, each in inputs.items()
    }
