"""A task on a heterogeneous graph as arrays: its split, the graph that training sees, and what is asked of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgkd.data.hetero_graphs import EdgeSet, EdgeType, HeteroGraph, shown_type
from jaxgkd.data.hetero_graphs import TaskKind as TaskName
from jaxgkd.errors import ConfigError, DataError
from jaxgkd.graphs import HeteroLayout, build_hetero_layout, with_reverses
from jaxgkd.nn.hetero_problem import RankedPairs
from jaxgkd.nn.hetero_tasks import EdgeTask, Links, LinkTask, Nodes, NodeTask, Pairs
from jaxgkd.training.candidates import Candidates, given_candidates, uniform_candidates
from jaxgkd.training.scaling import Scale

PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class TaskData:
    """What a recipe asks of a graph.

    Fields:
      graph: as loaded; task: what is asked.
      rows: part → rows of the node type, or positions among the relation's edges.
      labels: [n] or [e] int32 classes or float32 values of all nodes or edges of the target; None of links.
      passing: edge type → senders and receivers of the edges that pass messages, reverses not among them: of the
        target relation the training edges, in their order, and after them those that no part may ask for, which are
        without a label or a part.
      layout: of these and their reverses.
      seen: senders and receivers of these edges of the target relation, in this order; None of nodes.
      opposite: [e] of every training edge of a drawn split the position of the one the other way round, −1 where
        there is none; None of given splits, and where the two ends are of different types.
      edge_types: of the layout, reverses included.
      asked: part → arrays to ask with: `Nodes`, values scaled, or `Pairs`; of links, ``train`` is a `Links` without
        negatives (k = 0) and the others `RankedPairs`.
      negatives: [n_source + 1] starts and rows: of what is given for every source, what training knows no edge to; None
        where nothing is given.
      candidates: part → what its links are ranked among.
      scale: of values; None of classes and links.
      notes: sentences for the report.
    """

    graph: HeteroGraph
    task: NodeTask | EdgeTask | LinkTask
    rows: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    passing: Mapping[EdgeType, tuple[np.ndarray, np.ndarray]]
    layout: HeteroLayout
    seen: tuple[np.ndarray, np.ndarray] | None
    opposite: np.ndarray | None
    edge_types: tuple[EdgeType, ...]
    asked: Mapping[str, Any]
    negatives: tuple[np.ndarray, np.ndarray] | None
    candidates: Mapping[str, Candidates]
    scale: Scale | None
    notes: tuple[str, ...]

    @property
    def split_sha256(self) -> str:
        """Hash of which rows are in which part."""
        digest = hashlib.sha256()
        for part in PARTS:
            digest.update(f"{part} {len(self.rows[part])} ".encode() + self.rows[part].astype("<i8").tobytes())
        return digest.hexdigest()


def task_data(
    graph: HeteroGraph,
    name: TaskName,
    *,
    candidates: str,
    n_candidates: int,
    score: Any,
    loss: Any,
    left_out: tuple[str, ...] = (),
) -> TaskData:
    """Put the arrays of a task together.

    Args:
      graph: as loaded.
      name: of the task; the graph has to have it.
      candidates: of links: ``uniform``, or the name of a relation between the same types whose receivers are what a
        sender may lead to; ``auto`` is one that holds every edge of the task and others, or else ``uniform``.
      n_candidates: of every edge, where they are uniform.
      score, loss: of links.
      left_out: names of relations that pass no messages.

    Raises:
      ConfigError: the graph has no such task, a relation is not there, or there are fewer nodes than candidates or
        none at all.
      DataError: a part of the split is empty, all training values are alike, one of two classes is missing where edges
        are scored by AUROC, or the graph has no relations.
    """
    if name not in graph.tasks:
        known = ", ".join(graph.tasks) or "none"
        what = f"{graph.name} has no task {name}, its tasks are {known}"
        raise ConfigError(what, field="--task", mend="choose one of them, or add it to metadata.json")
    target = graph.tasks[name].target
    passing = {kind: (edges.senders, edges.receivers) for kind, edges in graph.edges.items() if kind[1] not in left_out}
    for each in left_out:
        if each not in {kind[1] for kind in graph.edges}:
            raise ConfigError(f"there is no relation '{each}'", field="--without", mend="name one of the graph's")
    if not isinstance(target, str) and target[1] in left_out:
        what = f"the task is about {shown_type(target)}, whose training edges pass messages"
        raise ConfigError(what, field="--without", mend="name other relations")
    if not graph.edges:
        raise DataError(f"{graph.name} has no relations", mend="name them in edge_types of metadata.json")
    if not passing:
        raise ConfigError("no relation is left", field="--without", mend="name fewer")
    notes: list[str] = []
    if isinstance(target, str):
        nodes = graph.nodes[target]
        assert nodes.labels is not None
        labelled = nodes.labels >= 0 if nodes.class_names else np.isfinite(nodes.labels)
        rows, scale = _parts(nodes.given_split, labelled, (0.6, 0.2, 0.2), notes), None
        if nodes.class_names:
            task = NodeTask(target, len(nodes.class_names))
            targets = np.eye(len(nodes.class_names), dtype=np.float32)[nodes.labels]
        else:
            task, scale = NodeTask(target, 1, "regression"), _scale(nodes.labels[rows["train"]], target)
            targets = scale.apply(nodes.labels[:, None]).astype(np.float32)
        asked: dict[str, Any] = {
            part: Nodes(jnp.asarray(rows[part]), jnp.asarray(targets[rows[part]]), jnp.ones(len(rows[part])))
            for part in PARTS
        }
        return _finished(graph, task, rows, nodes.labels, passing, asked, None, notes, scale=scale)
    edges = graph.edges[target]
    labelled = np.ones(len(edges), bool) if name == "link_prediction" else np.asarray(edges.labels) >= 0
    rows = _parts(
        edges.given_split, labelled, (0.8, 0.1, 0.1), notes, _pairs(edges) if target[0] == target[2] else None
    )
    passing = {kind: ends for kind, ends in passing.items() if kind != target}
    trained, unasked = rows["train"], _unasked(edges, rows)
    order = np.concatenate([trained, unasked])
    seen = passing[target] = edges.senders[order], edges.receivers[order]
    # A drawn split keeps both in one part: what validates never sees the other, so a step may not either.
    both_ways = target[0] == target[2] and edges.given_split is None
    opposite = _opposites(edges.senders[trained], edges.receivers[trained]) if both_ways else None
    if len(unasked):
        notes.append(
            f"{len(unasked):,} edges of {shown_type(target)} that are in no part or have no label pass messages"
        )
    if name == "edge_classification":
        assert edges.labels is not None
        targets = np.eye(len(edges.class_names), dtype=np.float32)[edges.labels]
        for part in PARTS[1:]:
            if len(edges.class_names) == 2 and len(np.unique(edges.labels[rows[part]])) < 2:
                what = f"the {part} part of {shown_type(target)} has edges of one class alone, which have no AUROC"
                raise DataError(what, mend="label more, or give another split")
        ones = np.ones(len(edges), np.float32)
        asked = {
            part: Pairs(*(jnp.asarray(values[at]) for values in (edges.senders, edges.receivers, targets, ones)))
            for part, at in rows.items()
        }
        task = EdgeTask(target, len(edges.class_names))
        return _finished(graph, task, rows, edges.labels, passing, asked, None, notes, seen=seen, opposite=opposite)
    n_receiver = len(graph.nodes[target[2]])
    candidates = _resolved(graph, target, rows) if candidates == "auto" else candidates
    given = _given(graph, target, candidates)
    none = np.zeros((len(trained), 0), np.int32)
    ends = edges.senders[trained], edges.receivers[trained]
    asked = {"train": Links(*map(jnp.asarray, (*ends, none, none.astype(bool), np.ones(len(none), np.float32))))}
    lists = {}
    for number, part in enumerate(PARTS[1:]):
        ends = edges.senders[rows[part]], edges.receivers[rows[part]]
        known = edges.senders, edges.receivers
        if given is None:
            try:
                lists[part] = uniform_candidates(*ends, n_candidates, number, n_node=n_receiver, known=known)
            except ConfigError as error:
                what = f"an edge of the {part} part has fewer than {n_candidates} nodes it does not lead to"
                raise ConfigError(what, field="--n-candidates", mend="ask for fewer") from error
        else:
            lists[part] = given_candidates(*ends, given, n_node=n_receiver, known=known)
            alone = int((~lists[part].ranked).sum())
            if alone == len(lists[part]):
                what = f"no edge of the {part} part has another receiver of '{candidates}' to be ranked among"
                raise ConfigError(what, field="--candidates", mend="name another relation, or use uniform")
            if alone:
                notes.append(f"{alone} edges of the {part} part have no other candidate and are not ranked")
        asked[part] = ranked_pairs(lists[part], n_receiver)
    if given is None:
        notes.append(f"an edge is ranked among {n_candidates} nodes its sender has no edge to, drawn once")
    else:
        notes.append(f"an edge is ranked among the receivers of {candidates} that its sender has no edge to")
    negatives = given and _negatives_of_sources(given, seen, len(graph.nodes[target[0]]), n_receiver)
    task = LinkTask(target, score, loss)
    return _finished(
        graph, task, rows, None, passing, asked, negatives, notes, candidates=lists, seen=seen, opposite=opposite
    )


def _finished(
    graph,
    task,
    rows,
    labels,
    passing,
    asked,
    negatives,
    notes,
    *,
    candidates=None,
    scale=None,
    seen=None,
    opposite=None,
) -> TaskData:
    for name, nodes in graph.nodes.items():
        if nodes.texts is not None and nodes.features is not None:
            notes.append(f"the features of {name} enter networks beside its texts, as they are; rows on texts do not")
    return TaskData(
        graph=graph,
        task=task,
        rows=rows,
        labels=labels,
        passing=passing,
        layout=build_hetero_layout(passing, graph.n_node),
        seen=seen,
        opposite=opposite,
        edge_types=with_reverses(passing),
        asked=asked,
        negatives=negatives,
        candidates=candidates or {},
        scale=scale,
        notes=tuple(notes),
    )


def _scale(values: np.ndarray, target: str) -> Scale:
    """By the training values [n]: the outputs of a network begin near 0 and go a few units far."""
    if values.min() == values.max():
        raise DataError(f"all training values of {target} are {values[0]:g}", mend="give another split or other values")
    return Scale(np.array([values.mean(dtype=np.float64)]), np.array([values.std(dtype=np.float64)]))


def _pairs(edges: EdgeSet) -> np.ndarray:
    """A number for every edge, the same for both directions: what one says is no secret once the other is known."""
    low, high = np.minimum(edges.senders, edges.receivers), np.maximum(edges.senders, edges.receivers)
    return low.astype(np.int64) * (int(high.max(initial=0)) + 1) + high


def _parts(
    given: np.ndarray | None,
    labelled: np.ndarray,
    shares: tuple[float, float, float],
    notes: list[str],
    together: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Part → sorted rows: as given, or drawn once; those with the same number in ``together`` [n] in one part."""
    if given is None:
        at = np.flatnonzero(labelled)
        groups, group = np.unique(at if together is None else together[at], return_inverse=True)
        order = np.random.default_rng(0).permutation(len(groups))
        ends = np.round(np.cumsum(shares) * len(order)).astype(int)
        part_of = np.empty(len(groups), int)
        for part, drawn in enumerate(np.split(order, ends[:2])):
            part_of[drawn] = part
        found = [at[part_of[group] == part] for part in range(len(PARTS))]
        notes.append("the data gives no split: one was drawn at random, the same for all seeds")
    else:
        found = [np.flatnonzero((given == part) & labelled) for part in PARTS]
    rows = {part: np.sort(at).astype(np.int32) for part, at in zip(PARTS, found, strict=True)}
    for part, at in rows.items():
        if not len(at):
            raise DataError(f"the {part} part of the split is empty", mend="label more, or give another split")
    return rows


