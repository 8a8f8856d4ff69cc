"""Random weights for a model that is to be trained from scratch or only measured, each array drawn where it stays."""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Sharding

from jaxgkd.language.placement import Placement, sharding_of
from jaxgkd.language.weight_plan import WeightPlan, stacked_shape


def random_weights(
    plan: WeightPlan,
    dtype: jnp.dtype,
    *,
    key: Array,
    deviation: float,
    norm_scale: float,
    placement: Placement | None = None,
) -> dict[str, dict[str, Array]]:
    """Weights of every parameter of a plan.

    Args:
      plan: the parameters; ``scale`` and vectors called ``bias`` are told by their names.
      dtype: of all arrays.
      key: for the random numbers.
      deviation: standard deviation of kernels and tables.
      norm_scale: the value of all scales; biases are 0.
      placement: see ``Placement``; None for the default device.

    Returns:
      ``{group: {parameter: array}}``.
    """
    weights: dict[str, dict[str, Array]] = {}
    number = 0
    for group, tensors in plan.tensors.items():
        weights[group] = {}
        for name, stored in tensors.items():
            shape = stacked_shape(stored, plan.n_layers)
            sharding = None if placement is None else sharding_of(f"{group}/{name}", shape, placement)
            if name.endswith("scale"):
                weights[group][name] = jnp.full(shape, norm_scale, dtype, device=sharding)
            elif name.endswith("bias") and len(stored.shape) == 1:
                weights[group][name] = jnp.zeros(shape, dtype, device=sharding)
            else:
                draw = _normal(shape, jnp.dtype(dtype), sharding)
                weights[group][name] = draw(jax.random.fold_in(key, number), deviation)
            number += 1
    return weights


@lru_cache
def _normal(shape: tuple[int, ...], dtype: jnp.dtype, sharding: Sharding | None) -> Callable[[Array, float], Array]:
    """One program for all arrays of a shape and place."""

    def draw(key: Array, deviation: float) -> Array:
        return jax.random.normal(key, shape, dtype) * jnp.asarray(deviation, dtype)

    return jax.jit(draw, out_shardings=sharding)
