"""What a graph is like as a graph: homophily, components, degrees; and everything ``jaxgkd data check`` says of one."""

from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from jaxgkd.data.text_counts import describe_classes, describe_split, describe_texts
from jaxgkd.data.text_graphs import TextGraph


def linked_pairs(senders: np.ndarray, receivers: np.ndarray) -> np.ndarray:
    """[2, p] the pairs of nodes that an edge joins, each once whatever its direction, the smaller row first."""
    ends = np.stack([np.minimum(senders, receivers), np.maximum(senders, receivers)]).astype(np.int64)
    proper = ends[:, ends[0] != ends[1]]
    return np.unique(proper, axis=1)


def edge_homophily(pairs: np.ndarray, labels: np.ndarray) -> tuple[float | None, float | None]:
    """Share of pairs within a class, plain and adjusted for what chance would give (Platonov et al., 2023).

        h_adj = (h − Σ_k D_k² / (2p)²) / (1 − Σ_k D_k² / (2p)²),  D_k the degrees of class k added up

    The plain share is high wherever one class is large; the adjusted one is 0 where links know nothing of classes and
    at most 1.

    Args:
      pairs: [2, p] rows of nodes; those with an unlabelled end are left out.
      labels: [n] class numbers, −1 where unlabelled.

    Returns:
      Both, None where there are no labelled pairs; the adjusted one is None too where all ends are of one class.

    >>> pairs = np.array([[0, 1, 2], [1, 2, 3]])
    >>> edge_homophily(pairs, np.array([0, 0, 1, 1]))
    (0.6666666666666666, 0.33333333333333326)
    """
    ends = labels[pairs]
    ends = ends[:, (ends >= 0).all(axis=0)]
    if not ends.size:
        return None, None
    plain = float((ends[0] == ends[1]).mean())
    share = np.bincount(ends.ravel()) / ends.size
    chance = float((share**2).sum())
    return plain, (plain - chance) / (1 - chance) if chance < 1 else None


def describe_shape(pairs: np.ndarray, n_node: int) -> dict[str, Any]:
    """Components and degrees of an undirected graph.

    Args:
      pairs: [2, p] as `linked_pairs` gives them; n_node: n.

    Returns:
      ``isolated`` nodes without a neighbour, ``components`` (isolated nodes among them), ``largest_component`` as a
      share of all nodes, and ``degree``: median, mean and largest number of neighbours.
    """
    degree = np.bincount(pairs.ravel(), minlength=n_node)
    ones = np.ones(pairs.shape[1], np.int8)
    matrix = scipy.sparse.coo_array((ones, (pairs[0], pairs[1])), shape=(n_node, n_node)).tocsr()
    n_component, component = scipy.sparse.csgraph.connected_components(matrix, directed=False)
    largest = np.bincount(component).max(initial=0)
    return {
        "isolated": int((degree == 0).sum()),
        "components": int(n_component),
        "largest_component": float(largest / max(n_node, 1)),
        "degree": {"median": float(np.median(degree)), "mean": float(degree.mean()), "largest": int(degree.max())},
    }


def check_text_graph(graph: TextGraph) -> dict[str, Any]:
    """What ``jaxgkd data check`` says of a text graph: nodes, texts, classes, links and the given split."""
    pairs = linked_pairs(graph.senders, graph.receivers)
    homophily, adjusted = edge_homophily(pairs, graph.labels)
    facts = {
        "name": graph.name,
        "sha256": graph.sha256,
        "nodes": graph.n_node,
        **describe_texts(graph.texts),
        "features": graph.n_feature,
        "classes": len(graph.class_names),
        **describe_classes(graph.labels, graph.class_names),
        "edges": graph.n_edge,
        "linked_pairs": pairs.shape[1],
        **describe_shape(pairs, graph.n_node),
        "homophily": homophily,
        "adjusted_homophily": adjusted,
        "given_split": describe_split(graph.given_split, graph.labels >= 0),
    }
    if graph.student_texts != graph.texts:
        facts["student_text_length"] = describe_texts(graph.student_texts).get("text_length")
    return facts | {"notes": list(graph.notes)}
