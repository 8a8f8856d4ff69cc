"""Some neighbours of some nodes, hop by hop, from a `CompressedGraph`: uniform, without replacement, in numpy.

Hop 1 takes edges into the seeds, hop 2 edges into the nodes that hop 1 brought in, and so on. A node is expanded once,
in the hop after the one that brought it in, so no edge is taken twice and nodes are listed once. Whatever is drawn
depends on the numbers given as ``seed`` alone. `blocks` gives the result a fixed shape.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.graphs.batching import ranges
from jaxgkd.graphs.compressed import CompressedGraph, Neighbours
from jaxgkd.graphs.hetero import EdgeType

FanOut = int | Mapping[EdgeType, int]
"""Neighbours of a node that a hop takes: of every relation, or of each that is named and none of others; -1 is all."""


@dataclass(frozen=True, eq=False)
class Request:
    """The nodes a batch wants states of, and the edges it must not see.

    Attributes:
      seeds: role → (node type, ids [...]), in any shape and with repetitions; -1 is padding. Node classification has
        one role, link prediction for instance ``source``, ``target`` and ``negative``.
      exclude: relation → [m] positions in its compressed rows (see `Neighbours.positions_of_pairs` and
        ``positions_of_ids``) of edges that are treated as if they were not there; list the reverse edges too.
    """

    seeds: Mapping[str, tuple[str, np.ndarray]]
    exclude: Mapping[EdgeType, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Hop:
    """Edges of one relation that one hop took.

    Attributes:
      senders: [m] rows of the source type's nodes in `Sample.nodes`; receivers: [m] of the target type's.
      positions: [m] where the edges are in the relation's compressed rows.
    """

    senders: np.ndarray
    receivers: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True, eq=False)
class Sample:
    """What was drawn, without padding.

    Attributes:
      nodes: type → [n] ids, each once: the seeds first, in the order in which they were given, then the nodes that each
        hop brought in, ascending.
      n_new: type → (L + 1) numbers of nodes: seeds, and those that each of the L hops brought in.
      hops: relation → one `Hop` for each of the L hops.
      seeds: role → [...] rows in ``nodes`` of the role's type, -1 for padding.
    """

    nodes: dict[str, np.ndarray]
    n_new: dict[str, tuple[int, ...]]
    hops: dict[EdgeType, tuple[Hop, ...]]
    seeds: dict[str, tuple[str, np.ndarray]]

    @property
    def n_edges(self) -> int:
        """Edges of all relations and hops."""
        return sum(len(hop.positions) for hops in self.hops.values() for hop in hops)


class NeighbourSampler:
    """Draws samples of a graph; may be used from several threads, one at a time.

    It keeps 4 bytes for every node of the graph, to number the nodes of a sample in time that the sample alone sets.
    """

    def __init__(self, graph: CompressedGraph, fan_outs: Sequence[FanOut]):
        """Check the fan-outs.

        Args:
          graph: in memory or memory-mapped.
          fan_outs: one for each hop, that of the hop next to the seeds first.

        Raises:
          ConfigError: there is no hop, a fan-out is below -1, or one names a relation that is not there.
        """
        if not fan_outs:
            raise ConfigError("no hop is given", field="fan_outs", mend="give one fan-out for every layer")
        self.graph, self.n_hops = graph, len(fan_outs)
        self.fan_outs = [self._by_relation(fan_out) for fan_out in fan_outs]
        self._row = {node_type: np.full(size, -1, np.int32) for node_type, size in graph.n_node.items()}
        self._lock = threading.Lock()

    def _by_relation(self, fan_out: FanOut) -> dict[EdgeType, int]:
        relations = self.graph.relations
        by_relation = dict.fromkeys(relations, fan_out) if isinstance(fan_out, int) else dict(fan_out)
        for relation, number in by_relation.items():
            if relation not in relations:
                listed = ", ".join(map(str, relations))
                raise ConfigError(f"there is no relation {relation}", field="fan_outs", mend=f"use one of {listed}")
            if number < -1:
                what = f"{number} neighbours cannot be taken"
                raise ConfigError(what, field="fan_outs", mend="use 0 or more, or -1 for all")
        return {relation: by_relation.get(relation, 0) for relation in relations}

    def sample(self, request: Request, *seed: int) -> Sample:
        """Draw the neighbourhood of a request.

        Args:
          request: seeds, and edges that are left out.
          seed: numbers of 0 or more, such as a seed, the epoch and the batch.

        Raises:
          DataError: a seed is no node of its type, or a type or relation is not there.
        """
        _check(request, self.graph)
        # Seeds that differ in trailing zeros alone would be one seed.
        random = np.random.PCG64([*seed, len(seed), 1])
        excluded = {relation: np.unique(where) for relation, where in request.exclude.items()}
        excluded = {relation: where[where >= 0] for relation, where in excluded.items()}
        with self._lock:
            listed = {node_type: [ids] for node_type, ids in _distinct_seeds(request, self.graph).items()}
            try:
                for node_type, ids in listed.items():
                    self._row[node_type][ids[0]] = np.arange(len(ids[0]))
                seeds = {role: (kind, _rows(self._row[kind], ids)) for role, (kind, ids) in request.seeds.items()}
                hops: dict[EdgeType, list[Hop]] = {relation: [] for relation in self.graph.relations}
                for fan_out in self.fan_outs:
                    self._one_hop(fan_out, listed, hops, excluded, random)
            finally:
                for node_type, parts in listed.items():
                    for ids in parts:
                        self._row[node_type][ids] = -1
        return Sample(
            nodes={node_type: np.concatenate(parts) for node_type, parts in listed.items()},
            n_new={node_type: tuple(map(len, parts)) for node_type, parts in listed.items()},
            hops={relation: tuple(each) for relation, each in hops.items()},
            seeds=seeds,
        )

    def _one_hop(
        self,
        fan_out: dict[EdgeType, int],
        listed: dict[str, list[np.ndarray]],
        hops: dict[EdgeType, list[Hop]],
        excluded: dict[EdgeType, np.ndarray],
        random: np.random.PCG64,
    ) -> None:
        before = {node_type: sum(map(len, parts)) for node_type, parts in listed.items()}
        taken = {}
        for relation, neighbours in self.graph.relations.items():
            frontier = listed[relation[2]][-1]
            owner, positions = sample_neighbours(
                neighbours, frontier, fan_out[relation], random, excluded.get(relation)
            )
            receivers = owner + (before[relation[2]] - len(frontier))
            taken[relation] = neighbours.indices[positions], receivers, positions
        for node_type, row in self._row.items():
            seen = [ids for relation, (ids, _, _) in taken.items() if relation[0] == node_type]
            new = np.concatenate([ids[row[ids] < 0] for ids in seen]) if seen else np.zeros(0, np.int32)
            # The last writer of a node stays, which lists every node once without sorting all.
            row[new] = np.arange(len(new))
            new = np.sort(new[row[new] == np.arange(len(new))])
            row[new] = before[node_type] + np.arange(len(new))
            listed[node_type].append(new)
        for relation, (ids, receivers, positions) in taken.items():
            hops[relation].append(Hop(self._row[relation[0]][ids], receivers, positions))


def sample_neighbours(
    neighbours: Neighbours,
    receivers: np.ndarray,
    fan_out: int,
    random: np.random.PCG64,
    excluded: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw edges into nodes: all where there are at most ``fan_out``, else a uniform subset of that size.

    Args:
      neighbours: the relation.
      receivers: [n] nodes, each once.
      fan_out: edges of a node at most; -1 for all.
      random: what raw bits are drawn from.
      excluded: [x] ascending positions of edges that are not there.

    Returns:
      (rows [m] in ``receivers`` that the edges end in, ascending; positions [m] of the edges).
    """
    start = neighbours.indptr[receivers]
    degree = neighbours.indptr[receivers + 1] - start
    first, left_out = np.zeros(len(start), np.int64), np.zeros(len(start), np.int64)
    if excluded is not None and len(excluded):
        first = np.searchsorted(excluded, start)
        left_out = np.searchsorted(excluded, start + degree) - first
    there = degree - left_out
    taken = there if fan_out < 0 else np.minimum(there, fan_out)
    rows = np.repeat(np.arange(len(receivers)), taken)
    rank = ranges(np.zeros(len(receivers), np.int64), taken)
    many = np.flatnonzero(there > taken)
    if len(many) and fan_out > 0:
        slots = (np.cumsum(taken) - taken)[many][:, None] + np.arange(fan_out)
        rank[slots] = distinct_integers(there[many], fan_out, random)
    if left_out.any():
        assert excluded is not None
        rank = _past_excluded(rank, rows, start, first, left_out, excluded)
    return rows, start[rows] + rank


