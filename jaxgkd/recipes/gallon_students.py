"""What is common to students of every kind: how they are taught on a split, and how those that graduate are chosen.

All of a split's students read the same molecules and the same teachers and differ in numbers alone: how much each
teacher counts (nothing, for the student alone), the size of the steps, dropout.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxgkd.data.molecules import Molecules
from jaxgkd.data.splits import Split
from jaxgkd.recipes.gallon_teachers import Lesson, Said
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.training.scaling import Scale
from jaxgkd.training.search import ranked

#: Principal components of a teacher's states that a student is held against: a linear map reaches no more of them
#: than it has units, and they cost a tenth of the states themselves.
COMPONENTS = 32


class Studied(NamedTuple):
    """All students of a split, r = rows × tries of them, the tries of the first row first.

    Fields:
      params: name → [r, ...] weights at the best epoch.
      valid: [r] best validation score, higher being better; best_epoch: [r].
      outputs: [r, v, t] of the split's v validation molecules at that epoch: logits, or scaled numbers.
      curves: name → [r, evaluations]; epochs: [evaluations].
      seconds: of training.
    """

    params: dict[str, np.ndarray]
    valid: np.ndarray
    best_epoch: np.ndarray
    outputs: np.ndarray
    curves: dict[str, np.ndarray]
    epochs: np.ndarray
    seconds: float


class Graduates(NamedTuple):
    """The students of a split that were chosen, one a row.

    Fields:
      predictions: [rows, n, t] probabilities, or numbers in the unit of the data.
      state: [rows, n, d] before the last layer.
      best_epoch: [rows]; curves: name → [rows, evaluations]; epochs: [evaluations].
      params: name → [rows, ...].
    """

    predictions: np.ndarray
    state: np.ndarray
    best_epoch: np.ndarray
    curves: dict[str, np.ndarray]
    epochs: np.ndarray
    params: dict[str, np.ndarray]


class Students(Protocol):
    """All students of a run: n ``molecules``, their ``targets``; ``width``, ``layers`` and ``epochs`` of training."""

    @property
    def molecules(self) -> Molecules:
        """Those with labels first."""
        ...

    @property
    def targets(self) -> Targets:
        """Of the molecules."""
        ...

    @property
    def width(self) -> int:
        """Of a state."""
        ...

    @property
    def layers(self) -> int:
        """Of a student."""
        ...

    @property
    def epochs(self) -> int:
        """Of training."""
        ...

    @property
    def n_parameters(self) -> int:
        """Weights of a student."""
        ...

    def inputs(self, molecules: Molecules) -> Any:
        """What a student is given of some molecules."""
        ...

    def states(self, graduates: Graduates, row: int) -> tuple[Any, Any]:
        """Parameters and other state of the student of a row."""
        ...

    def milliseconds(self, graduates: Graduates) -> float:
        """A molecule takes in the first row's student, the median of ten passes after a first one."""
        ...

    def teach(
        self,
        said: Mapping[str, Said],
        tries: Mapping[str, Sequence[Mapping[str, Any]]],
        split: Split,
        scale: Scale,
        seed: int,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> Studied:
        """Train all tries of all rows on one split.

        Args:
          said: teacher → what it says of all molecules, in this split.
          tries: row → settings, as many for every row: ``learning_rate``, ``weight_decay``, ``dropout``,
            ``temperature`` and the weights of all teachers, ``labels`` and ``states`` [k].
          split: of the molecules; scale: of the labels.
          seed: of the initial weights, the same for all.
          on_progress: called with the epochs done and the mean validation score.
        """
        ...

    def graduate(self, studied: Studied, chosen: np.ndarray, scale: Scale) -> Graduates:
        """The chosen students of a split, and what they say of all molecules.

        Args:
          studied: all of the split's.
          chosen: [rows] try of each row.
          scale: of the labels.
        """
        ...


def choose(studied: Sequence[Studied], lessons: Sequence[Lesson], n_row: int) -> list[np.ndarray]:
    """Which try each row keeps in every split, [rows] each: the one that validates best on the mean over all splits.

    A single split's validation part is small, and of many tries one is the best there by chance. But what tests in one
    split validates in another: a molecule has no say in what is kept where it tests.

    Args:
      studied: of every split; lessons: of every split.
      n_row: rows of students.
    """
    chosen = []
    for kept_for in lessons:
        scores = []
        for one, lesson in zip(studied, lessons, strict=True):
            sign = 1.0 if lesson.targets.higher_is_better else -1.0
            rows, heard = lesson.split.valid, ~np.isin(lesson.split.valid, kept_for.split.test)
            said = np.full((len(one.outputs), len(lesson.molecules), one.outputs.shape[2]), np.nan)
            said[:, rows[heard]] = one.outputs[:, heard]
            scores.append([sign * lesson.score(each, rows) for each in said])
        # A part in which no task can be scored is no reason to keep nothing.
        known = [of_split for of_split in scores if not np.isnan(of_split).all()]
        of_rows = np.array(known).T.reshape(n_row, -1, len(known))
        chosen.append(np.array([ranked(of_row)[0] for of_row in of_rows]))
    return chosen


def of_chosen(studied: Studied, chosen: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The weights of the chosen try of every row, and what else is kept of them: fields of `Graduates`."""
    kept = chosen + np.arange(len(chosen)) * (len(studied.valid) // len(chosen))
    params = {name: leaf[kept] for name, leaf in studied.params.items()}
    curves = {name: values[kept] for name, values in studied.curves.items()}
    return params, {"best_epoch": studied.best_epoch[kept], "curves": curves, "epochs": studied.epochs}
