"""Diagnosis from brains as problems that ``training.fit`` can train: with a teacher's words, and before that with them.

Every run takes batches of its own training subjects, and validates on its own validation subjects alone: under
cross-validation nothing is computed that a fold has no use for.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from jaxgkd.losses import hidden_mse, info_nce, soft_target_kl
from jaxgkd.nn.brain_inputs import BrainInputs, BrainStates
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.training.loop import Problem
from jaxgkd.training.metrics import cross_entropy, mean_over_traced_columns

Tree = Any
#: Of the cosines between subjects and texts.
CONTRAST_TEMPERATURE = 0.1


class TaughtBrain(nnx.Module):
    """A network over brains, and a linear layer from its state to the teacher's."""

    def __init__(self, student: nnx.Module, width: int, d_teacher: int, *, rngs: nnx.Rngs):
        """``student`` has pooled states of ``width``; ``d_teacher`` is the width of the teacher's states."""
        self.student = student
        self.project = nnx.Linear(width, d_teacher, rngs=rngs)

    def __call__(self, inputs: BrainInputs, **options: Any) -> tuple[BrainStates, Array]:
        """What the network says, and its states [n, d_teacher] as the teacher's are."""
        states = self.student(inputs, **options)  # type: ignore[operator]
        return states, self.project(states.pooled)


class Said(NamedTuple):
    """What everyone says of n subjects: ``logits`` [n, classes], ``pooled`` [n, d], ``projected`` [n, d_teacher]."""

    logits: Array
    pooled: Array
    projected: Array


def make_batches(folds: Sequence[np.ndarray], size: int, passes: int, seed: int) -> np.ndarray:
    """[f, steps, b] int32 rows of the training subjects of every fold, as many steps for all.

    In every pass a fold's subjects have a new order; what is left over of a pass is left out of it.

    Args:
      folds: rows of the training subjects of each.
      size: of a batch, all subjects of the smallest fold where it has fewer.
      passes: over the subjects of a fold; seed: of the orders.
    """
    fewest = min(map(len, folds))
    size = min(size, fewest)
    steps, random = fewest // size, np.random.default_rng(seed)
    orders = [[random.permutation(rows)[: steps * size] for _ in range(passes)] for rows in folds]
    return np.array(orders, np.int32).reshape(len(folds), passes * steps, size)


def say(graphdef: nnx.GraphDef, params: Tree, rest: Tree, inputs: BrainInputs, block: int = 64) -> Said:
    """What a network says of all n subjects, a block at a time; for compiled functions."""
    n = len(inputs.rows)
    block = min(block, n)
    index = jnp.minimum(jnp.arange(-(-n // block) * block), n - 1).reshape(-1, block)

    def of_block(rows: Array) -> Said:
        states, projected = nnx.merge(graphdef, params, rest)(inputs.take(rows))
        return Said(states.logits, states.pooled, projected)

    return jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1])[:n], jax.lax.map(of_block, index))


def taught_brain_problem(make: Callable[[Array], TaughtBrain], steps: int) -> Problem:
    """Cross-entropy of the labels, and what a teacher adds: its states (MSE) and its answers (KL).

    Every run's data holds ``batches`` [steps, b] of rows that train, ``labelled`` [n] bool, ``valid`` [m] rows that
    validate and ``valid_counts`` [m] bool (others fill up), ``states`` [n, d_teacher], ``answers`` [n, classes] logits,
    and ``settings``, a dict of scalars: ``learning_rate``, ``weight_decay``, ``dropout``, ``state_strength``,
    ``answer_strength``, ``temperature``; where it holds ``start``, (params, rest), training goes on from there. What
    all runs share holds ``labels`` [n] and, unless every run has its own, ``inputs``. A step is an epoch of
    ``training.fit``.

    Args:
      make: gives a model from a key.
      steps: of training, over which the learning rate falls to 0 as a cosine does.
    """
    graphdef = graphdef_of(make)

    def loss(params, rest, key, progress, run, shared):
        model, rows, states, projected = _forward(graphdef, params, rest, key, progress, run, shared, steps)
        settings = run["settings"]
        label = cross_entropy(states.logits, shared["labels"][rows], run["labelled"][rows])
        state = jnp.mean(hidden_mse(projected, run["states"][rows]))
        kl = soft_target_kl(states.logits, run["answers"][rows], temperature=settings["temperature"])
        answer = jnp.mean(kl)
        total = label + settings["state_strength"] * state + settings["answer_strength"] * answer
        logs = {"loss/label": label, "loss/state": state, "loss/answer": answer}
        return total, (nnx.split(model, nnx.Param, ...)[2], logs)

    def evaluate(params, rest, run, shared):
        said = say(graphdef, params, rest, _inputs(run, shared).take(run["valid"]))
        labels, counts = shared["labels"][run["valid"]], run["valid_counts"]
        positive = said.logits[:, 1:] - said.logits[:, :1]
        area = mean_over_traced_columns("auroc", positive, labels[:, None], counts[:, None])
        return {"valid": area, "valid_loss": cross_entropy(said.logits, labels, counts)}

    return Problem(_init(make), loss, evaluate, lambda run: _optimizer(run["settings"], steps))


def contrast_problem(make: Callable[[Array], TaughtBrain], steps: int) -> Problem:
    """Every subject's state must find its own text among those of other subjects; no label plays a part.

    Data as for `taught_brain_problem`.

    Args:
      make: gives a model from a key.
      steps: of training.
    """
    graphdef = graphdef_of(make)

    def contrast(projected, states, where=None):
        values = info_nce(projected, states, temperature=CONTRAST_TEMPERATURE, where=where)
        return jnp.mean(values) if where is None else _mean(values, where)

    def loss(params, rest, key, progress, run, shared):
        model, rows, _, projected = _forward(graphdef, params, rest, key, progress, run, shared, steps)
        value = contrast(projected, run["states"][rows])
        return value, (nnx.split(model, nnx.Param, ...)[2], {})

    def evaluate(params, rest, run, shared):
        said = say(graphdef, params, rest, _inputs(run, shared).take(run["valid"]))
        return {"valid": -contrast(said.projected, run["states"][run["valid"]], run["valid_counts"])}

    return Problem(_init(make), loss, evaluate, lambda run: _optimizer(run["settings"], steps))


def _init(make):
    def init(key, run):
        if "start" in run:
            return run["start"]
        _, params, rest = nnx.split(make(key), nnx.Param, ...)
        return params, rest

    return init


def _forward(graphdef, params, rest, key, progress, run, shared, steps):
    rows = run["batches"][jnp.round(progress * steps).astype(jnp.int32)]
    model = nnx.merge(graphdef, params, rest, copy=True)
    inputs = _inputs(run, shared).take(rows)
    states, projected = model(inputs, dropout_key=key, dropout_rate=run["settings"]["dropout"])
    return model, rows, states, projected


def _inputs(run: dict[str, Any], shared: dict[str, Any]) -> BrainInputs:
    return run["inputs"] if "inputs" in run else shared["inputs"]


def _optimizer(settings: dict[str, Array], steps: int) -> optax.GradientTransformation:
    rate = lambda step: settings["learning_rate"] * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / steps, 1.0)))  # noqa: E731
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(),
        optax.add_decayed_weights(settings["weight_decay"]),
        optax.scale_by_learning_rate(rate),
    )


def _mean(values: Array, where: Array) -> Array:
    return jnp.sum(jnp.where(where, values, 0.0)) / jnp.maximum(jnp.sum(where), 1)
