"""Graphs of brains: which connections are kept as edges, for all subjects at once."""

from typing import Literal, get_args

import numpy as np

from jaxgkd.data.connectivity import upper_of
from jaxgkd.errors import ConfigError

Sparsity = Literal["top", "threshold", "nearest", "tree"]
Weights = Literal["binary", "weighted"]
#: Share of the connections that BLEG keeps.
TOP_FRACTION = 0.12


def brain_graphs(
    connectivity: np.ndarray,
    sparsity: Sparsity = "top",
    amount: float = TOP_FRACTION,
    *,
    weights: Weights = "binary",
) -> np.ndarray:
    """Adjacency of all subjects.

    Args:
      connectivity: [n, r, r] symmetric; its sign counts, so negative connections are the last to be kept.
      sparsity: "top" keeps the share ``amount`` of the connections that are largest, "threshold" those above
        ``amount``, "nearest" the ``amount`` largest of every region (of either end), "tree" a maximum spanning tree and
        then the largest connections up to the share ``amount``, so that no region is alone.
      amount: see there.
      weights: "binary" edges are 1, "weighted" ones keep the connectivity.

    Returns:
      [n, r, r] float32, symmetric, 0 on the diagonal.

    Raises:
      ConfigError: there is no such sparsity or weight, or ``amount`` does not fit.
    """
    if sparsity not in get_args(Sparsity):
        raise ConfigError(f"there is no sparsity '{sparsity}'", mend=f"use one of {', '.join(get_args(Sparsity))}")
    if weights not in get_args(Weights):
        raise ConfigError(f"there are no weights '{weights}'", mend=f"use {' or '.join(get_args(Weights))}")
    r = connectivity.shape[-1]
    if sparsity in ("top", "tree") and not 0 < amount <= 1:
        raise ConfigError(f"a share of {amount} of the connections is none", field="amount", mend="use 0 to 1")
    if sparsity == "nearest" and (amount != int(amount) or not 1 <= amount < r):
        raise ConfigError(f"{amount} neighbours of {r} regions", field="amount", mend=f"use a whole number below {r}")
    if sparsity == "top":
        kept = top_edges(connectivity, amount)
    elif sparsity == "threshold":
        kept = connectivity > amount
        kept[:, np.arange(r), np.arange(r)] = False
    elif sparsity == "nearest":
        kept = nearest_edges(connectivity, int(amount))
    else:
        kept = tree_edges(connectivity, amount)
    return np.where(kept, connectivity if weights == "weighted" else 1, 0).astype(np.float32)


def top_edges(connectivity: np.ndarray, fraction: float) -> np.ndarray:
    """Mask [n, r, r] of the round(fraction · r (r − 1) / 2) largest connections; of equal ones the first row by row."""
    return _symmetric(_largest(upper_of(connectivity), fraction), connectivity.shape[-1])


def nearest_edges(connectivity: np.ndarray, k: int) -> np.ndarray:
    """Mask [n, r, r] of the ``k`` largest connections of every region, whichever end they are the largest of."""
    values = np.array(connectivity, copy=True)
    r = values.shape[-1]
    values[:, np.arange(r), np.arange(r)] = -np.inf
    order = np.argsort(-values, axis=-1, kind="stable")[..., :k]
    kept = np.zeros(values.shape, bool)
    np.put_along_axis(kept, order, True, axis=-1)
    return kept | kept.swapaxes(1, 2)


def tree_edges(connectivity: np.ndarray, fraction: float) -> np.ndarray:
    """Mask [n, r, r] of a maximum spanning tree, filled up with the largest other connections to ``fraction`` of all.

    The tree of r − 1 edges stays whole where the fraction is smaller.
    """
    tree = spanning_trees(connectivity)
    upper = upper_of(connectivity).astype(np.float64)
    upper[upper_of(tree)] = np.inf
    wanted = max(fraction, (tree.shape[-1] - 1) / upper.shape[1])
    return _symmetric(_largest(upper, wanted), tree.shape[-1])


def spanning_trees(connectivity: np.ndarray) -> np.ndarray:
    """Mask [n, r, r] of the spanning tree with the largest sum, by Prim's algorithm on all subjects at once."""
    n, r = connectivity.shape[:2]
    subject = np.arange(n)
    tree = np.zeros(connectivity.shape, bool)
    # Per region outside the tree, its largest connection into the tree and where that leads; the tree starts at 0.
    best = connectivity[:, 0].astype(np.float64)
    parent = np.zeros((n, r), np.int64)
    best[:, 0] = -np.inf
    inside = np.zeros((n, r), bool)
    inside[:, 0] = True
    for _ in range(r - 1):
        new = np.argmax(best, axis=1)
        tree[subject, new, parent[subject, new]] = tree[subject, parent[subject, new], new] = True
        inside[subject, new] = True
        row = connectivity[subject, new]
        better = row > best
        parent = np.where(better, new[:, None], parent)
        best = np.where(inside, -np.inf, np.maximum(best, row))
    return tree


def normalised_adjacency(adjacency: np.ndarray) -> np.ndarray:
    """``D^-½ (A + I) D^-½`` with the row sums D of ``|A| + I``, for adjacency [..., r, r] (Kipf and Welling, 2017).

    Sizes are summed, so that negative weights cannot make a degree 0.
    """
    r = adjacency.shape[-1]
    with_loops = adjacency + np.eye(r, dtype=adjacency.dtype)
    scale = 1 / np.sqrt(np.abs(adjacency).sum(axis=-1) + 1)
    return with_loops * scale[..., :, None] * scale[..., None, :]


def _largest(values: np.ndarray, fraction: float) -> np.ndarray:
    """Mask [n, p] of the round(fraction · p) largest entries of every row, at least one; of equal ones the first."""
    p = values.shape[1]
    count = min(max(int(fraction * p + 0.5), 1), p)
    limit = np.partition(values, p - count, axis=1)[:, p - count, None]
    above = values > limit
    equal = values == limit
    room = count - above.sum(axis=1, keepdims=True)
    return above | (equal & (np.cumsum(equal, axis=1) <= room))


def _symmetric(upper: np.ndarray, r: int) -> np.ndarray:
    kept = np.zeros((len(upper), r, r), bool)
    rows, columns = np.triu_indices(r, 1)
    kept[:, rows, columns] = upper
    kept[:, columns, rows] = upper
    return kept
