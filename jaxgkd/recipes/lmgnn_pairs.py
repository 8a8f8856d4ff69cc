"""A language model and a network trained together, as a run's folder keeps them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgkd.recipes.lmgnn_cotraining import CoTrained
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name

Tree = Any


class Pair(NamedTuple):
    """A language model and a network on top of it, trained: `CoTrained` as it is kept.

    Fields are those of `CoTrained`; ``scores`` are step → validation score.
    """

    lm: Tree
    params: Tree
    rest: Tree
    table: np.ndarray
    scores: dict[int, float]
    best_step: int
    seconds: float
    step_milliseconds: float


def pair_tree(trained: CoTrained | Pair) -> Tree:
    """Nested dicts of arrays, as a run's folder keeps them."""
    return {
        "lm": leaves_by_name(trained.lm),
        "gnn": leaves_by_name((trained.params, trained.rest)),
        "table": trained.table,
        "steps": np.array(list(trained.scores), np.int64),
        "scores": np.array(list(trained.scores.values())),
        "best_step": np.int64(trained.best_step),
        "seconds": np.float64(trained.seconds),
        "step_milliseconds": np.float64(trained.step_milliseconds),
    }


def pair_from_tree(saved: Tree, lm: Tree, like: tuple[Tree, Tree]) -> Pair:
    """The inverse of `pair_tree`.

    Args:
      saved: what the folder kept.
      lm: weights of the upper layers; like: parameters and other state of the network: of the wanted shapes.

    Raises:
      CheckpointError: an array is missing, left over, or of another shape.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), lm)
    params, rest = from_leaves(saved["gnn"], like)
    return Pair(
        lm=jax.tree.map(jnp.asarray, from_leaves(saved["lm"], shapes)),
        params=jax.tree.map(jnp.asarray, params),
        rest=jax.tree.map(jnp.asarray, rest),
        table=np.asarray(saved["table"]),
        scores={int(s): float(v) for s, v in zip(saved["steps"], saved["scores"], strict=True)},
        best_step=int(saved["best_step"]),
        seconds=float(saved["seconds"]),
        step_milliseconds=float(saved["step_milliseconds"]),
    )
