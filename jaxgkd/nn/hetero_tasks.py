"""What is asked of the nodes and links of a heterogeneous graph: heads on an encoder's states, and their losses.

A task is a record of plain values (it may be static in compiled functions) with ``head``, ``losses`` and ``outputs``.
Heads read the states of all layers side by side, so that what a node says itself is not lost to its neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.graphs import HeteroLayout, degrees, relations_between
from jaxgkd.losses import hidden_cosine, hidden_mse, link_losses, link_scores, soft_target_kl
from jaxgkd.losses.link_scores import ScoreKind
from jaxgkd.losses.links import LossKind
from jaxgkd.nn.hetero import HeteroEncoder
from jaxgkd.nn.hetero_convolutions import EdgeType

SCORES, LOSSES = get_args(ScoreKind), get_args(LossKind)
# A weight of a 0 or 1 has further to go than the weights of a network; Adam's steps have the same length for both.
_FASTER = 10.0


class TaskStates(NamedTuple):
    """What heads read.

    Fields:
      hidden: node type → [n, d], one dict per layer.
      inputs: node type → [n, f] as given, without dropout, counts and what stands behind a text's embedding.
      layout: the edges that pass messages.
      between: of the pairs that are asked for, what `HeteroModel.between` says; None where the layout tells.
    """

    hidden: tuple[dict[str, Array], ...]
    inputs: Mapping[str, Array]
    layout: HeteroLayout
    between: Array | None = None


class Nodes(NamedTuple):
    """Nodes that are asked for: rows [b], targets [b, c] (shares of classes, or values) and weights [b]."""

    rows: Array
    targets: Array
    weights: Array


class Pairs(NamedTuple):
    """Edges that are asked for: the rows of both ends [b], targets [b, c] and weights [b]."""

    senders: Array
    receivers: Array
    targets: Array
    weights: Array


class Links(NamedTuple):
    """Edges beside some that are not there.

    Fields:
      senders, receivers: [b] both ends.
      negatives: [b, k] other receivers of every edge, or [k] of all; negative_where: [b, k] those that count.
      weights: [b].
    """

    senders: Array
    receivers: Array
    negatives: Array
    negative_where: Array
    weights: Array


@dataclass(frozen=True)
class NodeTask:
    """Classes, or a value, of the nodes of a type."""

    node_type: str
    n_out: int
    kind: Literal["classification", "regression"] = "classification"

    def head(self, width: int, n_between: int, rngs: nnx.Rngs) -> nnx.Module:
        """From joined states to outputs."""
        del n_between
        return nnx.Linear(width, self.n_out, rngs=rngs)

    def outputs(self, model: "HeteroModel", states: TaskStates, rows: Array) -> Array:
        """[b, n_out] logits, or values, of nodes."""
        return model.head(model.joined(states, self.node_type)[rows])

    def losses(self, model: "HeteroModel", states: TaskStates, batch: Nodes) -> Array:
        """[b] cross-entropy against the targets' shares, or squared error."""
        return _losses(self.outputs(model, states, batch.rows), batch.targets, self.kind)


@dataclass(frozen=True)
class EdgeTask:
    """Classes of the edges of a relation."""

    edge_type: EdgeType
    n_out: int

    def head(self, width: int, n_between: int, rngs: nnx.Rngs) -> nnx.Module:
        """From two joined states, and relations between the nodes, to outputs."""
        return PairHead(width, self.n_out, n_between=n_between, rngs=rngs)

    def outputs(self, model: "HeteroModel", states: TaskStates, senders: Array, receivers: Array) -> Array:
        """[b, n_out] logits of edges."""
        sources = model.joined(states, self.edge_type[0])
        between = model.between(states, senders, receivers)
        return model.head(sources, model.joined(states, self.edge_type[2]), senders, receivers, between)

    def losses(self, model: "HeteroModel", states: TaskStates, batch: Pairs) -> Array:
        """[b] cross-entropy."""
        return _losses(self.outputs(model, states, batch.senders, batch.receivers), batch.targets, "classification")


