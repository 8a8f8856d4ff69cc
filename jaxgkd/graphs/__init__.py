"""Graphs as jraph ``GraphsTuple`` records, and every reduction over their edges.

``build`` makes records and layouts from plain arrays, ``aggregate`` reduces over edges, ``neighbourhoods`` gives parts
of a graph and positions of nodes. Nothing outside this folder imports jraph or calls a segment operation.
"""

from jraph import GraphsTuple

from jaxgkd.graphs.aggregate import Layout, aggregate, build_layout, edge_softmax, sparse_rows
from jaxgkd.graphs.build import MixedRows, SparseRows, from_edges, undirected

__all__ = [
    "GraphsTuple",
    "Layout",
    "MixedRows",
    "SparseRows",
    "aggregate",
    "build_layout",
    "edge_softmax",
    "from_edges",
    "sparse_rows",
    "undirected",
]
