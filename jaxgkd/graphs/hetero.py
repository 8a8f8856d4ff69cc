"""Typed edges, laid out so that every node type is reached by one reduction, whatever the number of relations.

A layer first gives every relation its own values of the relation's source nodes. Those of all relations that start from
one type are made by one product, side by side, and read as rows: relation k of R of node j is row ``j R + k``. One
`Layout` leads from the rows of all source types, one type below the other, to the nodes:

    out[i] = Σ over relations r, over edges (j -> i) of r:  weight[e] * values[first_s + j R_s + k_r]

Every relation may be joined by its reverse, whose edges are the same ones the other way round.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxgkd.graphs.aggregate import aggregate
from jaxgkd.graphs.layout import Layout, Size, host_layout

#: Type of the senders, name of the relation, type of the receivers.
EdgeType = tuple[str, str, str]
REVERSE = "rev_"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["layout", "relation", "kept", "weights"],
    meta_fields=["edge_types", "n_edges", "sources"],
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
      edge_types: of the relations, those that start from one type together.
      n_edges: number of edges of every relation.
      sources: (node type, its number of nodes, its number of relations), in the order of the rows.
    """

    layout: Layout
    relation: Int[Array, " e"]
    kept: Float[Array, " e"]
    weights: Float[Array, " e"]
    edge_types: tuple[EdgeType, ...]
    n_edges: tuple[int, ...]
    sources: tuple[tuple[str, int, int], ...]

    # As a pytree it is also rebuilt with placeholders: no check of fields then.
    __no_type_check__ = True

    def senders(self) -> np.ndarray:
        """[e] the sender of every edge, counted in its own type."""
        rows, relation = np.asarray(self.layout.senders), np.asarray(self.relation)
        source_of = np.repeat(np.arange(len(self.sources)), [n_relation for _, _, n_relation in self.sources])[relation]
        firsts = np.cumsum([0, *(n_node * n_relation for _, n_node, n_relation in self.sources)])[source_of]
        return (rows - firsts) // np.array([n_relation for _, _, n_relation in self.sources])[source_of]


#: Node type → the edges that end there; a type where none end is missing.
HeteroLayout = dict[str, TypedEdges]


def with_reverses(kinds: Iterable[EdgeType]) -> tuple[EdgeType, ...]:
    """The edge types, each followed by its reverse: (a, r, b) by (b, rev_r, a).

    Example:
      >>> with_reverses([("actor", "plays_in", "film")])
      (('actor', 'plays_in', 'film'), ('film', 'rev_plays_in', 'actor'))
    """
    return tuple(each for kind in kinds for each in (kind, reverse_of(kind)))


def reverse_of(kind: EdgeType) -> EdgeType:
    """(a, r, b) to (b, rev_r, a), and back.

    Example:
      >>> reverse_of(("film", "rev_plays_in", "actor"))
      ('actor', 'plays_in', 'film')
    """
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

    Example:
      >>> edges = {("actor", "plays_in", "film"): (np.array([0, 1]), np.array([0, 0]))}
      >>> layout = build_hetero_layout(edges, {"actor": 2, "film": 1})
      >>> sorted(layout), layout["film"].edge_types
      (['actor', 'film'], (('actor', 'plays_in', 'film'),))
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
    for kind, ends in both.items():
        for index, size in zip(ends, (n_node[kind[0]], n_node[kind[2]]), strict=True):
            if len(index) and (index.min() < 0 or index.max() >= size):
                raise ValueError(f"an edge of {kind} leads outside the {size} nodes there are")
    return jax.tree.map(jnp.asarray, host_hetero_layout(both, n_node))


