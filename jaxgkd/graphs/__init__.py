"""Graphs as jraph ``GraphsTuple`` records, and every reduction over their edges.

``build`` makes records from plain arrays, ``layout`` sorts their edges, ``aggregate`` reduces over them,
``neighbourhoods`` gives parts of a graph and positions of nodes. ``batching`` puts many small graphs into batches of
few shapes (``budgets`` and ``size_classes`` choose these), ``prefetch`` makes batches ahead of time. ``rows`` gives
every graph a row of its own instead, for attention over all pairs of nodes, which ``paths`` tells apart. ``hetero``
lays out edges of several types.
Nothing outside this folder imports jraph or calls a segment operation.
"""

from jraph import GraphsTuple

from jaxgkd.graphs.aggregate import (
    aggregate,
    aggregate_heads,
    edge_dot,
    edge_softmax,
    to_edges,
    to_nodes,
)
from jaxgkd.graphs.batching import Batch, Batches, ManyGraphs, Position, Step, assemble
from jaxgkd.graphs.budgets import Budget
from jaxgkd.graphs.build import MixedRows, SparseRows, from_edges, undirected
from jaxgkd.graphs.hetero import (
    HeteroLayout,
    TypedEdges,
    build_hetero_layout,
    degrees,
    relations_between,
    reverse_of,
    stack_relations,
    with_reverses,
    without_edges,
)
from jaxgkd.graphs.layout import Layout, build_layout, sparse_rows
from jaxgkd.graphs.paths import Paths, shortest_paths
from jaxgkd.graphs.prefetch import prefetch
from jaxgkd.graphs.rows import RowBatch, assemble_rows, row_batches

__all__ = [
    "Batch",
    "Batches",
    "Budget",
    "GraphsTuple",
    "HeteroLayout",
    "Layout",
    "ManyGraphs",
    "MixedRows",
    "Paths",
    "Position",
    "RowBatch",
    "SparseRows",
    "Step",
    "TypedEdges",
    "aggregate",
    "aggregate_heads",
    "assemble",
    "assemble_rows",
    "build_hetero_layout",
    "build_layout",
    "degrees",
    "edge_dot",
    "edge_softmax",
    "from_edges",
    "prefetch",
    "relations_between",
    "reverse_of",
    "row_batches",
    "shortest_paths",
    "sparse_rows",
    "stack_relations",
    "to_edges",
    "to_nodes",
    "undirected",
    "with_reverses",
    "without_edges",
]
