"""Outputs of a student for every node of a large graph, layer by layer, some nodes at a time.

A layer's states of all nodes lie on the host; the next layer is computed for ranges of nodes, each of which reads all
its neighbours. Every node is computed once a layer, and what is on the device at a time does not grow with the graph.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.graphs import Layout
from jaxgkd.graphs.compressed import Neighbours
from jaxgkd.graphs.input_rows import InputRows
from jaxgkd.graphs.layout import host_layout
from jaxgkd.nn.encoders import Student
from jaxgkd.nn.untrained import graphdef_of, shapes_of
from jaxgkd.training.batch_loop import over_runs
from jaxgkd.training.by_value import jitted

Tree = Any

# Numbers that the states of all runs which are computed together may hold on the host.
_STATES = 2**25


@dataclass(frozen=True, eq=False)
class NodeRange:
    """Nodes that are computed together.

    Fields:
      start, stop: the nodes.
      nodes: [s] ids that are read, -1 for padding: first the nodes themselves, then others.
      layout: from these to the first r of them, all edges into the nodes; those of padding end in the last one.
    """

    start: int
    stop: int
    nodes: np.ndarray
    layout: Layout


def node_ranges(neighbours: Neighbours, *, nodes_at_a_time: int, edges_at_a_time: int) -> list[NodeRange]:
    """All nodes in ranges of one shape; the edges into a node stay together.

    Args:
      neighbours: the edges.
      nodes_at_a_time: nodes of a range at most.
      edges_at_a_time: edges into a range at most, unless a single node has more.
    """
    indptr, n = np.asarray(neighbours.indptr), neighbours.n_receivers
    cuts = [0]
    while cuts[-1] < n:
        start = cuts[-1]
        by_edges = int(np.searchsorted(indptr, indptr[start] + edges_at_a_time, side="right")) - 1
        cuts.append(min(max(by_edges, start + 1), start + nodes_at_a_time, n))
    pairs = list(pairwise(cuts))
    others = [_others(neighbours, *pair) for pair in pairs]
    # One more node, in which edges of padding begin and end.
    n_computed = max(stop - start for start, stop in pairs) + 1
    n_edge = max(int(indptr[stop] - indptr[start]) for start, stop in pairs)
    n_read = n_computed + max(map(len, others))
    ranges = []
    for (start, stop), read in zip(pairs, others, strict=True):
        nodes = np.full(n_read, -1, np.int32)
        nodes[: stop - start] = np.arange(start, stop)
        nodes[n_computed : n_computed + len(read)] = read
        ids = neighbours.indices[indptr[start] : indptr[stop]]
        inside = (ids >= start) & (ids < stop)
        senders = np.full(n_edge, n_computed - 1)
        senders[: len(ids)] = np.where(inside, ids - start, n_computed + np.searchsorted(read, ids))
        receivers = np.full(n_edge, n_computed - 1)
        receivers[: len(ids)] = np.repeat(np.arange(stop - start), np.diff(indptr[start : stop + 1]))
        ranges.append(NodeRange(start, stop, nodes, host_layout(senders, receivers, n_computed, n_senders=n_read)))
    return ranges


def _others(neighbours: Neighbours, start: int, stop: int) -> np.ndarray:
    """Senders of the edges into a range that are not in it, each once, ascending."""
    ids = neighbours.indices[neighbours.indptr[start] : neighbours.indptr[stop]]
    return np.unique(ids[(ids < start) | (ids >= stop)])


class LayerwiseStudent:
    """A student of several runs over one graph that is too large for the device.

    It keeps 20 bytes for every edge.
    """

    def __init__(
        self,
        make: Callable[[Array], nnx.Module],
        counted: Callable[[Any], Student],
        neighbours: Neighbours,
        inputs: InputRows,
        *,
        nodes_at_a_time: int = 2**16,
        edges_at_a_time: int = 2**20,
    ):
        """Cut the graph into ranges, and name the compiled functions.

        Args:
          make: a model from a key; counted: the student in it.
          neighbours: the edges of the graph; inputs: of its nodes.
          nodes_at_a_time, edges_at_a_time: see `node_ranges`.
        """
        self._neighbours, self._inputs = neighbours, inputs
        self._degree = np.diff(neighbours.indptr).astype(np.float32)
        self._ranges = node_ranges(neighbours, nodes_at_a_time=nodes_at_a_time, edges_at_a_time=edges_at_a_time)
        self._rows = min(nodes_at_a_time, inputs.shape[0])
        graphdef = graphdef_of(make)
        student = counted(nnx.merge(graphdef, *shapes_of(make)))
        self._n_layers, self._width = (
            len(student.convolutions),
            max(student.head.in_features, student.head.out_features),
        )

        def model(params, rest) -> Student:
            return counted(nnx.merge(graphdef, params, rest))

        def embed(params, rest, nodes):
            return model(params, rest).embed(nodes)

        def layer(number, params, rest, state, layout, degree):
            return model(params, rest).layer(number, state, layout, degree=degree)

        def read(number, params, rest, state):
            return model(params, rest).read(number, state)

        self._embed = jitted(lambda params, rest, nodes: over_runs(embed, (params, rest), nodes))
        self._layers = [
            jitted(
                lambda params, rest, state, *shared, number=number: over_runs(
                    partial(layer, number), (params, rest, state), *shared
                )
            )
            for number in range(len(student.convolutions))
        ]
        self._read = {
            number: jitted(lambda *of_runs, number=number: over_runs(partial(read, number), of_runs))
            for number in student.read_layers
        }

    @property
    def n_layers(self) -> int:
        """Layers of messages."""
        return self._n_layers

    def together(self, runs: int) -> int:
        """How many of so many runs are computed at once: a divisor of their number, whatever memory allows."""
        most = max(1, _STATES // (self._inputs.shape[0] * self._width))
        return max(size for size in range(1, min(most, runs) + 1) if runs % size == 0)

    def __call__(self, params: Tree, rest: Tree) -> tuple[np.ndarray, np.ndarray]:
        """Logits [runs, n, classes] and last states [runs, n, width] of all nodes; leaves have the runs first."""
        n = self._inputs.shape[0]
        state = None
        for start in range(0, n, self._rows):
            ids = np.arange(start, start + self._rows)
            rows = np.asarray(self._embed(params, rest, self._inputs.of(np.where(ids < n, ids, -1))))
            state = np.empty((len(rows), n, rows.shape[2]), np.float32) if state is None else state
            state[:, start : start + self._rows] = rows[:, : n - start]
        assert state is not None
        parts = []
        for number, apply in enumerate(self._layers):
            if number in self._read:
                parts.append(self._read_all(number, params, rest, state))
            following = np.empty_like(state)
            for part in self._ranges:
                degree = np.where(part.nodes >= 0, self._degree[part.nodes], 0)
                found = apply(params, rest, state[:, part.nodes], part.layout, degree)
                following[:, part.start : part.stop] = np.asarray(found)[:, : part.stop - part.start]
            state = following
        parts.append(self._read_all(len(self._layers), params, rest, state))
        return sum(parts[:-1], parts[-1]), state

    def _read_all(self, number: int, params: Tree, rest: Tree, state: np.ndarray) -> np.ndarray:
        """What is read off a layer, so many nodes at a time."""
        ranges = (state[:, start : start + self._rows] for start in range(0, state.shape[1], self._rows))
        return np.concatenate([np.asarray(self._read[number](params, rest, rows)) for rows in ranges], axis=1)