@dataclass(frozen=True)
class LinkTask:
    """Which edges of a relation there are, by a score that is high for those."""

    edge_type: EdgeType
    score: ScoreKind = "distmult"
    loss: LossKind = "contrastive"

    def head(self, width: int, n_between: int, rngs: nnx.Rngs) -> nnx.Module:
        """From two joined states, and relations between the nodes, to a score."""
        return LinkHead(width, 128, self.score, n_between=n_between, rngs=rngs)

    def outputs(self, model: "HeteroModel", states: TaskStates, senders: Array, receivers: Array) -> Array:
        """Scores [...] of pairs of rows, whose shapes broadcast: [b, 1] and [k] are a product of matrices."""
        source, _, destination = self.edge_type
        between = model.between(states, senders, receivers)
        ends = model.joined(states, source), model.joined(states, destination)
        scores = model.head(*ends, senders, receivers, between)
        one, other = states.inputs[source], states.inputs[destination]
        if one.ndim == 2 and one.shape[1:] == other.shape[1:]:
            scores += model.head.similarity[...] * link_scores("dot", one[senders], other[receivers])
        return scores

    def losses(self, model: "HeteroModel", states: TaskStates, batch: Links) -> Array:
        """[b] of every edge against its negatives."""
        if batch.negatives.ndim == 1:
            positive = self.outputs(model, states, batch.senders, batch.receivers)
            negative = self.outputs(model, states, batch.senders[:, None], batch.negatives)
            return link_losses(self.loss, positive, negative, negative_where=batch.negative_where)
        senders = jnp.broadcast_to(batch.senders[:, None], (len(batch.senders), 1 + batch.negatives.shape[1]))
        receivers = jnp.concatenate([batch.receivers[:, None], batch.negatives], axis=1)
        scores = self.outputs(model, states, senders, receivers)
        return link_losses(self.loss, scores[:, 0], scores[:, 1:], negative_where=batch.negative_where)


@dataclass(frozen=True)
class TextLinkTask(LinkTask):
    """Which texts are linked, by nothing but how alike their embeddings are."""

    def head(self, width: int, n_between: int, rngs: nnx.Rngs) -> nnx.Module:
        """The factor of a cosine."""
        del width, n_between, rngs
        return Likeness()

    def outputs(self, model: "HeteroModel", states: TaskStates, senders: Array, receivers: Array) -> Array:
        """Scores [...] of pairs of rows, whose shapes broadcast; inputs are of length 1."""
        one, other = states.inputs[self.edge_type[0]], states.inputs[self.edge_type[2]]
        return model.head.similarity[...] * link_scores("dot", one[senders], other[receivers])


@dataclass(frozen=True)
class ImitationTask:
    """Another network's states and class probabilities of the nodes of a type, from their own texts."""

    node_type: str
    n_classes: int
    width: int

    def head(self, width: int, n_between: int, rngs: nnx.Rngs) -> nnx.Module:
        """From joined states to logits and states."""
        del n_between
        return nnx.Linear(width, self.n_classes + self.width, rngs=rngs)

    def outputs(self, model: "HeteroModel", states: TaskStates, rows: Array) -> Array:
        """[b, classes + width] logits and states of nodes."""
        return model.head(model.joined(states, self.node_type)[rows])

    def losses(self, model: "HeteroModel", states: TaskStates, batch: Nodes) -> Array:
        """[b] soft_target_kl of the logits, mean squared error and one minus cosine of the states."""
        outputs = self.outputs(model, states, batch.rows)
        logits, taught = outputs[:, : self.n_classes], batch.targets[:, : self.n_classes]
        state, taught_state = outputs[:, self.n_classes :], batch.targets[:, self.n_classes :]
        return (
            soft_target_kl(logits, jax.nn.log_softmax(taught))
            + hidden_mse(state, taught_state)
            + hidden_cosine(state, taught_state)
        )


