"""Graphs with several kinds of nodes and links, a text for the nodes that have one, and the tasks set on them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse

from jaxgkd.data.text_graphs import content_hash
from jaxgkd.errors import DataError

#: Type of the sources, name of the relation, type of the destinations.
EdgeType = tuple[str, str, str]
TaskKind = Literal["node_classification", "node_regression", "edge_classification", "link_prediction"]
TASK_KINDS: tuple[TaskKind, ...] = ("node_classification", "node_regression", "edge_classification", "link_prediction")


@dataclass(frozen=True, eq=False)
class NodeSet:
    """All nodes of a type, every field in the same order.

    Fields:
      ids: [n] as in the file, int64 where all are integers, else text.
      texts: what a language model may read of every node, "" where there is nothing; None for a type without text.
      titles: [n] short names.
      labels: [n] int32 class numbers, −1 where unlabelled; or float32 values, NaN where unlabelled; or None.
      class_names: a name for every class; none where the labels are values.
      given_split: [n] of "train", "valid", "test" or "", or None where none is given.
      features: [n, f] float32, or None.
    """

    ids: np.ndarray
    texts: tuple[str, ...] | None
    titles: tuple[str, ...]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    given_split: np.ndarray | None = None
    features: scipy.sparse.csr_array | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class EdgeSet:
    """All edges of a relation, in the order of their file.

    Fields:
      senders: [e] int32 rows of the source type; receivers: [e] int32 rows of the destination type.
      labels: [e] int32 class numbers, −1 where unlabelled, or None; class_names: a name for every class.
      given_split: [e] of "train", "valid", "test" or "", or None where none is given.
    """

    senders: np.ndarray
    receivers: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    given_split: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.senders)


@dataclass(frozen=True)
class Task:
    """What is to be predicted: the labels of a node type or of a relation, or the relation's edges themselves."""

    kind: TaskKind
    target: str | EdgeType


@dataclass(frozen=True, eq=False)
class HeteroGraph:
    """Typed nodes and typed edges.

    Fields:
      name: what reports call it.
      nodes: type → its nodes.
      edges: (source type, name, destination type) → its edges, directed as given.
      tasks: kind → the task.
      sha256: of the content, which is all fields but ``name`` and ``notes``.
      notes: counted facts that a report repeats.
    """

    name: str
    nodes: Mapping[str, NodeSet]
    edges: Mapping[EdgeType, EdgeSet]
    tasks: Mapping[TaskKind, Task]
    sha256: str
    notes: tuple[str, ...]

    @property
    def n_node(self) -> dict[str, int]:
        """Number of nodes of every type."""
        return {name: len(nodes) for name, nodes in self.nodes.items()}


def make_hetero_graph(
    *,
    name: str,
    nodes: Mapping[str, NodeSet],
    edges: Mapping[EdgeType, EdgeSet],
    tasks: Iterable[Task],
    notes: Iterable[str] = (),
) -> HeteroGraph:
    """Puts a `HeteroGraph` together from its parts, checks that they fit, and hashes it.

    Args are the fields of `HeteroGraph`.

    Raises:
      DataError: a relation joins types that do not exist, has no edges, leads to a row that does not exist or is there
        the other way round as ``rev_…`` too, or a task asks for labels that are not there.
    """
    for kind, edge_set in edges.items():
        for end, index, place in (("source", edge_set.senders, 0), ("destination", edge_set.receivers, 2)):
            if kind[place] not in nodes:
                known = ", ".join(nodes)
                what = f"the {end} type '{kind[place]}' of the relation {shown_type(kind)} does not exist"
                raise DataError(what, mend=f"use one of {known}")
            if len(index) and (index.min() < 0 or index.max() >= len(nodes[kind[place]])):
                raise DataError(f"an edge of {shown_type(kind)} leads to a row that does not exist", mend="correct it")
        if (kind[2], f"rev_{kind[1]}", kind[0]) in edges:
            what = f"the relation {shown_type(kind)} has its reverse beside it, which is added anyway"
            raise DataError(what, mend=f"leave rev_{kind[1]} out")
        if not len(edge_set):
            raise DataError(f"the relation {shown_type(kind)} has no edges", mend="add edges, or leave it out")
    by_kind: dict[TaskKind, Task] = {}
    for task in tasks:
        check_task(task, nodes, edges)
        by_kind[task.kind] = task
    digests = []
    for node_type, node_set in nodes.items():
        digests += [node_type, content_hash(vars(node_set))]
    for kind, edge_set in edges.items():
        digests += [*kind, content_hash(vars(edge_set))]
    digests += [f"{task.kind} {task.target}" for task in by_kind.values()]
    return HeteroGraph(
        name=name,
        nodes=dict(nodes),
        edges=dict(edges),
        tasks=by_kind,
        sha256=content_hash({"parts": digests}),
        notes=tuple(notes),
    )


