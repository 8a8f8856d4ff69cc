"""`train_row` on mini-batches: the same search, budget and result, for graphs too large for a step over all nodes.

Validation and predictions read all neighbours of every node, layer by layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from flax import nnx
from jax import Array
from rich.console import Console

from jaxgkd.errors import ConfigError
from jaxgkd.graphs.input_rows import host_inputs
from jaxgkd.nn.block_problem import block_problem
from jaxgkd.nn.encoders import Student
from jaxgkd.nn.layerwise import LayerwiseStudent
from jaxgkd.nn.named_weights import student_weights
from jaxgkd.nn.node_problem import TotalLoss, default_optimizer, label_loss
from jaxgkd.nn.untrained import n_weights
from jaxgkd.recipes.node_batches import NodeBatches, one_for_each
from jaxgkd.recipes.node_rows import Row
from jaxgkd.recipes.node_splits import NodeSplits
from jaxgkd.recipes.searched_fit import Budget, searched_fit
from jaxgkd.teachers.hop_states import HopStates
from jaxgkd.teachers.store import Store
from jaxgkd.training.loop import Fit
from jaxgkd.training.run_dir import RunDirectory
from jaxgkd.training.search import Choice
from jaxgkd.training.stream_loop import fit_stream
from jaxgkd.training.timing import median_milliseconds

Tree = Any


def train_batched_row(
    name: str,
    make: Callable[[Array], nnx.Module],
    run_data: Tree,
    shared: Mapping[str, Any],
    seeds: list[int],
    *,
    default: Mapping[str, float],
    space: Mapping[str, Choice],
    budget: Budget,
    run_dir: RunDirectory,
    console: Console,
    total_loss: TotalLoss = label_loss,
    optimizer: Callable[[dict[str, Array]], Any] = default_optimizer,
    counted: Callable[[Any], Student] = lambda model: model,
) -> Row:
    """Search settings, train all seeds with the best, predict once; all on mini-batches.

    Args:
      run_data: ``split``, the number of each seed's split, and ``class_weights``.
      shared: ``graph``, whose nodes are the inputs, and ``batches``, the `NodeBatches`.
      counted: the student in the model, which is what is left after training.
      name, make, seeds, default, space, budget, run_dir, console, total_loss, optimizer: as for
        `jaxgkd.recipes.node_rows.train_row`, but that an epoch is one pass over the seeds of the batches, and that
        every epoch is followed by a validation.
    """
    batches: NodeBatches = shared["batches"]
    inputs = host_inputs(shared["graph"].nodes)
    problem = block_problem(make, total_loss, optimizer)

    def fit(problem, keys, run_data, shared, *, epochs, evaluate_every, patience, on_progress) -> Fit:
        """`jaxgkd.training.loop.fit` on the streams of the batches, one after another."""
        del shared
        split = np.asarray(run_data["split"])
        used = [number for number, group in enumerate(batches.groups) if np.isin(split, group).any()]
        order, parts = [], []
        for done, number in enumerate(used):
            runs = np.flatnonzero(np.isin(split, batches.groups[number]))
            student = LayerwiseStudent(make, counted, batches.training_edges(number), inputs)
            order.append(runs)
            parts.append(
                fit_stream(
                    problem,
                    keys[runs],
                    jax.tree.map(lambda leaf, runs=runs: leaf[runs], run_data),
                    partial(batches.epoch, number, inputs),
                    partial(validated, student, batches.splits, split[runs]),
                    epochs=epochs,
                    evaluate_every=evaluate_every,
                    patience=patience,
                    on_progress=lambda epoch, value, done=done: on_progress(
                        (done * epochs + epoch) // len(used), value
                    ),
                )
            )
        return _together(parts, np.argsort(np.concatenate(order)))

    found = searched_fit(
        name,
        problem,  # type: ignore[arg-type]
        run_data,
        shared,
        seeds,
        default=default,
        space=space,
        budget=replace(budget, evaluate_every=1),
        run_dir=run_dir,
        console=console,
        train_runs=fit,
    )
    student = LayerwiseStudent(make, counted, batches.whole, inputs)

    def predict(seed: int) -> tuple[np.ndarray, np.ndarray]:
        one = jax.tree.map(lambda leaf: jnp.asarray(leaf[seed : seed + 1]), (found.params, found.rest))
        logits, hidden = student(*one)
        return logits[0], hidden[0]

    hidden = predict(0)[1]
    return Row(
        probabilities=np.stack([scipy.special.softmax(predict(seed)[0], axis=-1) for seed in range(len(seeds))]),
        hidden=hidden,
        settings=found.settings,
        best_epoch=found.best_epoch,
        epochs=found.epochs,
        curves=found.curves,
        weights=student_weights(found.params, found.rest),
        parameters=n_weights(make, counted),
        milliseconds=median_milliseconds(lambda: predict(0), passes=3),
        seconds=found.seconds,
    )


def batched(
    config: Any, splits: NodeSplits, said: dict[str, np.ndarray], store: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the rows of ``jaxgkd run lingugkd --batch-nodes`` read: of every seed, and what all share but the inputs.

    Args:
      config: of the run.
      splits: of all seeds; said: what the teacher says of their nodes.
      store: folder of the teacher's states.
    """
    # An MLP reads no neighbours.
    fan_outs = one_for_each(config.fan_outs if config.student != "mlp" else [0], config.hops)
    teacher = HopStates(Store.open(store), splits.n_node)
    batches = NodeBatches(
        splits, said, teacher, batch_nodes=config.batch_nodes, fan_outs=fan_outs, n_hops=config.hops + 1
    )
    weights = splits.run_data(config.class_weights)["class_weights"]
    return {"split": jnp.arange(len(splits.seeds)), "class_weights": weights}, {"batches": batches}


