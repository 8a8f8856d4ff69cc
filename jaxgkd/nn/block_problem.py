"""Node classification on blocks of a large graph, for ``training.fit_stream``; the terms are those of the whole graph.

A step computes the seeds of a block, each from a sample of what lies around it, and its loss is over the seeds alone:
labels on those that train, and what a teacher adds on those that are taught. BatchNorm's statistics are the seeds' too,
because they are drawn evenly from the nodes, while neighbours are drawn the more often the more edges they have.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jax import Array

from jaxgkd.graphs import GraphsTuple, Layout
from jaxgkd.nn.dropout import NodeInputs
from jaxgkd.nn.encoders import LayerStates
from jaxgkd.nn.node_problem import TotalLoss, default_optimizer, label_loss
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.training.metrics import cross_entropy
from jaxgkd.training.stream_loop import StreamProblem

Tree = Any


class NodeBatch(NamedTuple):
    """What one step reads; b seeds and the n nodes around them.

    Fields:
      nodes: [n, f] inputs; layouts: one for each layer, from the first nodes to fewer of them; degree: [n] edges that
        end in each node of the whole graph.
      is_seed: [n] bool; rows: [b] where the seeds are among the nodes, anything for padding.
      of_splits: name → [splits, b, …], what `node_problem` and the total loss want of each node, by split: ``labels``,
        ``train`` and what a teacher adds, every mask False for padding.
      shared: name → [b, …], what all splits share.
    """

    nodes: NodeInputs
    layouts: tuple[Layout, ...]
    degree: Array
    is_seed: Array
    rows: Array
    of_splits: dict[str, Array]
    shared: dict[str, Array]


def block_problem(
    make: Callable[[Array], nnx.Module],
    total_loss: TotalLoss = label_loss,
    optimizer: Callable[[dict[str, Array]], optax.GradientTransformation] = default_optimizer,
) -> StreamProblem:
    """A `StreamProblem` whose batches are `NodeBatch`.

    Every run's data holds ``split``, the number of its split in ``NodeBatch.of_splits``, ``class_weights`` [classes]
    and ``settings`` as `jaxgkd.nn.node_problem.node_problem` explains them.

    Args:
      make, total_loss, optimizer: as for `node_problem`; the total loss gets states and targets of the seeds.
    """
    graphdef = graphdef_of(make)

    def init(key, run):
        del run
        _, params, rest = nnx.split(make(key), nnx.Param, ...)
        return params, rest

    def loss(params, rest, key, run, batch: NodeBatch):
        model = nnx.merge(graphdef, params, rest, copy=True)
        dropout_key, loss_key = jax.random.split(key)
        states = model(
            GraphsTuple(batch.nodes, None, None, None, None, None, None),  # type: ignore[arg-type]
            batch.layouts,
            degree=batch.degree,
            dropout_key=dropout_key,
            dropout_rate=run["settings"]["dropout"],
            where=batch.is_seed,
        )
        states = LayerStates(tuple(state[batch.rows] for state in states.hidden), states.logits[batch.rows])
        run = run | {name: values[run["split"]] for name, values in batch.of_splits.items()}
        label_term = cross_entropy(states.logits, run["labels"], run["train"], run["class_weights"])
        total, logs = total_loss(model, states, label_term, loss_key, run, batch.shared)
        return total, (nnx.split(model, nnx.Param, ...)[2], {"loss/label": label_term, **logs})

    return StreamProblem(init, loss, lambda run: optimizer(run["settings"]))
