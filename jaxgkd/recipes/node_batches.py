"""Blocks of a text graph for the students of all seeds: what every step reads, gathered on the host in few shapes.

Seeds of a step are drawn from the nodes that train or are taught. Where these, and the edges, are the same in all
splits, one stream serves all of them; else every split has its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from jaxgkd.errors import ConfigError
from jaxgkd.graphs import Layout, Position, prefetch
from jaxgkd.graphs.block_batches import BlockBatches, ask_nodes
from jaxgkd.graphs.blocks import Block, BlockBudget, chosen_budgets
from jaxgkd.graphs.compressed import EDGE, NODE, CompressedGraph, Neighbours, compress_homogeneous
from jaxgkd.graphs.input_rows import InputRows
from jaxgkd.graphs.layout import host_layout
from jaxgkd.graphs.sampling import NeighbourSampler
from jaxgkd.nn.block_problem import NodeBatch
from jaxgkd.recipes.node_splits import NodeSplits

# Batches of each stream that are drawn to choose the shapes.
_DRAWS = 8


class TeacherStates(Protocol):
    """States of a teacher, of which some are asked for; see `jaxgkd.teachers.hop_states.HopStates`."""

    def of(self, nodes: np.ndarray) -> np.ndarray:
        """[k] nodes, with -1 for padding, → [k, n_hops, d]."""
        ...


class NodeBatches:
    """Streams of `NodeBatch` over the graph of some splits.

    Attributes:
      splits: whose nodes these are.
      groups: for every stream the numbers of the splits that it serves.
      whole: the edges of the whole graph.
    """

    def __init__(
        self,
        splits: NodeSplits,
        targets: Mapping[str, np.ndarray],
        teacher: TeacherStates | None,
        *,
        batch_nodes: int,
        fan_outs: Sequence[int],
        n_hops: int | None = None,
    ):
        """Sort the edges, and choose the shapes by drawing a few batches.

        Args:
          splits: of all seeds.
          targets: name → [s, n_rows, …], what a teacher adds to the labels; of these ``taught`` [s, n_rows] bool, if
            given, says which nodes it speaks of.
          teacher: its states of the nodes, or None.
          batch_nodes: seeds of a step.
          fan_outs: neighbours that each layer takes, those next to the seeds first; -1 takes all.
          n_hops: states of every node that are handed on; the teacher's are repeated where it has one only.

        Raises:
          ConfigError: a fan-out is below -1, or there is none.
        """
        self.splits, self._teacher, self._n_hops = splits, teacher, n_hops
        self.batch_nodes = batch_nodes
        self._of_splits = {"labels": splits.labels, "train": splits.train, **targets}
        graph = compress_homogeneous(splits.senders, splits.receivers, splits.n_rows)
        self.whole = graph.relations[EDGE]
        wanted = splits.train | targets["taught"] if "taught" in targets else splits.train
        together = splits.train_layouts is None and bool((wanted == wanted[0]).all())
        self.groups = [list(range(len(wanted)))] if together else [[split] for split in range(len(wanted))]
        self._batches = []
        for group in self.groups:
            sampler = NeighbourSampler(self._training_graph(graph, group[0]), list(fan_outs))
            items = np.flatnonzero(wanted[group[0]])
            size = min(batch_nodes, int(wanted.sum(axis=1).max()))
            seed = 0 if together else splits.seeds[group[0]]
            self._batches.append(BlockBatches(sampler, ask_nodes(NODE, items), len(items), size, seed=seed))
        self._share_shapes()

    def _training_graph(self, whole: CompressedGraph, split: int) -> CompressedGraph:
        """What a student sees while it trains on a split."""
        layouts = self.splits.train_layouts
        if layouts is None:
            return whole
        senders, receivers = np.asarray(layouts.senders[split]), np.asarray(layouts.receivers[split])
        real = receivers < self.splits.n_node
        return compress_homogeneous(senders[real], receivers[real], self.splits.n_rows)

    def training_edges(self, group: int) -> Neighbours:
        """The edges that the students of a stream see while they train."""
        return self._batches[group].sampler.graph.relations[EDGE]

    def _share_shapes(self) -> None:
        largest = _largest([batches.budgets[-1] for batches in self._batches])
        drawn = [
            batches.sample(0, number) for batches in self._batches for number in range(min(_DRAWS, batches.n_batch))
        ]
        budgets = chosen_budgets(drawn, largest)
        for batches in self._batches:
            batches.budgets = budgets

    def n_batch(self, group: int) -> int:
        """Steps of an epoch of a stream."""
        return self._batches[group].n_batch

    def epoch(self, group: int, inputs: InputRows, epoch: int) -> Iterator[NodeBatch]:
        """The batches of an epoch, made ahead of time in a thread.

        Args:
          group: number of the stream; inputs: of all nodes; epoch: counted from 0.
        """
        batches = self._batches[group]
        steps = (
            step._replace(batch=self._arrays(batches, inputs, step.batch))  # type: ignore[arg-type]
            for step in batches.stream(Position(epoch, 0), epochs=epoch + 1)
        )
        with prefetch(steps) as ready:
            for step in ready:
                yield step.batch  # type: ignore[misc]

    def _arrays(self, batches: BlockBatches, inputs: InputRows, block: Block) -> NodeBatch:
        there, rows = block.node_mask[NODE], np.asarray(block.seeds["target"])
        nodes = np.where(there, block.nodes[NODE], -1)
        real = np.asarray(block.index) >= 0
        seeds = np.where(real, nodes[rows], -1)
        of_splits = {name: values[:, seeds] for name, values in self._of_splits.items()}
        of_splits = {name: v & real if v.dtype == bool else v for name, v in of_splits.items()}
        if "taught" in of_splits:
            # Those that are taught first, from which the alignment draws.
            of_splits["taught_nodes"] = np.argsort(~of_splits["taught"], axis=1, kind="stable").astype(np.int32)
        neighbours = batches.sampler.graph.relations[EDGE]
        degree = neighbours.indptr[nodes + 1] - neighbours.indptr[nodes]
        shared = {}
        if self._teacher is not None:
            states = self._teacher.of(seeds)
            shared["teacher_states"] = states if self._n_hops is None else _repeated(states, self._n_hops)
        return NodeBatch(
            nodes=inputs.of(nodes),  # type: ignore[arg-type]
            layouts=tuple(_layout(block, layer) for layer in range(len(block.layers))),
            degree=np.where(there, degree, 0).astype(np.float32),  # type: ignore[arg-type]
            is_seed=there & (np.arange(len(nodes)) < dict(block.ends)[NODE][0]),  # type: ignore[arg-type]
            rows=rows,  # type: ignore[arg-type]
            of_splits=of_splits,  # type: ignore[arg-type]
            shared=shared,
        )


def one_for_each(fan_outs: Sequence[int], n_layers: int) -> list[int]:
    """Fan-outs of all layers: those given, or the one that is given for all.

    Raises:
      ConfigError: their number is another one, or one is below -1.
    """
    if len(fan_outs) not in (1, n_layers) or min(fan_outs) < -1:
        what = f"{' '.join(map(str, fan_outs)) or 'nothing'} was given for {n_layers} layers"
        mend = f"give one number or {n_layers}, each 0 or more, or -1 for all neighbours"
        raise ConfigError(what, field="--fan-outs", mend=mend)
    return list(fan_outs) if len(fan_outs) == n_layers else list(fan_outs) * n_layers


def _layout(block: Block, layer: int) -> Layout:
    """The edges of a layer; there are none in a graph without edges, or where no neighbour is taken."""
    ends = dict(block.ends)[NODE]
    n_computed = block.n_computed(layer)[NODE]
    none = np.zeros(0, np.int32)
    found = block.layers[layer].get(EDGE)
    return found or host_layout(none, none, n_computed, n_senders=ends[len(block.layers) - layer])


def _largest(budgets: Sequence[BlockBudget]) -> BlockBudget:
    """Slots that hold whatever any of some budgets for one kind of graph holds."""
    most = lambda sizes: tuple(map(max, zip(*sizes, strict=True)))  # noqa: E731
    return BlockBudget(
        tuple((name, most([dict(budget.nodes)[name] for budget in budgets])) for name, _ in budgets[0].nodes),
        tuple((name, most([dict(budget.edges)[name] for budget in budgets])) for name, _ in budgets[0].edges),
    )


def _repeated(states: np.ndarray, n_hops: int) -> np.ndarray:
    """[k, 1 or n_hops, d] → [k, n_hops, d]."""
    return np.ascontiguousarray(np.broadcast_to(states, (len(states), n_hops, states.shape[2])))
