"""What molecules are to be predicted: labels scaled by the training part, and the metric that scores predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxgkd.data.molecules import Molecules, TaskKind
from jaxgkd.data.splits import Split
from jaxgkd.errors import ConfigError
from jaxgkd.training.metrics import mean_over_columns
from jaxgkd.training.scaling import Scale

Metric = Literal["mae", "rmse", "auroc"]
_METRICS_OF: dict[TaskKind, tuple[Metric, ...]] = {"regression": ("mae", "rmse"), "classification": ("auroc",)}


@dataclass(frozen=True)
class Targets:
    """The labels of n molecules for t tasks of one kind.

    Fields:
      labels: [n, t] float64 in the unit of the data, NaN where missing.
      kind: of all tasks; metric: the mean over tasks of this one is reported.
    """

    labels: np.ndarray
    kind: TaskKind
    metric: Metric

    @classmethod
    def of(cls, molecules: Molecules, metric: Metric | None = None) -> "Targets":
        """The labels of molecules.

        Args:
          molecules: n of them.
          metric: by default the mean absolute error, or the area under the ROC curve of two classes.

        Raises:
          ConfigError: the tasks are of different kinds, or the metric does not suit them.
        """
        kinds: set[TaskKind] = {task.kind for task in molecules.tasks}
        if len(kinds) != 1:
            what = "some labels are classes and others are numbers"
            raise ConfigError(what, field="--label", mend="choose columns of one kind, or say --task")
        kind = kinds.pop()
        suited = _METRICS_OF[kind]
        metric = suited[0] if metric is None else metric
        if metric not in suited:
            what = f"{metric} does not score {kind}"
            raise ConfigError(what, field="--metric", mend=f"use {' or '.join(suited)}")
        return cls(np.asarray(molecules.labels), kind, metric)

    @property
    def higher_is_better(self) -> bool:
        """Of the metric."""
        return self.metric == "auroc"

    def scale(self, rows: np.ndarray, offset: np.ndarray | None = None) -> Scale:
        """Labels counted from an offset in standard deviations, as they are in ``rows``; classes stay as they are.

        Args:
          rows: molecules whose labels train.
          offset: [n, t] what labels are counted from; by default their mean.
        """
        n_task = self.labels.shape[1]
        if self.kind == "classification":
            return Scale(np.zeros(n_task), np.ones(n_task))
        left = self.labels if offset is None else self.labels - offset
        mean, std = np.zeros(n_task), np.ones(n_task)
        for task in range(n_task):
            known = left[rows, task]
            known = known[~np.isnan(known)]
            if len(known):
                mean[task] = known.mean()
                std[task] = known.std() or 1.0
        return Scale(mean if offset is None else mean + offset, std)

    def score(self, predictions: np.ndarray, rows: np.ndarray) -> float:
        """The metric on some molecules, averaged over the tasks that have one there; NaN where none has.

        Args:
          predictions: [n, t]; NaN where there is none, which leaves the molecule out.
          rows: of the molecules that are scored.
        """
        labels, values = self.labels[rows], predictions[rows]
        return mean_over_columns(self.metric, values, labels, ~np.isnan(labels) & ~np.isnan(values))

    def check(self, splits: Sequence[Split]) -> None:
        """Raises ConfigError where a part of a split has no label, or not both classes, of any task.

        Nor can a number be learned that is the same for all molecules that train.
        """
        for number, split in enumerate(splits):
            for part in ("train", "valid", "test"):
                labels = self.labels[getattr(split, part)]
                known = ~np.isnan(labels)
                usable = known.any(axis=0)
                if self.kind == "classification":
                    usable &= (np.where(known, labels, 0) == 1).any(axis=0) & (np.where(known, labels, 1) == 0).any(
                        axis=0
                    )
                wanted = "labels of both classes" if self.kind == "classification" else "a label"
                if self.kind == "regression" and part == "train":
                    usable &= np.where(known, labels, -np.inf).max(axis=0) > np.where(known, labels, np.inf).min(axis=0)
                    wanted = "labels that differ"
                if not usable.any():
                    what = f"the {part} part of split {number} ({split.name}) has no task with {wanted}"
                    raise ConfigError(what, field="--split", mend="use another split, more seeds or other data")
