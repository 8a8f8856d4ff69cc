"""A task on a heterogeneous graph on blocks of it, for ``training.fit_stream``; the terms are those of the whole graph.

What a step asks for, and some of the neighbours around it, is all that a step reads: nodes as rows of a block. What a
sample cannot tell, how many edges a node has in all and which relations join two nodes, comes with it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax
from flax import nnx
from jax import Array

from jaxgkd.graphs import HeteroLayout
from jaxgkd.nn.hetero import entering
from jaxgkd.nn.hetero_tasks import HeteroModel, Links, Nodes, Pairs, Task, TaskStates, mean_loss
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.training.stream_loop import StreamProblem

Tree = Any


class AskedBlock(NamedTuple):
    """What a step asks for and reads.

    Fields:
      nodes: node type → [n] rows in the whole graph, 0 for padding; types that no edge brings in are not there.
      layout: the edges of the block; padding and what is asked for pass no messages.
      counts: node type → [n, relations] edges of every relation into each node of the whole graph, without those that
        are asked for; as `jaxgkd.graphs.hetero.degrees` orders them.
      asked: `Nodes`, `Pairs` or `Links`, in rows of the block, weights 0 for padding.
      between: of edges [b, r], of links [b, 1 + k, r]: 1 where another relation than the asked one leads from a sender
        to its receiver and then to its negatives, without what is asked for; None of nodes.
    """

    nodes: dict[str, Array]
    layout: HeteroLayout
    counts: dict[str, Array]
    asked: Nodes | Pairs | Links
    between: Array | None


class BlockInputs(NamedTuple):
    """A block with what enters of its nodes.

    Fields:
      block: what is asked for.
      of_tables: node type → [tables, n, d] embeddings of its texts by each of some language models.
      others: node type → [n, f] features, or [n] rows of embeddings to learn.
    """

    block: AskedBlock
    of_tables: dict[str, Array]
    others: dict[str, Array]


def hetero_block_problem(
    make: Callable[[Array], HeteroModel],
    task: Task,
    optimizer: Callable[[dict[str, Array]], optax.GradientTransformation],
) -> StreamProblem:
    """A `StreamProblem` whose batches are `BlockInputs`.

    Every run's data holds ``table``, the number of its language model in ``of_tables``, and ``settings`` as
    `jaxgkd.nn.hetero_problem.hetero_problem` explains them.
    """
    graphdef = graphdef_of(make)

    def init(key, run):
        del run
        _, params, rest = nnx.split(make(key), nnx.Param, ...)
        return params, rest

    def loss(params, rest, key, run, batch: BlockInputs):
        of_texts = {name: values[run["table"]] for name, values in batch.of_tables.items()}
        inputs = entering(of_texts, batch.others, batch.block.nodes)
        model = nnx.merge(graphdef, params, rest, copy=True)
        states = block_states(model, batch.block, inputs, dropout_key=key, dropout_rate=run["settings"]["dropout"])
        return mean_loss(task, model, states, batch.block.asked), (nnx.split(model, nnx.Param, ...)[2], {})

    return StreamProblem(init, loss, lambda run: optimizer(run["settings"]))


def block_states(model: HeteroModel, block: AskedBlock, inputs: dict[str, Array], **arguments: Any) -> TaskStates:
    """States of the nodes of a block; ``inputs`` are of these, and ``arguments`` those of `HeteroModel.states`."""
    # In the order of the block's nodes, which the dropout of inputs goes by.
    inputs = {name: inputs[name] for name in block.nodes}
    return model.states(inputs, block.layout, counts=block.counts, between=block.between, **arguments)
