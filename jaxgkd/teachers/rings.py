"""Which neighbours a teacher hears of: the nodes at exactly distance 1, 2, … of each node, sampled down to a cap."""

from __future__ import annotations

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
        """Node indices at exactly `distance` ≥ 1 from the i-th centre."""
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
    """The nodes at exactly distance 1..hops of each centre, at most `max_neighbours` of them a distance.

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
    counts = [np.zeros(len(nodes), dtype=np.int64) for _ in range(hops)]
    members: list[list[np.ndarray]] = [[] for _ in range(hops)]
    # Nodes already reached are held as one dense bit row a centre: 32 MB a block.
    block = max(1, min(4096, 2**25 // max(n_node, 1)))
    for start in range(0, len(nodes), block):
        centres = nodes[start : start + block]
        reached = np.zeros((len(centres), n_node), dtype=bool)
        reached[np.arange(len(centres)), centres] = True
        frontier = scipy.sparse.csr_matrix(
            (np.ones(len(centres), dtype=bool), centres, np.arange(len(centres) + 1)), shape=(len(centres), n_node)
        )
        for distance in range(hops):
            wave = scipy.sparse.csr_matrix(frontier @ adjacency)
            row = np.repeat(np.arange(len(centres)), np.diff(wave.indptr))
            new = ~reached[row, wave.indices]
            row, found = row[new], wave.indices[new]
            reached[row, found] = True
            size = np.bincount(row, minlength=len(centres))
            first = np.concatenate([[0], np.cumsum(size)])
            order = np.lexsort((_priority(seed, centres[row], found), row))
            kept = order[np.arange(len(row)) - first[row] < max_neighbours]
            counts[distance][start : start + block] = np.minimum(size, max_neighbours)
            members[distance].append(found[kept])
            frontier = scipy.sparse.csr_matrix(
                (np.ones(len(found), dtype=bool), found, first), shape=(len(centres), n_node)
            )
    return Rings(
        nodes=nodes,
        offsets=tuple(np.concatenate([[0], np.cumsum(count)]) for count in counts),
        members=tuple(np.concatenate(parts) if parts else np.zeros(0, np.int64) for parts in members),
    )


def _priority(seed: int, centres: np.ndarray, found: np.ndarray) -> np.ndarray:
    """A well-mixed 64-bit hash of (seed, centre, node), the splitmix64 finaliser applied to each in turn."""
    mixed = np.full(len(found), seed % 2**64, dtype=np.uint64)
    for values in (centres, found):
        mixed = mixed ^ (values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return mixed
