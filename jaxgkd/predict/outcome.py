"""What became of the items: how many were predicted, and the reasons of those that were not."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console

from jaxgkd.errors import DataError

# Of the items without a prediction, the first are printed.
_SHOWN = 10


@dataclass
class Outcome:
    """Counts of a prediction.

    Fields:
      items: what they are, in words.
      n: of all; n_missing: of those without a prediction; problems: (row, reason) of the first of these.
    """

    items: str
    n: int = 0
    n_missing: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)

    def add(self, rows: list[int], problems: Mapping[int, str]) -> None:
        """Count a part: the rows of its items, and position in the part → why there is no prediction."""
        self.n += len(rows)
        self.n_missing += len(problems)
        left = _SHOWN - len(self.problems)
        self.problems += [(rows[i], problems[i]) for i in sorted(problems)[: max(0, left)]]

    def check(self) -> None:
        """Raises DataError where nothing was predicted, with the first reason."""
        if self.n == self.n_missing:
            row, reason = self.problems[0] if self.problems else (None, "there is none")
            what = f"none of the {self.n:,} {self.items} can be predicted ({reason})"
            raise DataError(what, row=row, field="--data", mend="give data of the kind the run was trained on")

    def print(self, console: Console) -> None:
        """Say it."""
        console.print(f"{self.n - self.n_missing:,} of {self.n:,} {self.items} predicted")
        for row, reason in self.problems:
            console.print(f"row {row}: {reason}", soft_wrap=True, highlight=False, markup=False)
        if self.n_missing > len(self.problems):
            console.print(f"… and {self.n_missing - len(self.problems):,} more; the column problem has all reasons")
