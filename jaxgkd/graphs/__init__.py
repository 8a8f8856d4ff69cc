"""Graphs as jraph ``GraphsTuple`` records, and every reduction over their edges.

``build`` makes records and layouts from plain arrays, ``aggregate`` reduces over edges, ``neighbourhoods`` gives parts
of a graph and positions of nodes. ``batching`` puts many small graphs into batches of few shapes (``budgets`` and
``size_classes`` choose these), ``prefetch`` makes batches ahead of time. Nothing outside this folder imports jraph or
calls a segment operation.
"""

from jraph import GraphsTuple

from jaxgkd.graphs.aggregate import (
    Layout,
    aggregate,
    aggregate_heads,
    build_layout,
    edge_softmax,
    sparse_rows,
    to_edges,
    to_nodes,
)
from jaxgkd.graphs.batching import Batch, Batches, ManyGraphs, Position, Step, assemble
from jaxgkd.graphs.budgets import Budget
from jaxgkd.graphs.build import MixedRows, SparseRows, from_edges, undirected
from jaxgkd.graphs.prefetch import prefetch

__all__ = [
    "Batch",
    "Batches",
    "Budget",
    "GraphsTuple",
    "Layout",
    "ManyGraphs",
    "MixedRows",
    "Position",
    "SparseRows",
    "Step",
    "aggregate",
    "aggregate_heads",
    "assemble",
    "build_layout",
    "edge_softmax",
    "from_edges",
    "prefetch",
    "sparse_rows",
    "to_edges",
    "to_nodes",
    "undirected",
]
