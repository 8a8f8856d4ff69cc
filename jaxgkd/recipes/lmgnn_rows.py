"""The rows of a run over a heterogeneous graph: what they are called, and what each leaves for the report."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Tree = Any
Outputs = dict[str, np.ndarray]
#: Rows that a language model had a part in, one of which becomes ``student_distilled``.
STAGED = ("fine_tuned", "cotrained", "glem")
LABELS = {
    "text_only": "text, frozen LM",
    "linked": "text, LM tuned on links",
    "teacher": "text, tuned LM",
    "student_alone": "GNN on frozen LM",
    "fine_tuned": "GNN on tuned LM",
    "cotrained": "LM, GNN together",
    "glem": "GLEM",
    "text_student": "text, taught by GNN",
    "without_links": "that GNN, no links",
}


class HeteroRow(NamedTuple):
    """A row of the table.

    Fields:
      label: for people.
      outputs: of every seed, part → what is said; None for a seed that has none.
      parameters: of one trained network and, where it was trained, the language model's layers.
      milliseconds: of the GNN's states of all nodes, or None.
      seconds: of its own search and training.
      settings: of the GNN; curves: of every seed that has one, step → validation score, higher is better; of values
        minus the error in standard deviations.
      step_milliseconds: of a step that trains the language model.
      trained: of every seed that has one, the language model's layers (None where they were frozen), and parameters and
        other state of the network.
    """

    label: str
    outputs: list[Outputs | None]
    parameters: int
    milliseconds: float | None
    seconds: float
    settings: Mapping[str, float]
    curves: Sequence[Mapping[int, float]]
    step_milliseconds: float | None
    trained: Sequence[tuple[Tree | None, Tree, Tree]]
