"""Batches of graphs of similar size, for models that give every graph a row of its own.

Such a row is as long as the largest graph of the batch, so graphs are divided into a few classes by their nodes, and a
batch is drawn from one class. What is left of a class is passed on to the next larger one.
"""

from collections.abc import Sequence

import numpy as np

from jaxgkd.graphs.budgets import (
    ABOVE,
    MOST_DRAWS,
    SAMPLED_GRAPHS,
    Budget,
    Plan,
    cheapest_cuts,
    largest_sum,
    placed,
    rounded_budget,
    shuffled,
)

_PLACES = 64


def similar_budgets(n_node: np.ndarray, n_edge: np.ndarray, batch_size: int, *, most: int = 4) -> tuple[Budget, ...]:
    """One budget a class, with classes where the rows are the shortest.

    Args:
      n_node: [n] nodes of the graphs; n_edge: [n] edges.
      batch_size: graphs of a batch.
      most: classes at most.

    Returns:
      from the smallest to the largest.
    """
    sizes, counts = np.unique(n_node, return_counts=True)
    if len(sizes) > _PLACES:
        # Sizes at even steps through the graphs, and those of the largest graphs, where steps in size are long.
        steps = np.quantile(n_node, np.linspace(0, 1, _PLACES // 2), method="higher")
        sizes = np.unique(np.concatenate([steps, sizes[-_PLACES // 2 :]]))
        counts = np.diff(np.searchsorted(np.sort(n_node), sizes, side="right"), prepend=0)
    before = np.concatenate([[0], np.cumsum(counts)])
    cost = np.zeros((len(sizes) + 1, len(sizes) + 1))
    for start in range(len(sizes)):
        cost[start, start + 1 :] = (before[start + 1 :] - before[start]) * sizes[start:]
    ends = cheapest_cuts(cost, most)
    # Any graphs up to the size of a class may be in its batches, since what is left of smaller ones is passed on.
    worst = []
    for largest in sizes[[end - 1 for end in ends]].tolist():
        within = n_node <= largest
        nodes, edges = largest_sum(n_node[within], batch_size), largest_sum(n_edge[within], batch_size)
        worst.append(rounded_budget(nodes, edges, batch_size + 1, largest))
    # Drawn at random they need less. A batch that needs more takes the next larger budget; the last has room for all.
    needed = np.zeros((len(worst), 2))
    for draw in range(max(1, min(MOST_DRAWS, SAMPLED_GRAPHS // len(n_node)))):
        plan = similar_plan(shuffled(len(n_node), 0, draw), n_node, n_edge, batch_size, worst)
        sums = np.stack([np.add.reduceat(size[plan.order], plan.start[:-1]) for size in (n_node, n_edge)], axis=1)
        np.maximum.at(needed, plan.budget, sums)
    # A larger class has room for what a smaller one passes on.
    needed = np.maximum.accumulate(needed, axis=0)
    drawn = []
    for room, (nodes, edges) in zip(worst, needed.tolist(), strict=True):
        need = rounded_budget(ABOVE * nodes, ABOVE * edges, room.n_graph, room.largest)
        drawn.append(room._replace(n_node=min(room.n_node, need.n_node), n_edge=min(room.n_edge, need.n_edge)))
    return (*drawn[:-1], worst[-1])


def similar_plan(
    order: np.ndarray, n_node: np.ndarray, n_edge: np.ndarray, batch_size: int, budgets: Sequence[Budget]
) -> Plan:
    """Batches of ``batch_size`` graphs, each from one class as far as possible, in an order of their own.

    The order of the batches is drawn from the order of the graphs.

    Args:
      order: [n] positions of graphs in ``n_node`` [m] and ``n_edge`` [m].
      n_node: nodes of every graph; n_edge: edges likewise.
      batch_size: graphs of a batch.
      budgets: one a class, from the smallest to the largest.

    Raises:
      DataError: a graph is larger than every class.
    """
    classes = np.searchsorted([budget.largest for budget in budgets], n_node[order])
    groups, left = [], np.zeros(0, order.dtype)
    for number in range(len(budgets) + 1):
        members = np.concatenate([left, order[classes == number]])
        n_full = len(members) // batch_size
        groups += np.split(members[: n_full * batch_size], n_full) if n_full else []
        left = members[n_full * batch_size :]
    groups += [left] if len(left) else []
    drawn = shuffled(len(groups), *(int(graph) for graph in order[:2]))
    return placed([groups[i] for i in drawn], n_node, n_edge, budgets)