def check_task(task: Task, nodes: Mapping[str, NodeSet], edges: Mapping[EdgeType, EdgeSet]) -> None:
    """Raises DataError when a task is of an unknown kind, or asks for a type or labels that are not there."""
    if task.kind not in TASK_KINDS:
        raise DataError(f"there is no task '{task.kind}'", mend=f"use one of {', '.join(TASK_KINDS)}")
    if isinstance(task.target, str):
        if task.kind not in ("node_classification", "node_regression"):
            raise DataError(f"the task {task.kind} is set on the node type '{task.target}'", mend="name an edge type")
        if task.target not in nodes:
            raise DataError(f"{task.kind} is asked of the node type '{task.target}', which does not exist")
        labels = nodes[task.target].labels
        wanted = "i" if task.kind == "node_classification" else "f"
        if labels is None or labels.dtype.kind != wanted:
            what = f"{task.kind} is asked of the node type '{task.target}', which has no such labels"
            raise DataError(what, mend="name the column of its labels in metadata.json")
        return
    if task.kind not in ("edge_classification", "link_prediction"):
        raise DataError(f"the task {task.kind} is set on a relation", mend="name a node type")
    if task.target not in edges:
        raise DataError(f"{task.kind} is asked of the relation {shown_type(task.target)}, which does not exist")
    if task.kind == "edge_classification" and edges[task.target].labels is None:
        what = f"edge_classification is asked of the relation {shown_type(task.target)}, which has no labels"
        raise DataError(what, mend="name the column of its labels in metadata.json")


def shown_type(kind: EdgeType) -> str:
    """An edge type as people write it: ``actor–acts_in–movie``."""
    return "–".join(kind)


def describe_hetero(graph: HeteroGraph) -> dict[str, object]:
    """Counts for a report: nodes, texts and labels of every type, edges of every relation, tasks."""
    return {
        "name": graph.name,
        "sha256": graph.sha256,
        "nodes": {name: len(nodes) for name, nodes in graph.nodes.items()},
        "edges": {shown_type(kind): len(edges) for kind, edges in graph.edges.items()},
        "without_text": {
            name: sum(not text.strip() for text in nodes.texts) if nodes.texts is not None else len(nodes)
            for name, nodes in graph.nodes.items()
        },
        "classes": {name: list(nodes.class_names) for name, nodes in graph.nodes.items() if nodes.class_names},
        "isolated": {name: _isolated(graph, name) for name in graph.nodes},
        "tasks": {
            kind: task.target if isinstance(task.target, str) else shown_type(task.target)
            for kind, task in graph.tasks.items()
        },
        "notes": list(graph.notes),
    }


def _isolated(graph: HeteroGraph, node_type: str) -> int:
    linked = np.zeros(len(graph.nodes[node_type]), bool)
    for (source, _, destination), edges in graph.edges.items():
        if source == node_type:
            linked[edges.senders] = True
        if destination == node_type:
            linked[edges.receivers] = True
    return int((~linked).sum())