def _resolved(graph: HeteroGraph, target: EdgeType, rows: Mapping[str, np.ndarray]) -> str:
    """A relation that holds every edge of the task, and leaves some in each part with others beside; or uniform."""
    size, edges = len(graph.nodes[target[2]]), graph.edges[target]
    asked = edges.senders.astype(np.int64) * size + edges.receivers
    for kind, others in graph.edges.items():
        if kind == target or (kind[0], kind[2]) != (target[0], target[2]):
            continue
        pairs = others.senders.astype(np.int64) * size + others.receivers
        left = np.setdiff1d(pairs, asked) // size
        if np.isin(asked, pairs).all() and all(np.isin(edges.senders[rows[part]], left).any() for part in PARTS[1:]):
            return kind[1]
    return "uniform"


def _opposites(senders: np.ndarray, receivers: np.ndarray) -> np.ndarray:
    """[e] position of the edge that leads back, −1 where there is none; of a loop its own."""
    size = int(max(senders.max(initial=0), receivers.max(initial=0))) + 1
    pairs, back = senders.astype(np.int64) * size + receivers, receivers.astype(np.int64) * size + senders
    order = np.argsort(pairs)
    place = order[np.minimum(np.searchsorted(pairs[order], back), len(pairs) - 1)]
    return np.where(pairs[place] == back, place, -1).astype(np.int32)


