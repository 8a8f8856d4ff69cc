"""What the teachers of a ``gallon`` run weigh, and what they cost a molecule, measured where the students are."""

import csv
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgkd.data.molecules import Molecules, load_molecules
from jaxgkd.graphs import Batches
from jaxgkd.nn.molecule_problem import Make, molecule_problem
from jaxgkd.nn.untrained import n_weights
from jaxgkd.recipes.gallon_teachers import DRAWING_SIZE, Lesson, drawing_maker, drawing_problem
from jaxgkd.recipes.gallon_texts import Prompts, milliseconds_per_prompt
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.training.by_value import jitted
from jaxgkd.training.timing import median_milliseconds

_TIMED = 128
# Molecules that are read to see how long it takes.
_READ = 512


def milliseconds_to_read(molecules: Molecules, inputs: Callable[[Molecules], Any]) -> float:
    """What it takes a single process to make of the SMILES of a molecule, in a table, what a network is given.

    Args:
      molecules: of which at most 512 are read.
      inputs: from some molecules to what a network is given of them.
    """
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "molecules.csv"
        smiles = [molecules.smiles(i) for i in range(min(_READ, len(molecules)))]
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([["smiles"], *([text] for text in smiles)])
        begun = time.perf_counter()
        read = load_molecules(table, labels=(), hydrogens=molecules.hydrogens, workers=1, root=Path(scratch))
        jax.block_until_ready(inputs(read))
        return 1e3 * (time.perf_counter() - begun) / len(smiles)


def teacher_costs(
    teachers: Sequence[str],
    encoder: TextEncoder | None,
    prompts: Mapping[str, Prompts],
    max_tokens: int,
    make_gnn: Make | None,
    n_head: int,
    lesson: Lesson,
) -> dict[str, dict[str, float]]:
    """Parameters and ms per molecule of every teacher, all its folds together.

    Args:
      teachers: their names.
      encoder: the language model; prompts: name of a teacher → what it read; max_tokens: of a prompt.
      make_gnn: from a key to the graph teacher.
      n_head: weights of all heads that speak for a language model.
      lesson: of any seed.
    """
    n_task, kind = lesson.targets.labels.shape[1], lesson.targets.kind
    rows = np.arange(min(_TIMED, len(lesson.molecules)))
    costs: dict[str, dict[str, float]] = {}
    for name in teachers:
        if name == "gnn":
            assert make_gnn is not None
            problem = molecule_problem(make_gnn, kind)
            batch: Any = Batches(lesson.molecules.graphs(), len(rows), rows=rows, shuffle=False).batch(0, 0)
            parameters = n_weights(make_gnn)
        elif name == "drawing":
            problem, _ = drawing_problem(DRAWING_SIZE, n_task, kind)
            batch = {"drawings": np.zeros((len(rows), DRAWING_SIZE, DRAWING_SIZE), np.uint8)}
            parameters = n_weights(drawing_maker(DRAWING_SIZE, n_task))
        else:
            assert encoder is not None
            parameters = encoder.model.n_parameters + (encoder.model.width + 1) * n_task + n_head
            read = [text for text in prompts[name].texts if text]
            milliseconds = milliseconds_per_prompt(encoder, read, max_tokens)
            costs[name] = {"parameters": lesson.folds * parameters, "ms_per_item": lesson.folds * milliseconds}
            continue
        params, forward = problem.init(jax.random.key(0)), jitted(problem.outputs)
        milliseconds = median_milliseconds(lambda: forward(params, batch)) / len(rows)  # noqa: B023
        costs[name] = {"parameters": lesson.folds * parameters, "ms_per_item": lesson.folds * milliseconds}
    return costs