def without_parts(config: Any) -> Any:
    """The settings of a run on mini-batches: no term of them reads parts of the graph.

    Raises:
      ConfigError: no other term is named, or the fan-outs are not those of the layers.
    """
    one_for_each(config.fan_outs, config.hops)
    terms = tuple(term for term in config.terms if term != "global")
    if not terms:
        what = "parts of the graph are aligned in steps over the whole graph only"
        raise ConfigError(what, field="--terms", mend="name another term too, or leave out --batch-nodes")
    return replace(config, terms=terms)


def validated(
    student: LayerwiseStudent, splits: NodeSplits, split: np.ndarray, params: Tree, rest: Tree
) -> dict[str, np.ndarray]:
    """Accuracy and cross-entropy on each run's validation nodes."""
    size = student.together(len(split))
    found = []
    for start in range(0, len(split), size):
        runs = slice(start, start + size)
        logits, _ = student(*jax.tree.map(lambda leaf, runs=runs: leaf[runs], (params, rest)))
        for of_run, number in zip(logits, split[runs], strict=True):
            rows = np.flatnonzero(splits.valid[number])
            labels, of_valid = splits.labels[number, rows], of_run[rows].astype(np.float64)
            likelihood = scipy.special.log_softmax(of_valid, axis=-1)[np.arange(len(rows)), labels]
            found.append((np.mean(of_valid.argmax(axis=-1) == labels), -np.mean(likelihood)))
    valid, valid_loss = np.array(found).T
    return {"valid": valid, "valid_loss": valid_loss}


def _together(parts: list[Fit], place: np.ndarray) -> Fit:
    """Runs of several fits as one, in the order ``place`` of the runs of one after another."""

    def joined(*leaves):
        return np.concatenate([np.asarray(leaf) for leaf in leaves])[place]

    return Fit(
        params=jax.tree.map(joined, *(part.params for part in parts)),
        rest=jax.tree.map(joined, *(part.rest for part in parts)),
        best_epoch=joined(*(part.best_epoch for part in parts)),
        epochs=parts[0].epochs,
        curves={name: joined(*(part.curves[name] for part in parts)) for name in parts[0].curves},
    )
