"""Typed edges laid out inside a compiled program, whose sizes may be symbols; see `jaxgkd.graphs.traced_layout`."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxgkd.graphs.hetero import EdgeType, HeteroLayout, TypedEdges, stacking_into
from jaxgkd.graphs.layout import Size
from jaxgkd.graphs.traced_layout import one_more, traced_layout


def traced_hetero_layout(
    edges: Mapping[EdgeType, tuple[Int[Array, "_"], Int[Array, "_"]]], n_node: Mapping[str, Size]
) -> HeteroLayout:
    """What `host_hetero_layout` makes of edges, with one more into every node type, which leads nowhere.

    Args:
      edges: edge type → senders and receivers [e] int32, in any order; reverses are edge types of their own.
      n_node: number of nodes of every type.
    """
    laid_out = {}
    for node_type, n_receivers in n_node.items():
        stacking = stacking_into(node_type, edges, n_node)
        if not stacking.rows:
            continue
        kinds = tuple(stacking.rows)
        senders = jnp.concatenate([edges[kind][0] * step + first for kind, (first, step) in stacking.rows.items()])
        receivers = jnp.concatenate([edges[kind][1] for kind in kinds])
        relation = jnp.concatenate([jnp.full(edges[kind][0].shape, i, jnp.int32) for i, kind in enumerate(kinds)])
        layout = traced_layout(senders, receivers, n_receivers, stacking.n_rows)
        relation = one_more(relation)[layout.order]
        kept = one_more(jnp.ones(senders.shape))[layout.order]
        counts = jnp.zeros((n_receivers, len(kinds))).at[layout.receivers, relation].add(kept, mode="drop")
        found = counts.at[layout.receivers, relation].get(mode="fill", fill_value=1.0)
        laid_out[node_type] = TypedEdges(
            layout=layout,
            relation=relation,
            kept=kept,
            weights=kept / found,
            edge_types=kinds,
            n_edges=tuple(edges[kind][0].shape[0] for kind in kinds),
            sources=stacking.sources,
        )
    return laid_out
