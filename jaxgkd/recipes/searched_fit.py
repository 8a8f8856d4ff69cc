"""Settings of a row searched on validation data, then all its seeds trained at once with the best."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxgkd.training.checkpoint import from_leaves, leaves_by_name
from jaxgkd.training.loop import Fit, Problem, fit
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
      evaluate_every: epochs between evaluations.
    """

    epochs: int
    patience: int | None
    tries: int
    search_seeds: int
    finalists: int = 3
    sweep: Mapping[str, Choice] = field(default_factory=dict)
    evaluate_every: int = 2


@dataclass(frozen=True)
class SearchedFit:
    """A trained row.

    Fields:
      params, rest: state at each seed's best epoch, seeds first.
      settings: the numeric settings that were chosen.
      best_epoch: [seeds]; epochs: [evaluations]; curves: name → [seeds, evaluations].
      seconds: of search and training.
    """

    params: Tree
    rest: Tree
    settings: dict[str, float]
    best_epoch: np.ndarray
    epochs: np.ndarray
    curves: dict[str, np.ndarray]
    seconds: float


def searched_fit(
    name: str,
    problem: Problem,
    run_data: Tree,
    shared: Tree,
    seeds: list[int],
    *,
    default: Mapping[str, float],
    space: Mapping[str, Choice],
    budget: Budget,
    run_dir: RunDirectory,
    console: Console,
    train_runs: Callable[..., Fit] | None = None,
) -> SearchedFit:
    """Search settings with the first seeds, and train all seeds with the best.

    Args:
      name: of the row, and of its checkpoint.
      problem: what is trained; it finds its settings under ``settings`` in a run's data.
      run_data: of each seed, without ``settings``.
      shared: what all seeds share.
      seeds: one per run.
      default: the settings to start from; space: what the search draws from.
      budget: the same for every row of a table.
      run_dir: where the finished row is kept; a row that is there is read.
      console: for progress.
      train_runs: called as `jaxgkd.training.loop.fit`, which it is by default.
    """
    started = time.perf_counter()

    def train(settings: list[dict[str, float]], runs: int, title: str):
        """Every setting with the first ``runs`` seeds, settings outermost."""
        repeated = jax.tree.map(lambda leaf: jnp.concatenate([leaf[:runs]] * len(settings)), run_data)
        values = {key: jnp.repeat(jnp.asarray([s[key] for s in settings], jnp.float32), runs) for key in default}
        keys = jnp.stack([jax.random.key(seed) for seed in seeds[:runs]] * len(settings))
        with progress_bar(console, title, budget.epochs) as tick:
            return (train_runs or fit)(
                problem,
                keys,
                {**repeated, "settings": values},
                shared,
                epochs=budget.epochs,
                evaluate_every=budget.evaluate_every,
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
    params, rest = from_leaves(saved["state"], several)
    return SearchedFit(
        params=params,
        rest=rest,
        settings={key: float(value) for key, value in saved["settings"].items()},
        best_epoch=saved["best_epoch"],
        epochs=saved["epochs"],
        curves={key.replace(".", "/"): value for key, value in saved["curves"].items()},
        seconds=float(saved["seconds"]),
    )
