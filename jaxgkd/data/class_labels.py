"""What a label column and ``classes.json`` say: class numbers 0, 1, 2, … with a name each, -1 where there is no label.

A label is an integer or the name of a class, and a column holds one of the two. Integers are contiguous or listed in
``classes.json``; anything else (fractions, both kinds at once, a class that is not listed) is refused with its row.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.data.tables import is_text, reading
from jaxgkd.errors import DataError, shown

# pandas writes integers with gaps between them as 3.0, so whole numbers may end in .0.
_INTEGER = re.compile(r"([+-]?[0-9]{1,18})(?:\.0*)?")
_CLASSES_MEND = 'write a list of class names such as ["theory", "practice"]'
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class ListedClasses:
    """The content of a ``classes.json``.

    Attributes:
      path: the file.
      names: name of every class, in order.
      index_of: class number by label as it stands in the table; integer labels as their shortest decimal form.
    """

    path: Path
    names: tuple[str, ...]
    index_of: dict[str, int]


def read_class_list(path: Path) -> ListedClasses:
    """Reads ``classes.json``, which `list_classes` explains.

    Raises:
      DataError: it cannot be read, or is not what is explained there.
    """
    try:
        with reading(path):
            content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError("is not JSON in UTF-8", file=path, mend=_CLASSES_MEND) from error
    return list_classes(content, path)


def list_classes(content: Any, path: Path) -> ListedClasses:
    """What a list of classes in ``path`` says: a list of names, or an object from label to name.

    In a list of names a label is a name or its position; a list of integers lists the labels themselves. In an object
    the keys are the labels, ordered by number where all are integers, else as written.

    Raises:
      DataError: it is neither of these, or a class comes twice.
    """
    if isinstance(content, dict):
        keys = list(content)
        if all(_integer(key) is not None for key in keys):
            keys = sorted(keys, key=lambda key: _integer(key) or 0)
        names = [content[key] for key in keys]
    elif isinstance(content, list):
        keys = None
        names = [str(entry) if type(entry) is int else entry for entry in content]
    else:
        raise DataError("is neither a list nor an object", file=path, mend=_CLASSES_MEND)
    if not names:
        raise DataError("lists no classes", file=path, mend=_CLASSES_MEND)
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or not is_text(name):
            raise DataError(f"the name of class {number} is not text", file=path, mend=_CLASSES_MEND)
    names = [name.strip() for name in names]
    _check_unique(names, path)
    if keys is not None:
        _check_unique([_canonical(key) for key in keys], path)
        index_of = {_canonical(key): number for number, key in enumerate(keys)}
    else:
        index_of = {_canonical(name): number for number, name in enumerate(names)}
        integers = [name for name in names if _integer(name) is not None]
        if not integers:
            index_of |= {str(number): number for number in range(len(names))}
        elif len(integers) < len(names):
            what = f"class '{shown(integers[0])}' is an integer among names, so the label {integers[0]} is not clear"
            raise DataError(what, file=path, mend='write an object from label to name such as {"0": "theory"}')
    return ListedClasses(path, tuple(names), index_of)


def _check_unique(entries: list[str], path: Path) -> None:
    twice = {entry for entry, times in Counter(entries).items() if times > 1}
    if twice:
        what = f"class '{shown(min(twice))}' is listed twice"
        raise DataError(what, file=path, mend="give every class its own name")


def resolve_labels(
    cells: list[str], rows: list[int], path: Path, column: str, listed: ListedClasses | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers [n] int32, -1 where the cell is empty or -1, and the class names.

    Args:
      cells: the label column as text.
      rows: the row of every cell, for errors.
      path: the file the column is from, for errors.
      column: its name, for errors.
      listed: the classes of ``classes.json``, or None where there is none: then integers must be contiguous (their
        classes are named by them), and names become classes in alphabetical order.

    Raises:
      DataError: a label that is refused (see the module), no labels at all, or one class only.
    """
    labels = [_canonical(cell) for cell in cells]
    used = [(label, row) for label, row in zip(labels, rows, strict=True) if label not in ("", "-1")]
    if not used:
        raise DataError("no row has a label", file=path, field=column, mend="fill in labels or name another column")
    if listed is None:
        index_of, names = _infer_classes(used, path, column)
    else:
        index_of, names = listed.index_of, listed.names
        _check_one_kind(used, path, column, set(index_of))
        for label, row in used:
            if label not in index_of:
                raise DataError(
                    f"label '{shown(label)}' is not among the {len(names)} classes of {listed.path.name}",
                    file=path,
                    row=row,
                    field=column,
                    mend=f"correct the label or list the class in {listed.path.name}",
                )
    numbers = np.array([index_of.get(label, -1) if label not in ("", "-1") else -1 for label in labels], np.int32)
    if len(np.unique(numbers[numbers >= 0])) < 2:
        only = names[int(numbers.max())]
        raise DataError(f"every label is '{shown(only)}'", file=path, field=column, mend="label at least two classes")
    return numbers, names


def _infer_classes(used: list[tuple[str, int]], path: Path, column: str) -> tuple[dict[str, int], tuple[str, ...]]:
    _check_one_kind(used, path, column, set())
    row_of = {}
    for label, row in used:
        row_of.setdefault(label, row)
    if _integer(used[0][0]) is None:
        names = tuple(sorted(row_of))
        return {name: number for number, name in enumerate(names)}, names
    integers = sorted(int(label) for label in row_of)
    for before, integer in zip([integers[0] - 1, *integers], integers, strict=False):
        if integer < 0 or integer != before + 1:
            what = (
                f"label {integer} is below 0"
                if integer < 0
                else f"label {integer} leaves a gap after {before}, so the classes are not clear"
            )
            mend = "number the classes 0, 1, 2, … or list them in classes.json"
            raise DataError(what, file=path, row=row_of[str(integer)], field=column, mend=mend)
    names = tuple(str(integer) for integer in integers)
    return {name: number for number, name in enumerate(names)}, names


def _check_one_kind(used: list[tuple[str, int]], path: Path, column: str, listed: set[str]) -> None:
    """Refuses fractions, and a column of both integers and names."""
    first = None
    for label, row in used:
        integer = _integer(label) is not None
        if not integer and label not in listed and _NUMBER.fullmatch(label):
            raise DataError(
                f"label {shown(label)} is neither an integer nor the name of a class",
                file=path,
                row=row,
                field=column,
                mend="write integers or class names",
            )
        if first is None:
            first = integer
        elif integer is not first:
            kinds = "an integer among class names" if integer else "a name among integers"
            raise DataError(
                f"label '{shown(label)}' is {kinds}",
                file=path,
                row=row,
                field=column,
                mend="write all labels as integers or all as names",
            )


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text.strip())
    return int(match[1]) if match else None


def _canonical(text: str) -> str:
    integer = _integer(text)
    return text.strip() if integer is None else str(integer)
