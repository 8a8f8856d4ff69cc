"""Which neighbours a teacher hears of: the nodes at exactly distance 1, 2, … of each node, sampled down to a cap."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from jaxgkd.errors import DataError


@dataclass(frozen=True)
class Rings:
    """Nodes at exactly distance 1, 2, … of each centre, sampled down to a cap, in the order they are mentioned.

    The ring of centre `nodes[i]` at distance h is `members[h - 1][offsets[h - 1][i] : offsets[h - 1][i + 1]]`.
    """

    nodes: np.ndarray
    offsets: tuple[np.ndarray, ...]
    members: tuple[np.ndarray, ...]

    @property
    def hops(self) -> int:
        """The largest distance."""
        return len(self.members)

    def ring(self, i: int, distance: int) -> np.ndarray:
        """Node indices at exactly ``distance`` ≥ 1 from the i-th centre."""
        offsets = self.offsets[distance - 1]
        return self.members[distance - 1][offsets[i] : offsets[i + 1]]


def distance_rings(
    senders: np.ndarray,
    receivers: np.ndarray,
    n_node: int,
    *,
    hops: int,
    max_neighbours: int = 10,
    seed: int = 0,
    nodes: np.ndarray | None = None,
) -> Rings:
    """The nodes at exactly distance 1..hops of each centre, at most ``max_neighbours`` of them a distance.

    Edges count in both directions; self-loops and repeated edges do not. Where a ring is larger than the cap, the
    nodes with the smallest hash of (seed, centre, node) stay. The choice is therefore the same whichever other centres
    are asked for, and a larger cap or more hops only add nodes.

    Args:
      senders: [e] node index an edge starts at.
      receivers: [e] node index it ends at.
      n_node: number of nodes n.
      hops: largest distance; 0 gives centres without rings.
      max_neighbours: cap a distance.
      seed: another seed samples other neighbours.
      nodes: [k] centres, all nodes by default.

    Raises:
      DataError: an edge or a centre points outside 0..n_node - 1.
    """
    nodes = np.arange(n_node) if nodes is None else np.asarray(nodes, dtype=np.int64)
    for name, values in (("senders", senders), ("receivers", receivers), ("nodes", nodes)):
        if len(values) and (np.min(values) < 0 or np.max(values) >= n_node):
            raise DataError(f"an index lies outside 0..{n_node - 1}", field=name, mend="number the nodes from 0")
    linked = np.asarray(senders) != np.asarray(receivers)
    ends = np.asarray(senders)[linked], np.asarray(receivers)[linked]
    ones = np.ones(2 * len(ends[0]), dtype=bool)
    adjacency = scipy.sparse.csr_matrix(
        (ones, (np.concatenate(ends), np.concatenate(ends[::-1]))), shape=(n_node, n_node)
    )
    # Nodes already reached are held as one dense row of flags a centre; blocks are small, so that a thread for each
    # core can hold one.
    step = max(1, min(1024, 2**23 // max(n_node, 1)))
    blocks = [nodes[start : start + step] for start in range(0, len(nodes), step)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda centres: _rings_of(centres, adjacency, hops, max_neighbours, seed), blocks))
    empty = [np.zeros(0, dtype=np.int64)]
    sizes = [np.concatenate([rings[h][0] for rings in found] or empty) for h in range(hops)]
    return Rings(
        nodes=nodes,
        offsets=tuple(np.concatenate([[0], np.cumsum(size)]) for size in sizes),
        members=tuple(np.concatenate([rings[h][1] for rings in found] or empty) for h in range(hops)),
    )


def _rings_of(
    centres: np.ndarray, adjacency: scipy.sparse.csr_matrix, hops: int, max_neighbours: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each distance the number of members of every centre's ring, at most the cap, and the members themselves."""
    n_node = len(adjacency.indptr) - 1
    reached = np.zeros((len(centres), n_node), dtype=bool)
    reached[np.arange(len(centres)), centres] = True
    frontier = _flags(np.arange(len(centres) + 1), centres, n_node)
    rings = []
    for _ in range(hops):
        wave = scipy.sparse.csr_matrix(frontier @ adjacency)
        row = np.repeat(np.arange(len(centres)), np.diff(wave.indptr))
        new = ~reached[row, wave.indices]
        row, found = row[new], wave.indices[new]
        size = np.bincount(row, minlength=len(centres))
        reached[row, found] = True
        frontier = _flags(np.concatenate([[0], np.cumsum(size)]), found, n_node)

        priority = _priority(seed, centres[row], found)
        # Three hops around a hub are most of the graph, and sorting all of it would take most of the time: of such a
        # ring, only hashes so small that about five times the cap have them are candidates.
        wanted = np.minimum(size, max_neighbours)
        share = np.minimum((5 * max_neighbours + 20) / np.maximum(size, 1), 1)
        candidate = priority <= (share[row] * (2**64 - 2**12)).astype(np.uint64)
        short = np.bincount(row[candidate], minlength=len(centres)) < wanted
        candidate |= short[row] | (share == 1)[row]
        row, found, priority = row[candidate], found[candidate], priority[candidate]
        order = np.lexsort((priority, row))
        first = np.searchsorted(row, np.arange(len(centres)))
        kept = order[np.arange(len(row)) - first[row] < max_neighbours]
        rings.append((wanted, found[kept].astype(np.int64)))
    return rings


def _flags(offsets: np.ndarray, columns: np.ndarray, n_node: int) -> scipy.sparse.csr_matrix:
    shape = (len(offsets) - 1, n_node)
    return scipy.sparse.csr_matrix((np.ones(len(columns), dtype=bool), columns, offsets), shape=shape)


def _priority(seed: int, centres: np.ndarray, found: np.ndarray) -> np.ndarray:
    """A well-mixed 64-bit hash of (seed, centre, node), the splitmix64 finaliser applied to each in turn."""
    mixed = np.full(len(found), seed % 2**64, dtype=np.uint64)
    for values in (centres, found):
        mixed = mixed ^ (values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return mixed
