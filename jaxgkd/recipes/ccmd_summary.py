"""The rows of a ``ccmd`` run and the lines of its ``metrics.jsonl``, from what was trained."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgkd.recipes.molecule_rows import Trained
from jaxgkd.recipes.molecule_summary import Row


def summary_rows(
    teachers: Sequence[Trained],
    students: Sequence[Trained],
    members: int,
    chosen: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, str],
    cost: Mapping[str, float | None],
) -> dict[str, Row]:
    """The teacher's row, and one for each of the students'.

    Args:
      teachers: of every seed; students: of every seed, the members of the first row first.
      members: students of a row and seed, whose predictions are averaged.
      chosen: row of students → its settings; labels: row → its name for people.
      cost: parameters and ms per item of one teacher and one student.
    """
    extras = {"parameters": cost["teacher_parameters"], "ms_per_item": cost["teacher_ms_per_item"]}
    rows = {"teacher": Row(np.stack([one.predictions[0] for one in teachers]), labels["teacher"], extras)}
    for number, (name, settings) in enumerate(chosen.items()):
        mine = slice(number * members, (number + 1) * members)
        of_row = [one.predictions[mine] for one in students]
        extras = {
            "parameters": members * (cost["student_parameters"] or 0),
            "ms_per_item": members * (cost["student_ms_per_item"] or 0),
            "best_epoch": [one.best_epoch[mine].tolist() for one in students],
            "settings": {key: value for key, value in settings.items() if key != "row"},
        }
        spread = np.stack([values.std(axis=0) for values in of_row]) if members > 1 else None
        rows[name] = Row(np.stack([values.mean(axis=0) for values in of_row]), labels[name], extras, spread)
    return rows


def metric_lines(
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
