"""How far a training over batches is, beside the state of its weights: what both loops over batches count alike."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgkd.training.soundness import SKIPPED
from jaxgkd.training.underway import Kept

Tree = Any


class Epochs:
    """The position in the data, the sums over the epoch so far, the best score of every run, and all curves.

    Attributes:
      epoch: the present one, counted from 0; number: batches of it that are done; steps: batches of all epochs.
      best_score, best_epoch: [runs], the epoch counted from 1, 0 for none.
      stopped: [runs] bool.
      curves: name → [runs, evaluations], NaN where nothing is known.
    """

    def __init__(self, n_run: int, worst: float):
        """At the start.

        Args:
          n_run: number of runs.
          worst: a score that any other is better than.
        """
        self.epoch = self.number = self.steps = 0
        self.best_score, self.best_epoch = np.full(n_run, worst), np.zeros(n_run, int)
        self.stopped = np.zeros(n_run, bool)
        self.curves: dict[str, np.ndarray] = {}
        self._totals: dict[str, Array] = {}

    def restore(self, kept: Kept) -> None:
        """Go to where a training was that was kept with `parts`."""
        counts = kept.arrays("counts")
        self.epoch, self.number, self.steps = (int(counts[name]) for name in ("epoch", "number", "steps"))
        self.best_score, self.best_epoch, self.stopped = (
            counts[name].copy() for name in ("best_score", "best_epoch", "stopped")
        )
        self.curves = {name: values.copy() for name, values in kept.arrays("curves").items()}
        self._totals = {name: jnp.asarray(values) for name, values in kept.arrays("totals").items()}

    def parts(self) -> dict[str, Tree]:
        """What `restore` needs, for `Training.reached`."""
        counts = {
            "epoch": np.asarray(self.epoch),
            "number": np.asarray(self.number),
            "steps": np.asarray(self.steps),
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
        }
        return {"counts": counts, "curves": self.curves, "totals": self._totals}

    @property
    def position(self) -> int:
        """Grows with every batch and every epoch."""
        return self.steps + self.epoch

    def add(self, logs: dict[str, Array]) -> None:
        """A batch is done; its logs are [runs]."""
        self._totals = jax.tree.map(jnp.add, self._totals, logs) if self._totals else logs
        self.number += 1
        self.steps += 1

    def means(self) -> dict[str, np.ndarray]:
        """Of the logs over the batches of this epoch, name → [runs]; where all were left out there is none, NaN."""
        totals = {name: np.asarray(total) for name, total in self._totals.items()}
        counted = self.number - totals.get(SKIPPED, 0.0)
        with np.errstate(invalid="ignore"):
            return {name: total / (self.number if name == SKIPPED else counted) for name, total in totals.items()}

    def end(self) -> None:
        """The epoch is done, and the next one begins."""
        self.epoch, self.number, self._totals = self.epoch + 1, 0, {}

    def mark(self, better: np.ndarray, score: np.ndarray) -> None:
        """The scores [runs] of the present epoch are the best so far where ``better`` [runs]."""
        self.best_score = np.where(better, score, self.best_score)
        self.best_epoch = np.where(better, self.epoch + 1, self.best_epoch)

    def record(self, values: dict[str, np.ndarray], evaluation: int, evaluations: int) -> None:
        """Put [runs] values at an evaluation of the curves; those of runs that have stopped are not known."""
        for name, value in values.items():
            unknown = np.full((len(self.stopped), evaluations), np.nan, np.asarray(value).dtype)
            self.curves.setdefault(name, unknown)[:, evaluation] = np.where(self.stopped, np.nan, value)
