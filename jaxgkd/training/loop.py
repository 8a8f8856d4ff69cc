"""One compiled program per experiment: epochs, validation, early stopping and the best state, for many runs at once.

A *run* is one seed with one setting of the numeric hyper-parameters. Runs differ in their random key and in what
`run_data` holds for them (masks, targets, learning rates…), never in shapes, so that all of them go through the same
program under ``vmap``: ten seeds share one compilation and one pass over whatever they have in common. On a CPU they
go in parts of a few runs, see `jaxgkd.training.parts`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from jaxgkd.training.by_value import cached_by_value
from jaxgkd.training.devices import DATA, EVERYWHERE, MODEL, RUNS, put, put_runs, to_host
from jaxgkd.training.execution import execution
from jaxgkd.training.parts import MOST_TOGETHER, join, rows_of_parts, side_by_side, take
from jaxgkd.training.soundness import MOST_SKIPPED, choose, sound, without_broken
from jaxgkd.training.underway import underway

Tree = Any


class Problem(NamedTuple):
    """What is trained, as pure functions of one run; all are traced once and mapped over the runs.

    Fields:
      init: ``(key, run_data) -> (params, rest)``; ``rest`` is state without gradients (BatchNorm statistics).
      loss: ``(params, rest, key, progress, run_data, shared) -> (scalar, (rest, logs))``; ``progress`` runs from 0 to 1
        over the epochs, ``logs`` is a dict of scalars.
      evaluate: ``(params, rest, run_data, shared) -> dict of scalars``, among them the one that selects.
      optimizer: ``(run_data) -> optax.GradientTransformation``; its settings may be traced values of the run.
    """

    init: Callable[[Array, Tree], tuple[Tree, Tree]]
    loss: Callable[..., tuple[Array, tuple[Tree, dict[str, Array]]]]
    evaluate: Callable[..., dict[str, Array]]
    optimizer: Callable[[Tree], optax.GradientTransformation]


@dataclass(frozen=True)
class Fit:
    """The result of `fit`, every array with the runs as its first axis.

    Fields:
      params, rest: state at each run's best epoch.
      best_epoch: [runs] its number, counted from 1.
      epochs: [evaluations] the epochs after which was evaluated.
      curves: name → [runs, evaluations] of every log and metric; NaN after a run has stopped.
    """

    params: Tree
    rest: Tree
    best_epoch: np.ndarray
    epochs: np.ndarray
    curves: dict[str, np.ndarray]


# How often the host sees the state, at most: between two stretches the program runs without it.
_STRETCHES = 50
# Epochs between evaluations from which on the training after the last one is worth a branch.
_LONG_PERIOD = 4


class _State(NamedTuple):
    params: Tree
    rest: Tree
    optimizer: Tree
    best_params: Tree
    best_rest: Tree
    best_score: Array
    best_epoch: Array
    stopped: Array
    broken_epoch: Array
    skipped: Array  # epochs in a row that were left out


class _Progress(NamedTuple):
    """What one period hands to the next.

    Fields:
      periods: how many there were; the first evaluated the initial weights.
      state: of all runs.
      logs: name → [runs] of the last epoch.
      curves: name → [evaluations, runs] of what is known.
    """

    periods: Array
    state: _State
    logs: dict[str, Array]
    curves: dict[str, Array]


def fit(
    problem: Problem,
    keys: Array,
    run_data: Tree,
    shared: Tree,
    *,
    epochs: int,
    evaluate_every: int = 1,
    patience: int | None = None,
    select_by: str = "valid",
    higher_is_better: bool = True,
    on_progress: Callable[[int, float], None] | None = None,
    together: int = MOST_TOGETHER,
) -> Fit:
    """Train all runs to the end, or until each has gone ``patience`` epochs without a better validation score.

    Args:
      problem: what to train.
      keys: [runs] random keys.
      run_data: pytree whose leaves have the runs as first axis.
      shared: pytree that all runs read.
      epochs: at most; a multiple of ``evaluate_every`` (else rounded up).
      evaluate_every: epochs between evaluations.
      patience: epochs; None trains to the end.
      select_by: the metric whose best epoch is kept. Ties keep the earlier epoch.
      higher_is_better: of that metric.
      on_progress: called with the epoch and the mean of the selecting metric over the runs that still train, some
        fifty times at most. It is called between two stretches of the program: a callback from inside would keep the
        program out of JAX's compilation cache.
      together: runs that a CPU takes at once, at most; 1 where a run's products are large and read inputs of its own.

    Raises:
      ValueError: ``epochs`` or ``evaluate_every`` is below 1.
      CheckpointError: what is kept of this training is damaged, or the disk does not take it.
      FloatingPointError: the loss of a run was not finite (``Execution.on_nan``: too often in a row), its best weights
        are not, or the metric that selects never was a number; names the run and the epoch.
    """
    if epochs < 1 or evaluate_every < 1:
        raise ValueError(f"epochs and evaluate_every are at least 1, not {epochs} and {evaluate_every}")
    evaluations = -(-epochs // evaluate_every)
    sign = 1.0 if higher_is_better else -1.0
    mesh, n_run = execution().mesh, len(keys)
    skip = execution().on_nan == "skip"
    begin, advance = _program(problem, evaluations, evaluate_every, patience, select_by, sign, mesh, skip)
    stretch = -(-evaluations // _STRETCHES)
    # With steps left out there is more to keep: a training that was broken off without begins anew.
    settings = (evaluations, evaluate_every, patience or 0, select_by, sign, names(problem), skip)
    whole = mesh is not None or jax.default_backend() != "cpu"
    rows = np.arange(n_run)[None] if whole else rows_of_parts(n_run, together)
    with underway(settings, keys, run_data, shared) as training:
        keys, run_data, shared = put_runs(keys, mesh), put_runs(run_data, mesh), put(shared, mesh, EVERYWHERE)
        given: list[tuple[Any, ...]] = [(keys, run_data, shared)]
        if len(rows) > 1:
            given = [(keys[mine], take(run_data, mine), shared) for mine in rows]
        parts = [begin(*each) for each in given]
        if kept := training.kept():
            parts = _spread(kept.like("progress", _whole(parts, mesh, n_run)), mesh, rows)
        # Compiled once, here, for whichever thread runs it.
        run = advance.lower(parts[0], 0, *given[0]).compile()
        for end in range(stretch, evaluations + stretch, stretch):
            if kept is not None and kept.position > end:
                continue
            stop = min(end, evaluations)
            parts = side_by_side(run, [(part, stop, *each) for part, each in zip(parts, given, strict=True)])
            # Parts whose runs have all stopped early have had fewer; where one is broken, the others are of no use.
            done = max(int(part.periods) for part in parts) - 1
            if on_progress is not None and done > end - stretch:
                scores = np.concatenate([to_host(part.curves[select_by])[done - 1] for part in parts])[:n_run]
                there = np.isfinite(scores)
                on_progress(done * evaluate_every, float(scores[there].mean()) if there.any() else float("nan"))
            if done < end or any(np.any(to_host(part.state.broken_epoch)) for part in parts):
                break
            training.reached(done + 1, lambda parts=parts: {"progress": _whole(parts, mesh, n_run)})
        progress = _whole(parts, mesh, n_run)
        if fault := _not_finite(progress.state, select_by):
            raise training.broken(fault, lambda: {"progress": progress})
        training.finished(int(progress.periods), lambda: {"progress": progress})
    state, curves = progress.state, progress.curves
    return Fit(
        params=jax.tree.map(jnp.asarray, state.best_params),
        rest=jax.tree.map(jnp.asarray, state.best_rest),
        best_epoch=np.asarray(state.best_epoch),
        epochs=evaluate_every * np.arange(1, evaluations + 1),
        curves={name: np.asarray(values).T for name, values in curves.items()},
    )


def _whole(parts: Sequence[_Progress], mesh: Mesh | None, n_run: int) -> _Progress:
    """All runs, without those that only fill up parts or devices; on the host where there is a mesh."""
    if mesh is not None:
        parts = [to_host(parts[0])]
    elif len(parts) == 1:
        return parts[0]
    state, logs = join([(part.state, part.logs) for part in parts], n_run)
    periods = parts[int(np.argmax([int(part.periods) for part in parts]))].periods
    return _Progress(periods, state, logs, join([part.curves for part in parts], n_run, axis=1))


def _spread(progress: _Progress, mesh: Mesh | None, rows: np.ndarray) -> list[_Progress]:
    """The inverse of `_whole`."""
    if mesh is None:
        return [
            _Progress(
                # Each a copy of its own: what a part is given is written over.
                periods=jnp.copy(progress.periods),
                state=take(progress.state, mine),
                logs=take(progress.logs, mine),
                curves=take(progress.curves, mine, axis=1),
            )
            for mine in rows
        ]
    state, logs = put_runs((progress.state, progress.logs), mesh)
    return [_Progress(put(progress.periods, mesh, EVERYWHERE), state, logs, put_runs(progress.curves, mesh, axis=1))]


def names(functions: tuple[Callable[..., Any], ...]) -> str:
    """What tells problems apart that are given the same: the names of their functions."""
    return " ".join(getattr(each, "__qualname__", "") for each in functions)


def _not_finite(state: _State, select_by: str) -> str | None:
    """What is not finite that should be, if anything."""
    broken_epoch, best_epoch = np.asarray(state.broken_epoch), np.asarray(state.best_epoch)
    if broken_epoch.any():
        run = int(np.flatnonzero(broken_epoch)[0])
        return f"the loss of run {run} is not finite at epoch {broken_epoch[run]}"
    if not best_epoch.all():
        run = int(np.flatnonzero(best_epoch == 0)[0])
        return f"the metric '{select_by}' of run {run} is not finite at any epoch"
    for leaf in jax.tree.leaves(state.best_params):
        whole = np.isfinite(np.asarray(leaf, np.float32)).reshape(len(best_epoch), -1).all(axis=1)
        if not whole.all():
            run = int(np.flatnonzero(~whole)[0])
            return f"the weights of run {run} are not finite at its best epoch, {best_epoch[run]}"
    return None


@cached_by_value(maxsize=16)
def _program(problem, evaluations, evaluate_every, patience, select_by, sign, mesh=None, skip=False):
    """Two compiled functions: ``begin`` gives what there is before the first epoch, ``advance`` goes on from there.

    A period is an evaluation and the training up to the next one, in this order: what the evaluation of some weights
    and their gradient have in common (the product of inputs without dropout with the first layer) the compiler then
    computes once. The price is an evaluation of the initial weights and, where periods are short, one after the last
    evaluation, of which nothing is kept.
    """
    total = evaluations * evaluate_every
    # On a mesh every device goes through the program with its own runs: nothing has to be exchanged.
    over_runs: Any = _Progress(*(EVERYWHERE, RUNS, RUNS, PartitionSpec(None, RUNS[0])))  # type: ignore[arg-type]

    def spread(function, in_specs):
        if mesh is None:
            return function
        return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=over_runs, check_vma=False)

    def start(key, data):
        params, rest = problem.init(jax.random.fold_in(key, 0), data)
        return _State(
            params=params,
            rest=rest,
            optimizer=problem.optimizer(data).init(params),
            best_params=params,
            best_rest=rest,
            best_score=jnp.float32(-jnp.inf),
            best_epoch=jnp.int32(0),
            stopped=jnp.bool_(False),
            broken_epoch=jnp.int32(0),
            skipped=jnp.int32(0),
        )

    def evaluate(shared, epoch, state, data):
        """The best state so far, with that after ``epoch`` epochs among the candidates, of one run."""
        metrics = problem.evaluate(state.params, state.rest, data, shared)
        score = sign * metrics[select_by].astype(jnp.float32)
        counts = ~state.stopped & (epoch > 0)
        better = (score > state.best_score) & counts
        keep = lambda new, old: jax.tree.map(partial(jnp.where, better), new, old)  # noqa: E731
        best_epoch = jnp.where(better, epoch, state.best_epoch)
        stopped = state.stopped if patience is None else state.stopped | (counts & (epoch - best_epoch >= patience))
        new = state._replace(
            best_params=keep(state.params, state.best_params),
            best_rest=keep(state.rest, state.best_rest),
            best_score=jnp.where(better, score, state.best_score),
            best_epoch=best_epoch,
            stopped=stopped,
        )
        return new, metrics

    def train(shared, epoch, state, key, data):
        """One epoch of one run."""
        step_key = jax.random.fold_in(key, epoch + 1)
        gradient = jax.value_and_grad(problem.loss, has_aux=True)
        (loss, (rest, logs)), gradients = gradient(state.params, state.rest, step_key, epoch / total, data, shared)
        updates, optimizer = problem.optimizer(data).update(gradients, state.optimizer, state.params)
        new = state._replace(params=optax.apply_updates(state.params, updates), rest=rest, optimizer=optimizer)
        logs, broken = {"train_loss": loss, **logs}, ~jnp.isfinite(loss)
        if skip:
            fine = sound(loss, new.params, new.optimizer)
            new = choose(fine, new, state)._replace(skipped=jnp.where(fine, 0, state.skipped + 1))
            logs, broken = without_broken(fine, logs, jnp.nan), new.skipped > MOST_SKIPPED
        counts = (state.broken_epoch == 0) & ~state.stopped & (epoch < total)
        return new._replace(broken_epoch=jnp.where(broken & counts, epoch + 1, state.broken_epoch)), logs

    @jax.jit  # so that it is traced once for `begin`, which asks for its shapes alone, and `advance`
    def period(state, first_epoch, keys, run_data, shared):
        """Of all runs: the metrics after ``first_epoch`` epochs, and the logs of the last epoch of the period."""

        def epoch_of_all(state, epoch):
            return jax.vmap(partial(train, shared, epoch))(state, keys, run_data)

        def go_on(state):
            state, logs = jax.lax.scan(epoch_of_all, state, first_epoch + jnp.arange(evaluate_every))
            return state, {name: values[-1] for name, values in logs.items()}

        def stay(state):
            _, logs = jax.eval_shape(go_on, state)
            return state, jax.tree.map(lambda log: jnp.full(log.shape, jnp.nan, log.dtype), logs)

        state, metrics = jax.vmap(partial(evaluate, shared, first_epoch))(state, run_data)
        if evaluate_every < _LONG_PERIOD:
            state, logs = go_on(state)
        else:
            # An evaluation shares nothing with what comes then, and the training after the last one can be saved.
            state, logs = jax.lax.cond(first_epoch < total, go_on, stay, state)
        as_float = lambda tree: jax.tree.map(lambda value: value.astype(jnp.float32), tree)  # noqa: E731
        return state, as_float(metrics), as_float(logs)

    def begin(keys, run_data, shared):
        state = jax.vmap(start)(keys, run_data)
        _, metrics, logs = jax.eval_shape(period, state, jnp.int32(0), keys, run_data, shared)
        unknown = lambda *shape: jnp.full((*shape, keys.shape[0]), jnp.nan, jnp.float32)  # noqa: E731
        return _Progress(
            periods=jnp.int32(0),
            state=state,
            logs={name: unknown() for name in logs},
            curves={name: unknown(evaluations) for name in {**logs, **metrics}},
        )

    def advance(progress, end, keys, run_data, shared):
        def unfinished(progress):
            state = progress.state
            return (progress.periods <= end) & ~jnp.all(state.stopped) & ~jnp.any(state.broken_epoch)

        def body(progress):
            i, before = progress.periods, progress.state
            state, metrics, logs = period(before, i * evaluate_every, keys, run_data, shared)
            # What the evaluation of the initial weights leaves in the first row is written over by the next one.
            values = jax.tree.map(lambda value: jnp.where(before.stopped, jnp.nan, value), {**progress.logs, **metrics})
            curves = jax.tree.map(
                lambda curve, value: curve.at[jnp.maximum(i - 1, 0)].set(value), progress.curves, values
            )
            return _Progress(i + 1, state, logs, curves)

        progress = jax.lax.while_loop(unfinished, body, progress)
        # Devices whose runs have all stopped early have had fewer.
        return progress if mesh is None else progress._replace(periods=jax.lax.pmax(progress.periods, (DATA, MODEL)))

    begin = jax.jit(spread(begin, (RUNS, RUNS, EVERYWHERE)))
    # What there is of all runs is written over in place.
    return begin, jax.jit(spread(advance, (over_runs, EVERYWHERE, RUNS, RUNS, EVERYWHERE)), donate_argnums=0)
