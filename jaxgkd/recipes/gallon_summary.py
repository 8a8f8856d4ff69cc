"""What a ``gallon`` run leaves behind: its rows, costs, notes, and a page of example descriptions."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgkd.data.molecules import Molecules
from jaxgkd.recipes.gallon_costs import milliseconds_to_read
from jaxgkd.recipes.gallon_examples import write_examples
from jaxgkd.recipes.gallon_students import Graduates, Students
from jaxgkd.recipes.gallon_teachers import Lesson, Said
from jaxgkd.recipes.gallon_texts import Prompts
from jaxgkd.recipes.molecule_summary import Row, write_molecule_run
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.token_batches import tokenise
from jaxgkd.training.run_dir import RunDirectory


def write_gallon_run(
    run_dir: RunDirectory,
    *,
    labelled: Molecules,
    lessons: Sequence[Lesson],
    said: Mapping[str, Sequence[Said]],
    students: Students,
    graduates: Sequence[Graduates],
    settings: Mapping[str, Sequence[Mapping[str, Any]]],
    n_try: int,
    seconds: float,
    labels: Mapping[str, str],
    baselines: Sequence[str],
    costs: Mapping[str, Mapping[str, float]],
    encoder: TextEncoder | None,
    prompts: Prompts | None,
    max_tokens: int,
    split: str,
    started: float,
) -> None:
    """Write ``examples.md`` with its drawings, ``metrics.jsonl``, ``predictions.npz`` and ``summary.json``.

    Args:
      run_dir: the folder of the run.
      labelled: the n molecules of the data, the first of those that were taught.
      lessons: one a seed; said: teacher → what it says, one a seed.
      students: what they have in common; graduates: one a seed.
      settings: row of students → the ones it keeps, one a seed, of ``n_try``.
      seconds: of training.
      labels: row or teacher → its name for people.
      baselines: rows that need no teacher.
      costs: teacher → parameters and ms per molecule.
      encoder: the language model, None where none teaches; prompts: what it read; max_tokens: of a prompt.
      split: kind of the splits.
      started: ``time.perf_counter()`` at the start of the run.
    """
    rows, n = list(settings), len(labelled)
    targets = Targets.of(labelled, students.targets.metric)
    folds = lessons[0].folds
    milliseconds = students.milliseconds(graduates[0])
    student_cost = {"parameters": students.n_parameters, "ms_per_item": milliseconds}
    read = milliseconds_to_read(labelled, students.inputs)
    main = "lm" if "lm" in said else next(iter(said))
    found: dict[str, Row] = {}
    for name, everyone in said.items():
        pairs = zip(everyone, lessons, strict=True)
        predictions = [one.predictions(lesson.scale, lesson.kind)[:n] for one, lesson in pairs]
        extras = {**costs[name], "best_epoch": [one.best_epoch for one in everyone]}
        found["teacher" if name == main else name] = Row(np.stack(predictions), labels[name], extras)
    for i, row in enumerate(rows):
        extras = {
            **student_cost,
            "best_epoch": [int(one.best_epoch[i]) for one in graduates],
            "settings": _plain(settings[row]),
        }
        found[row] = Row(np.stack([one.predictions[i, :n] for one in graduates]), labels[row], extras)
    if prompts is not None:
        shown = {row: found[row] for row in ("teacher", *rows[:2])}
        write_examples(run_dir, labelled, targets, lessons[0].split, prompts, shown)
    embedding = graduates[0].state[rows.index("student_distilled"), :n]
    write_molecule_run(
        run_dir,
        molecules=labelled,
        targets=targets,
        splits=[lesson.split for lesson in lessons],
        rows=found,
        baselines=baselines,
        lines=_lines(rows, graduates, lessons),
        embedding=embedding,
        describe={
            "recipe": "gallon",
            "protocol": "Epochs are chosen by validation, settings by its mean over all splits, without what tests in "
            f"the split they are kept for; every row is tested once, and {n_try} settings are tried for a student's",
            "teacher": {"name": " and ".join(labels[name].removesuffix(" (teacher)") for name in said), "folds": folds}
            | ({"language model": encoder.name} if encoder is not None else {})
            | ({"descriptions": prompts.source} if prompts is not None and prompts.source else {}),
            "student": {"name": labels["student_alone"].removesuffix(" alone"), "width": students.width},
            "split": split,
        },
        cost={
            "teacher_parameters": costs[main]["parameters"],
            "teacher_ms_per_item": costs[main]["ms_per_item"],
            "student_parameters": student_cost["parameters"],
            "student_ms_per_item": student_cost["ms_per_item"],
            "read_ms_per_item": read,
            "extract_seconds": None,
            "train_seconds": seconds,
        },
        notes=[
            *students.molecules.notes,
            *(prompts.notes if prompts is not None else ()),
            *_about_texts(prompts, encoder, max_tokens),
            "Times per molecule are of networks alone: a batch of 32 texts for the language model, of 128 molecules "
            "for graph networks, all molecules at once for students. To make of a SMILES what a student is given "
            f"takes {read:.2g} ms, in one process",
            f"The run took {time.perf_counter() - started:.0f} s since it was last started",
        ],
    )


def _plain(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Name → values, one a seed."""
    return {name: np.stack([one[name] for one in settings]).tolist() for name in settings[0]}


def _lines(rows: Sequence[str], graduates: Sequence[Graduates], lessons: Sequence[Lesson]) -> Iterator[dict[str, Any]]:
    """One line a row of students, seed and evaluation, in the unit of the data where there is one task."""
    for seed, (one, lesson) in enumerate(zip(graduates, lessons, strict=True)):
        # What validates is higher where it is better, and counted in scaled labels.
        unit = float(lesson.scale.std[0]) if len(lesson.scale.std) == 1 else 1.0
        factor = 1.0 if lesson.targets.higher_is_better else -unit
        for i, row in enumerate(rows):
            for at, epoch in enumerate(one.epochs):
                values = {name: float(curve[i, at]) for name, curve in one.curves.items()}
                values["valid"] *= factor
                yield {"row": row, "seed": seed, "epoch": int(epoch), **values}


def _about_texts(prompts: Prompts | None, encoder: TextEncoder | None, max_tokens: int) -> list[str]:
    if prompts is None or encoder is None:
        return []
    read = [text for text in prompts.texts if text]
    tokens = tokenise(encoder.tokenizer, read, max_tokens=max_tokens)
    mean = tokens.lengths[tokens.rows].mean()
    notes = [
        f"The language model reads {mean:.0f} tokens a text on average; {tokens.n_truncated:,} are cut to {max_tokens}"
    ]
    if prompts.source == "template":
        notes.append("Descriptions are RDKit's facts in a template, not texts that a language model wrote")
    return notes
