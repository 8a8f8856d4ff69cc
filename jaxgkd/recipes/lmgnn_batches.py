"""Blocks of a heterogeneous graph for the networks of ``jaxgkd run lmgnn --batch-nodes``: what a step asks for, and
some of the neighbours around it.

They ask as the steps over the whole graph do: an edge that is asked for passes no message, nor does its reverse or
what leads back in a drawn split, and none of them is counted.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxgkd.graphs import Position, prefetch
from jaxgkd.graphs.block_batches import BlockBatches
from jaxgkd.graphs.blocks import Block
from jaxgkd.graphs.compressed import CompressedGraph, compress
from jaxgkd.graphs.hetero import EdgeType, reverse_of
from jaxgkd.graphs.negatives import KnownEdges, Negatives, hard_negatives, joint_negatives, uniform_negatives
from jaxgkd.graphs.sampling import NeighbourSampler, Request
from jaxgkd.graphs.typed_blocks import block_hetero_layout
from jaxgkd.nn.hetero_block_problem import AskedBlock, BlockInputs
from jaxgkd.nn.hetero_problem import Drawing
from jaxgkd.nn.hetero_tasks import EdgeTask, ImitationTask, Links, LinkTask, Nodes, NodeTask, Pairs, Task
from jaxgkd.recipes.lmgnn_data import TaskData
from jaxgkd.recipes.lmgnn_networks import Workplace


def compressed(data: TaskData) -> CompressedGraph:
    """The edges that pass messages, and their reverses, sorted: once for all rows of a run."""
    edges = {}
    for kind, (senders, receivers) in data.passing.items():
        edges |= {kind: (senders, receivers), reverse_of(kind): (receivers, senders)}
    return compress(data.graph.n_node, edges)


class TaskBlocks:
    """Blocks around the training nodes or edges of a task, so many at a time."""

    def __init__(
        self,
        data: TaskData,
        graph: CompressedGraph,
        task: Task,
        train: Nodes | Pairs | Links,
        drawing: Drawing,
        *,
        batch_size: int,
        fan_outs: Sequence[int],
        seed: int,
    ):
        """Choose the shapes by drawing a few batches.

        Args:
          data: the task's graph; graph: its edges, `compressed`; task: what is asked of it.
          train: all that may be asked for.
          drawing: of negatives; not ``in_batch``.
          batch_size: nodes or edges of a block.
          fan_outs: neighbours of every relation that each layer takes, those next to what is asked for first; -1 takes
            all. A network without layers takes none.
          seed: of the order and all that is drawn.
        """
        self.data, self.task, self._drawing, self._seed = data, task, drawing, seed
        self._train = type(train)(*map(np.asarray, train))  # type: ignore[arg-type]
        self._asked_types: tuple[EdgeType, ...] = ()
        if isinstance(task, EdgeTask | LinkTask):
            self._asked_types = task.edge_type, reverse_of(task.edge_type)
        # Where an edge, counted as in `TaskData.passing`, is in the rows of its relation.
        self._place = {kind: np.argsort(graph.relations[kind].edge_ids) for kind in self._asked_types}
        self._joining = self._relations_that_join()
        self._known = {}
        n_node = data.graph.n_node
        for kind in (*self._asked_types[:1], *self._joining):
            senders, receivers = self._ends(kind)
            self._known[kind] = KnownEdges.from_edges(senders, receivers, n_node[kind[0]], n_node[kind[2]])
        self._scratch = {name: np.zeros(size, np.int32) for name, size in n_node.items()}
        n_item = len(self._train.weights)
        self._batches = BlockBatches(
            NeighbourSampler(graph, list(fan_outs) or [0]), self._ask, n_item, min(batch_size, n_item), seed=seed
        )

    def _ends(self, kind: EdgeType) -> tuple[np.ndarray, np.ndarray]:
        """Senders and receivers of the edges of a relation, or of the reverse of one."""
        if kind in self.data.passing:
            return self.data.passing[kind]
        receivers, senders = self.data.passing[reverse_of(kind)]
        return senders, receivers

    def _relations_that_join(self) -> list[EdgeType]:
        """What may join a pair beside the asked relation, in the order of `HeteroModel.between`."""
        if not isinstance(self.task, EdgeTask | LinkTask):
            return []
        source, _, destination = self.task.edge_type
        into = self.data.layout[destination].edge_types
        return [kind for kind in into if kind[0] == source and kind != self.task.edge_type]

    def epoch(self, number: int) -> Iterator[AskedBlock]:
        """The blocks of a pass over all that may be asked for, made ahead of time in a thread."""
        stream = self._batches.stream(Position(number, 0), epochs=number + 1)
        positions = (Position(number, i) for i in range(self._batches.n_batch))
        steps = (
            step._replace(batch=self._asked(step.batch, at))  # type: ignore[arg-type]
            for step, at in zip(stream, positions, strict=True)
        )
        with prefetch(steps) as ready:
            for step in ready:
                yield step.batch  # type: ignore[misc]

    def block(self, items: np.ndarray, step: int) -> AskedBlock:
        """A block around the training nodes or edges at positions ``items`` [b]; ``step`` is what else it goes by."""
        at = Position(0, step)
        return self._asked(self._batches.block_of(items, at), at)

    def _ask(self, items: np.ndarray, position: Position) -> Request:
        real = items >= 0
        if isinstance(self._train, Nodes):
            assert isinstance(self.task, NodeTask | ImitationTask)
            return Request({"target": (self.task.node_type, np.where(real, self._train.rows[items], -1))})
        source, _, destination = self._asked_types[0]
        ends = (self._train.senders, self._train.receivers)
        senders, receivers = (np.where(real, np.asarray(end)[items], -1) for end in ends)
        seeds = {"source": (source, senders), "destination": (destination, receivers)}
        if isinstance(self._train, Links):
            negatives = np.where(real[:, None], self._negatives(items, position).nodes, -1)
            seeds["negative"] = destination, negatives
        left_out = self._left_out(items)
        return Request(seeds, {kind: place[left_out] for kind, place in self._place.items()})

    def _left_out(self, items: np.ndarray) -> np.ndarray:
        """Edges of the asked relation, counted as in `TaskData.passing`, that pass no message."""
        items = items[items >= 0]
        if self.data.opposite is None:
            return items
        opposite = self.data.opposite[items]
        return np.union1d(items, opposite[opposite >= 0])

    def _negatives(self, items: np.ndarray, position: Position) -> Negatives:
        """Rows [b, k] of the destination type, and which of them count; the same for the same position."""
        assert isinstance(self._train, Links)
        random = np.random.default_rng([self._seed, *position, 3])
        kind, k = self._asked_types[0], self._drawing.n_negatives
        senders, receivers = np.asarray(self._train.senders)[items], np.asarray(self._train.receivers)[items]
        known = self._known[kind]
        if self._drawing.negatives == "candidates":
            assert self.data.negatives is not None
            starts, rows = self.data.negatives
            count = starts[senders + 1] - starts[senders]
            place = (random.random((len(items), k)) * count[:, None]).astype(np.int64)
            given = np.full((len(items), k), -1, np.int64)
            some = count > 0
            given[some] = rows[starts[senders[some], None] + place[some]]
            return hard_negatives(senders, receivers, given)
        draw = joint_negatives if self._drawing.negatives == "joint" else uniform_negatives
        drawn = draw(random, senders, receivers, k, self.data.graph.n_node[kind[2]], known)
        return Negatives(np.broadcast_to(drawn.nodes, (len(items), k)), drawn.where)

    def _asked(self, block: Block, position: Position) -> AskedBlock:
        items = np.asarray(block.index)
        real = items >= 0
        weights = np.where(real, self._train.weights[items], 0.0).astype(np.float32)
        left_out = self._left_out(items) if self._asked_types else np.zeros(0, np.int64)
        between = None
        if isinstance(self._train, Nodes):
            asked: Any = Nodes(block.seeds["target"], self._train.targets[items], weights)  # type: ignore[arg-type]
        else:
            ends = block.seeds["source"], block.seeds["destination"]
            senders, receivers = np.asarray(self._train.senders)[items], np.asarray(self._train.receivers)[items]
            if isinstance(self._train, Pairs):
                asked = Pairs(*ends, self._train.targets[items], weights)  # type: ignore[arg-type]
                between = self._between(senders, receivers, left_out)
            else:
                negatives = self._negatives(items, position)
                where = negatives.where & real[:, None]
                asked = Links(*ends, block.seeds["negative"], where, weights)  # type: ignore[arg-type]
                others = np.concatenate([receivers[:, None], negatives.nodes], axis=1)
                between = self._between(np.broadcast_to(senders[:, None], others.shape), others, left_out)
        counts = {name: self._counts(name, block, left_out) for name in block.nodes if name in self.data.layout}
        return AskedBlock(
            nodes=block.nodes,
            layout=block_hetero_layout(block),
            counts=counts,  # type: ignore[arg-type]
            asked=asked,
            between=between,  # type: ignore[arg-type]
        )

    def _between(self, senders: np.ndarray, receivers: np.ndarray, left_out: np.ndarray) -> np.ndarray:
        """[..., r] float32 1 where a relation beside the asked one leads from a sender to a receiver."""
        found = np.zeros((*senders.shape, len(self._joining)), np.float32)
        for i, kind in enumerate(self._joining):
            joined = self._known[kind].contains(senders, receivers)
            if kind in self._asked_types:
                size = self.data.graph.n_node[kind[2]]
                gone = [end[left_out].astype(np.int64) for end in self._ends(kind)]
                joined &= ~np.isin(senders.astype(np.int64) * size + receivers, gone[0] * size + gone[1])
            found[..., i] = joined
        return found

    def _counts(self, name: str, block: Block, left_out: np.ndarray) -> np.ndarray:
        """[n, relations] float32 edges of every relation into the nodes of a block, those left out not counted."""
        nodes, there = block.nodes[name], block.node_mask[name]
        counts = np.zeros((len(nodes), len(self.data.layout[name].edge_types)), np.float32)
        for i, kind in enumerate(self.data.layout[name].edge_types):
            indptr = self._batches.sampler.graph.relations[kind].indptr
            counts[:, i] = np.where(there, indptr[nodes + 1] - indptr[nodes], 0)
            if kind in self._asked_types and len(left_out):
                # Of the whole graph, so that a block pays for its own nodes alone.
                scratch, ends = self._scratch[name], self._ends(kind)[1][left_out]
                np.add.at(scratch, ends, 1)
                counts[:, i] -= np.where(there, scratch[nodes], 0)
                scratch[ends] = 0
        return counts


def with_inputs(blocks: Iterator[AskedBlock], place: Workplace, tables: Sequence[np.ndarray]) -> Iterator[BlockInputs]:
    """Blocks with what enters of their nodes.

    Args:
      blocks: as they come.
      place: of the texts, and of what else enters.
      tables: [texts, d] embeddings by every language model.
    """
    others = {name: np.asarray(values) for name, values in place.others.items()}
    for block in blocks:
        texts = {name: first for name, first in place.texts.first.items() if name in block.nodes}
        yield BlockInputs(
            block,
            {name: np.stack([table[first + block.nodes[name]] for table in tables]) for name, first in texts.items()},  # type: ignore[misc]
            {name: others[name][rows] for name, rows in block.nodes.items() if name in others},  # type: ignore[misc]
        )
