"""Typed edges, laid out so that every node type is reached by one reduction, whatever the number of relations.

A layer first gives every relation its own values of the relation's source nodes. Those of all relations that end in a
node type are stacked, one below the other, and one `Layout` leads from the stacked rows to the nodes:

    out[i] = Σ over relations r, over edges (j -> i) of r:  weight[e] * values[offset_r + j]

Every relation may be joined by its reverse, whose edges are the same ones the other way round.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxgkd.graphs.aggregate import Layout, aggregate, host_layout

#: Type of the senders, name of the relation, type of the receivers.
EdgeType = tuple[str, str, str]
REVERSE = "rev_"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["layout", "relation", "kept", "weights"],
    meta_fields=["edge_types", "n_edges", "n_senders"],
)
@dataclass(frozen=True)
class TypedEdges:
    """All edges into the nodes of one type.

    Fields:
      layout: from the stacked rows of all relations' senders to the nodes.
      relation: [e] int32 number in ``edge_types``.
      kept: [e] float32, 1 where messages pass, 0 where an edge is left out.
      weights: [e] float32, ``kept`` divided by the number of kept edges of its relation into its receiver: a weighted
        sum is then the sum over relations of the mean over neighbours.
      edge_types: of the relations, in the order of their rows.
      n_edges, n_senders: number of edges and of rows of every relation.
    """

    layout: Layout
    relation: Int[Array, " e"]
    kept: Float[Array, " e"]
    weights: Float[Array, " e"]
    edge_types: tuple[EdgeType, ...]
    n_edges: tuple[int, ...]
    n_senders: tuple[int, ...]

    # As a pytree it is also rebuilt with placeholders: no check of fields then.
    __no_type_check__ = True


#: Node type → the edges that end there; a type where none end is missing.
HeteroLayout = dict[str, TypedEdges]


def with_reverses(kinds: Iterable[EdgeType]) -> tuple[EdgeType, ...]:
    """The edge types, each followed by its reverse: (a, r, b) by (b, rev_r, a)."""
    return tuple(each for kind in kinds for each in (kind, reverse_of(kind)))


def reverse_of(kind: EdgeType) -> EdgeType:
    """(a, r, b) to (b, rev_r, a), and back."""
    source, name, destination = kind
    return destination, name[len(REVERSE) :] if name.startswith(REVERSE) else REVERSE + name, source


def build_hetero_layout(
    edges: Mapping[EdgeType, tuple[np.ndarray, np.ndarray]], n_node: Mapping[str, int], *, reverses: bool = True
) -> HeteroLayout:
    """Lay out typed edges, in numpy, once; the arrays are then put on the device.

    Args:
      edges: edge type → (senders [e], receivers [e]), rows of their node types.
      n_node: number of nodes of every type.
      reverses: add the reverse of every edge type.

    Raises:
      ValueError: an index is out of range, the ends of a relation differ in length, a node type is unknown or an edge
        type is there twice.
    """
    both = {}
    for kind, (senders, receivers) in edges.items():
        if np.shape(senders) != np.shape(receivers):
            raise ValueError(f"{kind} has {len(senders)} senders and {len(receivers)} receivers")
        for each, ends in ((kind, (senders, receivers)), (reverse_of(kind), (receivers, senders))):
            if each[0] not in n_node or each[2] not in n_node:
                raise ValueError(f"{each} joins node types that are not among {', '.join(n_node)}")
            if each in both:
                raise ValueError(f"{each} is there twice")
            if each == kind or reverses:
                both[each] = ends
    laid_out = {}
    for node_type in n_node:
        kinds = tuple(kind for kind in both if kind[2] == node_type)
        if not kinds:
            continue
        offsets = np.cumsum([0, *(n_node[kind[0]] for kind in kinds)])
        for kind in kinds:
            for index, size in zip(both[kind], (n_node[kind[0]], n_node[kind[2]]), strict=True):
                if len(index) and (index.min() < 0 or index.max() >= size):
                    raise ValueError(f"an edge of {kind} leads outside the {size} nodes there are")
        shifted = [both[kind][0].astype(np.int64) + offset for kind, offset in zip(kinds, offsets[:-1], strict=True)]
        senders = np.concatenate(shifted)
        receivers = np.concatenate([np.asarray(both[kind][1], np.int64) for kind in kinds])
        sizes = [len(both[kind][0]) for kind in kinds]
        layout = host_layout(senders, receivers, n_node[node_type], n_senders=int(offsets[-1]))
        relation = np.repeat(np.arange(len(kinds), dtype=np.int32), sizes)[np.asarray(layout.order)]
        counts = np.zeros((n_node[node_type], len(kinds)), np.float32)
        np.add.at(counts, (layout.receivers, relation), 1.0)
        laid_out[node_type] = TypedEdges(
            layout=jax.tree.map(jnp.asarray, layout),
            relation=jnp.asarray(relation),
            kept=jnp.ones(len(relation), jnp.float32),
            weights=jnp.asarray(1.0 / counts[np.asarray(layout.receivers), relation]),
            edge_types=kinds,
            n_edges=tuple(sizes),
            n_senders=tuple(n_node[kind[0]] for kind in kinds),
        )
    return laid_out


def degrees(layout: HeteroLayout) -> dict[str, Float[Array, "n r"]]:
    """Node type → [n, relations] number of edges of every relation into each node, those left out not counted."""
    return {node_type: _counts(edges, edges.kept) for node_type, edges in layout.items()}


def without_edges(layout: HeteroLayout, left_out: Mapping[EdgeType, Bool[Array, " e"]]) -> HeteroLayout:
    """The layout in which some edges, and their reverses, pass no messages; the shapes stay as they are.

    Args:
      layout: of all edges.
      left_out: edge type → [e] True for the edges to leave out, in the order they were given in; may be traced.
        Edge types that are missing stay whole.

    Raises:
      ValueError: an edge type is not in the layout, or has another number of edges.
    """
    known = {kind for edges in layout.values() for kind in edges.edge_types}
    for kind in left_out:
        if kind not in known:
            raise ValueError(f"{kind} is not among the relations {sorted(known)}")
    return {node_type: _thinned(edges, left_out) for node_type, edges in layout.items()}


def _thinned(edges: TypedEdges, left_out: Mapping[EdgeType, Bool[Array, " e"]]) -> TypedEdges:
    masks = {**left_out, **{reverse_of(kind): mask for kind, mask in left_out.items()}}
    if not any(kind in masks for kind in edges.edge_types):
        return edges
    parts = []
    for kind, size in zip(edges.edge_types, edges.n_edges, strict=True):
        parts.append(masks.get(kind, jnp.zeros(size, bool)))
        if parts[-1].shape != (size,):
            raise ValueError(f"a mask of shape {parts[-1].shape} for the {size} edges of {kind}")
    # Edges were given to the layout relation by relation.
    kept = 1.0 - jnp.concatenate(parts)[edges.layout.order].astype(jnp.float32)
    weights = kept / jnp.maximum(_counts(edges, kept)[edges.layout.receivers, edges.relation], 1.0)
    return replace(edges, kept=kept, weights=weights)


def _counts(edges: TypedEdges, kept: Float[Array, " e"]) -> Float[Array, "n r"]:
    relation_of_row = np.repeat(np.arange(len(edges.n_senders)), edges.n_senders)
    return aggregate(jax.nn.one_hot(relation_of_row, len(edges.n_senders)), edges.layout, edge_weights=kept)
