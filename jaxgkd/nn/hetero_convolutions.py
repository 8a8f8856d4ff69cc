"""One message-passing layer over typed edges each: node type → [n, d] in, node type → [n, d] out.

Every layer gives each relation its own linear map of the sources' states, stacks them and reduces once for every node
type (see `jaxgkd.graphs.hetero`). A type that no edge reaches is transformed by the part that sees the node itself.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.graphs import HeteroLayout, TypedEdges, aggregate, aggregate_heads, edge_dot, edge_softmax

EdgeType = tuple[str, str, str]
States = Mapping[str, Array]
# Stands for minus infinity where a difference of two of them must stay a number.
_NEVER = -1e30


def relation_key(kind: EdgeType) -> str:
    """The name of a relation's weights."""
    return "__".join(kind)


class RGCNConvolution(nnx.Module):
    """``W_0 x_i + Σ_r mean_{j in N_r(i)} W_r x_j`` with ``W_r = Σ_b a_rb V_b`` (arXiv 1703.06103, equations 2, 3).

    Where a node type starts more relations than there are bases, its states are multiplied with the bases, and the
    products mixed: so many products with the states, however many relations.
    """

    def __init__(
        self,
        width: int,
        node_types: Sequence[str],
        kinds: Sequence[EdgeType],
        *,
        n_bases: int | None = None,
        rngs: nnx.Rngs,
    ):
        """Draw the weights; ``n_bases`` is 8 by default, or the number of relations where there are fewer."""
        del node_types
        n_bases = max(1, min(len(kinds), 8)) if n_bases is None else n_bases
        initializer = nnx.initializers.glorot_uniform(batch_axis=0)
        self.bases = nnx.Param(initializer(rngs.params(), (n_bases, width, width)))
        self.mixing = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), (len(kinds), n_bases)))
        self.itself = nnx.Linear(width, width, rngs=rngs)
        self.kinds = tuple(kinds)

    def __call__(self, states: States, layout: HeteroLayout) -> dict[str, Array]:
        """Node type → [n, d]."""
        new = {name: self.itself(values) for name, values in states.items()}
        for name in new:
            if name in layout:
                edges = layout[name]
                rows = jnp.concatenate(self._stacked(states, edges))
                new[name] += aggregate(rows, edges.layout, edge_weights=edges.weights)
        return new

    def _stacked(self, states: States, edges: TypedEdges) -> list[Array]:
        """As `_stacked`, the states of a type multiplied with the fewer of bases and kernels."""
        number = {kind: i for i, kind in enumerate(self.kinds)}
        bases, stacked, first = self.bases[...], [], 0
        for source, _, n_relation in edges.sources:
            kinds = edges.edge_types[first : first + n_relation]
            first += n_relation
            mixing = self.mixing[...][np.array([number[kind] for kind in kinds])]
            if len(bases) < n_relation:
                products = _side_by_side(states[source], bases)
                # One relation after another: XLA then writes every row once, and nothing else.
                mixed = [sum(products[:, b] * share for b, share in enumerate(shares)) for shares in mixing]
                rows = jnp.stack(mixed, axis=1)
            else:
                rows = _side_by_side(states[source], jnp.einsum("rb,bio->rio", mixing, bases))
            stacked.append(rows.reshape(-1, rows.shape[-1]))
        return stacked


class SAGEConvolution(nnx.Module):
    """``W_t x_i + Σ_r W_r mean_{j in N_r(i)} x_j``: GraphSAGE's mean aggregator for every relation, summed.

    W_t belongs to the node's type, W_r to the relation (Hamilton et al., arXiv 1706.02216).
    """

    def __init__(self, width: int, node_types: Sequence[str], kinds: Sequence[EdgeType], *, rngs: nnx.Rngs):
        self.itself = nnx.Dict({name: nnx.Linear(width, width, rngs=rngs) for name in node_types})
        initializer = nnx.initializers.glorot_uniform(batch_axis=0)
        self.kernels = nnx.Param(initializer(rngs.params(), (len(kinds), width, width)))
        self.kinds = tuple(kinds)

    def __call__(self, states: States, layout: HeteroLayout) -> dict[str, Array]:
        """Node type → [n, d]."""
        of_kind = {kind: self.kernels[...][i] for i, kind in enumerate(self.kinds)}
        return {
            name: self.itself[name](values) + _mean_of_relations(states, layout[name], of_kind)
            if name in layout
            else self.itself[name](values)
            for name, values in states.items()
        }


