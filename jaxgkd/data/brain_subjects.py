"""The table of subjects: who they are, their group, the site they were scanned at, their age and sex.

A row a subject, with the columns ``subject``, a label (named ``label`` unless another one is asked for) and, where they
are known, ``site``, ``age`` in years and ``sex``. Groups are numbered in alphabetical order, but the one with a usual
name for people without a diagnosis comes first, so that class 1 of two is the diagnosis.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxgkd.data.class_labels import read_class_list, resolve_labels
from jaxgkd.data.tables import Table, read_table
from jaxgkd.errors import DataError, shown

_CONTROLS = {
    "control",
    "controls",
    "hc",
    "healthy",
    "healthy control",
    "nc",
    "cn",
    "td",
    "tc",
    "typical",
    "neurotypical",
}
_SEXES = {"m": 1.0, "male": 1.0, "man": 1.0, "f": 0.0, "female": 0.0, "woman": 0.0}
# "none" and the like can be the name of a class, such as that of no diagnosis.
_NO_LABEL = {"na", "n/a", "nan"}
_MISSING = {"", "na", "n/a", "nan", "none", "null"}
UNKNOWN_SITE = "unknown"


@dataclass(frozen=True, eq=False)
class Subjects:
    """The rows of a table of subjects.

    Fields:
      path: of the table.
      rows: [n] their rows in it.
      ids: [n] as written; keys: [n] the same, numbers without leading zeros.
      labels: [n] int32, −1 where there is none; class_names: [c].
      sites: [n] int32; site_names: their names.
      covariates: "age" in years and "sex" (1 male, 0 female) → [n] float32, NaN where missing.
      notes: what was mended.
    """

    path: Path
    rows: list[int]
    ids: tuple[str, ...]
    keys: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    sites: np.ndarray
    site_names: tuple[str, ...]
    covariates: dict[str, np.ndarray]
    notes: tuple[str, ...]


def subject_key(subject: str) -> str:
    """An id by which files are matched: numbers without leading zeros, anything else as it is.

    >>> subject_key("0050551"), subject_key("sub-01"), subject_key("000")
    ('50551', 'sub-01', '0')
    """
    subject = subject.strip()
    return (subject.lstrip("0") or "0") if subject.isascii() and subject.isdigit() else subject


def read_subjects(path: Path, *, label: str | None = "label") -> Subjects:
    """Reads a table of subjects, see the module. A ``classes.json`` beside it may name and order the classes.

    Without a ``label`` none is read, and there are no classes.

    Raises:
      DataError: the table cannot be read, has no such columns, names a subject twice, or an age or sex is neither
        missing nor readable.
    """
    table = read_table(path)
    ids = [cell.strip() for cell in table.column("subject")]
    if not ids:
        raise DataError("there are no subjects", file=path, mend="write one row a subject")
    first: dict[str, int] = {}
    keys = tuple(subject_key(subject) for subject in ids)
    for key, subject, row in zip(keys, ids, table.rows, strict=True):
        if not key or key in first:
            what = f"subject '{shown(subject)}' is also in row {first[key]}" if key else "the subject has no id"
            raise DataError(what, file=path, row=row, field="subject", mend="keep one row for every subject")
        first[key] = row
    labels, class_names = np.full(len(ids), -1, np.int32), ()
    if label is not None:
        listed = read_class_list(listing) if (listing := path.parent / "classes.json").exists() else None
        cells = table.column(label, mend=f"add a column '{label}' or name another one as the label")
        if listed is None:
            cells = ["" if cell.strip().lower() in _NO_LABEL else cell for cell in cells]
        labels, class_names = resolve_labels(cells, table.rows, path, label, listed)
        if listed is None:
            labels, class_names = _controls_first(labels, class_names)
    sites, site_names, notes = _sites(table)
    covariates = {}
    for name, read in (("age", _ages), ("sex", _sexes)):
        if name in table.columns and name != label:
            covariates[name], further = read(table)
            notes += further
    unlabelled = int((labels < 0).sum())
    notes += [f"{_subjects(unlabelled)} without a label"] if unlabelled else []
    return Subjects(
        path, table.rows, tuple(ids), keys, labels, class_names, sites, site_names, covariates, tuple(notes)
    )


def _controls_first(labels: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    order = sorted(range(len(names)), key=lambda i: (names[i].strip().lower() not in _CONTROLS, i))
    number = np.full(len(names) + 1, -1, np.int32)  # the last one is where −1 leads
    number[order] = np.arange(len(names), dtype=np.int32)
    return number[labels], tuple(names[i] for i in order)


def _sites(table: Table) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    if "site" not in table.columns:
        return np.zeros(len(table), np.int32), ("all",), ["no column 'site', all subjects count as one site"]
    cells = [cell.strip() or UNKNOWN_SITE for cell in table.column("site")]
    names = tuple(sorted(set(cells)))
    missing = sum(not cell.strip() for cell in table.columns["site"])
    notes = [f"{_subjects(missing)} without a site, put together as '{UNKNOWN_SITE}'"] if missing else []
    return np.array([names.index(cell) for cell in cells], np.int32), names, notes


def _ages(table: Table) -> tuple[np.ndarray, list[str]]:
    ages = np.full(len(table), np.nan, np.float32)
    coded = 0
    for i, (cell, row) in enumerate(zip(table.column("age"), table.rows, strict=True)):
        if cell.strip().lower() in _MISSING:
            continue
        try:
            age = float(cell)
        except ValueError as error:
            what = f"'{shown(cell)}' is not an age"
            raise DataError(what, file=table.path, row=row, field="age", mend="write years or nothing") from error
        # Cohorts write −9999 and the like for what is not known.
        coded += age < 0
        ages[i] = age if 0 <= age < 150 else np.nan
        if age >= 150:
            what = f"{shown(cell)} is not an age in years"
            raise DataError(what, file=table.path, row=row, field="age", mend="write years or nothing")
    return ages, [f"{_subjects(coded)} with an age below 0, taken as missing"] if coded else []


def _sexes(table: Table) -> tuple[np.ndarray, list[str]]:
    cells = [cell.strip().lower() for cell in table.column("sex")]
    used = {cell for cell in cells if cell not in _MISSING and not cell.startswith("-9")}
    notes = []
    codes = dict(_SEXES)
    if used and used <= {"1", "2", "1.0", "2.0"} and used & {"2", "2.0"}:
        codes |= {"1": 1.0, "1.0": 1.0, "2": 0.0, "2.0": 0.0}
        notes = ["sex is written as 1 and 2, read as male and female"]
    elif used and used <= {"0", "1", "0.0", "1.0"}:
        codes |= {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0}
        notes = ["sex is written as 0 and 1, kept as it is"]
    for cell, row in zip(cells, table.rows, strict=True):
        if cell in used and cell not in codes:
            what = f"'{shown(cell)}' is not a sex that is known"
            raise DataError(what, file=table.path, row=row, field="sex", mend="write male, female or nothing")
    return np.array([codes[cell] if cell in used else np.nan for cell in cells], np.float32), notes


def _subjects(count: int) -> str:
    return f"{count:,} subject{'' if count == 1 else 's'}"
