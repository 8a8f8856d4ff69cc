"""Numbers in words: how a metric is written, what rows are called, and the sentence a run comes down to."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxgkd.training.statistics import mean_std
from jaxgkd.training.summary import STUDENTS

SIGNIFICANT = 0.05
_PERCENT = ("accuracy", "f1", "precision", "recall", "hits")
_ABBREVIATIONS = {"auc", "auroc", "auprc", "mrr", "mae", "mse", "rmse", "ndcg", "map", "roc", "pr", "f1", "r2"}


@dataclass(frozen=True)
class Scale:
    """How one metric is written.

    Attributes:
      name: the metric in words, such as "accuracy" or "RMSE".
      unit: "%", a unit of measure such as "kcal/mol", or "".
      factor: what a value is multiplied by before it is written.
      decimals: digits after the point in running text; tables show one more.
      higher_is_better: the direction.
    """

    name: str
    unit: str
    factor: float
    decimals: int
    higher_is_better: bool

    def number(self, value: float, extra: int = 0) -> str:
        """The value without its unit."""
        text = f"{self.factor * value:.{self.decimals + extra}f}"
        return text.replace("-", "−") if float(text) else text.lstrip("-")

    def value(self, value: float) -> str:
        """The value with its unit."""
        return f"{self.number(value)} {self.unit}".strip()

    def mean_and_std(self, values: ArrayLike, extra: int = 0) -> str:
        """Mean ± standard deviation without the unit; one value stands alone, no value is a dash."""
        mean, std = mean_std(values)
        if math.isnan(mean):
            return "–"
        several = np.isfinite(np.asarray(values, dtype=np.float64)).sum() > 1
        return self.number(mean, extra) + (f" ± {self.number(std, extra)}" if several else "")

    def change(self, value: float, extra: int = 0) -> str:
        """A signed difference without its unit."""
        text = self.number(value, extra)
        return f"+{text}" if value > 0 and float(text) else text

    @property
    def change_unit(self) -> str:
        """The unit of a difference: percentages differ by points."""
        return "points" if self.unit == "%" else self.unit

    @property
    def label(self) -> str:
        """The metric with its unit in brackets, for axes and table heads."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def better(self, difference: float) -> bool:
        """Whether a difference of this sign is an improvement."""
        return difference > 0 if self.higher_is_better else difference < 0


@dataclass(frozen=True)
class Treatment:
    """What is done to the second student and not to the first, in words; recipes that do not distil name their own.

    Attributes:
      name: as the subject of a sentence; student: the one it is done to, likewise.
      having, lacking: what is said of a student with it, and without it.
      missing: why there is none, where a run was asked for none and both students are one.
    """

    name: str = "Distillation"
    student: str = "The distilled student"
    having: str = "distilled"
    lacking: str = "alone"
    missing: str = ""

    @property
    def within(self) -> str:
        """The name inside of a sentence."""
        return self.name[0].lower() + self.name[1:]

    @property
    def of_student(self) -> str:
        """The student inside of a sentence."""
        return self.student[0].lower() + self.student[1:]


def treatment_of(summary: Mapping[str, Any]) -> Treatment:
    """How a run calls what it did."""
    return Treatment(**summary.get("treatment", {}))


def scale_of(summary: Mapping[str, Any]) -> Scale:
    """How the metric of a summary is written: shares such as accuracy in percent, others with three digits."""
    words = summary["metric"].replace("_", " ").split()
    name = " ".join(word.upper() if word.lower() in _ABBREVIATIONS else word for word in words)
    if any(word.lower().split("@")[0] in _PERCENT for word in words):
        return Scale(name, "%", 100.0, 1, summary["higher_is_better"])
    # As many digits as the students need: a baseline that is far off would leave them none.
    values = np.concatenate([row_values(summary, row, "test") for row in STUDENTS])
    largest = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 1.0
    decimals = int(np.clip(2 - math.floor(math.log10(largest)), 0, 6)) if largest > 0 else 3
    return Scale(name, str(summary.get("unit") or ""), 1.0, decimals, summary["higher_is_better"])


