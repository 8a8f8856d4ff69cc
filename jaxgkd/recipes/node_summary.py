"""What a run over one graph leaves behind: curves, predictions and ``summary.json``."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jraph import GraphsTuple

from jaxgkd.data import registry
from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.graphs import Layout
from jaxgkd.recipes.node_rows import Row
from jaxgkd.recipes.node_splits import NodeSplits
from jaxgkd.teachers.heads import HeadEnsemble
from jaxgkd.training.memory import peak_memory_mb
from jaxgkd.training.run_dir import RunDirectory, read_json
from jaxgkd.training.statistics import paired_difference
from jaxgkd.training.summary import write_summary

TRAIN, VALID, TEST = 1, 2, 3


def write_run(
    run_dir: RunDirectory,
    *,
    graph: TextGraph,
    splits: NodeSplits,
    rows: Mapping[str, Row],
    labels: Mapping[str, str],
    heads: HeadEnsemble,
    describe: Mapping[str, Any],
    cost: Mapping[str, float | None],
    notes: list[str],
) -> None:
    """Write ``metrics.jsonl``, ``predictions.npz`` and, last, ``summary.json``.

    Args:
      run_dir: the folder of the run.
      graph, splits: what was learned from.
      rows: the students, ``student_alone`` and ``student_distilled`` among them.
      labels: row → its name for people.
      heads: what the teacher says.
      describe: ``recipe``, ``protocol``, ``teacher``, ``student`` and ``split`` of the summary.
      cost: the teacher's parameters and ms per item, and seconds.
      notes: sentences for the report.
    """
    n, n_node = len(splits.seeds), splits.n_node
    run_dir.write_lines("metrics.jsonl", _lines(splits.seeds, rows))
    answers = {"teacher": np.exp(heads.log_probs), **{name: row.probabilities for name, row in rows.items()}}
    predicted = {name: values[:, :n_node].argmax(axis=-1).astype(np.int16) for name, values in answers.items()}
    part = np.zeros((n, n_node), np.uint8)
    for number, mask in ((TRAIN, splits.train), (VALID, splits.valid), (TEST, splits.test)):
        part[mask[:, :n_node]] = number
    run_dir.write_arrays(
        "predictions.npz",
        {
            "labels": graph.labels,
            "degree": np.bincount(splits.receivers, minlength=n_node),
            "split": part,
            "embedding": rows["student_distilled"].hidden[:n_node].astype(np.float16),
            **{f"pred/{name}": values for name, values in predicted.items()},
        },
    )
    alone, distilled = rows["student_alone"], rows["student_distilled"]
    results: dict[str, dict[str, Any]] = {}
    for name, values in predicted.items():
        right = values == graph.labels
        results[name] = {
            "label": labels[name],
            "valid": _share(values == splits.labels[:, :n_node], splits.valid[:, :n_node]),
            "test": _share(right, splits.test[:, :n_node]),
            "per_class": [
                [_mean(r[m & (graph.labels == c)]) for c in range(len(graph.class_names))]
                for r, m in zip(right, splits.test[:, :n_node], strict=True)
            ],
        }
    for name, row in rows.items():
        results[name] |= {
            "parameters": row.parameters,
            "ms_per_item": row.milliseconds / n_node,
            "epochs_to_reach": epochs_to_reach(row, alone),
            "best_epoch": row.best_epoch.tolist(),
            "settings": row.settings,
        }
    results["teacher"] |= {"parameters": cost["teacher_parameters"], "ms_per_item": cost["teacher_ms_per_item"]}
    difference = paired_difference(results["student_distilled"]["test"], results["student_alone"]["test"])
    environment = read_json(run_dir.path / "environment.json")
    summary = {
        **{key: describe[key] for key in ("recipe", "protocol", "teacher", "student")},
        "data": {
            **registry.describe(graph),
            "split": describe["split"],
            "items": "nodes",
            "split_sha256": [s.sha256 for s in splits.splits],
        },
        "metric": "accuracy",
        "higher_is_better": True,
        "seeds": splits.seeds,
        "results": results,
        "difference": difference,
        "cost": {
            **cost,
            "student_parameters": distilled.parameters,
            "student_ms_per_item": distilled.milliseconds / n_node,
            "train_seconds": sum(row.seconds for row in rows.values()),
            "peak_memory_mb": peak_memory_mb(),
        },
        "versions": environment["versions"],
        "command": environment["command"],
        "notes": notes,
    }
    write_summary(run_dir.path / "summary.json", summary)


def epochs_to_reach(row: Row, alone: Row) -> list[int | None]:
    """For every seed the first epoch at which a row's validation score is at least the plain student's best."""
    reached = []
    for curve, goal in zip(row.curves["valid"], np.nanmax(alone.curves["valid"], axis=1), strict=True):
        there = np.flatnonzero(curve >= goal)
        reached.append(int(row.epochs[there[0]]) if len(there) else None)
    return reached


def milliseconds_of_heads(heads: HeadEnsemble, graph: GraphsTuple, layout: Layout) -> float:
    """Median time of the teacher's heads over the whole graph, compiled before."""
    predict = heads.predictor(graph, layout)
    jax.block_until_ready(predict())
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        jax.block_until_ready(predict())
        times.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(times))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _share(right: np.ndarray, mask: np.ndarray) -> list[float]:
    return [float(r[m].mean()) for r, m in zip(right, mask, strict=True)]


def _lines(seeds: list[int], rows: Mapping[str, Row]):
    for name, row in rows.items():
        for i, seed in enumerate(seeds):
            for k, epoch in enumerate(row.epochs):
                values = {key: float(curve[i, k]) for key, curve in row.curves.items() if np.isfinite(curve[i, k])}
                if "valid" in values:
                    yield {"row": name, "seed": seed, "epoch": int(epoch), **values}