def host_hetero_layout(
    edges: Mapping[EdgeType, tuple[np.ndarray, np.ndarray]],
    n_node: Mapping[str, int],
    kept: Mapping[EdgeType, np.ndarray] | None = None,
) -> HeteroLayout:
    """`build_hetero_layout` of edges as they are, with its arrays still in numpy.

    Args:
      edges, n_node: as there; no reverses are added.
      kept: edge type → [e] True where messages pass; None where all do.
    """
    laid_out = {}
    for node_type, n_receivers in n_node.items():
        stacking = stacking_into(node_type, edges, n_node)
        if not stacking.rows:
            continue
        kinds = tuple(stacking.rows)
        rows = [np.asarray(edges[kind][0], np.int64) * step + first for kind, (first, step) in stacking.rows.items()]
        receivers = np.concatenate([np.asarray(edges[kind][1], np.int64) for kind in kinds])
        sizes = [len(edges[kind][0]) for kind in kinds]
        layout = host_layout(np.concatenate(rows), receivers, n_receivers, n_senders=stacking.n_rows)
        order, ends_in = np.asarray(layout.order), np.asarray(layout.receivers, np.int64)
        relation = np.repeat(np.arange(len(kinds), dtype=np.int32), sizes)[order]
        passing = np.ones(len(order), np.float32)
        if kept is not None:
            passing = np.concatenate([np.asarray(kept[kind], np.float32) for kind in kinds])[order]
        of_relation = ends_in * len(kinds) + relation
        found = np.bincount(of_relation, passing, minlength=n_receivers * len(kinds))
        laid_out[node_type] = TypedEdges(
            layout=layout,
            relation=relation,  # type: ignore[arg-type]
            kept=passing,  # type: ignore[arg-type]
            weights=(passing / np.maximum(found[of_relation], 1.0)).astype(np.float32),  # type: ignore[arg-type]
            edge_types=kinds,
            n_edges=tuple(sizes),
            sources=stacking.sources,
        )
    return laid_out


class Stacking(NamedTuple):
    """Which rows the edges into a node type start from.

    Fields:
      rows: edge type → first row and step: node j's row is ``first + j step``.
      sources: as of `TypedEdges`; n_rows: of all sources.
    """

    rows: dict[EdgeType, tuple[Size, int]]
    sources: tuple[tuple[str, Size, int], ...]
    n_rows: Size


def stacking_into(node_type: str, kinds: Iterable[EdgeType], n_node: Mapping[str, Size]) -> Stacking:
    """The rows of the relations, of all there are, that lead to the nodes of a type.

    Example:
      >>> kinds = [("actor", "plays_in", "film"), ("actor", "known_for", "film"), ("film", "rev_plays_in", "actor")]
      >>> stacking_into("film", kinds, {"actor": 3, "film": 2}).rows
      {('actor', 'plays_in', 'film'): (0, 2), ('actor', 'known_for', 'film'): (1, 2)}
    """
    by_source: dict[str, list[EdgeType]] = {}
    for kind in kinds:
        if kind[2] == node_type:
            by_source.setdefault(kind[0], []).append(kind)
    rows, sources, first = {}, [], 0
    for name, of_source in by_source.items():
        rows |= {kind: (first + place, len(of_source)) for place, kind in enumerate(of_source)}
        sources.append((name, n_node[name], len(of_source)))
        first = first + n_node[name] * len(of_source)
    return Stacking(rows, tuple(sources), first)


def stack_relations(values: Mapping[EdgeType, Array], edges: TypedEdges) -> Array:
    """What every relation makes of its source nodes, [n_source, ...] each, as the rows that ``edges.layout`` reads.

    Where relations share their sources, one product makes these rows faster than stacking does (see the module).

    Example:
      >>> kind = ("actor", "plays_in", "film")
      >>> layout = build_hetero_layout({kind: (np.array([0, 1]), np.array([0, 0]))}, {"actor": 2, "film": 1})
      >>> rows = stack_relations({kind: jnp.array([[1.0], [5.0]])}, layout["film"])
      >>> print(aggregate(rows, layout["film"].layout, edge_weights=layout["film"].weights))
      [[3.]]
    """
    stacked, first = [], 0
    for _, _, n_relation in edges.sources:
        kinds = edges.edge_types[first : first + n_relation]
        first += n_relation
        together = jnp.stack([values[kind] for kind in kinds], axis=1)
        stacked.append(together.reshape(-1, *together.shape[2:]))
    return jnp.concatenate(stacked)


