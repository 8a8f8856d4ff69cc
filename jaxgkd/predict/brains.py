"""Subjects through the students of ``jaxgkd run bleg``, each fold's with its own view of their connectivity."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.special
from flax import nnx

from jaxgkd.data.brain_sets import load_brain_set, subjects_table
from jaxgkd.data.brain_subjects import read_subjects, subject_key
from jaxgkd.data.brains import Brains
from jaxgkd.errors import DataError
from jaxgkd.nn.brain_inputs import BrainInputs
from jaxgkd.nn.named_weights import states_of
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.predict.columns import class_columns
from jaxgkd.predict.outcome import Outcome
from jaxgkd.predict.output_file import OutputFile
from jaxgkd.recipes.kept_brains import brain_maker, inputs_of_member, network_weights
from jaxgkd.training.by_value import jitted
from jaxgkd.training.student_folder import KeptStudent

# Subjects of a block.
_BLOCK = 64


def predict_brains(
    kept: KeptStudent,
    members: Sequence[int],
    source: Path | Brains,
    out: OutputFile,
    *,
    on_line: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Write ``subject``, ``class``, ``p_<class>`` of every class and ``problem``.

    Subjects come in the order of their scans; behind them those of the table of which there is no scan.

    Args:
      kept: the students.
      members: whose probabilities are averaged.
      source: a folder or a file of scans; or a cohort in memory.
      out: where rows are written.
      on_line: told what was found out about the scans, such as those that are left out.

    Raises:
      DataError: the scans cannot be read, or are not of the kind that the student reads.
    """
    brains = source if isinstance(source, Brains) else load_brain_set(source, label=None, atlas=kept.reads["atlas"])
    for note in brains.notes:
        on_line(note)
    if brains.n_regions != kept.reads["regions"]:
        what = f"{brains.name} has {brains.n_regions} regions, the student reads {kept.reads['regions']}"
        raise DataError(what, field="--data", mend="give scans of the atlas that the run had")
    if kept.reads["connectivity"] == "tangent" and (brains.series is not None) != kept.reads["from_series"]:
        kinds = ("series", "correlations") if kept.reads["from_series"] else ("correlations", "series")
        what = f"the student's tangent space is one of {kinds[0]}, and {brains.name} holds {kinds[1]}"
        raise DataError(what, field="--data", mend=f"give {kinds[0]}")
    probabilities = np.mean([_said(kept, member, brains) for member in members], axis=0)
    without = _without_scan(source, brains)
    rows = [*range(1, brains.n_subjects + 1), *without]
    problems = dict.fromkeys(range(brains.n_subjects, len(rows)), "there is no scan of the subject")
    missing = np.full((len(without), probabilities.shape[1]), np.nan)
    outcome = Outcome("subjects")
    outcome.add(rows, problems)
    ids = [*brains.subjects, *without.values()]
    # The likeliest of no numbers is not asked for.
    filled = np.nan_to_num(np.concatenate([probabilities, missing]))
    out.write(class_columns({"subject": ids}, kept.says["names"], filled, problems))
    return outcome


def _said(kept: KeptStudent, member: int, brains: Brains) -> np.ndarray:
    """[n, classes] probabilities of one fold's student."""
    make = brain_maker(kept)
    weights = {name: leaf[member] for name, leaf in network_weights(kept.weights).items()}
    states, graphdef = states_of(make, weights), graphdef_of(make)
    ask = jitted(lambda states, inputs: nnx.merge(graphdef, *states)(inputs).logits)
    inputs = inputs_of_member(kept, member, brains)
    n = brains.n_subjects
    logits = []
    for start in range(0, n, _BLOCK):
        rows = np.minimum(np.arange(start, start + min(_BLOCK, n)), n - 1)
        block: BrainInputs = inputs.take(rows)  # type: ignore[arg-type]
        logits.append(np.asarray(ask(states, block))[: n - start])
    return scipy.special.softmax(np.concatenate(logits).astype(np.float64), axis=-1)


def _without_scan(source: Path | Brains, brains: Brains) -> dict[int, str]:
    """Row of the table → id of the subjects that have no scan."""
    if isinstance(source, Brains):
        return {}
    table = read_subjects(subjects_table(source), label=None)
    scanned = {subject_key(subject) for subject in brains.subjects}
    missing = [key not in scanned for key in table.keys]
    return {row: name for row, name, gone in zip(table.rows, table.ids, missing, strict=True) if gone}
