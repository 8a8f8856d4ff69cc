"""Scores of what was said of nodes, edges and links, and of baselines that know no language."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxgkd.graphs import relations_between
from jaxgkd.nn.hetero_tasks import EdgeTask, LinkTask, NodeTask
from jaxgkd.recipes.lmgnn_data import TaskData
from jaxgkd.training.metrics import area_under_roc, average_precision, macro_f1
from jaxgkd.training.ranking import hits_at, mean_reciprocal_rank, ranks_of_lists

HITS = (1, 3, 10)
EVALUATED = ("valid", "test")
Scores = dict[str, float]


def metric_of(data: TaskData) -> tuple[str, bool]:
    """The metric that a run reports first, and whether higher is better."""
    if isinstance(data.task, LinkTask):
        return "mrr", True
    if isinstance(data.task, NodeTask) and data.task.kind == "regression":
        return "rmse", False
    return ("auroc", True) if isinstance(data.task, EdgeTask) and data.task.n_out == 2 else ("accuracy", True)


def scores(data: TaskData, part: str, outputs: np.ndarray) -> Scores:
    """Metric → value of what `Workplace.outputs` gives for a part, of values in the unit of the labels."""
    task = data.task
    if isinstance(task, LinkTask):
        return link_scores(data, part, outputs)
    if isinstance(task, NodeTask) and task.kind == "regression":
        assert data.labels is not None
        errors = outputs - data.labels[data.rows[part]][:, None]
        return {"rmse": float(np.sqrt(np.mean(np.square(errors)))), "mae": float(np.mean(np.abs(errors)))}
    assert data.labels is not None
    labels = data.labels[data.rows[part]]
    everything = np.ones(len(labels), bool)
    if isinstance(task, EdgeTask) and task.n_out == 2:
        return binary_scores(outputs[:, 1] - outputs[:, 0], labels)
    right = float(np.mean(outputs.argmax(axis=1) == labels))
    return {"accuracy": right, "macro_f1": float(macro_f1(*map(jnp.asarray, (outputs, labels, everything))))}


def binary_scores(values: np.ndarray, labels: np.ndarray) -> Scores:
    """AUROC and average precision of the second of two classes."""
    everything = np.ones(len(labels), bool)
    return {
        "auroc": area_under_roc(values, labels, everything),
        "average_precision": average_precision(values, labels, everything),
    }


def link_scores(data: TaskData, part: str, values: np.ndarray) -> Scores:
    """MRR and Hits@k from the scores [q] of the pairs that a part's links are ranked among."""
    asked = data.asked[part]
    values = np.asarray(values, np.float64)
    ranks = ranks_of_lists(values[np.asarray(asked.positive)], values[np.asarray(asked.entries)], asked.starts)
    hits = {f"hits@{k}": float(hits_at(k, ranks)) for k in HITS}
    return {"mrr": float(mean_reciprocal_rank(ranks)), **hits}


def baselines(data: TaskData, embeddings: Mapping[str, np.ndarray]) -> dict[str, tuple[str, dict[str, Scores]]]:
    """Row → its name for people, and part → scores; nothing in them is learned but which way a number points.

    Args:
      data: the task.
      embeddings: node type → [n, d] of length 1, of types with texts.
    """
    if isinstance(data.task, NodeTask):
        return _of_nodes(data)
    if isinstance(data.task, EdgeTask) and data.task.n_out != 2:
        # Degrees and likenesses are one number, which orders no more than two classes.
        share = np.asarray(data.asked["train"].targets).mean(axis=0)
        said = {part: np.repeat(share[None], len(data.rows[part]), axis=0) for part in EVALUATED}
        return {"majority": ("majority", {part: scores(data, part, values) for part, values in said.items()})}
    source, _, destination = data.task.edge_type
    seen = data.asked["train"]
    n = data.graph.n_node
    popularity = np.bincount(np.asarray(seen.receivers), minlength=n[destination]).astype(float)
    degree = degrees_of(data, destination)
    found: dict[str, tuple[str, dict[str, np.ndarray]]] = {}

    def add(name: str, label: str, of_pairs: Any) -> None:
        found[name] = label, {part: np.asarray(of_pairs(*_ends(data, part)), np.float64) for part in EVALUATED}

    add("degree", "degree", lambda s, r: degree[r])
    add("popularity", "popularity", lambda s, r: popularity[r] + 1e-9 * degree[r])
    if source == destination:
        adjacency = _adjacency(data, source)
        common = lambda s, r: np.asarray(adjacency[s].multiply(adjacency[r]).sum(axis=1)).ravel()  # noqa: E731
        add("common_neighbours", "common neighbours", common)
    edges = data.layout[destination]
    others = np.array([kind != data.task.edge_type for kind in edges.edge_types if kind[0] == source], float)
    if others.any():
        between = jax.jit(lambda s, r: relations_between(edges, source, s, r))
        add("relations", "other relations", lambda s, r: np.asarray(between(s, r)) @ others)
    if source in embeddings and destination in embeddings:
        one, other = embeddings[source], embeddings[destination]
        add("cosine", "cosine, frozen LM", lambda s, r: np.einsum("bd,bd->b", one[s], other[r]))
    return {name: (label, _scored(data, values)) for name, (label, values) in found.items()}


