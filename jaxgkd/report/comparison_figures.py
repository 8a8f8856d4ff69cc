"""Figures of several runs on the same data: where teacher and students end, and what distillation adds in each."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jaxgkd.report.pairing import gain
from jaxgkd.report.run_directory import Run
from jaxgkd.report.style import FAINT, MUTED, TEXT, Drawing, new_axes, row_colour, shortened
from jaxgkd.report.wording import SIGNIFICANT, row_values, run_rows, scale_of
from jaxgkd.training.statistics import mean_std
from jaxgkd.training.summary import STUDENTS

_NAME_INCHES = 1.9


def draw_students(runs: Sequence[Run], names: Sequence[str]) -> Drawing:
    """Test values of teacher and students, a line for each run.

    Args:
      runs: of the same data and metric.
      names: of the runs.
    """
    scale = scale_of(runs[0].summary)
    distilled = [mean_std(row_values(run.summary, "student_distilled", "test"))[0] for run in runs]
    title = "Teacher and students of every run"
    if np.isfinite(distilled).any():
        best = int(np.nanargmax(distilled) if scale.higher_is_better else np.nanargmin(distilled))
        title = f"Best distilled student: {scale.value(distilled[best])} in {names[best]}"
    subtitle = "" if scale.higher_is_better else "lower is better; "
    subtitle += "means, bar: ± one standard deviation; square: teacher, circles: student alone and distilled"
    figure, axes = new_axes(title, subtitle, height=1.05 + 0.5 * len(runs))
    for position, run in enumerate(runs):
        axes.axhline(position, color=FAINT, linewidth=0.8, zorder=1)
        written = []
        for row in (row for row in ("teacher", *STUDENTS) if row in run_rows(run.summary)):
            mean, std = mean_std(scale.factor * row_values(run.summary, row, "test"))
            height = position + {"teacher": -0.22, "student_alone": 0.0, "student_distilled": 0.22}[row]
            marker = "s" if row == "teacher" else "o"
            axes.errorbar(
                mean,
                height,
                xerr=std or None,
                fmt=marker,
                color=row_colour(row),
                markersize=5,
                elinewidth=1.4,
                zorder=3,
            )
            if row != "teacher":
                written.append(scale.number(mean / scale.factor) if np.isfinite(mean) else "–")
        _write(axes, position, " → ".join(written))
    _name_lines(axes, names)
    axes.set_xlabel(f"test {scale.label}")
    return Drawing(figure, title)


def draw_gains(runs: Sequence[Run], names: Sequence[str], p_values: Sequence[float | None]) -> Drawing:
    """What distillation changes in every run: distilled minus alone with its 95 % interval.

    Args:
      runs: of the same data and metric.
      names: of the runs.
      p_values: of the runs, corrected for all that are compared.
    """
    scale = scale_of(runs[0].summary)
    tests = [gain(run) for run in runs]
    means = [test["mean"] for test in tests]
    helped = sum(
        mean is not None and p is not None and p < SIGNIFICANT and scale.better(mean)
        for mean, p in zip(means, p_values, strict=True)
    )
    title = f"Distillation clearly helps in {helped} of {len(runs)} runs" if len(runs) > 1 else "What distillation adds"
    subtitle = "distilled minus alone over the same seeds or folds, with 95 % interval; p corrected after Holm"
    if not scale.higher_is_better:
        subtitle = f"lower is better; {subtitle}"
    figure, axes = new_axes(title, subtitle, height=1.05 + 0.4 * len(runs))
    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    for position, (test, p) in enumerate(zip(tests, p_values, strict=True)):
        axes.axhline(position, color=FAINT, linewidth=0.8, zorder=0)
        mean, low, high = (test[key] for key in ("mean", "low", "high"))
        if mean is None:
            _write(axes, position, "no pair")
            continue
        colour = row_colour("student_distilled") if scale.better(mean) else row_colour("student_alone")
        if low is not None and high is not None:
            axes.plot(scale.factor * np.array([low, high]), [position] * 2, color=colour, linewidth=1.6, zorder=2)
        axes.plot(scale.factor * mean, position, "o", color=colour, markersize=5.5, zorder=3)
        _write(axes, position, scale.change(mean) + ("" if p is None else f", p {_p(p)}"))
    _name_lines(axes, names)
    unit = f" ({scale.change_unit})" if scale.change_unit else ""
    axes.set_xlabel(f"change of test {scale.name}{unit}")
    return Drawing(figure, title)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def _write(axes: Axes, position: int, text: str) -> None:
    axes.annotate(
        text, (1, position), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
        va="center", annotation_clip=False,
    )  # fmt: skip


def _name_lines(axes: Axes, names: Sequence[str]) -> None:
    """The names of the runs to the left of their lines, the first on top."""
    axes.set_yticks(range(len(names)), [shortened(name, _NAME_INCHES, 8.5) for name in names], color=TEXT, size=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.spines["left"].set_visible(False)
    axes.xaxis.grid(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))
