"""One row of a node classification table: its settings searched on validation data, all its seeds trained at once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from rich.console import Console

from jaxgkd.nn.node_problem import TotalLoss, default_optimizer, graphdef_of, label_loss, node_problem
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name
from jaxgkd.training.loop import fit
from jaxgkd.training.progress import progress_bar
from jaxgkd.training.run_dir import RunDirectory
from jaxgkd.training.search import Choice, draw_settings, grid_settings, ranked

Tree = Any


@dataclass(frozen=True)
class Budget:
    """How long every row trains and how many settings it may try.

    Fields:
      epochs, patience: of one run.
      tries: settings in the search, the default one included; 1 searches nothing.
      search_seeds: seeds that every try is trained with, the first ones of the run.
      finalists: best tries that are trained with all seeds, on which the choice between them rests.
      sweep: values to try in all combinations instead; empty draws from the row's space.
    """

    epochs: int
    patience: int | None
    tries: int
    search_seeds: int
    finalists: int = 3
    sweep: Mapping[str, Choice] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A trained row.

    Fields:
      probabilities: [seeds, n, classes]; hidden: [n, d] last states of the first seed.
      settings: the numeric settings that were chosen.
      best_epoch: [seeds]; epochs: [evaluations]; curves: name → [seeds, evaluations].
      parameters: number of weights of one student; milliseconds: of one forward pass over all nodes.
      seconds: of search and training.
    """

    probabilities: np.ndarray
    hidden: np.ndarray
    settings: dict[str, float]
    best_epoch: np.ndarray
    epochs: np.ndarray
    curves: dict[str, np.ndarray]
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
    started = time.perf_counter()

    def train(settings: list[dict[str, float]], runs: int, title: str):
        """Every setting with the first ``runs`` seeds, settings outermost."""
        repeated = jax.tree.map(lambda leaf: jnp.concatenate([leaf[:runs]] * len(settings)), run_data)
        values = {key: jnp.repeat(jnp.asarray([s[key] for s in settings], jnp.float32), runs) for key in default}
        keys = jnp.stack([jax.random.key(seed) for seed in seeds[:runs]] * len(settings))
        with progress_bar(console, title, budget.epochs) as tick:
            return fit(
                problem,
                keys,
                {**repeated, "settings": values},
                shared,
                epochs=budget.epochs,
                evaluate_every=2,
                patience=budget.patience,
                on_progress=tick,
            )

    def compute() -> Tree:
        drawn = not budget.sweep
        settings = draw_settings(space, default, budget.tries) if drawn else grid_settings(budget.sweep, default)
        finalists, scores = np.zeros(1, int), np.full((1, 1), np.nan)
        if len(settings) > 1:
            runs = min(budget.search_seeds, len(seeds))
            found = train(settings, runs, f"{name}: {len(settings)} settings × {runs} seeds")
            scores = np.nanmax(found.curves["valid"], axis=1).reshape(len(settings), runs)
            finalists = ranked(scores)[: budget.finalists]
        several = f"{len(finalists)} settings × " if len(finalists) > 1 else ""
        result = train([settings[i] for i in finalists], len(seeds), f"{name}: {several}{len(seeds)} seeds")
        final_scores = np.nanmax(result.curves["valid"], axis=1).reshape(len(finalists), len(seeds))
        best = ranked(final_scores)[0]
        winner = slice(best * len(seeds), (best + 1) * len(seeds))
        return {
            "state": leaves_by_name(jax.tree.map(lambda leaf: leaf[winner], (result.params, result.rest))),
            "curves": {key.replace("/", "."): value[winner] for key, value in result.curves.items()},
            "epochs": result.epochs,
            "best_epoch": result.best_epoch[winner],
            "settings": {key: np.float64(value) for key, value in settings[finalists[best]].items()},
            "search": {
                "scores": scores,
                "finalists": finalists,
                "final_scores": final_scores,
                **{key: np.array([s[key] for s in settings]) for key in default},
            },
            "seconds": np.float64(time.perf_counter() - started),
        }

    saved = run_dir.stage(name, compute)
    first = jax.tree.map(lambda leaf: leaf[0], run_data)
    one = jax.eval_shape(problem.init, jax.random.key(0), first)
    several = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(seeds), *leaf.shape), leaf.dtype), one)
    state = from_leaves(saved["state"], several)
    graphdef = graphdef_of(make)

    @jax.jit
    def forward(params, rest, graph, layout):
        states = nnx.merge(graphdef, params, rest)(graph, layout)
        return jax.nn.softmax(states.logits), states.hidden[-1]

    def predict(seed: int) -> tuple[Array, Array]:
        params, rest = jax.tree.map(lambda leaf: jnp.asarray(leaf[seed]), state)
        return jax.block_until_ready(forward(params, rest, shared["graph"], shared["layout"]))

    outputs = [jax.tree.map(np.asarray, predict(seed)) for seed in range(len(seeds))]
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        predict(0)
        times.append(time.perf_counter() - begun)
    model = counted(nnx.eval_shape(lambda: make(jax.random.key(0))))
    return Row(
        probabilities=np.stack([probabilities for probabilities, _ in outputs]),
        hidden=outputs[0][1],
        settings={key: float(value) for key, value in saved["settings"].items()},
        best_epoch=saved["best_epoch"],
        epochs=saved["epochs"],
        curves={key.replace(".", "/"): value for key, value in saved["curves"].items()},
        parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))),
        milliseconds=1e3 * float(np.median(times)),
        seconds=float(saved["seconds"]),
    )
