"""Training over batches of many graphs, several runs at once on the same batches.

A *run* is one setting of the numeric hyper-parameters with one random key, as in ``loop``. Where all runs of ``loop``
read one graph, here they go through the same stream of batches, so a batch is made, and what no run changes (what a
frozen teacher says, for one) is computed, once for all of them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxgkd.training.by_value import cached_by_value
from jaxgkd.training.devices import EVERYWHERE, on_default_device, put, put_rows, to_host
from jaxgkd.training.epochs import Epochs
from jaxgkd.training.execution import execution
from jaxgkd.training.loop import names
from jaxgkd.training.soundness import choose, sound, without_broken
from jaxgkd.training.underway import underway

Tree = Any


class BatchProblem(NamedTuple):
    """What is trained, as pure functions of one run; all are traced once and mapped over the runs.

    Fields:
      init: ``(key) -> params``.
      loss: ``(params, key, settings, batch, shared) -> (scalar, logs)``; ``logs`` is a dict of scalars.
      outputs: ``(params, batch) -> [g, ...]``, what is predicted for the graphs of a batch.
      optimizer: ``(settings, progress) -> optax.GradientTransformation``; ``progress`` goes from 0 to 1.
    """

    init: Callable[[Array], Tree]
    loss: Callable[..., tuple[Array, dict[str, Array]]]
    outputs: Callable[[Tree, Any], Array]
    optimizer: Callable[[dict[str, Array], Array], optax.GradientTransformation]


@dataclass(frozen=True)
class BatchFit:
    """The result of `fit_batches`, every array with the runs as its first axis.

    Fields:
      params: of each run's best epoch.
      best_epoch: [runs], counted from 1.
      curves: name → [runs, epochs]: ``valid``, and the mean over an epoch of the loss and all logs.
    """

    params: Tree
    best_epoch: np.ndarray
    curves: dict[str, np.ndarray]


class _State(NamedTuple):
    params: Tree
    optimizer: Tree


def fit_batches(
    problem: BatchProblem,
    keys: Array,
    settings: dict[str, Array],
    batches: Callable[[int], Sequence[Any] | Iterable[Any]],
    shared: Tree = None,
    *,
    n_batch: int,
    epochs: int,
    score: Callable[[Tree], np.ndarray],
    higher_is_better: bool = False,
    on_progress: Callable[[int, float], None] | None = None,
) -> BatchFit:
    """Train all runs to the end, each keeping the weights of its best epoch.

    Args:
      problem: what to train.
      keys: [runs] random keys; runs with the same key start from the same weights and drop the same units.
      settings: name → [runs].
      batches: ``(epoch) -> batches`` of an epoch counted from 0.
      shared: pytree that all runs read.
      n_batch: batches of an epoch; the learning rate follows ``(epoch + batch / n_batch) / epochs``.
      epochs: of training.
      score: ``(params of all runs) -> [runs]``, the validation metric that selects; ties keep the earlier epoch.
      higher_is_better: of that metric.
      on_progress: called after every epoch with its number and the mean metric.

    Raises:
      ValueError: ``epochs`` is below 1.
      CheckpointError: what is kept of this training is damaged, or the disk does not take it.
      FloatingPointError: the loss of a run was not finite (``Execution.on_nan``: in a whole epoch); names the run and
        the epoch.
    """
    if epochs < 1:
        raise ValueError(f"epochs are at least 1, not {epochs}")
    mesh, skip = execution().mesh, execution().on_nan == "skip"
    start, step, keep = _program(problem, skip)
    at = Epochs(len(keys), -np.inf if higher_is_better else np.inf)
    # As in `fit`: with steps left out there is more to keep.
    given = (n_batch, epochs, higher_is_better, names(problem), skip)
    with underway(given, keys, settings, shared, lambda: next(iter(batches(0)))) as training:
        keys, settings = put((keys, settings), mesh, EVERYWHERE)
        shared = put(shared, mesh, EVERYWHERE)
        state = start(keys, settings)
        # A copy, because the buffers of the state are written over.
        best = jax.tree.map(jnp.copy, state.params)
        if kept := training.kept():
            state, best = put(kept.like("state", (state, best)), mesh, EVERYWHERE)
            at.restore(kept)

        def parts() -> dict[str, Tree]:
            return {"state": (state, best), **at.parts()}

        while at.epoch < epochs:
            for batch in islice(batches(at.epoch), at.number, None):
                batch = put_rows(batch, mesh)
                position = jnp.int32(at.epoch * n_batch + at.number)
                progress = jnp.float32(min(1.0, (at.epoch + at.number / n_batch) / epochs))
                state, logs = step(state, keys, settings, position, progress, batch, shared)
                at.add(logs)
                training.reached(at.position, parts)
            means = at.means()
            broken = ~np.isfinite(means["train_loss"])
            if broken.any():
                what = f"the loss of run {int(np.argmax(broken))} is not finite at epoch {at.epoch + 1}"
                raise training.broken(what, parts)
            valid = np.asarray(score(state.params), float)
            better = valid > at.best_score if higher_is_better else valid < at.best_score
            best = keep(jnp.asarray(better), state.params, best)
            at.mark(better, valid)
            at.record({**means, "valid": valid}, at.epoch, epochs)
            at.end()
            if on_progress is not None:
                on_progress(at.epoch, float(np.mean(valid)))
            training.reached(at.position, parts)
        if not at.best_epoch.all():
            run = int(np.argmin(at.best_epoch))
            raise FloatingPointError(f"the validation metric of run {run} is not finite at any epoch")
        training.finished(at.position, parts)
    return BatchFit(on_default_device(best, mesh), at.best_epoch, at.curves)


def predict_batches(
    problem: BatchProblem, params: Tree, batches: Iterable[Any], index: Callable[[Any], Array], n: int
) -> np.ndarray:
    """Predictions of all runs, [runs, n, ...]; graphs that are in no batch are NaN.

    Args:
      problem: whose ``outputs`` are wanted.
      params: of all runs.
      batches: some of the graphs.
      index: ``(batch) -> [g]`` positions of its graphs, -1 for padding.
      n: graphs there are.
    """
    outputs = _outputs(problem)
    found: np.ndarray | None = None
    mesh = execution().mesh
    for batch in batches:
        values = to_host(outputs(put(params, mesh, EVERYWHERE), put_rows(batch, mesh)))
        rows = np.asarray(index(batch))
        if found is None:
            found = np.full((len(values), n, *values.shape[2:]), np.nan, np.float32)
        found[:, rows[rows >= 0]] = values[:, rows >= 0]
    if found is None:
        raise ValueError("there is no batch to predict")
    return found


@cached_by_value(maxsize=16)
def _program(problem: BatchProblem, skip: bool = False):
    """Three compiled functions: the first state of all runs, a step of all runs, and the better of two weights."""

    def begin(key, settings):
        params = problem.init(jax.random.fold_in(key, 0))
        return _State(params, problem.optimizer(settings, jnp.float32(0)).init(params))

    def train(state, key, settings, position, progress, batch, shared):
        step_key = jax.random.fold_in(key, position + 1)
        gradient = jax.value_and_grad(problem.loss, has_aux=True)
        (loss, logs), gradients = gradient(state.params, step_key, settings, batch, shared)
        updates, optimizer = problem.optimizer(settings, progress).update(gradients, state.optimizer, state.params)
        new, logs = _State(optax.apply_updates(state.params, updates), optimizer), {"train_loss": loss, **logs}
        if not skip:
            return new, logs
        fine = sound(loss, new.params, new.optimizer)
        return choose(fine, new, state), without_broken(fine, logs, 0.0)

    def train_all(state, keys, settings, *shared):
        return over_runs(train, (state, keys, settings), *shared)

    return jax.jit(jax.vmap(begin)), jax.jit(train_all, donate_argnums=0), jax.jit(jax.vmap(choose), donate_argnums=2)


def over_runs(function: Callable[..., Tree], of_runs: tuple[Tree, ...], *shared: Tree) -> Tree:
    """A function of every run, whose arguments have the runs as first axis, and of what they share.

    An accelerator takes all runs at once. A CPU is as busy with one, whose states fit into its cache better.
    """

    def one_by_one(of_runs, shared):
        return jax.lax.map(lambda one: function(*one, *shared), of_runs)

    def together(of_runs, shared):
        return jax.vmap(lambda *one: function(*one, *shared))(*of_runs)

    return jax.lax.platform_dependent(of_runs, shared, cpu=one_by_one, default=together)


@cached_by_value(maxsize=16)
def _outputs(problem: BatchProblem):
    return jax.jit(lambda params, batch: over_runs(problem.outputs, (params,), batch))
