"""Molecules as a problem that ``training.fit`` can train: a student of labels and of several frozen teachers.

    total = task + Σ_k (a_k · labels_k + b_k · states_k)

over teachers k, with the divergence of the student's class probabilities from the teacher's (of numbers, the squared
difference), and the squared difference between the teacher's state of a molecule and a linear map of the student's.
GALLON has the first for classes and the second for numbers; here either can be had for both. The map is the student's:
a map of the teacher's state would be a target that moves, and that the loss can shrink.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jaxgkd import losses
from jaxgkd.nn.molecule_bags import Summary
from jaxgkd.nn.molecule_problem import Make, TaskKind
from jaxgkd.nn.node_problem import default_optimizer
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.training.loop import Problem
from jaxgkd.training.metrics import mean_over_traced_columns


class Taught(NamedTuple):
    """What teachers say of n molecules.

    Fields:
      outputs: [k, n, t] logits, or scaled numbers.
      states: of each of the k teachers [n, d_k].
      where: [k, n] molecules of which each teacher speaks.
    """

    outputs: Array
    states: tuple[Array, ...]
    where: Array


class TaughtStudent(nnx.Module):
    """A student, and a linear map from its states to those of each teacher; the maps are thrown away later."""

    def __init__(self, student: nnx.Module, width: int, d_teachers: Sequence[int], *, rngs: nnx.Rngs):
        """``width`` is that of the student's states, ``d_teachers`` those of the teachers'."""
        self.student = student
        self.maps = nnx.List([nnx.Linear(width, d_teacher, rngs=rngs) for d_teacher in d_teachers])

    def __call__(self, molecules: Any, **options: Any) -> Summary:
        """What the student says."""
        return self.student(molecules, **options)  # type: ignore[operator]


def taught_problem(make: Make, kind: TaskKind, metric: str, steps: int | None = None) -> Problem:
    """A `Problem` over all molecules at once.

    Every run's data holds ``settings`` with scalars ``learning_rate``, ``weight_decay``, ``dropout`` and
    ``temperature``, and with ``labels`` [k] and ``states`` [k], the weights a and b of the teachers; and it may hold
    ``seen`` [n], the molecules whose labels the run learns from. What all runs share: ``molecules`` as the student
    takes them; ``targets`` [n, t], NaN where missing or not for training; ``taught``; ``valid_rows`` [v] and
    ``valid_targets`` [v, t], NaN where missing or padding.

    Args:
      make: a function from a key to a `TaughtStudent`.
      kind: of all tasks.
      metric: name of what validates, of ``metrics.COLUMN_METRICS``.
      steps: over which the learning rate falls to 0 along a cosine; None keeps it.
    """
    graphdef = graphdef_of(make)

    def init(key, run):
        del run
        _, params, rest = nnx.split(make(key), nnx.Param, ...)
        return params, rest

    def loss(params, rest, key, progress, run, shared):
        del progress
        model = nnx.merge(graphdef, params, rest)
        settings, taught = run["settings"], shared["taught"]
        found = model(shared["molecules"], dropout_key=key, dropout_rate=settings["dropout"])
        targets = shared["targets"]
        if "seen" in run:
            targets = jnp.where(run["seen"][:, None], targets, jnp.nan)
        task = task_loss(found.outputs, targets, kind)
        total = task
        teachers = zip(model.maps, taught.outputs, taught.states, taught.where, strict=True)
        for k, (to_teacher, outputs, states, where) in enumerate(teachers):
            labels = label_loss(found.outputs, outputs, where, kind, settings["temperature"])
            total += settings["labels"][k] * labels
            total += settings["states"][k] * state_loss(to_teacher(found.state), states, where)
        return total, (rest, {"loss/task": task})

    def evaluate(params, rest, run, shared):
        del run
        outputs = nnx.merge(graphdef, params, rest)(shared["molecules"]).outputs[shared["valid_rows"]]
        targets = shared["valid_targets"]
        return {
            "valid": mean_over_traced_columns(metric, outputs, jnp.nan_to_num(targets), ~jnp.isnan(targets)),
            "valid_loss": task_loss(outputs, targets, kind),
        }

    def optimizer(run):
        if steps is None:
            return default_optimizer(run["settings"])
        falling = optax.cosine_decay_schedule(1.0, steps)
        return optax.chain(default_optimizer(run["settings"]), optax.scale_by_schedule(falling))

    return Problem(init, loss, evaluate, optimizer)


def task_loss(outputs: Array, targets: Array, kind: TaskKind) -> Array:
    """Mean squared error, or cross-entropy of two classes, over the labels that there are.

    Args:
      outputs: [n, t]; targets: [n, t], NaN where missing.
      kind: of all tasks.
    """
    known, targets = ~jnp.isnan(targets), jnp.nan_to_num(targets)
    error = optax.squared_error if kind == "regression" else optax.sigmoid_binary_cross_entropy
    return jnp.sum(jnp.where(known, error(outputs, targets), 0.0)) / jnp.maximum(jnp.sum(known), 1)


def label_loss(outputs: Array, teacher: Array, where: Array, kind: TaskKind, temperature: Array | float) -> Array:
    """Mean over taught molecules and all tasks, also those whose label is missing, of what a teacher's outputs ask.

    Args:
      outputs, teacher: [n, t] logits, or scaled numbers.
      where: [n] bool.
      kind: of all tasks.
      temperature: of classes.
    """
    # Silenced before and not after: a NaN times 0 would reach every gradient.
    outputs, teacher = (jnp.where(where[:, None], each, 0.0) for each in (outputs, teacher))
    if kind == "regression":
        error = jnp.square(outputs - jax.lax.stop_gradient(teacher))
    else:
        # One logit stands for two classes: the other's is 0.
        two = lambda logits: jnp.stack([jnp.zeros_like(logits), logits], axis=-1)  # noqa: E731
        error = losses.soft_target_kl(two(outputs), two(teacher), temperature=temperature)
    return jnp.sum(jnp.where(where[:, None], error, 0.0)) / (jnp.maximum(jnp.sum(where), 1) * outputs.shape[1])


def state_loss(mapped: Array, teacher: Array, where: Array) -> Array:
    """Mean over taught molecules of the squared difference of states [n, d]."""
    return jnp.sum(losses.hidden_mse(mapped, teacher, where=where)) / jnp.maximum(jnp.sum(where), 1)