Task = NodeTask | EdgeTask | LinkTask | ImitationTask


class PairHead(nnx.Module):
    """``W_2 relu(A x_i + B x_j + C (A' x_i * B' x_j) + D r_ij)`` of two ends and what else joins them."""

    def __init__(self, width: int, n_out: int, *, n_between: int = 0, hidden: int = 64, rngs: nnx.Rngs):
        self.source = nnx.Linear(width, 2 * hidden, rngs=rngs)
        self.destination = nnx.Linear(width, 2 * hidden, use_bias=False, rngs=rngs)
        self.product = nnx.Linear(hidden, hidden, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(hidden, n_out, rngs=rngs)
        self.between = nnx.Linear(n_between, hidden, use_bias=False, rngs=rngs) if n_between else None

    def __call__(self, sources: Array, destinations: Array, senders: Array, receivers: Array, between: Array) -> Array:
        """Joined states [n_s, d], [n_d, d], rows of both [b] and relations between them [b, r] to [b, n_out]."""
        # Nodes go through the maps once, however many edges they have.
        one, other = self.source(sources)[senders], self.destination(destinations)[receivers]
        hidden = one.shape[-1] // 2
        product = self.product(one[..., hidden:] * other[..., hidden:])
        total = one[..., :hidden] + other[..., :hidden] + product
        return self.out(jax.nn.relu(total if self.between is None else total + self.between(between)))


class LinkHead(nnx.Module):
    """The score of two projected states, plus how likely the destination is whatever the source, and what joins them.

    `LinkTask` adds the product of the two ends' inputs where they have one width: what a language model says of two
    texts starts as their similarity, and a network has only to learn what is left.
    """

    def __init__(self, width: int, d: int, score: ScoreKind, *, n_between: int = 0, rngs: nnx.Rngs):
        self.source = nnx.Linear(width, d, rngs=rngs)
        self.destination = nnx.Linear(width, d, rngs=rngs)
        self.popularity = nnx.Linear(width, 1, use_bias=False, rngs=rngs)
        # Of the two inputs: of texts' embeddings, of length 1, the cosine.
        self.similarity = nnx.Param(jnp.array(5.0))
        self.between = nnx.Param(jnp.zeros(n_between)) if n_between else None
        self.score: ScoreKind = score
        if score == "dot":
            self.relation = None
        elif score == "distmult":
            self.relation = nnx.Param(jnp.full(d, d**-0.5))
        else:
            size = d // 2 if score == "rotate" else d
            self.relation = nnx.Param(0.1 * jax.random.normal(rngs.params(), (size,)))

    def __call__(self, sources: Array, destinations: Array, senders: Array, receivers: Array, between: Array) -> Array:
        """Joined states [n_s, d], [n_d, d], rows of both and relations between them [..., r] to [...]."""
        one, other = self.source(sources)[senders], self.destination(destinations)[receivers]
        relation = None if self.relation is None else self.relation[...]
        scores = link_scores(self.score, one, other, relation) + self.popularity(destinations)[receivers, 0]
        return scores if self.between is None else scores + between @ (_FASTER * self.between[...])


class Likeness(nnx.Module):
    """A factor of cosines, which a softmax over them needs: one over a temperature that is learned."""

    def __init__(self):
        # One over the temperature of 0.05 that encoders of sentences are trained with (SimCSE, arXiv 2104.08821).
        self.similarity = nnx.Param(jnp.array(20.0))


class HeteroModel(nnx.Module):
    """An encoder and the head of a task."""

    def __init__(
        self,
        encoder: HeteroEncoder,
        task: Task,
        width: int,
        edge_types: Sequence[EdgeType] = (),
        *,
        counts: bool = True,
        d_text: Mapping[str, int] | None = None,
        rngs: nnx.Rngs,
    ):
        """Make the head.

        Args:
          encoder: of the states; its inputs are wider by one for every relation into a type where there are counts.
          task: what is asked; width: of every hidden state.
          edge_types: of the layouts, reverses included. Where edges are asked for, the head is told by which of these,
            other than its own, two nodes are joined.
          counts: whether nodes are told how many edges they have, and pairs of them what joins them; a model of texts
            alone is not.
          d_text: node type → columns of its inputs that are a text's embedding, where features stand behind them: a
            model of texts alone does not read these, and texts are not compared by them.
          rngs: random streams of the initial weights.
        """
        self.encoder, self.counts, self.d_text = encoder, counts, tuple((d_text or {}).items())
        self.asked = task.edge_type if isinstance(task, EdgeTask | LinkTask) else None
        ends = None if self.asked is None or not counts else (self.asked[0], self.asked[2])
        joining = [kind for kind in edge_types if (kind[0], kind[2]) == ends and kind != self.asked]
        self.n_between = len(joining)
        joined = width * (len(encoder.convolutions) + 1)
        self.norm = nnx.LayerNorm(joined, rngs=rngs)
        self.head: Any = task.head(joined, self.n_between, rngs)

    def states(
        self,
        inputs: Mapping[str, Array],
        layout: HeteroLayout,
        *,
        counts: Mapping[str, Array] | None = None,
        between: Array | None = None,
        dropout_key: Array | None = None,
        dropout_rate: ArrayLike = 0.0,
    ) -> TaskStates:
        """States of all nodes; arguments as for `HeteroEncoder`.

        Beside its inputs a node is given the logarithms of how many edges of every relation it has, which means over
        neighbours lose: without the edges that are left out, so that an asked edge does not show. ``counts`` and
        ``between`` hold these numbers, and what joins the pairs that are asked for, where the layout is a sample.
        """
        texts = {name: inputs[name][:, :size] for name, size in self.d_text if name in inputs}
        alone = {**inputs, **texts}
        entering = inputs if self.counts else alone
        if self.counts:
            counted = degrees(layout) if counts is None else counts
            wider = {name: values for name, values in inputs.items() if name in counted and values.ndim == 2}
            wider = {name: jnp.concatenate([x, jnp.log1p(counted[name])], axis=-1) for name, x in wider.items()}
            entering = {**inputs, **wider}
        hidden = self.encoder(entering, layout, dropout_key=dropout_key, dropout_rate=dropout_rate).hidden
        return TaskStates(hidden, alone, layout, between)

    def between(self, states: TaskStates, senders: Array, receivers: Array) -> Array:
        """[..., r] 1 where another relation than the asked one leads from a sender to a receiver, which broadcast."""
        senders, receivers = jnp.broadcast_arrays(senders, receivers)
        if self.n_between and states.between is not None:
            return states.between
        if not self.n_between:
            return jnp.zeros((*jnp.shape(senders), 0))
        assert self.asked is not None
        source, _, destination = self.asked
        edges = states.layout[destination]
        place = [kind for kind in edges.edge_types if kind[0] == source].index(self.asked)
        found = relations_between(edges, source, senders, receivers)
        return jnp.delete(found, place, axis=-1, assume_unique_indices=True)

    def joined(self, states: TaskStates, node_type: str) -> Array:
        """[n, d (L + 1)] states of all layers of the nodes of a type, side by side and normalised."""
        return jax.nn.relu(self.norm(jnp.concatenate([state[node_type] for state in states.hidden], axis=-1)))


def mean_loss(task: Task, model: HeteroModel, states: TaskStates, asked: Any) -> Array:
    """The mean of a task's losses over what is asked for, `Nodes`, `Pairs` or `Links`, by its weights."""
    return jnp.sum(asked.weights * task.losses(model, states, asked)) / jnp.sum(asked.weights)


def _losses(outputs: Array, targets: Array, kind: str) -> Array:
    if kind == "regression":
        return jnp.sum(jnp.square(outputs - targets), axis=-1)
    return -jnp.sum(targets * jax.nn.log_softmax(outputs), axis=-1)
