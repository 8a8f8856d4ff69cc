"""Node classification as a problem that ``training.fit`` can train, with room for what a teacher adds to the loss."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import nnx
from jax import Array

from jaxgkd.nn.encoders import LayerStates
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.training.loop import Problem
from jaxgkd.training.metrics import accuracy, cross_entropy

Tree = Any
TotalLoss = Callable[[nnx.Module, LayerStates, Array, Array, Tree, Tree], tuple[Array, dict[str, Array]]]


def label_loss(
    model: nnx.Module, states: LayerStates, label_term: Array, key: Array, run: Tree, shared: Tree
) -> tuple[Array, dict[str, Array]]:
    """The loss of a student that learns from labels alone: their cross-entropy."""
    del model, states, key, run, shared
    return label_term, {}


def default_optimizer(settings: dict[str, Array]) -> optax.GradientTransformation:
    """Adam on the loss with an L2 penalty, as graph networks are usually trained; ``settings`` holds traced scalars."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.add_decayed_weights(settings["weight_decay"]),
        optax.adam(settings["learning_rate"]),
    )


def node_problem(
    make: Callable[[Array], nnx.Module],
    total_loss: TotalLoss = label_loss,
    optimizer: Callable[[dict[str, Array]], optax.GradientTransformation] = default_optimizer,
) -> Problem:
    """A `Problem` over one graph.

    Every run's data holds ``train`` and ``valid`` [n] bool, ``labels`` [n] integers, ``class_weights`` [classes] and
    ``settings``, a dict of scalars with at least ``learning_rate``, ``weight_decay`` and ``dropout``; if it holds
    ``train_layout`` and ``train_nodes`` [n] bool, training sees that graph and those nodes only. What all runs share
    holds ``graph`` and ``layout``.

    Args:
      make: gives a model from a key; called on (graph, layout, …) it returns `LayerStates`.
      total_loss: ``(model, states, label_term, key, run, shared) -> (scalar, logs)``.
      optimizer: ``settings -> GradientTransformation``.
    """
    graphdef = graphdef_of(make)

    def init(key, run):
        del run
        _, params, rest = nnx.split(make(key), nnx.Param, ...)
        return params, rest

    def loss(params, rest, key, progress, run, shared):
        del progress
        # Without the copy the model would write BatchNorm's statistics into variables of an outer trace.
        model = nnx.merge(graphdef, params, rest, copy=True)
        dropout_key, loss_key = jax.random.split(key)
        states = model(
            shared["graph"],
            run.get("train_layout", shared["layout"]),
            dropout_key=dropout_key,
            dropout_rate=run["settings"]["dropout"],
            where=run.get("train_nodes"),
        )
        label_term = cross_entropy(states.logits, run["labels"], run["train"], run["class_weights"])
        total, logs = total_loss(model, states, label_term, loss_key, run, shared)
        return total, (nnx.split(model, nnx.Param, ...)[2], {"loss/label": label_term, **logs})

    def evaluate(params, rest, run, shared):
        states = nnx.merge(graphdef, params, rest)(shared["graph"], run.get("valid_layout", shared["layout"]))
        return {
            "valid": accuracy(states.logits, run["labels"], run["valid"]),
            "valid_loss": cross_entropy(states.logits, run["labels"], run["valid"]),
        }

    return Problem(init, loss, evaluate, lambda run: optimizer(run["settings"]))
