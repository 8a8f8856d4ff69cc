"""One row of a node classification table: its settings searched on validation data, all its seeds trained at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from rich.console import Console

from jaxgkd.nn.named_weights import student_weights
from jaxgkd.nn.node_problem import TotalLoss, default_optimizer, label_loss, node_problem
from jaxgkd.nn.untrained import graphdef_of, n_weights
from jaxgkd.recipes.searched_fit import Budget, searched_fit
from jaxgkd.training.run_dir import RunDirectory
from jaxgkd.training.search import Choice
from jaxgkd.training.timing import median_milliseconds

Tree = Any


@dataclass(frozen=True)
class Row:
    """A trained row.

    Fields:
      probabilities: [seeds, n, classes]; hidden: [n, d] last states of the first seed.
      settings: the numeric settings that were chosen.
      best_epoch: [seeds]; epochs: [evaluations]; curves: name → [seeds, evaluations].
      weights: of the student by name, [seeds, ...]; parameters: number of weights of one.
      milliseconds: of one forward pass over all nodes.
      seconds: of search and training.
    """

    probabilities: np.ndarray
    hidden: np.ndarray
    settings: dict[str, float]
    best_epoch: np.ndarray
    epochs: np.ndarray
    curves: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    parameters: int
    milliseconds: float
    seconds: float


def train_row(
    name: str,
    make: Callable[[Array], nnx.Module],
    run_data: Tree,
    shared: Tree,
    seeds: list[int],
    *,
    default: Mapping[str, float],
    space: Mapping[str, Choice],
    budget: Budget,
    run_dir: RunDirectory,
    console: Console,
    total_loss: TotalLoss = label_loss,
    optimizer: Callable[[dict[str, Array]], Any] = default_optimizer,
    counted: Callable[[nnx.Module], nnx.Module] = lambda model: model,
) -> Row:
    """Search settings, train all seeds with the best, predict once.

    Args:
      name: of the row, and of its checkpoint.
      make: a model from a key.
      run_data: what `jaxgkd.nn.node_problem` wants of each seed, without ``settings``.
      shared: what all seeds share.
      seeds: one per run.
      default: the settings to start from; space: what the search draws from.
      budget: the same for every row of a table.
      run_dir: where the finished row is kept; a row that is there is read.
      console: for progress.
      total_loss, optimizer: see `node_problem`.
      counted: the part of the model that is left after training, whose weights count.
    """
    problem = node_problem(make, total_loss, optimizer)
    found = searched_fit(
        name,
        problem,
        run_data,
        shared,
        seeds,
        default=default,
        space=space,
        budget=budget,
        run_dir=run_dir,
        console=console,
    )
    graphdef = graphdef_of(make)

    def predict(seed: int) -> tuple[Array, Array]:
        params, rest = jax.tree.map(lambda leaf: jnp.asarray(leaf[seed]), (found.params, found.rest))
        return jax.block_until_ready(_forward(graphdef, params, rest, shared["graph"], shared["layout"]))

    outputs = [jax.tree.map(np.asarray, predict(seed)) for seed in range(len(seeds))]
    return Row(
        probabilities=np.stack([probabilities for probabilities, _ in outputs]),
        hidden=outputs[0][1],
        settings=found.settings,
        best_epoch=found.best_epoch,
        epochs=found.epochs,
        curves=found.curves,
        weights=student_weights(found.params, found.rest),
        parameters=n_weights(make, counted),
        milliseconds=median_milliseconds(lambda: predict(0), passes=20),
        seconds=found.seconds,
    )


@partial(jax.jit, static_argnames="graphdef")
def _forward(graphdef, params, rest, graph, layout):
    """Probabilities [n, classes] and the last states [n, d]."""
    states = nnx.merge(graphdef, params, rest)(graph, layout)
    return jax.nn.softmax(states.logits), states.hidden[-1]