def distinct_integers(sizes: np.ndarray, k: int, random: np.random.PCG64) -> np.ndarray:
    """For every row a uniform subset of k integers below its size, by Floyd's algorithm for all rows at once.

    Step i adds an integer drawn below ``size - k + i + 1``, or, where it is in the subset already, the largest of
    these, which cannot be.

    Args:
      sizes: [n], k or more each.
      k: integers of a row.
      random: what raw bits are drawn from.

    Returns:
      [n, k] int64; the order within a row is not uniform.

    Source:
      Bentley and Floyd, `A sample of brilliance <https://doi.org/10.1145/30401.315746>`_, 1987.
    """
    chosen = np.empty((k, len(sizes)), np.int64)
    uniform = uniform_numbers(random, (k, len(sizes)))
    for step in range(k):
        largest = sizes - (k - step)
        drawn = (uniform[step] * (largest + 1)).astype(np.int64)
        repeated = (chosen[:step] == drawn).any(axis=0)
        chosen[step] = np.where(repeated, largest, drawn)
    return chosen.T


def uniform_numbers(random: np.random.PCG64, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in [0, 1), multiples of 2^-53, from raw bits: NumPy promises to keep those for all versions."""
    bits = random.random_raw(int(np.prod(shape)))
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(shape)


def _past_excluded(
    rank: np.ndarray,
    rows: np.ndarray,
    start: np.ndarray,
    first: np.ndarray,
    left_out: np.ndarray,
    excluded: np.ndarray,
) -> np.ndarray:
    """Ranks among the edges that are there → ranks among all edges of a row.

    Before the i-th excluded edge of a row, at rank x_i, lie x_i - i others: a rank moves on by the number of excluded
    edges with ``x_i - i`` at most the rank.
    """
    owner = np.repeat(np.arange(len(start)), left_out)
    nth = ranges(np.zeros(len(start), np.int64), left_out)
    others_before = excluded[first[owner] + nth] - start[owner] - nth
    wide = int(max(rank.max(initial=0), others_before.max(initial=0))) + 1
    passed = np.searchsorted(owner * wide + others_before, rows * wide + rank, side="right")
    return rank + passed - (np.cumsum(left_out) - left_out)[rows]


def _check(request: Request, graph: CompressedGraph) -> None:
    for role, (node_type, ids) in request.seeds.items():
        if node_type not in graph.n_node:
            mend = f"use one of {', '.join(graph.n_node)}"
            raise DataError(f"there is no node type '{node_type}' for the seeds '{role}'", mend=mend)
        size = graph.n_node[node_type]
        if ids.size and (ids.min() < -1 or ids.max() >= size):
            what = f"the seeds '{role}' hold {ids.min()}..{ids.max()}, but {node_type} has {size} nodes"
            raise DataError(what, mend="count from 0 within the type, with -1 for padding")
    for relation, positions in request.exclude.items():
        if relation not in graph.relations:
            what = f"there is no relation {relation} to exclude edges from"
            raise DataError(what, mend=f"use one of {', '.join(map(str, graph.relations))}")
        if len(positions) and positions.max() >= graph.relations[relation].n_edges:
            what = (
                f"edge {positions.max()} of {relation} cannot be excluded, it has {graph.relations[relation].n_edges}"
            )
            raise DataError(what, mend="give positions in the compressed rows")


def _distinct_seeds(request: Request, graph: CompressedGraph) -> dict[str, np.ndarray]:
    """Of every type the seeds in the order in which they come first."""
    distinct = {}
    for node_type in graph.n_node:
        parts = [np.ravel(ids) for kind, ids in request.seeds.values() if kind == node_type]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        ids = ids[ids >= 0]
        _, first = np.unique(ids, return_index=True)
        distinct[node_type] = ids[np.sort(first)].astype(np.int32)
    return distinct


def _rows(row: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.where(ids >= 0, row[ids], -1)
