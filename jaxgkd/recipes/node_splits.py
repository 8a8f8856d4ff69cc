"""The splits of all seeds of a run, as the arrays that training reads: one row a seed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgkd.data.splits import Split, SplitKind, few_shot, make_split, save_split, training_edges
from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.errors import DataError
from jaxgkd.graphs import Layout, build_layout, undirected
from jaxgkd.graphs.neighbourhoods import parts


@dataclass(frozen=True, eq=False)
class NodeSplits:
    """Splits of one graph for several seeds.

    Inductive splits hide the test nodes' edges while training. Layouts of different seeds then differ in their number
    of edges; they are filled up with edges from an extra last row to itself, so that all have one shape.

    Fields:
      seeds: [s]; splits: one a seed.
      n_rows: nodes n, plus the extra row of inductive splits.
      labels: [s, n_rows] int32, −1 unlabelled; train, valid, test: [s, n_rows] bool.
      visible: [s, n_rows] bool, nodes that are there while training.
      senders, receivers: [e] edges of the whole graph in both directions.
      train_layouts: layouts with [s, …] leaves, or None where training sees the whole graph.
    """

    seeds: list[int]
    splits: tuple[Split, ...]
    n_classes: int
    n_rows: int
    labels: np.ndarray
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    visible: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    train_layouts: Layout | None

    @property
    def n_node(self) -> int:
        """Nodes of the graph."""
        return self.n_rows - (self.train_layouts is not None)

    def pad(self, values: np.ndarray) -> np.ndarray:
        """[n, …] → [n_rows, …], the extra row filled with zeros."""
        return np.pad(values, [(0, self.n_rows - len(values)), *[(0, 0)] * (values.ndim - 1)])

    def save(self, folder: Path) -> None:
        """Write every split as JSON below ``folder/splits``."""
        (folder / "splits").mkdir(exist_ok=True)
        for seed, split in zip(self.seeds, self.splits, strict=True):
            save_split(split, folder / "splits" / f"seed-{seed}.json")

    def part_layout(self, n_parts: int) -> Layout:
        """From nodes to the connected parts of the graph; nodes in no part have no edge."""
        number = parts(self.senders, self.receivers, self.n_node, n_parts, seed=0)
        inside = np.flatnonzero(number >= 0)
        return build_layout(inside, number[inside], min(n_parts, self.n_node), n_senders=self.n_rows)

    def run_data(self, class_weights: Literal["none", "balanced"]) -> dict[str, Any]:
        """What `jaxgkd.nn.node_problem.node_problem` wants of every seed, without settings."""
        weights = np.ones((len(self.seeds), self.n_classes))
        if class_weights == "balanced":
            counts = np.stack(
                [np.bincount(y[m], minlength=self.n_classes) for y, m in zip(self.labels, self.train, strict=True)]
            )
            weights = counts.sum(axis=1, keepdims=True) / (self.n_classes * np.maximum(counts, 1))
        data: dict[str, Any] = {
            "train": jnp.asarray(self.train),
            "valid": jnp.asarray(self.valid),
            "labels": jnp.asarray(self.labels),
            "class_weights": jnp.asarray(weights, jnp.float32),
        }
        if self.train_layouts is not None:
            data["train_layout"] = data["valid_layout"] = self.train_layouts
            data["train_nodes"] = jnp.asarray(self.visible)
        return data


def draw_splits(
    graph: TextGraph, kind: SplitKind, seeds: list[int], *, shots: int = 0, protocol: str = "clean"
) -> NodeSplits:
    """One split a seed.

    Args:
      graph: the data; kind: see `jaxgkd.data.splits.make_split`.
      seeds: of the splits and of what is kept in few-shot runs.
      shots: training labels a class that are kept; 0 keeps all.
      protocol: ``paper`` selects on the test nodes, as published.

    Raises:
      DataError: the split cannot be drawn.
    """
    splits = [make_split(graph, kind, seed) for seed in seeds]
    if shots:
        splits = [
            few_shot(s, graph.labels, shots, seed, graph.class_names) for s, seed in zip(splits, seeds, strict=True)
        ]
    inductive = splits[0].inductive
    n_rows = graph.n_node + inductive
    masks = np.zeros((3, len(seeds), n_rows), bool)
    for i, split in enumerate(splits):
        masks[0, i, split.train] = masks[1, i, split.valid] = masks[2, i, split.test] = True
    visible = np.zeros((len(seeds), n_rows), bool)
    visible[:, : graph.n_node] = True
    senders, receivers = undirected(graph.senders, graph.receivers)
    layouts = None
    if inductive:
        visible &= ~masks[2]
        seen = [undirected(graph.senders[m], graph.receivers[m]) for m in (training_edges(graph, s) for s in splits)]
        layouts = _stacked(seen, n_rows)
    labels = np.full((len(seeds), n_rows), -1, np.int32)
    labels[:, : graph.n_node] = graph.labels
    return NodeSplits(
        seeds=seeds,
        splits=tuple(splits),
        n_classes=len(graph.class_names),
        n_rows=n_rows,
        labels=labels,
        train=masks[0],
        valid=masks[2] if protocol == "paper" else masks[1],
        test=masks[2],
        visible=visible,
        senders=senders,
        receivers=receivers,
        train_layouts=layouts,
    )


def pseudo_labelled(splits: NodeSplits, probabilities: np.ndarray, share: float = 0.3) -> NodeSplits:
    """Replace labels by a teacher's own confident predictions, for training and for validation.

    The ``share`` most confident nodes of every predicted class are kept, three quarters of them for training. Test
    nodes keep their true labels, which only score.

    Args:
      splits: with true labels; probabilities: [n, classes] of a teacher that saw none.

    Raises:
      DataError: the teacher predicts no node of some class.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    labels, train, valid = (array.copy() for array in (splits.labels, splits.train, splits.valid))
    for i, seed in enumerate(splits.seeds):
        train[i], valid[i] = False, False
        labels[i] = np.where(splits.test[i], splits.labels[i], -1)
        for c in range(splits.n_classes):
            rows = np.flatnonzero((predicted == c) & ~splits.test[i, : len(predicted)])
            if len(rows) < 2:
                raise DataError(
                    f"the teacher predicts class {c} for {len(rows)} nodes",
                    mend="give classes names in words, or use labels",
                )
            rows = rows[np.argsort(-confidence[rows], kind="stable")][: max(2, int(share * len(rows)))]
            rows = np.random.default_rng([seed, c]).permutation(rows)
            held = max(1, len(rows) // 4)
            labels[i, rows] = c
            valid[i, rows[:held]] = True
            train[i, rows[held:]] = True
    return replace(splits, labels=labels, train=train, valid=valid)


def _stacked(edges: list[tuple[np.ndarray, np.ndarray]], n_rows: int) -> Layout:
    longest = max(len(senders) for senders, _ in edges) + 1
    fill = lambda ends: np.r_[ends, np.full(longest - len(ends), n_rows - 1, np.int32)]  # noqa: E731
    layouts = [build_layout(fill(senders), fill(receivers), n_rows) for senders, receivers in edges]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layouts)