def _unasked(edges: EdgeSet, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Positions of the edges that nothing is asked of: as much a part of the graph as other relations are.

    Those that a given split names for validation or test are none of them, with a label or without.
    """
    free = np.ones(len(edges), bool) if edges.given_split is None else ~np.isin(edges.given_split, PARTS[1:])
    free[np.concatenate(list(rows.values()))] = False
    return np.flatnonzero(free).astype(np.int32)


def _given(graph: HeteroGraph, target: EdgeType, candidates: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Senders and receivers of the relation that is named."""
    if candidates == "uniform":
        return None
    kind = (target[0], candidates, target[2])
    if kind not in graph.edges or kind == target:
        what = f"there is no other relation {shown_type(kind)} for candidates"
        raise ConfigError(what, field="--candidates", mend="name one, or use uniform")
    return graph.edges[kind].senders, graph.edges[kind].receivers


def _negatives_of_sources(
    given: tuple[np.ndarray, np.ndarray], seen: tuple[np.ndarray, np.ndarray], n_source: int, n_receiver: int
) -> tuple[np.ndarray, np.ndarray]:
    pairs, edges = (ends[0].astype(np.int64) * n_receiver + ends[1] for ends in (given, seen))
    left = np.setdiff1d(pairs, edges)
    starts = np.searchsorted(left, np.arange(n_source + 1) * n_receiver)
    return starts.astype(np.int32), (left % n_receiver).astype(np.int32)


def labelled_by(data: TaskData, task: NodeTask, logits: np.ndarray, weight: float) -> Nodes:
    """Nodes of the training part with their labels, and the others with another network's probabilities.

    Those of no weight are left out: a batch of them alone would have no mean.
    ``(1 − w) mean CE(labels) + w mean CE(probabilities)`` (Zhao et al., GLEM, arXiv 2210.14709, equations 7 and 10).
    """
    n = len(logits)
    targets = np.array(jax.nn.softmax(logits), np.float32)
    weights = np.full(n, weight * n / max(1, n - len(data.rows["train"])), np.float32)
    targets[data.rows["train"]] = np.asarray(data.asked["train"].targets)
    weights[data.rows["train"]] = (1.0 - weight) * n / len(data.rows["train"])
    asked = np.flatnonzero(weights)
    return Nodes(jnp.asarray(asked), jnp.asarray(targets[asked]), jnp.asarray(weights[asked]))


def ranked_pairs(candidates: Candidates, n_receiver: int) -> RankedPairs:
    """Pairs that several edges are ranked among are scored once; an edge without candidates is left out."""
    owner = np.repeat(np.arange(len(candidates)), np.diff(candidates.start))
    positive = (candidates.sources.astype(np.int64) * n_receiver + candidates.targets)[candidates.ranked]
    others = candidates.sources[owner].astype(np.int64) * n_receiver + candidates.nodes
    pairs, place = np.unique(np.concatenate([positive, others]), return_inverse=True)
    starts = np.concatenate([candidates.start[:-1][candidates.ranked], candidates.start[-1:]])
    arrays = (pairs // n_receiver, pairs % n_receiver, place[: len(positive)], place[len(positive) :], starts)
    return RankedPairs(*(jnp.asarray(values, jnp.int32) for values in arrays))
