"""Blocks of a large graph for every batch of an epoch: shuffled from a seed, of few shapes, resumed anywhere."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxgkd.errors import ConfigError
from jaxgkd.graphs.batching import Position, Step
from jaxgkd.graphs.blocks import Block, BlockBudget, assemble_block, chosen_budgets, largest_budget
from jaxgkd.graphs.budgets import shuffled
from jaxgkd.graphs.sampling import NeighbourSampler, Request, Sample

Ask = Callable[[np.ndarray, Position], Request]
"""From the items of a batch, [b] with -1 for padding, and its position, by which it draws, to the nodes it wants."""

# Batches that are drawn to see how large samples get.
_DRAWS = 8
_START = Position()


class BlockReport(NamedTuple):
    """What fixed shapes cost over some batches.

    Attributes:
      padded_share: of the slots for nodes and edges, those that are padding, from 0 to 1.
      shapes: different shapes that occur, each compiled once.
      n_batch: batches counted.
    """

    padded_share: float
    shapes: int
    n_batch: int

    def __str__(self) -> str:
        shapes = "1 compiled shape" if self.shapes == 1 else f"{self.shapes} compiled shapes"
        return f"{100 * self.padded_share:.1f} % padding, {shapes}"


class BlockBatches:
    """Which items go together in every epoch, each once; blocks of them on demand. The last batch is padded."""

    def __init__(
        self,
        sampler: NeighbourSampler,
        ask: Ask,
        n_item: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        budgets: Sequence[BlockBudget] | None = None,
    ):
        """Choose the shapes, by drawing a few batches.

        Args:
          sampler: of the graph.
          ask: what a batch wants; the shapes of its seeds are to be the same for every batch.
          n_item: items of an epoch, such as labelled nodes or training edges.
          batch_size: items of a batch.
          seed: what order and samples are drawn from, together with the numbers of epoch and batch.
          shuffle: False keeps the order of the items, as for evaluation.
          budgets: shapes, from the smallest to the largest; by default chosen by the samples of a
            few batches; the last of these fits any sample, but all but a few batches take the first.

        Raises:
          ConfigError: there is no item, the batch size is below 1 or the seed below 0.
        """
        if n_item < 1 or batch_size < 1 or seed < 0:
            what = f"batches of {batch_size} of {n_item} items with seed {seed} cannot be made"
            raise ConfigError(what, mend="use at least 1 item, batches of 1 or more and a seed from 0 on")
        self.sampler, self.n_item, self.batch_size = sampler, n_item, batch_size
        self.seed, self.shuffle = seed, shuffle
        self._ask = ask
        self._order: tuple[int, np.ndarray] | None = None
        self.budgets = self._chosen() if budgets is None else tuple(budgets)

    def _chosen(self) -> tuple[BlockBudget, ...]:
        graph = self.sampler.graph
        n_seeds = dict.fromkeys(graph.n_node, 0)
        for node_type, ids in self._request(Position()).seeds.values():
            n_seeds[node_type] += ids.size
        n_edges = {relation: neighbours.n_edges for relation, neighbours in graph.relations.items()}
        largest = largest_budget(graph.n_node, n_edges, n_seeds, self.sampler.fan_outs)
        numbers = range(min(_DRAWS, self.n_batch))
        drawn = [self.sample(0, number) for number in numbers]
        return chosen_budgets(drawn, largest)

    @property
    def n_batch(self) -> int:
        """Batches of an epoch."""
        return -(-self.n_item // self.batch_size)

    def items(self, epoch: int, number: int) -> np.ndarray:
        """[b] items of a batch, -1 for padding."""
        order = self._order
        if order is None or order[0] != epoch:
            drawn = shuffled(self.n_item, self.seed, epoch) if self.shuffle else np.arange(self.n_item)
            order = self._order = epoch, drawn
        items = order[1][number * self.batch_size : (number + 1) * self.batch_size]
        return np.concatenate([items, np.full(self.batch_size - len(items), -1)])

    def _request(self, position: Position) -> Request:
        return self._ask(self.items(*position), position)

    def sample(self, epoch: int, number: int) -> Sample:
        """What batch ``number`` of an epoch draws, without padding."""
        return self.sampler.sample(self._request(Position(epoch, number)), self.seed, epoch, number)

    def batch(self, epoch: int, number: int) -> Block:
        """Batch ``number`` of an epoch.

        Raises:
          ValueError: its sample fits in none of the budgets.
        """
        return self.block_of(self.items(epoch, number), Position(epoch, number))

    def block_of(self, items: np.ndarray, position: Position) -> Block:
        """A batch of items that the caller has chosen, [b] with -1 for padding, drawn as that at a position.

        Raises:
          ValueError: its sample fits in none of the budgets.
        """
        sample = self.sampler.sample(self._ask(items, position), self.seed, *position)
        fitting = next((budget for budget in self.budgets if budget.fits(sample)), self.budgets[-1])
        return assemble_block(sample, fitting, items)

    def stream(self, position: Position = _START, *, epochs: int | None = None) -> Iterator[Step]:
        """Blocks from a position on, epoch after epoch; goes through `prefetch`.

        Args:
          position: of the first batch; ``Step.position`` of the last one that was used goes on after it.
          epochs: the number of the epoch to stop before, or None to go on for ever.
        """
        epoch, number = position
        while epochs is None or epoch < epochs:
            while number < self.n_batch:
                block = self.batch(epoch, number)
                number += 1
                following = Position(epoch, number) if number < self.n_batch else Position(epoch + 1, 0)
                yield Step(block, following)  # type: ignore[arg-type]
            epoch, number = epoch + 1, 0

    def report(self, epochs: int = 1) -> BlockReport:
        """What padding costs over the first epochs; samples are drawn for it."""
        slots, real, shapes = 0, 0, set()
        for epoch in range(epochs):
            for number in range(self.n_batch):
                sample = self.sample(epoch, number)
                budget = next((budget for budget in self.budgets if budget.fits(sample)), self.budgets[-1])
                slots += budget.slots
                real += sample.n_edges + sum(map(sum, sample.n_new.values()))
                shapes.add(budget)
        return BlockReport(1 - real / slots, len(shapes), epochs * self.n_batch)


def ask_nodes(node_type: str, ids: np.ndarray) -> Ask:
    """Asks for the nodes ``ids`` [n] of one type, in the role ``"target"``: item i is node ``ids[i]``."""

    def ask(items: np.ndarray, position: Position) -> Request:
        del position
        return Request({"target": (node_type, np.where(items >= 0, ids[items], -1))})

    return ask
