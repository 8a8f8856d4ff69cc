"""What a run over molecules leaves behind: curves, predictions and ``summary.json``."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgkd.data.molecule_sets import unit_of
from jaxgkd.data.molecules import Molecules
from jaxgkd.data.splits import Split
from jaxgkd.recipes.molecule_baselines import BASELINES
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.training.memory import peak_memory_mb
from jaxgkd.training.run_dir import RunDirectory, read_json
from jaxgkd.training.statistics import paired_difference
from jaxgkd.training.summary import write_summary

_PARTS = ("train", "valid", "test")


class Row(NamedTuple):
    """What one row of a table comes down to.

    Fields:
      predictions: [seeds, n, t] probabilities or numbers in the unit of the data, NaN where there is none.
      label: for people.
      extras: what the row of the summary holds besides, such as ``parameters`` and ``settings``.
      spread: [seeds, n, t] standard deviation over the members of an ensemble, or None.
    """

    predictions: np.ndarray
    label: str
    extras: Mapping[str, Any] = {}
    spread: np.ndarray | None = None


def write_molecule_run(
    run_dir: RunDirectory,
    *,
    molecules: Molecules,
    targets: Targets,
    splits: Sequence[Split],
    rows: Mapping[str, Row],
    baselines: Sequence[str],
    lines: Iterator[Mapping[str, Any]],
    embedding: np.ndarray,
    describe: Mapping[str, Any],
    cost: Mapping[str, float | None],
    notes: list[str],
    offsets: Sequence[np.ndarray] | None = None,
) -> None:
    """Write ``metrics.jsonl``, ``predictions.npz`` and, last, ``summary.json``.

    Args:
      run_dir: the folder of the run.
      molecules: n of them; targets: of these; splits: one a seed.
      rows: by name, teacher and students among them.
      baselines: rows that are computed here.
      lines: of ``metrics.jsonl``.
      embedding: [n, d] states of all molecules, of the first seed's distilled student.
      describe: ``recipe``, ``protocol``, ``teacher``, ``student`` and ``split`` of the summary.
      cost: ms per item, parameters and seconds; the peak of memory is added.
      notes: sentences for the report.
      offsets: [n, t] a seed, what networks count labels from, and so the forest does.
    """
    run_dir.write_lines("metrics.jsonl", lines)
    rows = dict(rows)
    not_run: dict[str, dict[str, str]] = {}
    for name in baselines:
        found = []
        counts_from = offsets if name == "ecfp_forest" else None
        for seed, split in enumerate(splits):
            offset = counts_from[seed] if counts_from else 0.0
            predicted = BASELINES[name](molecules, split, targets.labels - offset, seed)
            if isinstance(predicted, dict):
                not_run[name] = {"label": _BASELINE_LABELS[name], **predicted}
                break
            found.append(predicted + offset)
        else:
            counted = ", counted from that ridge" if counts_from else ""
            rows[name] = Row(np.stack(found), _BASELINE_LABELS[name] + counted)
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
            **{f"pred/{name}": row.predictions.astype(np.float32) for name, row in rows.items()},
            **{f"std/{name}": row.spread.astype(np.float32) for name, row in rows.items() if row.spread is not None},
        },
    )
    results: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        scores = {
            which: [
                _plain(targets.score(one, getattr(split, which)))
                for one, split in zip(row.predictions, splits, strict=True)
            ]
            for which in ("valid", "test")
        }
        results[name] = {"label": row.label, **scores, **row.extras}
    results |= not_run
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
        "seeds": list(range(len(splits))),
        "results": results,
        "difference": paired_difference(results["student_distilled"]["test"], results["student_alone"]["test"]),
        "cost": {
            **cost,
            "peak_memory_mb": peak_memory_mb(),
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
