"""``summary.json``, the contract between a recipe and its report: what it must hold, and how it is read and written."""

import json
import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.errors import DataError
from jaxgkd.training.statistics import paired_difference
from jaxgkd.whole_file import write_whole

STUDENTS = ("student_alone", "student_distilled")
TREATMENT = ("name", "student", "having", "lacking", "missing")
COST_FIELDS = (
    "teacher_parameters",
    "student_parameters",
    "teacher_ms_per_item",
    "student_ms_per_item",
    "extract_seconds",
    "train_seconds",
    "peak_memory_mb",
)
# Timings and memory are noisy: digits beyond these say nothing. Metric values are never rounded.
_MEASURED = {"teacher_ms_per_item", "student_ms_per_item", "read_ms_per_item", "ms_per_item", "peak_memory_mb"}
_MEASURED_DIGITS = 5
# Metrics that are shares of one, so that a percentage written by mistake is caught.
_SHARES = ("accuracy", "f1", "precision", "recall", "auc", "auroc", "auprc", "hits", "mrr")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(item is None or _is_number(item) for item in value)


_KINDS = {
    "text": lambda value: isinstance(value, str) and bool(value.strip()),
    "text or a mapping": lambda value: isinstance(value, str | Mapping) and bool(value),
    "text, a list or a mapping": lambda value: isinstance(value, str | list | Mapping) and bool(value),
    "true or false": lambda value: isinstance(value, bool),
    "a mapping": lambda value: isinstance(value, Mapping),
    "a list of whole numbers, none twice": lambda value: (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value)
        and len(set(value)) == len(value)
    ),
    "a number or null": lambda value: value is None or _is_number(value),
    "a number of at least 0, or null": lambda value: value is None or (_is_number(value) and value >= 0),
    "a share between 0 and 1, or null": lambda value: value is None or (_is_number(value) and 0 <= value <= 1),
}

_FIELDS = {
    "recipe": "text",
    "data": "a mapping",
    "data.name": "text",
    "data.sha256": "text",
    "data.split": "text, a list or a mapping",
    "protocol": "text or a mapping",
    "teacher": "text or a mapping",
    "student": "text or a mapping",
    "metric": "text",
    "higher_is_better": "true or false",
    "seeds": "a list of whole numbers, none twice",
    "results": "a mapping",
    "difference": "a mapping",
    "difference.mean": "a number or null",
    "difference.std": "a number of at least 0, or null",
    "difference.p_value": "a share between 0 and 1, or null",
    "cost": "a mapping",
    **{f"cost.{name}": "a number of at least 0, or null" for name in COST_FIELDS},
    "versions": "a mapping",
    "command": "text",
}


def is_share(metric: str) -> bool:
    """Whether a metric of this name lies between 0 and 1."""
    words = metric.lower().replace("@", "_").replace("-", "_").replace(" ", "_").split("_")
    return any(word in _SHARES for word in words)


def check_summary(summary: Any, file: str | PathLike[str]) -> None:
    """Compare a summary with the contract.

    Beyond the fields of the contract a summary may hold anything. ``treatment`` is what the second student has and the
    first has not, in the words of `jaxgkd.report.wording.Treatment`, where that is not distillation. A row of
    ``results`` may be ``{"not_run": reason}`` (not for the two students) and may carry ``label``, ``parameters``,
    ``ms_per_item``, ``per_class`` and ``epochs_to_reach``. A value ``None`` in ``valid`` or ``test`` is a
    seed that gave none.

    Args:
      summary: what ``summary.json`` holds or is going to hold.
      file: the file that errors name.

    Raises:
      DataError: the first field that is missing, of another kind, or at odds with the others.
    """
    if not isinstance(summary, Mapping):
        raise DataError("does not hold a mapping", file=file, mend="write it with jaxgkd.report.write_summary")
    for field, kind in _FIELDS.items():
        holder, name = summary, field
        if "." in field:
            parent, name = field.split(".")
            holder = summary[parent]
        if name not in holder:
            raise DataError("is missing", file=file, field=field, mend=f"it has to be {kind}")
        if not _KINDS[kind](holder[name]):
            raise DataError(f"is {_shown(holder[name])}", file=file, field=field, mend=f"it has to be {kind}")
    words = summary.get("treatment", {})
    if not isinstance(words, Mapping) or not all(key in TREATMENT and _KINDS["text"](words[key]) for key in words):
        mend = f"it has to be a mapping of text for {', '.join(TREATMENT)}"
        raise DataError(f"is {_shown(words)}", file=file, field="treatment", mend=mend)
    _check_results(summary, file)
    _check_difference(summary, file)