def run_rows(summary: Mapping[str, Any]) -> list[str]:
    """The rows that have values: teacher, alone, distilled, then the others as they stand."""
    results = summary["results"]
    return [row for row in dict.fromkeys(("teacher", *STUDENTS, *results)) if "not_run" not in results[row]]


def row_values(summary: Mapping[str, Any], row: str, part: str) -> np.ndarray:
    """The values [n] of a row in "valid" or "test", NaN where a seed gave none."""
    values = summary["results"][row][part]
    return np.asarray([math.nan if value is None else value for value in values], dtype=np.float64)


def row_name(summary: Mapping[str, Any], row: str) -> str:
    """What a row is called: its own label, or its key in words."""
    return str(summary["results"].get(row, {}).get("label", row.replace("_", " ")))


def row_cost(summary: Mapping[str, Any], row: str, name: str) -> float | None:
    """The field "parameters" or "ms_per_item" of a row; teacher and students fall back on the cost of the run, unless
    the row itself says that it has none."""
    fields = summary["results"].get(row, {})
    if name in fields:
        return None if fields[name] is None else float(np.mean(fields[name]))
    who = "teacher" if row == "teacher" else "student" if row in STUDENTS else None
    return None if who is None else summary["cost"].get(f"{who}_{name}")


def runs_phrase(summary: Mapping[str, Any]) -> str:
    """How often a run was repeated: "one seed", "5 seeds", or "10 folds" where a seed gave several values."""
    seeds, values = len(summary["seeds"]), len(summary["results"]["student_alone"]["test"])
    if values > seeds:
        return f"{values} folds"
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def p_phrase(p_value: float | None) -> str:
    """A p-value in text: "p = 0.034", "p < 0.001", or a dash without a test."""
    if p_value is None:
        return "–"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def p_cell(p_value: float | None) -> str:
    """A p-value for a table cell."""
    return p_phrase(p_value).removeprefix("p = ").removeprefix("p ")


def count(value: float | None) -> str:
    """A number of parameters or items: 812, 33.4 k, 22.7 M, 7.24 B."""
    if value is None:
        return "–"
    for size, sign in ((1e9, " B"), (1e6, " M"), (1e4, " k")):
        if value >= (size if sign == " k" else size * 0.9995):
            return f"{value / (1e3 if sign == ' k' else size):.3g}{sign}"
    return f"{value:,.0f}".replace(",", " ")


def measured(value: float | None) -> str:
    """A time or a size, with three digits."""
    if value is None:
        return "–"
    if value == 0 or 1e-4 <= abs(value) < 1e3:
        return np.format_float_positional(value, precision=3, fractional=False, unique=False, trim="-")
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1e3 else f"{value:.2e}"


