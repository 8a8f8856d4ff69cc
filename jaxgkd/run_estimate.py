"""About how long ``jaxgkd run`` with default settings takes on some data, and in how much memory.

The language model's part is timed here and now: a few of the data's own texts are read by the default teacher, if it
lies on this machine. Everything else is in proportion to a run that was measured, whose figures stand in `REFERENCES`
and in the line that is printed; nothing is known of other settings, and little of other machines.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxgkd.errors import CheckpointError

TEACHER = "all-MiniLM-L6-v2"
_TIMED = 32


@dataclass(frozen=True)
class Reference:
    """A run that was measured on two cores of a CPU.

    Fields:
      command: that made it; seconds: in all, but for what the language model reads once; megabytes: its peak of memory.
      units: what the seconds are in proportion to, counted over that run's data; unit: in words.
    """

    command: str
    seconds: float
    megabytes: float
    units: float
    unit: str


#: From the summaries in experiments/RECIPE/results; of lingugkd a first run of 292 s, less 104 for reading texts.
REFERENCES = {
    "lingugkd": Reference("jaxgkd run lingugkd", 188, 1660, 2_522 + 7_929, "nodes and linked pairs"),
    "ccmd": Reference("jaxgkd run ccmd", 134, 1199, 365 * 22.79, "atoms"),
    "gallon": Reference("jaxgkd run gallon --data clintox", 569, 973, 1_478, "molecules"),
    "lmgnn": Reference("jaxgkd run lmgnn --data wikispeedia --task node_classification", 1398, 3296, 4_598, "texts"),
}


#: Of a run, whatever the size of its data: importing, and compiling what it needs.
FIXED_SECONDS = 30


@dataclass(frozen=True)
class Estimate:
    """What is expected of a run.

    Fields:
      seconds: in all, or None where the language model could not be timed or no run was measured.
      lines: for people, with what was assumed.
    """

    seconds: float | None
    lines: tuple[str, ...]


def estimate_run(recipe: str, data: Any) -> Estimate:
    """Time the language model on a few texts of the data, and compare the data's size with a run that was measured.

    Args:
      recipe: one of ``lingugkd``, ``gallon``, ``ccmd``, ``lmgnn`` and ``bleg``.
      data: what ``registry.load`` gives for it.
    """
    count, texts, prompts = _sizes(recipe, data)
    lines, seconds = [], 0.0
    if texts:
        each = _seconds_a_text(texts)
        if each is None:
            lines.append(f"estimate: the language model is not timed, since {TEACHER} is not on this machine")
            seconds = None
        else:
            reading = each * prompts
            what = f"{prompts:,} prompts to {TEACHER} take about {_shown(reading)}, once"
            timed = min(_TIMED, len(texts))
            lines.append(f"estimate: {what} ({1000 * each:.1f} ms each, timed now on {timed} of the texts)")
            seconds += reading
    reference = REFERENCES.get(recipe)
    if reference is None:
        lines.append("estimate: of the rest no default run has been measured")
        return Estimate(None, tuple(lines))
    rest = FIXED_SECONDS + (reference.seconds - FIXED_SECONDS) * max(count, 1) / reference.units
    known = f"`{reference.command}` took {_shown(reference.seconds)} for {reference.units:,.0f} {reference.unit}"
    lines.append(
        f"estimate: the rest takes about {_shown(rest)} for {count:,.0f} {reference.unit}, in proportion but for "
        f"{FIXED_SECONDS} s: {known} on two CPU cores with default settings; here are {os.cpu_count()}"
    )
    lines.append(f"estimate: memory was {reference.megabytes / 1000:.1f} GB at most there, more for more data")
    return Estimate(None if seconds is None else seconds + rest, tuple(lines))


def _sizes(recipe: str, data: Any) -> tuple[float, Sequence[str], int]:
    """What the time is in proportion to, the texts that a language model reads, and how many prompts it is given."""
    if recipe == "lingugkd":
        from jaxgkd.data.graph_counts import linked_pairs

        # Each hop of the default two has a prompt of its own.
        return data.n_node + linked_pairs(data.senders, data.receivers).shape[1], data.texts, 3 * data.n_node
    if recipe == "lmgnn":
        texts = [text for nodes in data.nodes.values() for text in nodes.texts or ()]
        # Fine-tuning reads them many times, which the reference run holds.
        return len(texts), (), 0
    if recipe == "gallon":
        # What is said of a molecule, and the time to read it, is part of the reference run.
        return len(data), (), 0
    if recipe == "ccmd":
        return float(np.sum(data.n_atom)), (), 0
    return data.n_subjects, (), 0


def _seconds_a_text(texts: Sequence[str]) -> float | None:
    """What the default teacher needs for a text of average length here, or None where it is not on this machine."""
    from jaxgkd import language
    from jaxgkd.teachers.hops import TextEncoder, milliseconds_per_node

    if not language.is_local(TEACHER):
        return None
    try:
        encoder = TextEncoder.load(TEACHER)
    except CheckpointError:
        return None
    rows = np.unique(np.linspace(0, len(texts) - 1, _TIMED).astype(int))
    sample = tuple(str(texts[row] or "nothing") for row in rows)
    return milliseconds_per_node(encoder, [sample], max_tokens=128) / 1000


def _shown(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
