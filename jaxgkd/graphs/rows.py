"""Small graphs as rows of one length: what attention over all pairs of nodes needs.

Where `assemble` puts the nodes of a batch one after another, a row batch gives every graph a row as long as the longest
of its size class, so that all pairs of its nodes are one dense square.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxgkd.graphs.batching import Batches, ManyGraphs
from jaxgkd.graphs.budgets import Budget


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowBatch:
    """g graphs in rows of L nodes; what is past a graph's last node is zeros, and so are the last rows.

    Attributes:
      nodes: pytree of [g, L, ...].
      pairs: pytree of [g, L, L, ...]; entry (i, j) belongs to the pair from node i to node j.
      globals: pytree of [g, ...].
      node_mask: [g, L] True where a node is real.
      graph_mask: [g] True where a graph is real.
      index: [g] position of each graph among all, -1 for padding.
    """

    nodes: Any
    pairs: Any
    globals: Any
    node_mask: Bool[Array, "g n"]
    graph_mask: Bool[Array, " g"]
    index: Int[Array, " g"]

    # As a pytree it is also rebuilt with stacked arrays, axes of vmap and placeholders: no check of fields then.
    __no_type_check__ = True


def assemble_rows(
    graphs: ManyGraphs, rows: np.ndarray, budget: Budget, pairs: Mapping[str, np.ndarray] | None = None
) -> RowBatch:
    """Copies graphs into rows, in numpy and without a loop over graphs.

    Args:
      graphs: all graphs.
      rows: [k] positions of those wanted.
      budget: the shape: ``n_graph - 1`` rows of ``largest`` nodes.
      pairs: name → [Σ n_i², ...], what belongs to the pairs of nodes of every graph, one graph after another.

    Raises:
      ValueError: the graphs do not fit.

    Example:
      >>> pair = {"nodes": np.ones((2, 1)), "senders": np.array([0]), "receivers": np.array([1])}
      >>> batch = assemble_rows(ManyGraphs.from_list([pair]), np.array([0]), Budget(4, 2, 2, largest=3))
      >>> print(batch.node_mask, batch.nodes.shape)
      [[ True  True False]] (1, 3, 1)
    """
    rows = np.asarray(rows, np.int64)
    n_node = graphs.node_start[rows + 1] - graphs.node_start[rows]
    n_row, longest = budget.n_graph - 1, budget.largest
    if len(rows) > n_row or n_node.max(initial=0) > longest:
        raise ValueError(f"{len(rows)} graphs of up to {n_node.max(initial=0)} nodes do not fit into {budget}")
    place = np.arange(longest)
    mask = np.zeros((n_row, longest), bool)
    mask[: len(rows)] = place < n_node[:, None]
    # Slots of padding copy what lies at 0 first: gathering whole rows is faster than writing to scattered places.
    source = np.where(mask[: len(rows)], graphs.node_start[rows][:, None] + place, 0)
    square = mask[: len(rows), :, None] & mask[: len(rows), None, :]
    first = graphs.pair_start[rows]
    pair_source = np.where(square, first[:, None, None] + n_node[:, None, None] * place[:, None] + place, 0)
    return RowBatch(
        nodes=jax.tree.map(lambda leaf: _in_rows(leaf, source, mask, n_row), graphs.nodes),
        pairs={name: _in_rows(leaf, pair_source, square, n_row) for name, leaf in (pairs or {}).items()},
        globals=jax.tree.map(lambda leaf: _padded(np.asarray(leaf[rows]), n_row), graphs.globals),
        node_mask=mask,  # type: ignore[arg-type]
        graph_mask=np.arange(n_row) < len(rows),  # type: ignore[arg-type]
        index=np.concatenate([rows, np.full(n_row - len(rows), -1)]).astype(np.int32),  # type: ignore[arg-type]
    )


def row_batches(batches: Batches, epoch: int = 0, pairs: Mapping[str, np.ndarray] | None = None) -> Iterator[RowBatch]:
    """The batches of an epoch as rows; best planned in the mode "similar".

    Args:
      batches: which graphs go together.
      epoch: its number.
      pairs: see `assemble_rows`.

    Example:
      >>> pair = {"nodes": np.ones((2, 1)), "senders": np.array([0]), "receivers": np.array([1])}
      >>> batches = Batches(ManyGraphs.from_list([pair] * 3), batch_size=2, mode="similar")
      >>> sorted(int(batch.graph_mask.sum()) for batch in row_batches(batches))
      [1, 2]
    """
    plan = batches.plan(epoch)
    for start, end, number in zip(plan.start[:-1], plan.start[1:], plan.budget, strict=True):
        yield assemble_rows(batches.graphs, plan.order[start:end], batches.budgets[number], pairs)


def _in_rows(leaf: np.ndarray, source: np.ndarray, mask: np.ndarray, n_row: int) -> np.ndarray:
    taken = leaf[source]
    taken[~mask[: len(source)]] = 0
    return _padded(taken, n_row)


def _padded(leaf: np.ndarray, n_row: int) -> np.ndarray:
    missing = np.zeros((n_row - len(leaf), *leaf.shape[1:]), leaf.dtype)
    return np.concatenate([leaf, missing]) if len(missing) else leaf