class RGATConvolution(nnx.Module):
    """Graph attention with kernels and attention vectors of every relation, and one softmax over all of them.

    ``α_ij ∝ exp(leaky_relu(a_r · W_r x_j + b_r · W_0 x_i))`` over all edges of all relations into i and i itself
    (Busbridge et al., arXiv 1904.05811, additive logits, attention across relations).
    """

    def __init__(
        self, width: int, node_types: Sequence[str], kinds: Sequence[EdgeType], *, heads: int = 4, rngs: nnx.Rngs
    ):
        del node_types
        _check_heads(width, heads)
        self.heads = heads
        initializer = nnx.initializers.glorot_uniform(batch_axis=0)
        self.kernels = nnx.Param(initializer(rngs.params(), (len(kinds), width, width)))
        # The last one is of the node itself.
        self.from_sender = nnx.Param(initializer(rngs.params(), (len(kinds) + 1, heads, width // heads)))
        self.from_receiver = nnx.Param(initializer(rngs.params(), (len(kinds) + 1, heads, width // heads)))
        self.itself = nnx.Linear(width, width, rngs=rngs)
        self.kinds = tuple(kinds)

    def __call__(self, states: States, layout: HeteroLayout) -> dict[str, Array]:
        """Node type → [n, d]."""
        number = {kind: i for i, kind in enumerate(self.kinds)}
        of_kind = {kind: self.kernels[...][i] for kind, i in number.items()}
        new = {}
        for name, values in states.items():
            own = self._by_head(self.itself(values))
            if name in layout:
                edges = layout[name]
                stacked = [self._by_head(values) for values in _stacked(states, edges, of_kind)]
                sent, first = [], 0
                for (_, _, n_relation), rows in zip(edges.sources, stacked, strict=True):
                    numbers = np.array([number[kind] for kind in edges.edge_types[first : first + n_relation]])
                    of_relation = rows.reshape(-1, n_relation, *rows.shape[1:]) * self.from_sender[...][numbers]
                    sent.append(jnp.sum(of_relation, -1).reshape(-1, self.heads))
                    first += n_relation
                numbers = [number[kind] for kind in edges.edge_types]
                received = jnp.stack([jnp.sum(own * self.from_receiver[...][row], -1) for row in numbers], axis=1)
                sender_part = jnp.concatenate(sent)[edges.layout.senders]
                logits = sender_part + received[edges.layout.receivers, edges.relation]
                own_logits = jnp.sum(own * (self.from_sender[...][-1] + self.from_receiver[...][-1]), -1)
                logits, own_logits = jax.nn.leaky_relu(logits, 0.2), jax.nn.leaky_relu(own_logits, 0.2)
                attended, own_weights = _attend(jnp.concatenate(stacked), logits, own_logits, edges)
                own = attended + own * own_weights[:, :, None]
            new[name] = own.reshape(values.shape)
        return new

    def _by_head(self, values: Array) -> Array:
        return values.reshape(values.shape[0], self.heads, -1)


class HGTConvolution(nnx.Module):
    """Heterogeneous graph transformer (Hu et al., arXiv 2003.01332, equations 1 to 5).

    Keys, queries and values belong to node types, their products to relations; the maps of the two are multiplied
    before the states are, so that a relation costs one product with the states.
    """

    def __init__(
        self, width: int, node_types: Sequence[str], kinds: Sequence[EdgeType], *, heads: int = 4, rngs: nnx.Rngs
    ):
        _check_heads(width, heads)
        self.heads = heads
        head = width // heads
        initializer = nnx.initializers.glorot_uniform(batch_axis=0)
        self.node_types, self.kinds = tuple(node_types), tuple(kinds)
        n = len(node_types)
        self.key_value = nnx.Param(initializer(rngs.params(), (n, width, 2 * width)))
        self.key_value_bias = nnx.Param(jnp.zeros((n, 2 * width)))
        self.query = nnx.Dict({name: nnx.Linear(width, width, rngs=rngs) for name in node_types})
        self.out = nnx.Dict({name: nnx.Linear(width, width, rngs=rngs) for name in node_types})
        self.skip = nnx.Param(jnp.ones(n))
        shape = (2, len(kinds), heads, head, head)
        orthogonal = jnp.broadcast_to(jnp.eye(head), shape)
        self.relations = nnx.Param(orthogonal + 0.1 * jax.random.normal(rngs.params(), shape) / jnp.sqrt(head))
        self.prior = nnx.Param(jnp.ones((len(kinds), heads)))

    def __call__(self, states: States, layout: HeteroLayout) -> dict[str, Array]:
        """Node type → [n, d]."""
        number = {kind: i for i, kind in enumerate(self.kinds)}
        type_number = {name: i for i, name in enumerate(self.node_types)}
        new = {}
        for name, values in states.items():
            width = values.shape[1]
            messages = jnp.zeros_like(values)
            if name in layout:
                edges = layout[name]
                maps = {k: self._maps(type_number[k[0]], number[k]) for k in edges.edge_types}
                keys, messages_of = (
                    self._by_head(
                        jnp.concatenate(
                            _stacked(
                                states,
                                edges,
                                {kind: each[0][which] for kind, each in maps.items()},
                                {kind: each[1][which] for kind, each in maps.items()},
                            )
                        )
                    )
                    for which in range(2)
                )
                query = self.query[name](values).reshape(-1, self.heads, width // self.heads)
                prior = jnp.stack([self.prior[...][number[kind]] for kind in edges.edge_types])[edges.relation]
                logits = edge_dot(keys, query, edges.layout) * prior / jnp.sqrt(width / self.heads)
                nothing = jnp.full((values.shape[0], self.heads), _NEVER)
                messages = _attend(messages_of, logits, nothing, edges)[0].reshape(values.shape)
            gate = jax.nn.sigmoid(self.skip[...][type_number[name]])
            new[name] = gate * self.out[name](jax.nn.gelu(messages)) + (1.0 - gate) * values
        return new

    def _maps(self, node_type: int, relation: int) -> tuple[Array, Array]:
        """[2, d, d] kernels and [2, d] biases of what a relation makes of its sources: keys and values."""
        kernel, bias = self.key_value[...][node_type], self.key_value_bias[...][node_type]
        maps = self.relations[...][:, relation]
        width = kernel.shape[0]
        kernels = jnp.einsum("dshi,shio->sdho", kernel.reshape(width, 2, self.heads, -1), maps)
        biases = jnp.einsum("shi,shio->sho", bias.reshape(2, self.heads, -1), maps)
        return kernels.reshape(2, width, width), biases.reshape(2, width)

    def _by_head(self, values: Array) -> Array:
        return values.reshape(values.shape[0], self.heads, -1)


def _side_by_side(values: Array, kernels: Array) -> Array:
    """[n, k, d_out] of values [n, d_in] and kernels [k, d_in, d_out], by one product."""
    n_kernels, d_in, d_out = kernels.shape
    return (values @ kernels.swapaxes(0, 1).reshape(d_in, n_kernels * d_out)).reshape(-1, n_kernels, d_out)


def _stacked(
    states: States, edges: TypedEdges, kernels: Mapping[EdgeType, Array], biases: Mapping[EdgeType, Array] | None = None
) -> list[Array]:
    """For every source type [n R, d]: row ``j R + k`` is what relation k of R makes of node j."""
    stacked, first = [], 0
    for source, _, n_relation in edges.sources:
        kinds = edges.edge_types[first : first + n_relation]
        first += n_relation
        values = states[source] @ jnp.concatenate([kernels[kind] for kind in kinds], axis=1)
        if biases is not None:
            values = values + jnp.concatenate([biases[kind] for kind in kinds])
        stacked.append(values.reshape(-1, kernels[kinds[0]].shape[1]))
    return stacked


def _mean_of_relations(states: States, edges: TypedEdges, kernels: Mapping[EdgeType, Array]) -> Array:
    return aggregate(jnp.concatenate(_stacked(states, edges, kernels)), edges.layout, edge_weights=edges.weights)


def _attend(values: Array, logits: Array, own_logits: Array, edges: TypedEdges) -> tuple[Array, Array]:
    """Values [rows, h, d] summed by the softmax of the logits [e, h] of the edges that are kept, and [n, h] weights."""
    logits = jnp.where(edges.kept[:, None] > 0, logits, _NEVER)
    weights, own_weights = edge_softmax(logits, own_logits, edges.layout)
    # Where nothing is kept, all logits are alike and the softmax says nothing.
    return aggregate_heads(values, edges.layout, weights * edges.kept[:, None]), own_weights


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"a width of {width} does not divide into {heads} heads")


HETERO_CONVOLUTIONS = {
    "rgcn": RGCNConvolution,
    "rgat": RGATConvolution,
    "hgt": HGTConvolution,
    "sage": SAGEConvolution,
}
