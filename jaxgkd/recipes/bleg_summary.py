"""What a ``bleg`` run leaves behind: rows with what doctors ask for, sites, curves, predictions, ``summary.json``."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgkd.data.brain_counts import describe_brains
from jaxgkd.data.brains import Brains
from jaxgkd.data.splits import Split
from jaxgkd.recipes.bleg_connections import telling_connections
from jaxgkd.training.memory import peak_memory_mb
from jaxgkd.training.metrics import area_under_roc
from jaxgkd.training.run_dir import RunDirectory, read_json
from jaxgkd.training.statistics import corrected_difference, paired_difference
from jaxgkd.training.summary import write_summary


class Row(NamedTuple):
    """What one row comes down to: ``probabilities`` [f, n] of group 1, a ``label`` for people, and ``extras``."""

    probabilities: np.ndarray
    label: str
    extras: Mapping[str, Any] = {}


class Fold(NamedTuple):
    """A split, the repeat it belongs to, and its number there."""

    split: Split
    seed: int
    fold: int


def write_bleg_run(
    run_dir: RunDirectory,
    *,
    brains: Brains,
    folds: Sequence[Fold],
    n_seed: int,
    rows: Mapping[str, Row],
    not_run: Mapping[str, Mapping[str, str]],
    lines: Iterator[Mapping[str, Any]],
    embedding: np.ndarray,
    describe: Mapping[str, Any],
    cost: Mapping[str, float | None],
    notes: Sequence[str],
) -> None:
    """Write ``metrics.jsonl``, ``predictions.npz`` and, last, ``summary.json``.

    Args:
      run_dir: the folder of the run.
      brains: n subjects; folds: f of them; n_seed: repeats.
      rows: by name, both students among them; not_run: the other rows of the contract, with the reason.
      lines: of ``metrics.jsonl``.
      embedding: [n, d] states of all subjects, of the first fold's distilled student.
      describe: ``protocol``, ``teacher``, ``student`` and ``split`` of the summary.
      cost: ms per item, parameters and seconds; the peak of memory is added.
      notes: sentences for the report.
    """
    run_dir.write_lines("metrics.jsonl", lines)
    part = np.zeros((len(folds), brains.n_subjects), np.uint8)
    for i, fold in enumerate(folds):
        for number, rows_of_part in enumerate((fold.split.train, fold.split.valid, fold.split.test), 1):
            part[i, rows_of_part] = number
    labels = np.where(brains.labels >= 0, brains.labels, np.nan).astype(np.float32)
    run_dir.write_arrays(
        "predictions.npz",
        {
            "labels": labels[:, None],
            "split": part,
            "site": brains.sites.astype(np.int32),
            "embedding": embedding.astype(np.float16),
            **{f"pred/{name}": row.probabilities[..., None].astype(np.float32) for name, row in rows.items()},
        },
    )
    results: dict[str, dict[str, Any]] = {
        name: {"label": row.label, **_scores(row.probabilities, brains.labels, part), **row.extras}
        for name, row in rows.items()
    } | {name: dict(reason) for name, reason in not_run.items()}
    tested = {name: by_test_part(row["test"], folds) for name, row in results.items() if "test" in row}
    distilled = tested["student_distilled"]
    ratio = float(np.mean([len(fold.split.test) / len(fold.split.train) for fold in folds]))
    environment = read_json(run_dir.path / "environment.json")
    versus = {
        name: corrected_difference(distilled, values, ratio)
        for name, values in tested.items()
        if name not in ("student_distilled", "teacher")
    }
    summary = {
        "recipe": "bleg",
        **{key: describe[key] for key in ("protocol", "teacher", "student")},
        "data": {
            **describe_brains(brains),
            # Each has an entry of its own below.
            "sites": len(brains.site_names),
            "split": describe["split"],
            "items": "subjects",
            "split_sha256": [fold.split.sha256 for fold in folds],
        },
        "metric": "auroc",
        "higher_is_better": True,
        "seeds": list(range(n_seed)),
        "results": results,
        "difference": paired_difference(distilled, tested["student_alone"]),
        "corrected_difference": versus["student_alone"],
        "corrected_differences_to": versus,
        "sites": site_scores(brains, rows, part),
        "connections": telling_connections(
            brains, rows["student_distilled"].probabilities, [fold.split for fold in folds]
        ),
        "cost": {
            **cost,
            "peak_memory_mb": peak_memory_mb(),
        },
        "versions": environment["versions"],
        "command": environment["command"],
        "notes": [*brains.notes, *notes, *_comparisons(results, versus)],
    }
    write_summary(run_dir.path / "summary.json", summary)


def by_test_part(values: Sequence[float | None], folds: Sequence[Fold]) -> np.ndarray:
    """[k] one value for every different test part: the mean of the repeats that test the same subjects.

    Repeats that leave out the same site agree far more than the correction for overlapping folds allows for.

    Args:
      values: [f] one a fold, None where it has none; folds: f of them.
    """
    of_part: dict[bytes, list[float | None]] = {}
    for value, fold in zip(values, folds, strict=True):
        of_part.setdefault(fold.split.test.tobytes(), []).append(value)
    return np.array([np.mean(np.array(repeats, np.float64)) for repeats in of_part.values()])


def confusion_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, sensitivity, specificity and F1 of group 1 at a probability of one half; NaN where one has no value.

    Args:
      probabilities: [k] of group 1; labels: [k] 0 or 1.
    """
    said, positive = probabilities >= 0.5, labels == 1
    hits, false = float((said & positive).sum()), float((said & ~positive).sum())
    missed, passed = float((~said & positive).sum()), float((~said & ~positive).sum())
    share = lambda a, b: a / b if b else float("nan")  # noqa: E731
    return {
        "accuracy": share(hits + passed, len(labels)),
        "sensitivity": share(hits, hits + missed),
        "specificity": share(passed, passed + false),
        "f1": share(2 * hits, 2 * hits + missed + false),
    }