def degrees(layout: HeteroLayout) -> dict[str, Float[Array, "n r"]]:
    """Node type → [n, relations] number of edges of every relation into each node, those left out not counted.

    Example:
      >>> edges = {("actor", "plays_in", "film"): (np.array([0, 1]), np.array([0, 0]))}
      >>> print(degrees(build_hetero_layout(edges, {"actor": 2, "film": 1}))["film"])
      [[2.]]
    """
    return {node_type: _counts(edges, edges.kept) for node_type, edges in layout.items()}


def relations_between(
    edges: TypedEdges, source: str, senders: Int[Array, "..."], receivers: Int[Array, "..."]
) -> Float[Array, "... r"]:
    """Which relations lead from one node to another: [..., r] 1 where one does, edges that are left out not counted.

    Args:
      edges: into the nodes of a type, each there once.
      source: type of the senders; the columns are its relations, in the order of ``edges.edge_types``.
      senders, receivers: rows of both types, of the same shape.

    Example:
      >>> kind = ("actor", "plays_in", "film")
      >>> layout = build_hetero_layout({kind: (np.array([0, 1]), np.array([0, 0]))}, {"actor": 3, "film": 1})
      >>> print(relations_between(layout["film"], "actor", jnp.array([1, 2]), jnp.array([0, 0])))
      [[1.]
       [0.]]
    """
    first = 0
    for name, n_node, n_relation in edges.sources:
        if name == source:
            break
        first += n_node * n_relation
    else:
        return jnp.zeros((*jnp.shape(senders), 0))
    rows = edges.layout.senders
    if rows.shape[0] == 0:
        return jnp.zeros((*jnp.shape(senders), n_relation))
    wanted = first + senders * n_relation
    # Edges into a node are sorted by the row they start from, and the rows of a sender's relations follow each other.
    low, end = edges.layout.row_start[receivers], edges.layout.row_start[receivers + 1]
    last = rows.shape[0] - 1

    def halve(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        below = rows[jnp.minimum(middle, last)] < wanted
        searched = low < high
        return jnp.where(searched & below, middle + 1, low), jnp.where(searched & ~below, middle, high)

    # As many halvings as the longest of the rows that are searched wants: unrolled for the longest there could be, XLA
    # takes four times as long.
    low, _ = jax.lax.while_loop(lambda bounds: jnp.any(bounds[0] < bounds[1]), halve, (low, end))
    found = jnp.zeros((*jnp.shape(senders), n_relation))
    for step in range(n_relation):
        at = jnp.minimum(low + step, last)
        there = jnp.where(low + step < end, edges.kept[at], 0.0)
        # A row of another sender is none of the columns.
        found += jax.nn.one_hot(rows[at] - wanted, n_relation) * there[..., None]
    return found


def without_edges(layout: HeteroLayout, left_out: Mapping[EdgeType, Bool[Array, " e"]]) -> HeteroLayout:
    """The layout in which some edges, and their reverses, pass no messages; the shapes stay as they are.

    Args:
      layout: of all edges.
      left_out: edge type → [e] True for the edges to leave out, in the order they were given in; may be traced.
        Edge types that are missing stay whole.

    Raises:
      ValueError: an edge type is not in the layout, or has another number of edges.

    Example:
      >>> kind = ("actor", "plays_in", "film")
      >>> layout = build_hetero_layout({kind: (np.array([0, 1]), np.array([0, 0]))}, {"actor": 2, "film": 1})
      >>> print(degrees(without_edges(layout, {kind: jnp.array([True, False])}))["film"])
      [[1.]]
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
    relation_of_row, first = [], 0
    for _, n_node, n_relation in edges.sources:
        relation_of_row.append(first + jnp.arange(n_node * n_relation) % n_relation)
        first += n_relation
    of_relation = jax.nn.one_hot(jnp.concatenate(relation_of_row), len(edges.edge_types))
    return aggregate(of_relation, edges.layout, edge_weights=kept)
