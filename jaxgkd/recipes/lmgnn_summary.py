"""What a run over a heterogeneous graph leaves behind: curves, predictions and ``summary.json``."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgkd.data.hetero_graphs import describe_hetero, shown_type
from jaxgkd.nn.hetero_tasks import EdgeTask, NodeTask
from jaxgkd.recipes.kept_hetero import keep_hetero_student, keep_text_student
from jaxgkd.recipes.lmgnn_config import LMGNN
from jaxgkd.recipes.lmgnn_data import PARTS
from jaxgkd.recipes.lmgnn_networks import Workplace
from jaxgkd.recipes.lmgnn_rows import STAGED, HeteroRow
from jaxgkd.recipes.lmgnn_scores import EVALUATED, baselines, degrees_of, metric_of, scores
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.training.memory import peak_memory_mb
from jaxgkd.training.run_dir import RunDirectory, read_json
from jaxgkd.training.statistics import paired_difference
from jaxgkd.training.student_folder import TEXT_FOLDER, write_student
from jaxgkd.training.summary import write_summary
from jaxgkd.training.timing import median_milliseconds

_TIMED = 32


def write_hetero_run(
    run_dir: RunDirectory,
    *,
    config: LMGNN,
    place: Workplace,
    rows: Mapping[str, HeteroRow],
    encoder: TextEncoder,
    table: np.ndarray,
    read_seconds: float,
    n_links: int | None,
    started: float,
) -> None:
    """Write ``metrics.jsonl``, ``predictions.npz`` and, last, ``summary.json``.

    Args:
      run_dir: the folder of the run; config: its settings; place: what its rows shared.
      rows: what was trained.
      encoder: the language model; table: [texts, d] its embeddings, untouched; read_seconds: what they took.
      n_links: pairs of texts that stage 1 asked for; None where it asked for the task alone.
      started: when the run began, by ``time.perf_counter``.
    """
    data, (metric, higher) = place.data, metric_of(place.data)
    run_dir.write_lines("metrics.jsonl", _lines(rows))
    results = {name: _result(place, row, metric) for name, row in rows.items()}
    if "teacher" in results:
        # It falls back on what the language model costs.
        del results["teacher"]["ms_per_item"]
    staged = _best(results, higher)
    if staged is not None:
        results["student_distilled"] = {
            **results[staged],
            "label": f"best: {rows[staged].label}",
            "row": staged,
        }
    else:
        results["student_distilled"] = {**results["student_alone"], "label": "no stage asked for", "row": "none"}
        results["teacher"] = {**results["text_only"]}
    embeddings = {name: np.asarray(values) for name, values in place.texts.by_type(jnp.asarray(table)).items()}
    for name, (label, found) in baselines(data, embeddings).items():
        values = {part: [found[part][metric]] * config.seeds for part in EVALUATED}
        metrics = {key: {part: [found[part][key]] * config.seeds for part in EVALUATED} for key in found["test"]}
        results[name] = {"label": label, **values, "metrics": metrics}
    differences = {
        name: paired_difference(results[name]["test"], results["student_alone"]["test"])
        for name in rows
        if name != "student_alone"
    }
    _write_predictions(run_dir, place, rows, staged or "student_alone")
    row, valid = rows[staged or "student_alone"], results["student_distilled"]["valid"]
    kept = keep_hetero_student(row, valid, higher_is_better=higher, place=place, config=config, encoder=encoder)
    write_student(run_dir.path, kept)
    if "text_student" in rows:
        valid = results["text_student"]["valid"]
        kept = keep_text_student(rows["text_student"], valid, place=place, config=config, encoder=encoder)
        write_student(run_dir.path, kept, TEXT_FOLDER)
    lm_parameters = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(encoder.model.weights()))
    alone = rows["student_alone"]
    n_node = sum(data.graph.n_node.values())
    environment = read_json(run_dir.path / "environment.json")
    counts = {part: len(data.rows[part]) for part in PARTS}
    target = data.task.node_type if isinstance(data.task, NodeTask) else shown_type(data.task.edge_type)
    cut = place.texts.states.tokens.n_truncated
    summary = {
        "recipe": "lmgnn",
        "data": {
            **describe_hetero(data.graph),
            "split": f"{counts['train']:,}/{counts['valid']:,}/{counts['test']:,} {target}",
            "items": "nodes" if isinstance(data.task, NodeTask) else "edges",
            "split_sha256": data.split_sha256,
            "candidates_sha256": {part: listed.sha256 for part, listed in data.candidates.items()},
        },
        "protocol": "clean: settings, epochs and the staged row are chosen on validation, test is scored once; edges "
        "that validate or test pass no messages, and training edges none in the step that asks for them or, where the "
        "split was drawn, for the one that leads back",
        "teacher": {"name": encoder.name, "tuned_layers": config.tuned_layers, "max_tokens": config.max_tokens},
        "student": {"name": config.encoder.upper(), "layers": config.layers, "width": config.width},
        "treatment": {
            "name": "Fine-tuning the language model",
            "student": "The GNN" if staged is None else f"The best of the stages ({rows[staged].label})",
            "having": "fine-tuned",
            "lacking": "frozen",
            **({"missing": "No language model was fine-tuned"} if staged is None else {}),
        },
        "metric": metric,
        "higher_is_better": higher,
        "seeds": list(range(config.seeds)),
        "results": results,
        "difference": paired_difference(results["student_distilled"]["test"], results["student_alone"]["test"]),
        "differences": differences,
        "cost": {
            "teacher_parameters": lm_parameters,
            "student_parameters": alone.parameters,
            "teacher_ms_per_item": _milliseconds_per_text(place),
            "student_ms_per_item": None if alone.milliseconds is None else alone.milliseconds / n_node,
            "extract_seconds": read_seconds + float(place.texts.states.store.report.get("seconds", 0.0)),
            "train_seconds": sum(row.seconds for row in rows.values()),
            "peak_memory_mb": peak_memory_mb(),
        },
        "seconds": time.perf_counter() - started,
        "versions": environment["versions"],
        "command": environment["command"],
        "notes": [
            *data.graph.notes,
            *data.notes,
            f"{cut:,} of {place.texts.n_texts:,} texts cut to {config.max_tokens} tokens",
            "best is the staged row with the best validation score; text, taught by GNN, imitates the GNN on tuned LM, "
            "and that GNN, no links, is asked of nodes without any",
            "times of rows with a GNN, and of heads, are of the network alone, the embeddings of all texts at hand",
            f"the language model is trained for {config.lm_seeds if config.stages else 0} of {config.seeds} seeds",
            *([] if n_links is None else [f"stage 1 asked which texts are linked: {n_links:,} pairs are"]),
        ],
    }
    write_summary(run_dir.path / "summary.json", summary)


def _result(place: Workplace, row: HeteroRow, metric: str) -> dict[str, Any]:
    found = [
        None if said is None else {part: scores(place.data, part, said[part]) for part in EVALUATED}
        for said in row.outputs
    ]
    names = next(each for each in found if each is not None)["test"]
    metrics = {
        name: {part: [None if each is None else each[part][name] for each in found] for part in EVALUATED}
        for name in names
    }
    n_node = sum(place.data.graph.n_node.values())
    return {
        "label": row.label,
        **metrics[metric],
        "metrics": metrics,
        "parameters": row.parameters,
        "seconds": row.seconds,
        "settings": dict(row.settings),
        # Networks whose language model is tuned with them read every text: what they cost alone is not that.
        "ms_per_item": None if row.milliseconds is None else row.milliseconds / n_node,
        **({} if row.step_milliseconds is None else {"lm_step_milliseconds": row.step_milliseconds}),
    }


def _best(results: Mapping[str, Any], higher: bool) -> str | None:
    """The staged row with the best mean on validation."""
    sign = 1.0 if higher else -1.0
    means = {
        name: sign * float(np.mean([value for value in results[name]["valid"] if value is not None]))
        for name in STAGED
        if name in results
    }
    return max(means, key=lambda name: means[name]) if means else None


def _write_predictions(run_dir: RunDirectory, place: Workplace, rows: Mapping[str, HeteroRow], distilled: str) -> None:
    """Of nodes and edges: what every row says in the parts, −1 or NaN elsewhere and of seeds that have no such row."""
    data = place.data
    if not isinstance(data.task, NodeTask | EdgeTask) or data.labels is None:
        return
    classes = data.labels.dtype.kind == "i"
    n, n_seed = len(data.labels), len(rows["student_alone"].outputs)
    part = np.zeros((n_seed, n), np.uint8)
    for number, name in enumerate(PARTS, 1):
        part[:, data.rows[name]] = number
    arrays: dict[str, np.ndarray] = {"labels": data.labels, "split": part}
    if isinstance(data.task, NodeTask):
        arrays["degree"] = degrees_of(data, data.task.node_type).astype(np.int64)
    for name, row in {**rows, "student_distilled": rows[distilled]}.items():
        said = np.full((n_seed, n), -1, np.int16) if classes else np.full((n_seed, n), np.nan, np.float32)
        for seed, outputs in enumerate(row.outputs):
            for which, values in ({} if outputs is None else outputs).items():
                said[seed, data.rows[which]] = values.argmax(axis=1) if classes else values[:, 0]
        arrays[f"pred/{name}"] = said
    run_dir.write_arrays("predictions.npz", arrays)


def _lines(rows: Mapping[str, HeteroRow]) -> Iterator[dict[str, Any]]:
    for name, row in rows.items():
        for seed, curve in enumerate(row.curves):
            for step, value in curve.items():
                yield {"row": name, "seed": seed, "epoch": step, "valid": value}


def _milliseconds_per_text(place: Workplace) -> float:
    """Of the trained layers alone: those below are run once for all stages."""
    texts = place.texts
    rows = np.unique(np.linspace(0, texts.n_texts - 1, _TIMED).astype(int))
    return median_milliseconds(lambda: texts.read(texts.weights, rows), passes=5) / len(rows)
