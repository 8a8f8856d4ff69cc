"""Steps whose numbers are not finite: the run stops there, or the step is left out and counted (``--on-nan``)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Tree = Any

#: So many steps in a row that had to be left out are no accident: nothing will come of the run.
MOST_SKIPPED = 10
#: Log of a step: 1 where it was left out.
SKIPPED = "skipped"


def sound(loss: Array, *trained: Tree) -> Array:
    """Whether a step's loss and all numbers of the weights and moments it leads to are finite, a bool."""
    leaves = [leaf for leaf in jax.tree.leaves(trained) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(each).all() for each in [loss, *leaves]]).all()


def choose(which: Array, new: Tree, old: Tree) -> Tree:
    """``new`` where a bool says so, else ``old``: two states of the same form, random keys included."""
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), new, old)


def without_broken(which: Array, logs: dict[str, Array], instead: float) -> dict[str, Array]:
    """The logs of a step, ``instead`` of them where it was left out, and ``skipped`` beside them."""
    logs = {name: jnp.where(which, value, instead) for name, value in logs.items()}
    return {**logs, SKIPPED: 1.0 - which.astype(jnp.float32)}
