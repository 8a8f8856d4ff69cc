"""jraph ``GraphsTuple`` records from plain arrays, and node inputs that stay sparse."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jraph
import numpy as np
from jaxtyping import Array, Float

from jaxgkd.graphs.aggregate import aggregate
from jaxgkd.graphs.layout import Layout, build_layout, sparse_rows


@partial(jax.tree_util.register_dataclass, data_fields=["layout", "values"], meta_fields=[])
@dataclass(frozen=True)
class SparseRows:
    """A sparse node input [n, f], such as a bag of words: ``rows @ kernel`` without the zeros.

    Fields:
      layout: from the f columns to the n rows; values: [nnz] in the layout's order.
    """

    layout: Layout
    values: Float[Array, " nnz"]

    # Rebuilt with stacked arrays and placeholders, as a `Layout` is.
    __no_type_check__ = True

    @classmethod
    def from_scipy(cls, matrix) -> "SparseRows":
        """From any SciPy sparse matrix [n, f]."""
        return cls(*sparse_rows(matrix))

    @property
    def shape(self) -> tuple[int, int]:
        """(n, f)."""
        return self.layout.n_receivers, self.layout.n_senders

    def __matmul__(self, kernel: Float[Array, "f d"]) -> Float[Array, "n d"]:
        """The dense product [n, d]; its cost is that of the values that are there, n × f only where all are."""
        return aggregate(kernel, self.layout, edge_weights=self.values)


@partial(jax.tree_util.register_dataclass, data_fields=["dense", "sparse"], meta_fields=[])
@dataclass(frozen=True)
class MixedRows:
    """Dense columns [n, a] beside sparse ones [n, b], as one node input [n, a + b].

    Fields:
      dense: [n, a]; sparse: `SparseRows` [n, b].
    """

    dense: Float[Array, "n a"]
    sparse: SparseRows

    __no_type_check__ = True

    @property
    def shape(self) -> tuple[int, int]:
        """(n, a + b)."""
        return self.dense.shape[0], self.dense.shape[1] + self.sparse.shape[1]

    def __matmul__(self, kernel: Float[Array, "f d"]) -> Float[Array, "n d"]:
        """The dense product [n, d]."""
        return self.dense @ kernel[: self.dense.shape[1]] + self.sparse @ kernel[self.dense.shape[1] :]


def undirected(senders: np.ndarray, receivers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every edge in both directions, once, without self loops: two [e'] int32 arrays sorted by receiver.

    Example:
      >>> senders, receivers = undirected(np.array([0, 1, 2]), np.array([1, 0, 2]))
      >>> print(senders, receivers)
      [1 0] [0 1]
    """
    proper = senders != receivers
    senders, receivers = (np.asarray(ends)[proper].astype(np.int64) for ends in (senders, receivers))
    # One number a pair sorts many times faster than pairs do.
    size = 1 + max(senders.max(initial=0), receivers.max(initial=0))
    both = np.unique(np.concatenate([receivers * size + senders, senders * size + receivers]))
    return (both % size).astype(np.int32), (both // size).astype(np.int32)


def from_edges(nodes: Any, senders: np.ndarray, receivers: np.ndarray, n_node: int) -> tuple[jraph.GraphsTuple, Layout]:
    """One graph as a ``GraphsTuple`` whose edges are sorted by receiver, and their layout.

    Args:
      nodes: a pytree of node inputs, dense [n, f] or `SparseRows`.
      senders, receivers: [e] node rows.
      n_node: number of nodes n.

    Example:
      >>> graph, layout = from_edges(np.ones((3, 4), np.float32), np.array([2, 0]), np.array([1, 0]), n_node=3)
      >>> print(graph.n_node, graph.n_edge, graph.senders, graph.receivers)
      [3] [2] [0 2] [0 1]
    """
    layout = build_layout(senders, receivers, n_node)
    graph = jraph.GraphsTuple(
        nodes=nodes,
        edges=None,
        receivers=layout.receivers,
        senders=layout.senders,
        globals=None,
        n_node=np.array([n_node], np.int32),  # type: ignore[arg-type]
        n_edge=np.array([layout.n_edges], np.int32),  # type: ignore[arg-type]
    )
    return graph, layout