def _scored(data: TaskData, values: Mapping[str, np.ndarray]) -> dict[str, Scores]:
    if isinstance(data.task, LinkTask):
        return {part: link_scores(data, part, values[part]) for part in EVALUATED}
    assert data.labels is not None and isinstance(data.task, EdgeTask)
    labels = {part: data.labels[data.rows[part]] for part in EVALUATED}
    # Few links may speak for a class as well as many.
    sign = 1.0 if binary_scores(values["valid"], labels["valid"])["auroc"] >= 0.5 else -1.0
    return {part: binary_scores(sign * values[part], labels[part]) for part in EVALUATED}


def _of_nodes(data: TaskData) -> dict[str, tuple[str, dict[str, Scores]]]:
    assert isinstance(data.task, NodeTask)
    n_out, targets = data.task.n_out, np.asarray(data.asked["train"].targets)
    if data.task.kind == "regression":
        assert data.labels is not None
        targets = data.labels[data.rows["train"]][:, None].astype(np.float64)
    mean = np.repeat(targets.mean(axis=0)[None], len(data.graph.nodes[data.task.node_type]), axis=0)
    label = "mean of the training labels" if data.task.kind == "regression" else "majority"
    said = {"majority": (label, mean)}
    if data.task.kind == "classification":
        known = np.zeros((len(mean), n_out))
        known[data.rows["train"]] = targets
        adjacency = _adjacency(data, data.task.node_type)
        votes = adjacency @ known + adjacency @ (adjacency @ known) / (1.0 + adjacency.sum(axis=1))[:, None]
        said["neighbours"] = "neighbours' labels", votes + 1e-6 * mean
    return {
        name: (label, {part: scores(data, part, values[data.rows[part]].astype(np.float32)) for part in EVALUATED})
        for name, (label, values) in said.items()
    }


def _ends(data: TaskData, part: str) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(data.asked[part].senders), np.asarray(data.asked[part].receivers)


def degrees_of(data: TaskData, node_type: str) -> np.ndarray:
    """[n] edges of every node in the graph that training sees."""
    if node_type not in data.layout:
        return np.zeros(len(data.graph.nodes[node_type]))
    return np.asarray(data.layout[node_type].layout.degree(), np.float64)


def _adjacency(data: TaskData, node_type: str) -> scipy.sparse.csr_array:
    """[n, n] 1 where two nodes of a type are linked, or have a neighbour of another type in common."""
    n = len(data.graph.nodes[node_type])
    if node_type not in data.layout:
        return scipy.sparse.csr_array((n, n))
    edges = data.layout[node_type]
    senders, receivers = edges.senders(), np.asarray(edges.layout.receivers)
    total = scipy.sparse.csr_array((n, n))
    for number, kind in enumerate(edges.edge_types):
        mine = np.asarray(edges.relation) == number
        shape = n, len(data.graph.nodes[kind[0]])
        matrix = scipy.sparse.csr_array((np.ones(mine.sum()), (receivers[mine], senders[mine])), shape=shape)
        total = total + (matrix if kind[0] == node_type else matrix @ matrix.T)
    total = scipy.sparse.coo_array(total)
    apart = total.row != total.col
    ends = total.row[apart], total.col[apart]
    return scipy.sparse.csr_array((np.ones(apart.sum()), ends), shape=(n, n))
