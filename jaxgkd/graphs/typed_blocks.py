"""A block as the `HeteroLayout` that encoders of whole heterogeneous graphs read."""

import numpy as np

from jaxgkd.graphs.aggregate import host_layout
from jaxgkd.graphs.blocks import Block
from jaxgkd.graphs.hetero import HeteroLayout, TypedEdges


def block_hetero_layout(block: Block) -> HeteroLayout:
    """All edges of a block, of all hops, with a row for every node that it lists; in numpy.

    For encoders that use the same layout in every layer and return a state for every node they read. States of the
    seeds are what they are with one layout a layer, since an edge that a later layer need not see leads to a node that
    it need not compute. Edges of padding pass no messages.

    Args:
      block: as it comes from `assemble_block`, its arrays in numpy.
    """
    n_node = {node_type: ends[-1] for node_type, ends in block.ends}
    edges = block.layers[0]
    laid_out = {}
    for node_type, n_receivers in n_node.items():
        kinds = tuple(kind for kind in edges if kind[2] == node_type)
        if not kinds:
            continue
        offsets = np.cumsum([0, *(n_node[kind[0]] for kind in kinds)])
        senders = [
            np.asarray(edges[kind].senders, np.int64) + offset for kind, offset in zip(kinds, offsets[:-1], strict=True)
        ]
        receivers = [np.asarray(edges[kind].receivers) for kind in kinds]
        sizes = [edges[kind].n_edges for kind in kinds]
        layout = host_layout(
            np.concatenate(senders), np.concatenate(receivers), n_receivers, n_senders=int(offsets[-1])
        )
        order, ends_in = np.asarray(layout.order), np.asarray(layout.receivers)
        relation = np.repeat(np.arange(len(kinds), dtype=np.int32), sizes)[order]
        kept = np.concatenate([np.asarray(block.edge_mask[kind]) for kind in kinds])[order].astype(np.float32)
        place = ends_in.astype(np.int64) * len(kinds) + relation
        counts = np.bincount(place, kept, minlength=n_receivers * len(kinds))
        laid_out[node_type] = TypedEdges(
            layout=layout,
            relation=relation,  # type: ignore[arg-type]
            kept=kept,  # type: ignore[arg-type]
            weights=(kept / np.maximum(counts[place], 1.0)).astype(np.float32),  # type: ignore[arg-type]
            edge_types=kinds,
            n_edges=tuple(sizes),
            n_senders=tuple(n_node[kind[0]] for kind in kinds),
        )
    return laid_out
