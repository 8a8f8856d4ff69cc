"""Room for batches of many small graphs: few shapes, each filled well, so that little is compiled and little padded.

A budget is the shape of a batch, a plan says which graphs go together. There are three ways to group graphs: a fixed
number of them, as many as there is room for, and a fixed number of similar size (`size_classes`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxgkd.errors import DataError

# Sizes are rounded up to this many slots.
_ROUND = 16
# Graphs over which batches are drawn to see how their sizes scatter, and the places between which they are divided.
SAMPLED_GRAPHS = 1_000_000
MOST_DRAWS = 32
_PLACES = 48
# Room above the largest batch that was drawn, so that hardly any batch takes the worst case.
ABOVE = 1.02


class Budget(NamedTuple):
    """Slots of a batch, those for padding included: at least one node and one graph are padding.

    Attributes:
      n_node: nodes; n_edge: directed edges; n_graph: graphs.
      largest: nodes of the largest graph; as long is a row where every graph has a row of its own (attention).
    """

    n_node: int
    n_edge: int
    n_graph: int
    largest: int

    @property
    def slots(self) -> int:
        """Nodes and edges together: what padding is measured in."""
        return self.n_node + self.n_edge

    def fits(self, n_node: np.ndarray, n_edge: np.ndarray) -> bool:
        """Whether graphs with these nodes [k] and edges [k] go in beside the padding."""
        within = n_node.sum() < self.n_node and n_edge.sum() <= self.n_edge and len(n_node) < self.n_graph
        return bool(within and n_node.max(initial=0) <= self.largest)


class Plan(NamedTuple):
    """The batches of an epoch.

    Attributes:
      order: [n] graphs, every one once; start: [b + 1], batch i holds ``order[start[i]:start[i + 1]]``.
      budget: [b] numbers of the budgets that the batches take.
    """

    order: np.ndarray
    start: np.ndarray
    budget: np.ndarray


def fixed_plan(
    order: np.ndarray, n_node: np.ndarray, n_edge: np.ndarray, batch_size: int, budgets: Sequence[Budget]
) -> Plan:
    """Batches of ``batch_size`` graphs in the given order, the last one smaller, each in the smallest budget it fits.

    A batch that no budget has room for is halved until one has.

    Args:
      order: [n] positions of graphs in ``n_node`` [m] and ``n_edge`` [m].
      n_node: nodes of every graph; n_edge: edges likewise.
      batch_size: graphs of a batch.
      budgets: from the smallest to the largest.

    Raises:
      DataError: a single graph is larger than every budget.
    """
    return placed([order[i : i + batch_size] for i in range(0, len(order), batch_size)], n_node, n_edge, budgets)


def placed(groups: list[np.ndarray], n_node: np.ndarray, n_edge: np.ndarray, budgets: Sequence[Budget]) -> Plan:
    """Groups of graphs in the smallest budget that each fits, halved where none does; see `fixed_plan`."""
    waiting, batches, chosen = groups[::-1], [], []
    while waiting:
        group = waiting.pop()
        fitting = next((i for i, budget in enumerate(budgets) if budget.fits(n_node[group], n_edge[group])), None)
        if fitting is not None:
            batches.append(group)
            chosen.append(fitting)
        elif len(group) == 1:
            raise _too_large(int(group[0]), n_node, n_edge, budgets)
        else:
            waiting += [group[len(group) // 2 :], group[: len(group) // 2]]
    start = np.concatenate([[0], np.cumsum([len(batch) for batch in batches], dtype=np.int64)])
    return Plan(np.concatenate(batches), start, np.array(chosen, np.int64))


def filled_plan(order: np.ndarray, n_node: np.ndarray, n_edge: np.ndarray, budgets: Sequence[Budget]) -> Plan:
    """Batches that take graphs in the given order while the largest budget has room, each then in the smallest it fits.

    Args:
      order: [n] positions of graphs in ``n_node`` [m] and ``n_edge`` [m].
      n_node: nodes of every graph; n_edge: edges likewise.
      budgets: from the smallest to the largest.

    Raises:
      DataError: a single graph is larger than the largest budget.
    """
    nodes, edges = (np.concatenate([[0], np.cumsum(size[order], dtype=np.int64)]) for size in (n_node, n_edge))
    largest, groups, at = budgets[-1], [], 0
    while at < len(order):
        end = min(
            int(np.searchsorted(nodes, nodes[at] + largest.n_node - 1, side="right")) - 1,
            int(np.searchsorted(edges, edges[at] + largest.n_edge, side="right")) - 1,
            at + largest.n_graph - 1,
            len(order),
        )
        if end <= at:
            raise _too_large(int(order[at]), n_node, n_edge, budgets)
        groups.append(order[at:end])
        at = end
    return placed(groups, n_node, n_edge, budgets)


def fixed_budgets(n_node: np.ndarray, n_edge: np.ndarray, batch_size: int, *, most: int = 4) -> tuple[Budget, ...]:
    """Budgets for batches of ``batch_size`` graphs drawn at random.

    Batches are drawn, and the budgets are where dividing them by size costs the fewest slots. The largest has room for
    the ``batch_size`` largest graphs at once, so that every batch fits; it is hardly ever used.

    Args:
      n_node: [n] nodes of the graphs; n_edge: [n] edges.
      batch_size: graphs of a batch.
      most: budgets at most.

    Returns:
      from the smallest to the largest.
    """
    n_graph, largest = batch_size + 1, int(np.max(n_node))
    worst = rounded_budget(largest_sum(n_node, batch_size), largest_sum(n_edge, batch_size), n_graph, largest)
    if most == 1 or len(n_node) == 1:
        return (worst,)
    sizes = []
    cuts = np.arange(0, len(n_node), batch_size)
    for draw in range(max(1, min(MOST_DRAWS, SAMPLED_GRAPHS // len(n_node)))):
        order = shuffled(len(n_node), 0, draw)
        sizes.append(np.stack([np.add.reduceat(size[order], cuts) for size in (n_node, n_edge)], axis=1))
    divided = _divided(np.concatenate(sizes), most - 1)
    divided[-1] = ABOVE * divided[-1]
    chosen = [rounded_budget(nodes, edges, n_graph, largest) for nodes, edges in divided]
    return tuple(dict.fromkeys(budget for budget in (*chosen, worst) if budget.slots <= worst.slots))


def filled_budgets(n_node: np.ndarray, n_edge: np.ndarray, batch_size: int, *, most: int = 4) -> tuple[Budget, ...]:
    """Budgets to be filled up, with ``batch_size`` graphs on average: one, its half, its quarter and so on.

    The smaller ones are for the end of an epoch.

    Args:
      n_node: [n] nodes of the graphs; n_edge: [n] edges.
      batch_size: graphs of a batch, on average.
      most: budgets at most.

    Returns:
      from the smallest to the largest.
    """
    n_graph, largest = max(2, int(1.25 * batch_size) + 1), int(np.max(n_node))
    nodes = max(batch_size * float(np.mean(n_node)), largest)
    # Edges for a batch are enough for nearly all whose nodes fit: where they run out, nodes stay empty.
    unlimited = rounded_budget(nodes, float(np.sum(n_edge)), n_graph, largest)
    plan = filled_plan(shuffled(len(n_node), 0, 0), n_node, n_edge, [unlimited])
    edges = float(np.quantile(np.add.reduceat(n_edge[plan.order], plan.start[:-1]), 0.9))
    full = rounded_budget(nodes, max(edges, int(np.max(n_edge))), n_graph, largest)
    smaller = [rounded_budget(full.n_node >> i, full.n_edge >> i, n_graph, largest) for i in range(1, most)]
    return tuple(dict.fromkeys([*smaller[::-1], full]))


def rounded_budget(
    n_node: float | np.number | int, n_edge: float | np.number | int, n_graph: int, largest: int
) -> Budget:
    """A budget that holds so many nodes, edges and, padding included, graphs; nodes and edges are rounded up."""
    up = lambda size: max(1, -int(-float(size) // _ROUND)) * _ROUND  # noqa: E731
    return Budget(up(n_node + 1), up(n_edge), n_graph, largest)


def largest_sum(size: np.ndarray, k: int) -> int:
    """The sum of the k largest."""
    return int(np.sort(size)[-k:].sum())


def shuffled(n: int, *seed: int) -> np.ndarray:
    """A permutation of range(n) drawn from some numbers, the same for every NumPy version: raw bits are promised."""
    return np.argsort(np.random.PCG64(list(seed)).random_raw(n), kind="stable")


def cheapest_cuts(cost: np.ndarray, parts: int) -> list[int]:
    """Where to cut a row of k blocks into at most ``parts`` pieces.

    Args:
      cost: [k + 1, k + 1], that of a piece of the blocks i to j - 1 at ``[i, j]``.
      parts: pieces at most.

    Returns:
      the ends of the pieces, the last of which is k.
    """
    k = len(cost) - 1
    cost = np.where(np.tri(k + 1, dtype=bool), np.inf, cost)
    least = np.full(k + 1, np.inf)
    least[0] = 0
    came_from = []
    for _ in range(parts):
        through = least[:, None] + cost
        came_from.append(np.where(through.min(axis=0) < least, through.argmin(axis=0), -1))
        least = np.minimum(least, through.min(axis=0))
    ends, at = [], k
    for before in came_from[::-1]:
        if before[at] >= 0:
            ends.append(at)
            at = int(before[at])
    return ends[::-1]


def _divided(sizes: np.ndarray, parts: int) -> list[np.ndarray]:
    """Nodes and edges of at most ``parts`` budgets between which batches of ``sizes`` [b, 2] cost the fewest slots."""
    sizes = sizes[np.argsort(sizes.sum(axis=1), kind="stable")]
    places = np.unique(np.linspace(0, len(sizes), _PLACES + 1).astype(int))
    blocks = np.maximum.reduceat(sizes, places[:-1], axis=0)
    cost = np.zeros((len(places), len(places)))
    for start in range(len(blocks)):
        needed = np.maximum.accumulate(blocks[start:], axis=0).sum(axis=1)
        cost[start, start + 1 :] = needed * (places[start + 1 :] - places[start])
    ends = cheapest_cuts(cost, parts)
    return [blocks[one:other].max(axis=0) for one, other in zip([0, *ends], ends, strict=False)]


def _too_large(graph: int, n_node: np.ndarray, n_edge: np.ndarray, budgets: Sequence[Budget]) -> DataError:
    what = f"graph {graph} has {n_node[graph]:,} nodes and {n_edge[graph]:,} edges, more than there is room for"
    return DataError(what, mend=f"make the largest budget, {tuple(budgets[-1])}, larger or leave the graph out")
