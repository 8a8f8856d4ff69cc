"""How the nodes of small graphs lie to each other: the shortest path of every pair, and the edges along it.

Pairs with the same distance and the same kinds of edges on the way share one number, so a network looks up one learned
vector a pair, and what it learns of a path costs as much as there are different paths, not pairs.

Source: the spatial and the edge encoding of Graphormer, Ying et al., arXiv 2106.05234.
"""

from typing import NamedTuple

import numpy as np

from jaxgkd.errors import DataError
from jaxgkd.graphs.batching import ManyGraphs

# Edges times nodes that are looked at in one go.
_AT_ONCE = 4_000_000
# Bits of a path's code that hold the kind of one edge; the distance lies above those of all edges.
_BITS = 7
#: Hops whose edges are told apart, at most.
MOST_HOPS = 7
#: Longest distance that is told apart; nodes further away, or joined by no path, are ``FARTHEST + 1`` apart.
FARTHEST = 60


class Paths(NamedTuple):
    """u kinds of paths, and which one joins every pair of nodes.

    Attributes:
      kind: [Σ n_i²] integers below u; graph i has n_i² of them, from its node 0 to all its nodes, then from node 1.
      distance: [u] edges of a path, 0 from a node to itself, ``FARTHEST + 1`` where it is longer or there is none.
      hops: [u, h] integer kinds of the first h edges counted from 1, 0 past a path's end.
    """

    kind: np.ndarray
    distance: np.ndarray
    hops: np.ndarray


def shortest_paths(graphs: ManyGraphs, edge_kind: np.ndarray, *, n_hop: int = 5) -> Paths:
    """Shortest paths between all pairs of nodes of every graph; of several the one by the edge that is stored first.

    Args:
      graphs: n graphs.
      edge_kind: [E] integers from 0 to 126, what the edges are.
      n_hop: edges of a path that are told apart, counted from its start.

    Raises:
      ValueError: ``n_hop`` or a kind is out of range.
      DataError: there is no graph, or there are too many kinds of paths to be numbered.

    Example:
      >>> chain = {"nodes": np.ones((3, 1)), "senders": np.array([0, 1, 1, 2]), "receivers": np.array([1, 0, 2, 1])}
      >>> paths = shortest_paths(ManyGraphs.from_list([chain]), np.zeros(4, int))
      >>> print(paths.distance[paths.kind].reshape(3, 3))
      [[0 1 2]
       [1 0 1]
       [2 1 0]]
    """
    if not 0 <= n_hop <= MOST_HOPS:
        raise ValueError(f"{n_hop} hops cannot be told apart, 0 to {MOST_HOPS} can")
    if len(edge_kind) and not 0 <= int(edge_kind.min()) <= int(edge_kind.max()) < 2**_BITS - 1:
        raise ValueError(f"kinds of edges are numbers from 0 to {2**_BITS - 2}")
    n_node = graphs.n_node
    if not len(n_node):
        raise DataError("there is no graph to find paths in", mend="give at least one")
    chunks = []
    for first, last in _chunks(n_node, graphs.n_edge):
        codes, numbers = np.unique(_codes(graphs, edge_kind, first, last, n_hop), return_inverse=True)
        chunks.append((codes, numbers.astype(np.int32)))
    known = np.unique(np.concatenate([codes for codes, _ in chunks]))
    if len(known) >= 2**31:
        raise DataError(f"{len(known):,} kinds of paths are too many to be numbered", mend="tell fewer hops apart")
    width = np.uint16 if len(known) < 2**16 else np.int32
    kind = [np.searchsorted(known, codes).astype(width)[numbers] for codes, numbers in chunks]
    hops = (known[:, None] >> (_BITS * np.arange(n_hop))) & (2**_BITS - 1)
    return Paths(np.concatenate(kind), (known >> (_BITS * n_hop)).astype(np.int32), hops.astype(np.int32))


def _chunks(n_node: np.ndarray, n_edge: np.ndarray):
    """Runs of graphs whose edges times the nodes of the largest stay below what is looked at in one go."""
    first, largest, edges = 0, 0, 0
    for i, (nodes, more) in enumerate(zip(n_node.tolist(), n_edge.tolist(), strict=True)):
        largest, edges = max(largest, nodes), edges + more + nodes
        if i > first and edges * largest > _AT_ONCE:
            yield first, i
            first, largest, edges = i, nodes, more + nodes
    yield first, len(n_node)


def _codes(graphs: ManyGraphs, edge_kind: np.ndarray, first: int, last: int, n_hop: int) -> np.ndarray:
    """Codes of the paths of some graphs, [Σ n_i²]: breadth first from all nodes of all graphs at once."""
    sizes = graphs.n_node[first:last].astype(np.int64)
    edges = slice(int(graphs.edge_start[first]), int(graphs.edge_start[last]))
    owner = np.repeat(np.arange(last - first), graphs.n_edge[first:last])
    start = np.concatenate([[0], np.cumsum(sizes**2)])
    # Entry i·n + j of a graph with n nodes is the pair (i, j). Edges are looked at from the last to the first, so that
    # of several last steps to a node the one that is stored first is written last.
    senders = np.asarray(graphs.senders[edges], np.int64)[::-1]
    receivers = np.asarray(graphs.receivers[edges], np.int64)[::-1]
    kinds = np.asarray(edge_kind[edges], np.int64)[::-1] + 1
    owner = owner[::-1]
    place = np.arange(int(sizes.max(initial=0)))
    within = place < sizes[owner][:, None]
    row = start[owner][:, None] + sizes[owner][:, None] * place
    # Pairs (edge, node i) by the number of the pairs (i, sender) and (i, receiver).
    before, after = (row + senders[:, None])[within], (row + receivers[:, None])[within]
    bonds = np.broadcast_to(kinds[:, None], within.shape)[within]
    distance = np.full(int(start[-1]), FARTHEST + 1, np.int64)
    codes = np.zeros(int(start[-1]), np.int64)
    graph_of_node = np.repeat(np.arange(last - first), sizes)
    at = np.arange(len(graph_of_node)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    distance[start[graph_of_node] + at * (sizes[graph_of_node] + 1)] = 0
    for steps in range(1, FARTHEST + 1):
        reached = (distance[before] == steps - 1) & (distance[after] == FARTHEST + 1)
        if not reached.any():
            break
        new = after[reached]
        along = codes[before[reached]]
        if steps <= n_hop:
            along = along | (bonds[reached] << (_BITS * (steps - 1)))
        codes[new] = along
        distance[new] = steps
        # Pairs that are settled are not looked at again.
        open_ = distance[after] == FARTHEST + 1
        before, after, bonds = before[open_], after[open_], bonds[open_]
    return codes | (distance << (_BITS * n_hop))
