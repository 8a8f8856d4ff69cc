"""A run directory, read: the files a recipe leaves behind, checked, with errors that name the file and the field."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.data.array_files import load_arrays
from jaxgkd.errors import ConfigError, DataError
from jaxgkd.training.summary import check_summary

TRAIN, VALID, TEST = 1, 2, 3


@dataclass(frozen=True)
class Predictions:
    """``predictions.npz``: what every row said about every item.

    Attributes:
      labels: [n] class indices (−1 = unlabelled), or [n, t] floats of t columns, NaN where missing.
      split: [seeds, n] 0 in no part, 1 train, 2 valid, 3 test.
      degree: [n] neighbours of an item, or None where items have none.
      size: [n] atoms of a molecule, or None where items are no molecules.
      by_row: row → [seeds, n] predicted class indices, −1 = not predicted; or [seeds, n, t] floats, NaN likewise.
      embedding: [n, d] of the distilled student of the first seed, or None.
    """

    labels: np.ndarray
    split: np.ndarray
    degree: np.ndarray | None
    size: np.ndarray | None
    by_row: Mapping[str, np.ndarray]
    embedding: np.ndarray | None

    @property
    def has_classes(self) -> bool:
        """Whether the labels are class indices."""
        return np.issubdtype(self.labels.dtype, np.integer)

    def tested(self, row: str) -> np.ndarray:
        """[seeds, n] or [seeds, n, t] whether an item is a labelled test item of that seed that the row predicted."""
        if self.has_classes:
            return (self.split == TEST) & (self.labels >= 0) & (self.by_row[row] >= 0)
        return (self.split == TEST)[..., None] & np.isfinite(self.labels) & np.isfinite(self.by_row[row])


@dataclass(frozen=True)
class Run:
    """Everything a report is made from.

    Attributes:
      path: the run directory.
      summary: ``summary.json``, checked against the contract.
      config: ``config.json``, empty where there is none.
      environment: ``environment.json``, empty where there is none.
      metrics: the lines of ``metrics.jsonl``, empty where there is none.
      predictions: ``predictions.npz``, None where there is none.
    """

    path: Path
    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    predictions: Predictions | None

    @property
    def items(self) -> str:
        """What the run predicts for: items of a graph with degrees are nodes."""
        has_degree = self.predictions is not None and self.predictions.degree is not None
        return str(self.summary["data"].get("items", "nodes" if has_degree else "items"))

    def class_name(self, index: int) -> str:
        """The name of a class, or "class 3" where the run gives none."""
        names = self.config.get("class_names") or []
        return str(names[index]) if index < len(names) else f"class {index}"

    def curves(self, row: str, field: str) -> tuple[np.ndarray, np.ndarray]:
        """One float of ``metrics.jsonl`` over time.

        Args:
          row: the row of the summary, such as ``student_distilled``.
          field: the name of the float, such as ``valid``.

        Returns:
          Epochs [e] in order, and values [seeds, e] with NaN where a seed logged none. Of a line that a resumed run
          wrote twice the later one counts.
        """
        values: dict[tuple[Any, ...], dict[int, float]] = {}
        for line in self.metrics:
            if line["row"] == row and isinstance(value := line.get(field), int | float) and math.isfinite(value):
                values.setdefault((line["seed"], line.get("fold")), {})[line["epoch"]] = float(value)
        epochs = sorted({epoch for curve in values.values() for epoch in curve})
        table = [[curve.get(epoch, math.nan) for epoch in epochs] for curve in values.values()]
        return np.asarray(epochs), np.asarray(table).reshape(len(values), len(epochs))


def read_run(path: str | PathLike[str]) -> Run:
    """Read and check a run directory.

    Raises:
      ConfigError: the path is no run directory, or its run has not finished.
      DataError: a file in it is damaged or breaks the contract.
    """
    path = Path(path)
    if not path.is_dir():
        what = "is not a run directory" if path.exists() else "does not exist"
        raise ConfigError(what, file=path, mend="give a folder that `jaxgkd run` wrote")
    if not (path / "summary.json").is_file():
        unfinished = (path / "config.json").is_file()
        raise ConfigError(
            "holds no summary.json, the run has not finished" if unfinished else "is not a run directory",
            file=path,
            mend="continue it with --resume" if unfinished else "give a folder that `jaxgkd run` wrote",
        )
    summary = _read_json(path / "summary.json")
    check_summary(summary, path / "summary.json")
    config, environment = (_read_mapping(path / name) for name in ("config.json", "environment.json"))
    names = config.get("class_names")
    if names is not None and not isinstance(names, list):
        raise DataError("is not a list", file=path / "config.json", field="class_names", mend="list the names by index")
    return Run(
        path=path,
        summary=summary,
        config=config,
        environment=environment,
        metrics=_read_metrics(path / "metrics.jsonl"),
        predictions=_read_predictions(path / "predictions.npz"),
    )


def _read_json(file: Path) -> Any:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        # Half of a surrogate pair, which JSON can spell, cannot be written into a page.
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeError as error:
        raise DataError("is not UTF-8 text", file=file, mend="run again, or restore the file") from error
    # Beside what is no JSON: numbers of thousands of digits, and lists in lists without end.
    except (ValueError, RecursionError) as error:
        where = f"is not JSON from line {error.lineno} on" if isinstance(error, json.JSONDecodeError) else "is not JSON"
        raise DataError(where, file=file, mend="run again, or restore the file") from error


def _read_mapping(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    value = _read_json(file)
    if not isinstance(value, dict):
        raise DataError("does not hold a mapping", file=file, mend="run again, or restore the file")
    return value


def _read_metrics(file: Path) -> list[Mapping[str, Any]]:
    if not file.is_file():
        return []
    lines = []
    for row, text in enumerate(file.read_bytes().splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError("is not JSON", file=file, row=row, mend="remove that line, or run again") from error
        if not isinstance(line, dict):
            raise DataError("does not hold a mapping", file=file, row=row, mend="remove that line, or run again")
        for field, kind in (("row", str), ("seed", int), ("epoch", int)):
            if not isinstance(line.get(field), kind):
                what = "is missing" if field not in line else f"is not {'text' if kind is str else 'a whole number'}"
                raise DataError(what, file=file, row=row, field=field, mend="remove that line, or run again")
        lines.append(line)
    return lines


def _read_predictions(file: Path) -> Predictions | None:
    if not file.is_file():
        return None
    try:
        arrays = load_arrays(file)
    except DataError as error:
        raise DataError("cannot be read as plain arrays", file=file, mend="run again, or restore the file") from error

    def fail(name: str, what: str) -> DataError:
        return DataError(what, file=file, field=name, mend="write it as the run contract says")

    for name in ("labels", "split"):
        if name not in arrays:
            raise fail(name, "is missing")
    labels, split = arrays["labels"], arrays["split"]
    if labels.dtype.kind not in "iuf" or labels.ndim not in ((1, 2) if labels.dtype.kind == "f" else (1,)):
        what = f"has shape {list(labels.shape)} and type {labels.dtype}"
        raise fail("labels", f"{what}, not class indices [n] or floats [n, t]")
    n = labels.shape[0]
    if split.ndim != 2 or split.shape[1] != n:
        raise fail("split", f"has shape {list(split.shape)}, not [seeds, {n}]")
    by_row = {name.removeprefix("pred/"): array for name, array in arrays.items() if name.startswith("pred/")}
    for row, predicted in by_row.items():
        if predicted.shape != (*split.shape, *labels.shape[1:]):
            wanted = [*split.shape, *labels.shape[1:]]
            raise fail(f"pred/{row}", f"has shape {list(predicted.shape)}, not {wanted}")
    degree, size, embedding = arrays.get("degree"), arrays.get("size"), arrays.get("embedding")
    for name, counts in (("degree", degree), ("size", size)):
        if counts is not None and counts.shape != (n,):
            raise fail(name, f"has shape {list(counts.shape)}, not [{n}]")
    if embedding is not None and (embedding.ndim != 2 or embedding.shape[0] != n):
        raise fail("embedding", f"has shape {list(embedding.shape)}, not [{n}, d]")
    if labels.dtype.kind == "u":
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "f" and labels.ndim == 1:
        labels, by_row = labels[:, None], {row: predicted[..., None] for row, predicted in by_row.items()}
    return Predictions(labels=labels, split=split, degree=degree, size=size, by_row=by_row, embedding=embedding)
