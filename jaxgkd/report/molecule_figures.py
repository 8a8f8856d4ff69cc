"""Figures of predictions for molecules: the metric by size, and either the errors of a regression or ROC curves."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from jaxgkd.report.bin_figures import FEWEST_IN_BIN, compared_rows, draw_bins, merged_bins, short_name
from jaxgkd.report.prediction_figures import MOST_POINTS
from jaxgkd.report.run_directory import Predictions, Run
from jaxgkd.report.style import FAINT, MUTED, Drawing, label_ends, new_axes, new_panels, row_colour
from jaxgkd.report.wording import runs_phrase, scale_of
from jaxgkd.training.metrics import COLUMN_METRICS, mean_over_columns
from jaxgkd.training.summary import STUDENTS

_MOST_SIZES = 7  # groups of sizes
_FALSE_POSITIVES = np.linspace(0, 1, 201)
_SMALL_SHARE = 0.1  # of false positives, at which the title reads the curves


def _columns(run: Run) -> Predictions | None:
    """Predictions of columns of labels that a metric of columns scores."""
    known = run.summary["metric"] in COLUMN_METRICS
    return None if run.predictions is None or run.predictions.has_classes or not known else run.predictions


def draw_size(run: Run) -> Drawing | None:
    """The test metric over the number of atoms. None without sizes or predictions, or with one group only."""
    predictions = _columns(run)
    if predictions is None or predictions.size is None:
        return None
    rows = compared_rows(predictions)
    if "student_distilled" not in rows:
        return None
    size, seeds = predictions.size, len(predictions.split)
    counted = predictions.tested("student_distilled").any(axis=2).sum(axis=0)
    edges = [(n, n) for n in range(int(size.min()), int(size.max()) + 1)]
    bins = merged_bins(edges, size, counted, max(FEWEST_IN_BIN * seeds, counted.sum() / _MOST_SIZES))
    values = {row: _metric_by_size(predictions, row, run.summary["metric"], bins) for row in rows}
    # A group may hold one class alone, and then it has no area under the curve.
    usable = np.all([np.isfinite(table).any(axis=0) for table in values.values()], axis=0)
    bins = [bounds for bounds, good in zip(bins, usable, strict=True) if good]
    if len(bins) < 2:
        return None
    return draw_bins(
        run,
        scale_of(run.summary),
        {row: table[:, usable] for row, table in values.items()},
        bins,
        [counted[(size >= low) & (size <= high)].sum() / seeds for low, high in bins],
        by="number of atoms",
        axis="atoms of the molecule",
        place="{} atoms",
    )


def _metric_by_size(predictions: Predictions, row: str, metric: str, bins: list[tuple[int, int]]) -> np.ndarray:
    """The metric [seeds, bins] of the test molecules of each bin, NaN where it has no value."""
    size, tested = np.asarray(predictions.size), predictions.tested(row)
    inside = [(size >= low) & (size <= high) for low, high in bins]
    table = [
        [mean_over_columns(metric, predicted, predictions.labels, where & group[:, None]) for group in inside]
        for predicted, where in zip(predictions.by_row[row], tested, strict=True)
    ]
    return np.array(table)


def draw_errors(run: Run) -> Drawing | None:
    """Predictions less labels of both students over the labels, of the first column. None unless a regression has both.

    A plot of predictions themselves is one straight line where labels spread over a hundred times the error.
    """
    predictions = _columns(run)
    if (
        predictions is None
        or run.summary["metric"] == "auroc"
        or any(row not in predictions.by_row for row in STUDENTS)
    ):
        return None
    both = np.logical_and(*(predictions.tested(row)[..., 0] for row in STUDENTS))
    total = int(both.sum())
    if total < 3:
        return None
    labels = np.broadcast_to(predictions.labels[:, 0], both.shape)
    errors = {row: (predictions.by_row[row][..., 0] - labels)[both] for row in STUDENTS}
    scale = scale_of(run.summary)
    half = {row: scale.value(float(np.median(np.abs(errors[row])))) for row in STUDENTS}
    title = (
        f"Half of the test errors are below {half['student_distilled']} distilled, below {half['student_alone']} alone"
    )
    chosen = np.arange(total)
    if total > MOST_POINTS:
        chosen = np.sort(np.random.default_rng(0).choice(total, MOST_POINTS, replace=False))
    sample = f"{len(chosen):,} of {total:,}" if len(chosen) < total else f"{total:,}"
    subtitle = f"prediction less label over label, {sample} tests of {run.items}{_of_column(run)}"
    figure, panels = new_panels(2, title, subtitle, height=3.5)
    x = labels[both][chosen]
    limit = max(float(np.quantile(np.abs(values), 0.99)) for values in errors.values()) * 1.1 or 1.0
    for axes, (row, values) in zip(panels, errors.items(), strict=True):
        mean, y, colour = float(np.abs(values).mean()), values[chosen], row_colour(row)
        axes.axhspan(-mean, mean, color=colour, alpha=0.14, linewidth=0, zorder=1)
        axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
        edge = 0.97 * limit
        for marker, shown in (("o", np.abs(y) <= limit), ("^", y > limit), ("v", y < -limit)):
            axes.scatter(
                x[shown], np.clip(y[shown], -edge, edge) if marker != "o" else y[shown], marker=marker,
                s=7 if marker == "o" else 16, color=colour, alpha=0.5, linewidths=0, zorder=2,
            )  # fmt: skip
        name = f"{short_name(run, row)}: mean error {scale.number(mean)}"
        axes.set_title(name, loc="left", size=8.5, color=colour, weight="bold")
        axes.set_ylim(-limit, limit)
        axes.yaxis.grid(True)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"label ({scale.unit})" if scale.unit else "label")
    panels[0].set_ylabel(f"prediction − label ({scale.unit})" if scale.unit else "prediction − label")
    return Drawing(figure, title)


def _of_column(run: Run) -> str:
    """Which of several columns of labels is drawn."""
    assert run.predictions is not None
    n, names = run.predictions.labels.shape[1], run.summary["data"].get("tasks") or []
    return "" if n == 1 else f", the first of {n} labels" + (f" ({names[0]})" if names else "")


def roc_curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of false and of true positives as the threshold falls, from (0, 0) to (1, 1).

    Args:
      scores: [n] higher for what is more likely positive; equal ones cross the threshold together.
      labels: [n] of 0 and 1, both of them present.
    """
    order = np.argsort(-scores, kind="stable")
    positive = labels[order] == 1
    last_of_equal = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true, false = np.cumsum(positive)[last_of_equal], np.cumsum(~positive)[last_of_equal]
    return np.append(0, false / false[-1]), np.append(0, true / true[-1])


