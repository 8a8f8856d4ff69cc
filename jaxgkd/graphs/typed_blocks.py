"""A block as the `HeteroLayout` that encoders of whole heterogeneous graphs read."""

import numpy as np

from jaxgkd.graphs.blocks import Block
from jaxgkd.graphs.hetero import HeteroLayout, host_hetero_layout


def block_hetero_layout(block: Block) -> HeteroLayout:
    """All edges of a block, of all hops, with a row for every node that it lists; in numpy.

    For encoders that use the same layout in every layer and return a state for every node they read. States of the
    seeds are what they are with one layout a layer, since an edge that a later layer need not see leads to a node that
    it need not compute. Edges of padding pass no messages.

    Args:
      block: as it comes from `assemble_block`, its arrays in numpy.
    """
    n_node = {node_type: ends[-1] for node_type, ends in block.ends}
    edges = {kind: (np.asarray(each.senders), np.asarray(each.receivers)) for kind, each in block.layers[0].items()}
    return host_hetero_layout(edges, n_node, {kind: np.asarray(mask) for kind, mask in block.edge_mask.items()})
