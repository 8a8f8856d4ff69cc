"""Many small graphs in batches of few shapes, padded, shuffled from a seed, and resumed anywhere.

`ManyGraphs` holds all graphs in flat arrays, which may be memory-mapped; `assemble` copies some of them into a
`Batch` of a given shape; `Batches` says which go together in which epoch. Batches are jraph ``GraphsTuple``
records with the padding last, as jraph's own padding functions leave it, beside what `aggregate` needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jraph
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.graphs.budgets import Budget, Plan, filled_budgets, filled_plan, fixed_budgets, fixed_plan, shuffled
from jaxgkd.graphs.layout import Layout, host_layout
from jaxgkd.graphs.size_classes import similar_budgets, similar_plan

Mode = Literal["static", "dynamic", "similar"]


@dataclass(frozen=True, eq=False)
class ManyGraphs:
    """n graphs with N nodes and E directed edges in all, one after another.

    Attributes:
      nodes: pytree of arrays [N, ...].
      edges: pytree of arrays [E, ...].
      senders: [E] integer nodes the edges start from, counted within their graph; receivers: [E] likewise.
      globals: pytree of arrays [n, ...], such as labels.
      node_start: [n + 1]; nodes ``node_start[i]:node_start[i + 1]`` are those of graph i; edge_start: [n + 1].
    """

    nodes: Any
    edges: Any
    senders: np.ndarray
    receivers: np.ndarray
    globals: Any
    node_start: np.ndarray
    edge_start: np.ndarray

    def __post_init__(self):
        """Raises ValueError when the arrays do not belong together."""
        n_node, n_edge, n_graph = int(self.node_start[-1]), int(self.edge_start[-1]), len(self)
        parts = {"nodes": (self.nodes, n_node), "edges": (self.edges, n_edge), "globals": (self.globals, n_graph)}
        parts |= {"senders": (self.senders, n_edge), "receivers": (self.receivers, n_edge)}
        parts |= {"edge_start": (self.edge_start, n_graph + 1)}
        for name, (part, size) in parts.items():
            for leaf in jax.tree.leaves(part):
                if len(leaf) != size:
                    raise ValueError(f"{name} hold an array of {len(leaf)} rows where there are {size}")

    def __len__(self) -> int:
        return len(self.node_start) - 1

    @property
    def n_node(self) -> np.ndarray:
        """Nodes of every graph, [n]."""
        return np.diff(self.node_start)

    @property
    def n_edge(self) -> np.ndarray:
        """Edges of every graph, [n]."""
        return np.diff(self.edge_start)

    @cached_property
    def pair_start(self) -> np.ndarray:
        """Where the pairs of nodes of every graph begin, in arrays that hold n_i² of graph i, [n + 1]."""
        return np.concatenate([[0], np.cumsum(self.n_node.astype(np.int64) ** 2)])

    def part(self, first: int, last: int) -> "ManyGraphs":
        """Graphs ``first`` to ``last``, the end left out; arrays are views."""
        nodes = slice(int(self.node_start[first]), int(self.node_start[last]))
        edges = slice(int(self.edge_start[first]), int(self.edge_start[last]))
        return ManyGraphs(
            nodes=jax.tree.map(lambda leaf: leaf[nodes], self.nodes),
            edges=jax.tree.map(lambda leaf: leaf[edges], self.edges),
            senders=self.senders[edges],
            receivers=self.receivers[edges],
            globals=jax.tree.map(lambda leaf: leaf[first:last], self.globals),
            node_start=self.node_start[first : last + 1] - nodes.start,
            edge_start=self.edge_start[first : last + 1] - edges.start,
        )

    @classmethod
    def from_list(cls, graphs: Sequence[Mapping[str, Any]]) -> "ManyGraphs":
        """From one mapping a graph: ``nodes``, ``senders``, ``receivers`` and, where wanted, ``edges`` and ``globals``.

        ``nodes`` and ``edges`` are pytrees of [n, ...] and [e, ...], ``globals`` of what there is once a graph.
        """
        stack = lambda field: jax.tree.map(  # noqa: E731
            lambda *leaves: np.concatenate(leaves), *(graph.get(field) for graph in graphs)
        )
        starts = lambda sizes: np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])  # noqa: E731
        return cls(
            nodes=stack("nodes"),
            edges=stack("edges"),
            senders=stack("senders"),
            receivers=stack("receivers"),
            globals=jax.tree.map(lambda *leaves: np.stack(leaves), *(graph.get("globals") for graph in graphs)),
            node_start=starts([len(jax.tree.leaves(graph["nodes"])[0]) for graph in graphs]),
            edge_start=starts([len(graph["senders"]) for graph in graphs]),
        )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["graph", "layout", "readout", "node_mask", "edge_mask", "graph_mask", "index"],
    meta_fields=["largest"],
)
@dataclass(frozen=True)
class Batch:
    """Some graphs in the shape of a budget, n nodes, e edges and g graphs; padding is last and all zeros.

    Attributes:
      graph: ``GraphsTuple``; nodes [n, ...], edges [e, ...] sorted by receiver, globals [g, ...], n_node and n_edge
        [g]. The first graph that is padding has the nodes and edges that are.
      layout: of the edges, for `aggregate`.
      readout: from the n nodes to the g graphs, for reductions over the nodes of each graph with `aggregate`.
      node_mask: [n] True where a node is real; edge_mask: [e]; graph_mask: [g].
      index: [g] position of each graph among all, -1 for padding: finds what a teacher said of it.
      largest: static; no real graph of a batch of this shape has more nodes.
    """

    graph: jraph.GraphsTuple
    layout: Layout
    readout: Layout
    node_mask: Bool[Array, " n"]
    edge_mask: Bool[Array, " e"]
    graph_mask: Bool[Array, " g"]
    index: Int[Array, " g"]
    largest: int

    # As a pytree it is also rebuilt with stacked arrays, axes of vmap and placeholders: no check of fields then.
    __no_type_check__ = True


def assemble(graphs: ManyGraphs, rows: np.ndarray, budget: Budget) -> Batch:
    """Copies graphs into a batch, in numpy and without a loop over graphs.

    Args:
      graphs: all graphs.
      rows: [k] positions of those wanted.
      budget: the shape of the batch.

    Raises:
      ValueError: the graphs do not fit.

    Example:
      >>> triangle = {"nodes": np.ones((3, 1)), "senders": np.array([0, 1, 2]), "receivers": np.array([1, 2, 0])}
      >>> batch = assemble(ManyGraphs.from_list([triangle, triangle]), np.array([1]), Budget(5, 4, 2, largest=3))
      >>> print(batch.node_mask.astype(int), batch.index)
      [1 1 1 0 0] [ 1 -1]
    """
    rows = np.asarray(rows, np.int64)
    n_node = graphs.node_start[rows + 1] - graphs.node_start[rows]
    n_edge = graphs.edge_start[rows + 1] - graphs.edge_start[rows]
    nodes, edges = int(n_node.sum()), int(n_edge.sum())
    if not budget.fits(n_node, n_edge):
        raise ValueError(f"{len(rows)} graphs with {nodes} nodes and {edges} edges do not fit into {budget}")
    from_nodes = ranges(graphs.node_start[rows], n_node)
    from_edges = ranges(graphs.edge_start[rows], n_edge)
    shift = np.repeat(np.cumsum(n_node) - n_node, n_edge)
    # Edges of padding are loops dealt out to the nodes of padding, so that none of these gets a long row.
    loops = nodes + np.arange(budget.n_edge - edges) % (budget.n_node - nodes)
    senders = np.concatenate([graphs.senders[from_edges] + shift, loops])
    receivers = np.concatenate([graphs.receivers[from_edges] + shift, loops])
    order = np.lexsort((senders, receivers))
    layout = host_layout(senders[order], receivers[order], budget.n_node)
    # Edges of padding lead to the last nodes, so they are still the last edges.
    from_edges = from_edges[order[:edges]]
    padding = budget.n_graph - len(rows)
    sizes = lambda real, slots: np.concatenate(  # noqa: E731
        [real, [slots - real.sum()], np.zeros(padding - 1, np.int64)]
    ).astype(np.int32)
    n_node, n_edge = sizes(n_node, budget.n_node), sizes(n_edge, budget.n_edge)
    owner = np.repeat(np.arange(budget.n_graph), n_node)
    take = lambda tree, index, slots: jax.tree.map(lambda leaf: _taken(leaf, index, slots), tree)  # noqa: E731
    return Batch(
        graph=jraph.GraphsTuple(
            nodes=take(graphs.nodes, from_nodes, budget.n_node),
            edges=take(graphs.edges, from_edges, budget.n_edge),
            receivers=layout.receivers,
            senders=layout.senders,
            globals=take(graphs.globals, rows, budget.n_graph),
            n_node=n_node,  # type: ignore[arg-type]
            n_edge=n_edge,  # type: ignore[arg-type]
        ),
        layout=layout,
        readout=host_layout(np.arange(budget.n_node), owner, budget.n_graph, n_senders=budget.n_node),
        node_mask=np.arange(budget.n_node) < nodes,  # type: ignore[arg-type]
        edge_mask=np.arange(budget.n_edge) < edges,  # type: ignore[arg-type]
        graph_mask=np.arange(budget.n_graph) < len(rows),  # type: ignore[arg-type]
        index=np.concatenate([rows, np.full(padding, -1)]).astype(np.int32),  # type: ignore[arg-type]
        largest=budget.largest,
    )


class Position(NamedTuple):
    """Where a stream of batches stands: the next batch is number ``batch`` of epoch ``epoch``, both from 0."""

    epoch: int = 0
    batch: int = 0


_START = Position()


class Step(NamedTuple):
    """A batch, and the position of the one after it: keep that to go on from here."""

    batch: Batch
    position: Position


class PaddingReport(NamedTuple):
    """What padding costs.

    Attributes:
      padded_share: of the slots for nodes and edges, those that are padding, from 0 to 1.
      padded_rows: the same of the nodes where every graph has a row as long as the largest one of its shape.
      shapes: different shapes that occur, each compiled once.
      n_batch: batches counted.
      batches_of: the budgets that occur, and how many batches take each.
    """

    padded_share: float
    padded_rows: float
    shapes: int
    n_batch: int
    batches_of: dict[Budget, int]

    def __str__(self) -> str:
        shapes = "1 compiled shape" if self.shapes == 1 else f"{self.shapes} compiled shapes"
        return f"{100 * self.padded_share:.1f} % padding, {shapes}"


class Batches:
    """Which graphs go together in every epoch, each graph once; batches of them on demand."""

    def __init__(
        self,
        graphs: ManyGraphs,
        batch_size: int,
        *,
        mode: Mode = "static",
        budgets: Sequence[Budget] | None = None,
        rows: np.ndarray | None = None,
        seed: int = 0,
        shuffle: bool = True,
    ):
        """Choose the shapes.

        Args:
          graphs: all graphs.
          batch_size: graphs of a batch (static), or graphs that fill a batch on average (dynamic).
          mode: "static" puts ``batch_size`` graphs into every batch but the last; "dynamic" as many as there is room
            for, which pads less, but a batch counts a varying number of graphs; "similar" as "static", but a batch has
            graphs of similar size, for models that give every graph a row of its own.
          budgets: shapes, from the smallest to the largest; by default at most four, chosen by the sizes of the graphs.
          rows: [m] positions of the graphs that are used, by default all.
          seed: what the order of every epoch is drawn from, together with the number of the epoch.
          shuffle: False keeps the order of ``rows``, as for evaluation.

        Raises:
          ConfigError: the batch size is below 1, the seed is below 0 or there is no such mode.
          DataError: there is no graph, or one that has no room in any budget.
        """
        rows = np.arange(len(graphs)) if rows is None else np.asarray(rows, np.int64)
        if not len(rows):
            raise DataError("there is no graph to put into batches", mend="give at least one")
        if batch_size < 1 or seed < 0:
            what = f"batches of {batch_size} graphs with seed {seed} cannot be made"
            raise ConfigError(what, mend="use at least 1 graph and a seed from 0 on")
        if mode not in get_args(Mode):
            raise ConfigError(f"there is no way '{mode}' to make batches", mend=f"use {', '.join(get_args(Mode))}")
        self.graphs, self.batch_size, self.mode, self.seed, self.shuffle = graphs, batch_size, mode, seed, shuffle
        self._rows = rows
        self._n_node = graphs.node_start[rows + 1] - graphs.node_start[rows]
        self._n_edge = graphs.edge_start[rows + 1] - graphs.edge_start[rows]
        if budgets is None:
            choose = {"static": fixed_budgets, "dynamic": filled_budgets, "similar": similar_budgets}[mode]
            budgets = choose(self._n_node, self._n_edge, min(batch_size, len(rows)))
        self.budgets = tuple(sorted(budgets, key=lambda budget: budget.slots))
        self._planned: tuple[int, Plan] | None = None
        self.plan(0)

    def plan(self, epoch: int) -> Plan:
        """Which graphs are in which batch of an epoch; ``order`` holds positions among all graphs."""
        planned = self._planned
        if planned is None or planned[0] != epoch:
            n = len(self._rows)
            order = shuffled(n, self.seed, epoch) if self.shuffle else np.arange(n)
            sizes = self._n_node, self._n_edge
            if self.mode == "dynamic":
                plan = filled_plan(order, *sizes, self.budgets)
            else:
                make = fixed_plan if self.mode == "static" else similar_plan
                plan = make(order, *sizes, self.batch_size, self.budgets)
            planned = self._planned = epoch, plan._replace(order=self._rows[plan.order])
        return planned[1]

    def n_batch(self, epoch: int = 0) -> int:
        """Batches of an epoch; in dynamic mode epochs may differ."""
        return len(self.plan(epoch).budget)

    def batch(self, epoch: int, number: int) -> Batch:
        """Batch ``number`` of an epoch."""
        plan = self.plan(epoch)
        start, end = plan.start[number : number + 2]
        return assemble(self.graphs, plan.order[start:end], self.budgets[plan.budget[number]])

    def stream(self, position: Position = _START, *, epochs: int | None = None) -> Iterator[Step]:
        """Batches from a position on, epoch after epoch.

        Args:
          position: of the first batch; ``Step.position`` of the last one that was used goes on after it.
          epochs: the number of the epoch to stop before, or None to go on for ever.
        """
        epoch, number = position
        while epochs is None or epoch < epochs:
            n_batch = self.n_batch(epoch)
            while number < n_batch:
                batch = self.batch(epoch, number)
                number += 1
                yield Step(batch, Position(epoch, number) if number < n_batch else Position(epoch + 1, 0))
            epoch, number = epoch + 1, 0

    def report(self, epochs: int = 1) -> PaddingReport:
        """What padding costs over the first epochs; nothing is assembled for it."""
        taken = np.concatenate([self.plan(epoch).budget for epoch in range(epochs)])
        counts = {self.budgets[i]: int(count) for i, count in zip(*np.unique(taken, return_counts=True), strict=True)}
        slots = sum(budget.slots * count for budget, count in counts.items())
        real = epochs * int(self._n_node.sum() + self._n_edge.sum())
        rows = sum((budget.n_graph - 1) * budget.largest * count for budget, count in counts.items())
        in_rows = 1 - epochs * int(self._n_node.sum()) / rows
        return PaddingReport(1 - real / slots, in_rows, len(counts), len(taken), counts)


def ranges(start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """``start[i], start[i] + 1, …`` up to ``size[i]`` of them, for one i after another."""
    before = np.cumsum(size) - size
    return np.repeat(start - before, size) + np.arange(int(size.sum()))


def _taken(leaf: np.ndarray, index: np.ndarray, slots: int) -> np.ndarray:
    out = np.zeros((slots, *leaf.shape[1:]), leaf.dtype)
    out[: len(index)] = leaf[index]
    return out
