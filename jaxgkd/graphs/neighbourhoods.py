"""Structure of a whole graph, computed once in numpy: parts to read out together, and positions of nodes."""

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.sparse.linalg import aslinearoperator, eigsh

# Where the eigenvalue 1 of the vectors that are left out is moved, below the [-1, 1] of all others.
_LEFT_OUT = -2.0


def parts(senders: np.ndarray, receivers: np.ndarray, n_node: int, n_parts: int, seed: int) -> np.ndarray:
    """Cut a graph into connected parts: every node goes to the nearest of ``n_parts`` random centres.

    Args:
      senders, receivers: [e] edges, read as undirected.
      n_node: number of nodes n; n_parts: number of centres, at most n.
      seed: of the centres.

    Returns:
      [n] int32 number of the part; −1 for nodes that no centre reaches.
    """
    centres = np.random.default_rng(seed).choice(n_node, size=min(n_parts, n_node), replace=False)
    adjacency = scipy.sparse.csr_array((np.ones(len(senders)), (receivers, senders)), shape=(n_node, n_node))
    _, _, sources = dijkstra(
        adjacency, directed=False, indices=centres, unweighted=True, min_only=True, return_predecessors=True
    )
    number = np.full(n_node + 1, -1, np.int32)
    number[centres] = np.arange(len(centres))
    # Unreached nodes have a negative source: the last entry, which is no centre.
    return number[np.where(sources < 0, n_node, sources)]


def spectral_positions(senders: np.ndarray, receivers: np.ndarray, n_node: int, width: int) -> np.ndarray:
    """Positions of nodes in the graph: leading eigenvectors of ``D^-1/2 (A + I) D^-1/2``.

    Every connected component has one with eigenvalue 1, D^1/2 on its nodes, which says nothing of where a node is
    inside it. Those are left out.

    They give a student without edges what NOSMOG (arXiv 2208.10010) takes from random walks: where a node is.

    Args:
      senders, receivers: [e] edges in both directions.
      n_node: number of nodes n; width: of a position, below n.

    Returns:
      [n, width] float32 with columns of mean square 1, the largest eigenvalue first; each vector's largest entry is
      positive. Columns beyond the vectors that there are (n less the number of components) are 0.

    Raises:
      ValueError: the width is not between 1 and n − 1.
    """
    if not 0 < width < n_node:
        raise ValueError(f"positions of {n_node} nodes have a width of 1 to {n_node - 1}, not {width}")
    adjacency = scipy.sparse.csr_array((np.ones(len(senders)), (receivers, senders)), shape=(n_node, n_node))
    n_components, component = connected_components(adjacency, directed=False)
    adjacency = adjacency + scipy.sparse.eye_array(n_node)
    root = np.sqrt(adjacency.sum(axis=1))
    scaled = scipy.sparse.diags_array(1.0 / root) @ adjacency @ scipy.sparse.diags_array(1.0 / root)
    norm = np.sqrt(np.bincount(component, weights=root**2))
    left_out = scipy.sparse.csr_array(
        (root / norm[component], (np.arange(n_node), component)), shape=(n_node, n_components)
    )
    projection = aslinearoperator(left_out) @ aslinearoperator(left_out.T)
    operator = aslinearoperator(scaled) + (_LEFT_OUT - 1.0) * projection
    # From a vector of ones the search would never leave the symmetries of the graph, and miss what breaks them.
    values, vectors = eigsh(operator, k=width, which="LA", v0=np.random.default_rng(0).standard_normal(n_node))
    order = np.argsort(-values)
    vectors = vectors[:, order] * (values[order] > (_LEFT_OUT - 1.0) / 2)
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(width)]
    return (vectors * np.sign(largest) * np.sqrt(n_node)).astype(np.float32)