def duration(seconds: float | None) -> str:
    """Seconds as "41 s", "12 min 5 s" or "3 h 20 min"."""
    if seconds is None:
        return "–"
    if seconds < 59.5:
        return f"{measured(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def described(value: Any) -> str:
    """A text, list or mapping of the summary as one line; a mapping begins with its name."""
    if isinstance(value, Mapping):
        rest = [f"{str(key).replace('_', ' ')} {described(item)}" for key, item in value.items() if key != "name"]
        return ", ".join(([str(value["name"])] if "name" in value else []) + rest)
    if isinstance(value, list | tuple):
        return " / ".join(described(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(str(value).split())


def paired_means(summary: Mapping[str, Any]) -> tuple[float, float, int]:
    """Test means of the student alone and distilled over the pairs that have both values, and how many there are."""
    alone, distilled = (row_values(summary, row, "test") for row in STUDENTS)
    both = np.isfinite(alone) & np.isfinite(distilled)
    return mean_std(alone[both])[0], mean_std(distilled[both])[0], int(both.sum())


def p_of_difference(summary: Mapping[str, Any]) -> float | None:
    """Of distilled against alone; of folds, which share training items, the corrected one: plain tests are too sure."""
    return summary.get("corrected_difference", summary["difference"])["p_value"]


def verdict(summary: Mapping[str, Any]) -> str:
    """Whether distillation, or what a run has in its place, helped: one sentence made from the numbers alone.

    The sign and the p-value decide.
    """
    scale, difference, treatment = scale_of(summary), summary["difference"], treatment_of(summary)
    alone, distilled, pairs = paired_means(summary)
    if treatment.missing:
        return f"{treatment.missing}: test {scale.name} is {scale.value(alone)}."
    if difference["mean"] is None or pairs == 0:
        return f"No seed gave a value for both students, so nothing can be said about {treatment.within}."
    change, p_value, corrected = difference["mean"], p_of_difference(summary), summary.get("corrected_difference")
    spread = "" if p_value is None else f" ± {scale.number(difference['std'] or 0.0)}"
    amount = f"{scale.change(change)}{spread} {scale.change_unit}".strip()
    total = len(summary["results"]["student_alone"]["test"])
    repeated = runs_phrase(summary) if pairs == total else f"{pairs} of {runs_phrase(summary)}"
    test = "paired t-test"
    if corrected:
        test = "paired t-test corrected for shared training items"
        if corrected["n"] < pairs:
            repeated = f"{corrected['n']} test parts in {repeated}"
    evidence = f"({amount} over {repeated}, {test} {p_phrase(p_value)})"
    metric, before, after = f"test {scale.name}", scale.value(alone), scale.value(distilled)
    if p_value is None:
        return (
            f"{treatment.student} has a {metric} of {after}, {treatment.lacking} it has {before} ({amount}); "
            "one pair of values cannot tell this from chance."
        )
    if p_value >= SIGNIFICANT:
        values = f"{after} {treatment.having} and {before} {treatment.lacking}"
        return f"{treatment.name} did not clearly help: {metric} is {values} {evidence}."
    if scale.better(change):
        verb = "raised" if change > 0 else "lowered"
        return f"{treatment.name} {verb} {metric} from {before} to {after} {evidence}."
    verb = "rose" if change > 0 else "fell"
    return f"{treatment.name} did harm: {metric} {verb} from {before} to {after} {evidence}."


def against_teacher(summary: Mapping[str, Any]) -> str:
    """How far the distilled student is from its teacher, and what it costs beside it; empty without a teacher."""
    if "not_run" in summary["results"]["teacher"]:
        return ""
    scale, student = scale_of(summary), treatment_of(summary).student
    teacher, taught = (mean_std(row_values(summary, row, "test"))[0] for row in ("teacher", "student_distilled"))
    if math.isnan(teacher) or math.isnan(taught):
        return ""
    gap = taught - teacher
    whom = f"“{row_name(summary, 'teacher')}”" if "treatment" in summary else "its teacher"
    if not float(scale.number(abs(gap))):
        sentence = f"{student} is level with {whom} ({scale.value(teacher)})"
    else:
        size = f"{scale.number(abs(gap))} {scale.change_unit}".strip()
        side = "better" if scale.better(gap) else "worse"
        sentence = f"{student} is {size} {side} than {whom} ({scale.value(teacher)})"
    costs = []
    # What is no distillation leaves no smaller network whose cost would be the point.
    compared = () if "treatment" in summary else (("parameters", "parameters"), ("ms_per_item", "time per item"))
    for name, words in compared:
        large, small = row_cost(summary, "teacher", name), row_cost(summary, "student_distilled", name)
        if large and small:
            costs.append(f"{_ratio(small / large)} the {words}")
    return f"{sentence}, with {' and '.join(costs)}." if costs else f"{sentence}."


def _ratio(share: float) -> str:
    if share < 1 / 1.5:
        return f"1/{_round(1 / share)} of"
    return f"{_round(share)} times" if share > 1.5 else f"{share:.0%} of".replace("%", " %")


def _round(value: float) -> str:
    """Two digits are enough for a ratio."""
    if value < 10:
        return f"{value:.1f}".removesuffix(".0")
    return f"{float(f'{value:.2g}'):,.0f}".replace(",", " ")