def _check_results(summary: Mapping[str, Any], file: str | PathLike[str]) -> None:
    results, seeds = summary["results"], summary["seeds"]
    length = None
    for row in dict.fromkeys(("teacher", *STUDENTS, *results)):
        field = f"results.{row}"
        if row not in results:
            raise DataError("is missing", file=file, field=field, mend="every run has this row")
        values = results[row]
        if not isinstance(values, Mapping):
            raise DataError(f"is {_shown(values)}", file=file, field=field, mend="it has to be a mapping")
        if "not_run" in values:
            if row in STUDENTS:
                raise DataError("was not run", file=file, field=field, mend="a summary needs both students")
            continue
        _check_extras(values, row, file)
        for part in ("valid", "test"):
            field = f"results.{row}.{part}"
            if part not in values:
                raise DataError("is missing", file=file, field=field, mend="give one value per seed")
            if not _is_numbers(values[part]):
                raise DataError(
                    f"is {_shown(values[part])}", file=file, field=field, mend="it has to be a list of numbers"
                )
            length = len(values[part]) if length is None else length
            if len(values[part]) != length or length == 0 or length % len(seeds):
                raise DataError(
                    f"has {len(values[part])} values for {len(seeds)} seeds, other rows have {length}",
                    file=file,
                    field=field,
                    mend="give as many values per seed in every row, in the same order",
                )
            if is_share(summary["metric"]) and any(v is not None and not 0 <= v <= 1 for v in values[part]):
                raise DataError(
                    f"has values outside 0 to 1 for the metric {summary['metric']}",
                    file=file,
                    field=field,
                    mend="write shares, not percentages",
                )


def _check_extras(values: Mapping[str, Any], row: str, file: str | PathLike[str]) -> None:
    for name in ("parameters", "ms_per_item"):
        given = values.get(name)
        several = isinstance(given, list) and given and all(_is_number(value) for value in given)
        if given is not None and not several and not _is_number(given):
            raise DataError(
                f"is {_shown(given)}",
                file=file,
                field=f"results.{row}.{name}",
                mend="it has to be a number, or one a seed",
            )
    given = values.get("per_class")
    if isinstance(given, Mapping):
        ok = all(_is_numbers(value if isinstance(value, list) else [value]) for value in given.values())
        mend = "name every class with a number, or with one a seed"
    else:
        seeds = given if isinstance(given, list) and given and isinstance(given[0], list) else [given or []]
        ok = all(_is_numbers(seed) and len(seed) == len(seeds[0]) for seed in seeds)
        mend = "list the classes, or the classes of every seed"
    if not ok:
        raise DataError(f"is {_shown(given)}", file=file, field=f"results.{row}.per_class", mend=mend)


def _check_difference(summary: Mapping[str, Any], file: str | PathLike[str]) -> None:
    alone, distilled = (summary["results"][row]["test"] for row in STUDENTS)
    expected, given = paired_difference(distilled, alone)["mean"], summary["difference"]["mean"]
    agree = expected is given is None or (
        expected is not None and given is not None and math.isclose(expected, given, rel_tol=1e-4, abs_tol=1e-6)
    )
    if not agree:
        raise DataError(
            f"is {_shown(given)} where the test values give {_shown(expected)}",
            file=file,
            field="difference.mean",
            mend="use paired_difference(distilled, alone)",
        )


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(value: Any, field: str, file: Path) -> Any:
    """``value`` in the types of JSON: arrays as lists, numbers that are not finite as null."""
    name = field.rsplit(".", 1)[-1]
    match value:
        case None | bool() | str():
            return value
        case np.generic() | np.ndarray():
            return _plain(value.tolist(), field, file)
        case int():
            return value
        case float():
            if not math.isfinite(value):
                return None
            if name in _MEASURED:
                return float(f"{value:.{_MEASURED_DIGITS}g}")
            return round(value, 3) if name.endswith("_seconds") else value
        case Mapping():
            return {
                str(key): _plain(item, f"{field}.{key}" if field else str(key), file) for key, item in value.items()
            }
        case list() | tuple():
            return [_plain(item, field, file) for item in value]
        case PathLike():
            return str(value)
        case _:
            raise DataError(
                f"cannot be written as JSON: it is of type {type(value).__name__}",
                file=file,
                field=field or None,
                mend="turn it into numbers, text, lists or mappings",
            )


def write_summary(path: str | PathLike[str], summary: Mapping[str, Any]) -> None:
    """Check a summary against the contract and write it in one step.

    Metric values and differences keep every digit; milliseconds and megabytes keep five digits, seconds three decimals.
    Arrays and numpy numbers become lists and numbers, values that are not finite become null.

    Args:
      path: the file to write, or the run directory it belongs in.
      summary: see `check_summary`; ``difference`` is that of distilled minus alone.

    Raises:
      DataError: a field that is missing, wrong or cannot be written; nothing is written then.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "summary.json"
    plain = _plain(summary, "", path)
    check_summary(plain, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