def site_scores(brains: Brains, rows: Mapping[str, Row], part: np.ndarray) -> list[dict[str, Any]]:
    """One entry a site: its name, test subjects of each group, and every row's area over all test subjects there.

    Scores of different folds are not on one scale: the area is the mean over folds, by their pairs of subjects of both
    groups, as many of them as a fold tests there; None where no fold tests both.

    Args:
      brains: n subjects; rows: by name.
      part: [f, n] 3 where a fold tests a subject.
    """
    found = []
    for number, name in enumerate(brains.site_names):
        here = (part == 3) & (brains.sites == number)
        tested = here.any(axis=0)
        if not tested.any():
            continue
        entry: dict[str, Any] = {
            "site": name,
            "subjects": [int((tested & (brains.labels == group)).sum()) for group in (0, 1)],
            "auroc": {},
        }
        pairs = np.array([(w & (brains.labels == 0)).sum() * (w & (brains.labels == 1)).sum() for w in here], float)
        for row, values in rows.items():
            areas = [area_under_roc(p, brains.labels, w) for p, w in zip(values.probabilities, here, strict=True)]
            area = np.nansum(np.array(areas) * pairs) / pairs.sum() if pairs.sum() else None
            entry["auroc"][row] = None if area is None else float(area)
        found.append(entry)
    return found


def _scores(probabilities: np.ndarray, labels: np.ndarray, part: np.ndarray) -> dict[str, list[float | None]]:
    table: dict[str, list[float | None]] = {}
    for predicted, parts in zip(probabilities, part, strict=True):
        test = parts == 3
        scores = {
            "valid": area_under_roc(predicted, labels, parts == 2),
            "test": area_under_roc(predicted, labels, test),
            **confusion_scores(predicted[test], labels[test]),
        }
        for name, value in scores.items():
            table.setdefault(name, []).append(value if np.isfinite(value) else None)
    return table


def _comparisons(results: Mapping[str, Any], versus: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The intervals that overlapping folds allow, in words."""
    sentences = []
    for name, found in versus.items():
        if found["low"] is None:
            continue
        mean, low, high = (100 * found[key] for key in ("mean", "low", "high"))
        verdict = "above" if low > 0 else "below" if high < 0 else "not told apart from"
        sentences.append(
            f"Distilled is {verdict} {results[name]['label']}: {mean:+.1f} points of AUROC, 95 % interval {low:+.1f} "
            f"to {high:+.1f}, corrected for the overlap of folds (Nadeau and Bengio, 2003)"
        )
    return sentences
