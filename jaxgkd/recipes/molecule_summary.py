"""What a run over molecules leaves behind: curves, predictions and ``summary.json``."""

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgkd.data.molecule_sets import unit_of
from jaxgkd.data.molecules import Molecules
from jaxgkd.data.splits import Split
from jaxgkd.recipes.molecule_baselines import BASELINES
from jaxgkd.recipes.molecule_rows import MoleculeData, Trained
from jaxgkd.training.run_dir import RunDirectory, read_json
from jaxgkd.training.statistics import paired_difference
from jaxgkd.training.summary import write_summary

_PARTS = ("train", "valid", "test")


def write_molecule_run(
    run_dir: RunDirectory,
    *,
    data: MoleculeData,
    splits: Sequence[Split],
    teachers: Sequence[Trained],
    students: Sequence[Trained],
    members: int,
    embedding: np.ndarray,
    chosen: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, str],
    baselines: Sequence[str],
    describe: Mapping[str, Any],
    cost: Mapping[str, float | None],
    notes: list[str],
) -> None:
    """Write ``metrics.jsonl``, ``predictions.npz`` and, last, ``summary.json``.

    Args:
      run_dir: the folder of the run.
      data, splits: what was learned from, a split a seed.
      teachers: of every seed; students: of every seed, the members of the first row first.
      members: students of a row and seed, whose predictions are averaged.
      embedding: [n, d] states of all molecules, of the first seed's distilled student.
      chosen: row of students → its settings; labels: row → its name for people.
      baselines: rows that are computed here.
      describe: ``recipe``, ``protocol``, ``teacher``, ``student`` and ``split`` of the summary.
      cost: parameters and ms per item.
      notes: sentences for the report.
    """
    rows = list(chosen)
    targets, molecules, seeds = data.targets, data.molecules, list(range(len(splits)))
    run_dir.write_lines("metrics.jsonl", _lines(rows, members, teachers, students))
    answers: dict[str, np.ndarray] = {"teacher": np.stack([one.predictions[0] for one in teachers])}
    spread = {}
    for number, row in enumerate(rows):
        of_row = [one.predictions[number * members : (number + 1) * members] for one in students]
        answers[row] = np.stack([values.mean(axis=0) for values in of_row])
        spread[row] = np.stack([values.std(axis=0) for values in of_row])
    not_run: dict[str, dict[str, str]] = {}
    for name in baselines:
        found = []
        for seed, split in enumerate(splits):
            predicted = BASELINES[name](molecules, split, targets.labels, seed)
            if isinstance(predicted, dict):
                not_run[name] = predicted
                break
            found.append(predicted)
        else:
            answers[name] = np.stack(found)
    part = np.zeros((len(splits), len(molecules)), np.uint8)
    for seed, split in enumerate(splits):
        for number, name in enumerate(_PARTS, 1):
            part[seed, getattr(split, name)] = number
    run_dir.write_arrays(
        "predictions.npz",
        {
            "labels": targets.labels,
            "split": part,
            "size": molecules.n_atom,
            "embedding": embedding.astype(np.float16),
            **{f"pred/{name}": values.astype(np.float32) for name, values in answers.items()},
            **({f"std/{name}": values.astype(np.float32) for name, values in spread.items()} if members > 1 else {}),
        },
    )
    results: dict[str, dict[str, Any]] = {}
    for name, values in answers.items():
        results[name] = {"label": labels.get(name, _BASELINE_LABELS.get(name, name))} | {
            which: [
                _plain(targets.score(one, getattr(split, which))) for one, split in zip(values, splits, strict=True)
            ]
            for which in ("valid", "test")
        }
    results |= {name: {"label": _BASELINE_LABELS[name], **why} for name, why in not_run.items()}
    results["teacher"] |= {"parameters": cost["teacher_parameters"], "ms_per_item": cost["teacher_ms_per_item"]}
    for number, row in enumerate(rows):
        results[row] |= {
            "parameters": members * (cost["student_parameters"] or 0),
            "ms_per_item": members * (cost["student_ms_per_item"] or 0),
            "best_epoch": [one.best_epoch[number * members : (number + 1) * members].tolist() for one in students],
            "settings": {key: value for key, value in chosen[row].items() if key != "row"},
        }
    environment = read_json(run_dir.path / "environment.json")
    unit = unit_of(molecules) if targets.metric in ("mae", "rmse") else None
    summary = {
        **{key: describe[key] for key in ("recipe", "protocol", "teacher", "student")},
        "data": {
            **describe_molecules(molecules),
            "split": describe["split"],
            "items": "molecules",
            "split_sha256": [split.sha256 for split in splits],
        },
        "metric": targets.metric,
        "higher_is_better": targets.higher_is_better,
        **({"unit": unit} if unit else {}),
        "seeds": seeds,
        "results": results,
        "difference": paired_difference(results["student_distilled"]["test"], results["student_alone"]["test"]),
        "cost": {
            **cost,
            "train_seconds": sum(one.seconds for one in (*teachers, *students)),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            / (1024 if sys.platform == "linux" else 1024**2),
        },
        "versions": environment["versions"],
        "command": environment["command"],
        "notes": notes,
    }
    write_summary(run_dir.path / "summary.json", summary)


def describe_molecules(molecules: Molecules) -> dict[str, Any]:
    """Counts for a report."""
    n_atom = molecules.n_atom
    return {
        "name": molecules.name,
        "sha256": molecules.sha256,
        "molecules": len(molecules),
        "records": molecules.n_record,
        "left_out": molecules.n_record - len(molecules),
        "atoms": [int(n_atom.min()), float(n_atom.mean()), int(n_atom.max())],
        "hydrogens": molecules.hydrogens,
        "tasks": [task.name for task in molecules.tasks],
        "labelled": (~np.isnan(molecules.labels)).sum(axis=0).tolist(),
        "with_coordinates": int(np.sum(molecules.placed)),
        "notes": list(molecules.notes),
    }


_BASELINE_LABELS = {
    "mean": "mean of the training labels",
    "composition": "ridge on counts of elements",
    "ecfp_forest": "random forest on ECFP4",
}


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _lines(
    rows: Sequence[str], members: int, teachers: Sequence[Trained], students: Sequence[Trained]
) -> Iterator[dict[str, Any]]:
    """One line a row, seed and epoch, the mean over the members of a row."""
    for seed, (teacher, student) in enumerate(zip(teachers, students, strict=True)):
        of_rows = {"teacher": teacher.curves}
        for number, row in enumerate(rows):
            mine = slice(number * members, (number + 1) * members)
            of_rows[row] = {name: values[mine].mean(axis=0, keepdims=True) for name, values in student.curves.items()}
        for row, curves in of_rows.items():
            for epoch in range(curves["valid"].shape[1]):
                values = {name: float(values[0, epoch]) for name, values in curves.items()}
                yield {"row": row, "seed": seed, "epoch": epoch + 1, **values}