def draw_roc(run: Run) -> Drawing | None:
    """ROC curves of teacher and students, averaged over columns and seeds. None unless a classification has any."""
    predictions = _columns(run)
    if predictions is None or run.summary["metric"] != "auroc":
        return None
    curves = {row: found for row in compared_rows(predictions) if len(found := _mean_curves(predictions, row))}
    if "student_distilled" not in curves:
        return None
    found = {row: float(np.interp(_SMALL_SHARE, _FALSE_POSITIVES, table.mean(axis=0))) for row, table in curves.items()}
    shares = {row: _percent(share) for row, share in found.items()}
    title = f"With {_percent(_SMALL_SHARE)} false positives the distilled student finds {shares['student_distilled']}"
    title += f" of the positives, alone {shares['student_alone']}" if "student_alone" in shares else " of the positives"
    seeds, n = len(predictions.split), predictions.labels.shape[1]
    runs = runs_phrase(run.summary)
    subtitle = f"true against false positives among test {run.items}"
    averaged = [f"{n} labels"] * (n > 1) + [runs] * (seeds > 1)
    subtitle += f": mean over {' and '.join(averaged)}" if averaged else ""
    subtitle += ", band: ± one standard deviation" if seeds > 1 else ""
    figure, axes = new_axes(title, subtitle, height=4.0)
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1.2, zorder=1)
    for row, table in curves.items():
        colour, mean = row_colour(row), 100 * table.mean(axis=0)
        if row != "teacher" and len(table) > 1:
            deviation = 100 * table.std(axis=0, ddof=1)
            axes.fill_between(
                100 * _FALSE_POSITIVES, mean - deviation, mean + deviation, color=colour, alpha=0.18, linewidth=0
            )
        style = (0, (4, 2)) if row == "teacher" else "-"
        axes.plot(100 * _FALSE_POSITIVES, mean, color=colour, linestyle=style)
    axes.set(xlim=(0, 100), ylim=(0, 100.5), xlabel="false positives (% of the negatives)")
    axes.set_ylabel("true positives (% of the positives)")
    axes.grid(True)
    scale = scale_of(run.summary)
    ends = []
    # All lines end in one corner: their names stand in the order of their areas.
    for place, row in enumerate(sorted(curves, key=lambda row: curves[row].mean())):
        values = run.summary["results"].get(row, {}).get("test")
        score = f"\n{scale.name} {scale.mean_and_std(values)}" if values else ""
        ends.append((30.0 + 20 * place, f"{short_name(run, row)}{score}", row_colour(row)))
    label_ends(axes, ends, height=4.0)
    return Drawing(figure, title)


def _mean_curves(predictions: Predictions, row: str) -> np.ndarray:
    """True positives [seeds, 201] over an even grid of false ones, the mean over columns that have both classes."""
    table = []
    for predicted, where in zip(predictions.by_row[row], predictions.tested(row), strict=True):
        curves = []
        for column, counted in enumerate(where.T):
            labels = predictions.labels[counted, column]
            if len(np.unique(labels)) == 2:
                curves.append(np.interp(_FALSE_POSITIVES, *roc_curve(predicted[counted, column], labels)))
        table += [np.mean(curves, axis=0)] if curves else []
    return np.array(table)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
