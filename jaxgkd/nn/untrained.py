"""What is known of a model before it has weights: its static part and the shapes of its state."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.training.by_value import cached_by_value

Make = Callable[[Array], nnx.Module]


def graphdef_of(make: Make) -> nnx.GraphDef:
    """The static part of a model, without computing its weights.

    Args:
      make: a model from a key.
    """
    return _split(make)[0]


def shapes_of(make: Make) -> tuple[Any, Any]:
    """Parameters and other state of a model, each leaf a `jax.ShapeDtypeStruct`.

    Args:
      make: a model from a key.
    """
    return _split(make)[1:]


def n_weights(make: Make, part: Callable[[Any], nnx.Module] = lambda model: model) -> int:
    """Weights of a model, or of a part of it, counted without computing them.

    Args:
      make: a model from a key.
      part: the part that counts; all by default.
    """
    graphdef, *states = _split(make)
    params = nnx.state(part(nnx.merge(graphdef, *states)), nnx.Param)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


@cached_by_value(maxsize=64)
def _split(make: Make) -> tuple[nnx.GraphDef, Any, Any]:
    graphdef, params, rest = nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))), nnx.Param, ...)
    return graphdef, params, rest
