"""`loop.fit` for very many runs: a few at a time on a CPU, in as many threads as there are cores.

All runs at once read and write more memory in a step than a cache holds. A few at a time stay in it, and the parts,
which share one compiled program, keep every core busy where a step's operations are too small to be shared out.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgkd.training.execution import execution
from jaxgkd.training.loop import Fit, Problem, fit

_TOGETHER = 4


def fit_in_parts(
    problem: Problem,
    keys: Array,
    run_data: Any,
    shared: Any,
    *,
    workers: int,
    epochs: int,
    evaluate_every: int = 1,
    on_progress: Callable[[int, float], None] | None = None,
) -> Fit:
    """`fit` of all runs to the end, the same whatever the number of threads; in one part on accelerators and meshes.

    Args:
      problem, keys, run_data, shared, epochs, evaluate_every: see `fit`.
      workers: threads.
      on_progress: called after every part with the share of the epochs that all parts together have had, and the mean
        of the best validation scores so far.

    Raises:
      ValueError, FloatingPointError: as `fit` does; runs are then counted within their part.
    """
    n_run = len(keys)
    together = min(_TOGETHER, n_run) if jax.default_backend() == "cpu" and execution().mesh is None else n_run
    # Runs that fill up the last part are left out again: all parts have one shape, and one program.
    index = np.minimum(np.arange(-(-n_run // together) * together), n_run - 1).reshape(-1, together)

    def part(rows: np.ndarray) -> Fit:
        mine = jax.tree.map(lambda leaf: leaf[rows], run_data)
        return fit(problem, keys[rows], mine, shared, epochs=epochs, evaluate_every=evaluate_every)

    done: list[Fit] = []
    with ThreadPoolExecutor(workers) as pool:
        # Each in a copy of this thread's context, which says where trainings are kept.
        contexts = [copy_context() for _ in index]
        for result in pool.map(lambda context, rows: context.run(part, rows), contexts, index):
            done.append(result)
            if on_progress is not None:
                best = np.mean([np.nanmax(one.curves["valid"], axis=1).mean() for one in done])
                on_progress(epochs * len(done) // len(index), float(best))
    join = lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[:n_run]  # noqa: E731
    params, rest = jax.tree.map(join, *((one.params, one.rest) for one in done))
    return Fit(
        params=jax.tree.map(jnp.asarray, params),
        rest=jax.tree.map(jnp.asarray, rest),
        best_epoch=join(*(one.best_epoch for one in done)),
        epochs=done[0].epochs,
        curves={name: join(*(one.curves[name] for one in done)) for name in done[0].curves},
    )
