"""A task on a heterogeneous graph as a problem that ``training.fit`` can train: the whole graph in every step.

Edges that are asked for in a step pass no messages in it, and neither do their reverses: a step draws some training
edges, and the others stay in the graph. What validates is asked with all of them in the graph.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jaxgkd.graphs import HeteroLayout, without_edges
from jaxgkd.graphs.negatives import (
    KnownEdges,
    hard_negatives,
    in_batch_negatives,
    joint_negatives,
    uniform_negatives,
)
from jaxgkd.nn.hetero_tasks import (
    EdgeTask,
    HeteroModel,
    ImitationTask,
    Links,
    LinkTask,
    Nodes,
    NodeTask,
    Pairs,
    Task,
    mean_loss,
)
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.training.loop import Problem
from jaxgkd.training.metrics import mean_over_traced_columns

Tree = Any
NegativeKind = Literal["uniform", "joint", "in_batch", "candidates"]
# Pairs scored at a time where there are many: their vectors stay in cache.
_PAIRS = 8192


class RankedPairs(NamedTuple):
    """Positive edges among their candidates.

    Fields:
      senders, receivers: [q] distinct pairs; positive: [p] number of the pair that is an edge.
      entries: [e] numbers of the pairs each positive is ranked among, itself left out.
      starts: [p + 1] where they begin.
    """

    senders: Array
    receivers: Array
    positive: Array
    entries: Array
    starts: Array


@dataclass(frozen=True)
class Drawing:
    """What a step asks for where the task is about edges.

    Fields:
      n_edges: training edges a step.
      negatives: where their negatives come from: all nodes of the type, for every edge anew or the same for all edges
        of a step; the receivers of the step's other edges; or the receivers given for their sender.
      n_negatives: for every edge; in_batch has one for every other edge.
    """

    n_edges: int = 1024
    negatives: NegativeKind = "uniform"
    n_negatives: int = 16


def hetero_problem(
    make: Callable[[Array], HeteroModel],
    task: Task,
    drawing: Drawing,
    optimizer: Callable[[dict[str, Array]], optax.GradientTransformation],
) -> Problem:
    """A `Problem` over one graph.

    Every run's data holds ``settings``, scalars with at least ``learning_rate``, ``weight_decay`` and ``dropout``, and
    may hold ``inputs`` of its own. What all runs share holds ``inputs`` (node type → [n, d]), ``layout`` with the
    training edges of the task's relation in the order of ``train`` (after them those that nothing is asked of),
    ``train`` (all that may be asked in training) and ``valid`` (what validates; `RankedPairs` of links); for links with
    ``candidates``, ``candidate_starts`` [n_source + 1] and ``candidates``, the rows given for every source; for links
    ``known``, the edges of the relation that are in the layout. Where it holds ``opposite``, of every training edge the
    position of another one or −1, that one passes no messages either in a step that asks for the first.
    """
    graphdef = graphdef_of(make)

    def init(key, run):
        del run
        _, params, rest = nnx.split(make(key), nnx.Param, ...)
        return params, rest

    def loss(params, rest, key, progress, run, shared):
        del progress
        draw_key, dropout_key = jax.random.split(key)
        batch, layout = drawn(task, drawing, draw_key, shared)
        model = nnx.merge(graphdef, params, rest, copy=True)
        rate = run["settings"]["dropout"]
        states = model.states(run.get("inputs", shared["inputs"]), layout, dropout_key=dropout_key, dropout_rate=rate)
        return mean_loss(task, model, states, batch), (nnx.split(model, nnx.Param, ...)[2], {})

    def evaluate(params, rest, run, shared):
        model = nnx.merge(graphdef, params, rest)
        states = model.states(run.get("inputs", shared["inputs"]), shared["layout"])
        return {"valid": score(task, model, states, shared["valid"])}

    return Problem(init, loss, evaluate, lambda run: optimizer(run["settings"]))


def drawn(task: Task, drawing: Drawing, key: Array, shared: Tree) -> tuple[Any, HeteroLayout]:
    """What a step asks for, and the layout without the edges among it; ``shared`` as `hetero_problem` explains it."""
    if isinstance(task, NodeTask | ImitationTask):
        return shared["train"], shared["layout"]
    edge_key, negative_key = jax.random.split(key)
    n_train = shared["train"].senders.shape[0]
    chosen = jax.random.choice(edge_key, n_train, (min(drawing.n_edges, n_train),), replace=False)
    return asked_for(task, drawing, negative_key, chosen, shared)


def asked_for(task: Task, drawing: Drawing, key: Array, chosen: Array, shared: Tree) -> tuple[Any, HeteroLayout]:
    """What asks for the training nodes or edges at positions ``chosen`` [b] of ``train``, and the layout without them.

    Args:
      task, drawing, shared: see `hetero_problem`.
      key: of the negatives.
      chosen: distinct positions.
    """
    train, layout = shared["train"], shared["layout"]
    if isinstance(task, NodeTask | ImitationTask):
        return Nodes(*(values[chosen] for values in train)), layout
    of_type = layout[task.edge_type[2]]
    n_edges = of_type.n_edges[of_type.edge_types.index(task.edge_type)]
    left_out = jnp.zeros(n_edges, bool).at[chosen].set(True)
    if "opposite" in shared:
        opposite = shared["opposite"][chosen]
        left_out = left_out.at[jnp.where(opposite < 0, n_edges, opposite)].set(True, mode="drop")
    layout = without_edges(layout, {task.edge_type: left_out})
    if isinstance(task, EdgeTask):
        return Pairs(*(values[chosen] for values in train)), layout
    senders, receivers = train.senders[chosen], train.receivers[chosen]
    negatives, where = _negatives(task, drawing, key, senders, receivers, shared)
    return Links(senders, receivers, negatives, where, train.weights[chosen]), layout


def _negatives(
    task: LinkTask, drawing: Drawing, key: Array, senders: Array, receivers: Array, shared: Tree
) -> tuple[Array, Array]:
    """Rows of the destination type, [b, k] or [k] shared by all, and [b, k] which are no training edge of a sender."""
    known: KnownEdges = shared["known"]
    n_node = shared["layout"][task.edge_type[2]].layout.n_receivers
    if drawing.negatives == "uniform":
        drawn = uniform_negatives(key, senders, receivers, drawing.n_negatives, n_node, known)
    elif drawing.negatives == "joint":
        drawn = joint_negatives(key, senders, receivers, drawing.n_negatives, n_node, known)
    elif drawing.negatives == "in_batch":
        drawn = in_batch_negatives(senders, receivers, known)
    else:
        first = shared["candidate_starts"][senders]
        count = shared["candidate_starts"][senders + 1] - first
        place = jax.random.uniform(key, (len(senders), drawing.n_negatives)) * count[:, None]
        given = shared["candidates"][first[:, None] + place.astype(jnp.int32)]
        # All that was given for a sender may be edges.
        drawn = hard_negatives(senders, receivers, jnp.where(count[:, None] > 0, given, -1))
    return drawn.nodes, drawn.where


def score(task: Task, model: HeteroModel, states: Any, asked: Any) -> Array:
    """A scalar that is higher for better outputs: accuracy, minus the root of the mean squared error, AUC or MRR."""
    if isinstance(task, NodeTask | ImitationTask):
        assert isinstance(asked, Nodes)
        outputs, targets = task.outputs(model, states, asked.rows), asked.targets
        if isinstance(task, ImitationTask):
            outputs, targets = outputs[:, : task.n_classes], targets[:, : task.n_classes]
        elif task.kind == "regression":
            return -jnp.sqrt(jnp.mean(jnp.square(outputs - targets)))
        return jnp.mean(jnp.argmax(outputs, -1) == jnp.argmax(targets, -1))
    if isinstance(task, EdgeTask):
        outputs = task.outputs(model, states, asked.senders, asked.receivers)
        if task.n_out != 2:
            return jnp.mean(jnp.argmax(outputs, -1) == jnp.argmax(asked.targets, -1))
        labels = jnp.argmax(asked.targets, -1)[:, None]
        return mean_over_traced_columns("auroc", (outputs[:, 1] - outputs[:, 0])[:, None], labels, labels >= 0)
    return jnp.mean(1.0 / ranks(pair_outputs(task, model, states, asked.senders, asked.receivers), asked))


def pair_outputs(task: EdgeTask | LinkTask, model: HeteroModel, states: Any, senders: Array, receivers: Array) -> Array:
    """[q] scores, or [q, c] logits, of pairs, a block of them at a time."""
    padding = -len(senders) % _PAIRS
    blocks = [jnp.pad(rows, (0, padding)).reshape(-1, _PAIRS) for rows in (senders, receivers)]
    outputs = jax.lax.map(lambda block: task.outputs(model, states, *block), tuple(blocks))
    return outputs.reshape(-1, *outputs.shape[2:])[: len(senders)]


def ranks(scores: Array, asked: RankedPairs) -> Array:
    """[p] rank of every positive edge among its candidates, 1 the best; ties are worth the mean of their ranks.

    As in `jaxgkd.training.ranking` a score that is not a number is never in the scorer's favour.
    """
    counts = jnp.diff(asked.starts)
    of_entry = jnp.repeat(jnp.arange(len(counts)), counts, total_repeat_length=len(asked.entries))
    own = scores[asked.positive][of_entry]
    other = scores[asked.entries]
    # An integer sum: no rounding, however many entries there are.
    ahead = (~(other <= own)).astype(jnp.int32) + (~(other < own)).astype(jnp.int32)
    sums = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(ahead)])
    return 1.0 + 0.5 * (sums[asked.starts[1:]] - sums[asked.starts[:-1]])
