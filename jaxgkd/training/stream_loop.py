"""Training of many runs on one stream of batches of a large graph: validation, early stopping and the best state kept.

The runs are those of ``loop``: a seed with a setting of the numeric hyper-parameters, state without gradients included.
What a step reads comes from the host batch by batch, made ahead of time in a thread, so that memory is bounded by the
batch and not by the graph.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxgkd.training.batch_loop import over_runs
from jaxgkd.training.by_value import cached_by_value
from jaxgkd.training.devices import EVERYWHERE, on_default_device, put, put_rows
from jaxgkd.training.epochs import Epochs
from jaxgkd.training.execution import execution
from jaxgkd.training.loop import Fit, names
from jaxgkd.training.soundness import choose, sound, without_broken
from jaxgkd.training.underway import underway

Tree = Any


class StreamProblem(NamedTuple):
    """What is trained, as pure functions of one run; all are traced once and mapped over the runs.

    Fields:
      init: ``(key, run_data) -> (params, rest)``; ``rest`` is state without gradients (BatchNorm statistics).
      loss: ``(params, rest, key, run_data, batch) -> (scalar, (rest, logs))``; ``logs`` is a dict of scalars.
      optimizer: ``(run_data) -> optax.GradientTransformation``; its settings may be traced values of the run.
    """

    init: Callable[[Array, Tree], tuple[Tree, Tree]]
    loss: Callable[..., tuple[Array, tuple[Tree, dict[str, Array]]]]
    optimizer: Callable[[Tree], optax.GradientTransformation]


class _State(NamedTuple):
    params: Tree
    rest: Tree
    optimizer: Tree


def fit_stream(
    problem: StreamProblem,
    keys: Array,
    run_data: Tree,
    batches: Callable[[int], Iterable[Any]],
    score: Callable[[Tree, Tree], dict[str, np.ndarray]],
    *,
    epochs: int,
    evaluate_every: int = 1,
    patience: int | None = None,
    select_by: str = "valid",
    on_progress: Callable[[int, float], None] | None = None,
) -> Fit:
    """Train all runs to the end, or until each has gone ``patience`` epochs without a better validation score.

    Args:
      problem: what to train.
      keys: [runs] random keys.
      run_data: pytree whose leaves have the runs as first axis.
      batches: ``(epoch) -> batches`` of an epoch counted from 0; all runs read the same ones.
      score: ``(params, rest) -> name → [runs]`` of all runs, among them the metric that selects, higher is better.
      epochs: at most; a multiple of ``evaluate_every`` (else rounded up).
      evaluate_every: epochs between evaluations.
      patience: epochs; None trains to the end.
      select_by: the metric whose best epoch is kept. Ties keep the earlier epoch.
      on_progress: called after every evaluation with the epoch and the mean of the selecting metric over the runs that
        still train.

    Returns:
      curves hold the mean of the loss and of every log over the batches of the last epoch before each evaluation.

    Raises:
      ValueError: ``epochs`` or ``evaluate_every`` is below 1, or an epoch has no batch.
      CheckpointError: what is kept of this training is damaged, or the disk does not take it.
      FloatingPointError: the loss of a run was not finite (``Execution.on_nan``: in a whole epoch), or the metric that
        selects never was; names the run.
    """
    if epochs < 1 or evaluate_every < 1:
        raise ValueError(f"epochs and evaluate_every are at least 1, not {epochs} and {evaluate_every}")
    skip = execution().on_nan == "skip"
    start, step, keep = _program(problem, skip)
    evaluations = -(-epochs // evaluate_every)
    mesh, at = execution().mesh, Epochs(len(keys), -np.inf)
    # As in `fit`: with steps left out there is more to keep.
    given = (evaluations, evaluate_every, patience or 0, select_by, names(problem), skip)
    with underway(given, keys, run_data, lambda: next(iter(batches(0)))) as training:
        keys, run_data = put((keys, run_data), mesh, EVERYWHERE)
        state = start(keys, run_data)
        # A copy, because the buffers of the state are written over.
        best = jax.tree.map(jnp.copy, (state.params, state.rest))
        if kept := training.kept():
            state, best = put(kept.like("state", (state, best)), mesh, EVERYWHERE)
            at.restore(kept)

        def parts() -> dict[str, Tree]:
            return {"state": (state, best), **at.parts()}

        while at.epoch < evaluations * evaluate_every and not at.stopped.all():
            for batch in islice(batches(at.epoch), at.number, None):
                batch = put_rows(batch, mesh)
                state, logs = step(state, keys, run_data, jnp.int32(at.steps), batch)
                at.add(logs)
                training.reached(at.position, parts)
            if not at.number:
                raise ValueError(f"epoch {at.epoch + 1} has no batch")
            epoch, means = at.epoch + 1, at.means()
            broken = ~np.isfinite(means["train_loss"]) & ~at.stopped
            if broken.any():
                what = f"the loss of run {int(np.argmax(broken))} is not finite at epoch {epoch}"
                raise training.broken(what, parts)
            if epoch % evaluate_every == 0:
                scores = score(state.params, state.rest)
                value = np.where(at.stopped, -np.inf, scores[select_by])
                better = value > at.best_score
                best = keep(jnp.asarray(better), (state.params, state.rest), best)
                at.mark(better, value)
                values = {name: np.asarray(value, np.float32) for name, value in {**means, **scores}.items()}
                at.record(values, epoch // evaluate_every - 1, evaluations)
                if on_progress is not None:
                    on_progress(epoch, float(np.mean(scores[select_by][~at.stopped])))
                if patience is not None:
                    at.stopped |= epoch - at.best_epoch >= patience
            at.end()
            training.reached(at.position, parts)
        if not at.best_epoch.all():
            run = int(np.argmin(at.best_epoch))
            raise FloatingPointError(f"the metric '{select_by}' of run {run} is never finite")
        training.finished(at.position, parts)
    params, rest = on_default_device(best, mesh)
    return Fit(params, rest, at.best_epoch, evaluate_every * np.arange(1, evaluations + 1), at.curves)


@cached_by_value(maxsize=16)
def _program(problem: StreamProblem, skip: bool = False):
    """Three compiled functions: the first state of all runs, a step of all runs, and the better of two states."""

    def begin(key, data):
        params, rest = problem.init(jax.random.fold_in(key, 0), data)
        return _State(params, rest, problem.optimizer(data).init(params))

    def train(state, key, data, position, batch):
        step_key = jax.random.fold_in(key, position + 1)
        gradient = jax.value_and_grad(problem.loss, has_aux=True)
        (loss, (rest, logs)), gradients = gradient(state.params, state.rest, step_key, data, batch)
        updates, optimizer = problem.optimizer(data).update(gradients, state.optimizer, state.params)
        new = _State(optax.apply_updates(state.params, updates), rest, optimizer)
        logs = {"train_loss": loss, **logs}
        if not skip:
            return new, logs
        fine = sound(loss, new.params, new.optimizer)
        return choose(fine, new, state), without_broken(fine, logs, 0.0)

    def train_all(state, keys, run_data, position, batch):
        return over_runs(train, (state, keys, run_data), position, batch)

    return jax.jit(jax.vmap(begin)), jax.jit(train_all, donate_argnums=0), jax.jit(jax.vmap(choose), donate_argnums=2)
