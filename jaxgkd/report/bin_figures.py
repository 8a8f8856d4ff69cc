"""The test metric over bins of something that items have: accuracy by degree, or what a recipe measures by size."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxgkd.report.run_directory import Predictions, Run
from jaxgkd.report.style import Drawing, label_ends, new_axes, row_colour
from jaxgkd.report.wording import Scale, Treatment, treatment_of
from jaxgkd.training.summary import STUDENTS, is_share

FEWEST_IN_BIN = 20  # test items a seed, before a metric of them means anything
_SMALLEST_BIN = 0.03  # share of the test nodes, likewise


def degree_bins(degree: np.ndarray, counted: np.ndarray, fewest: float) -> list[tuple[int, int]]:
    """Bins of degrees 0, 1, 2, 3–4, 5–8, 9–16, …, merged as `merged_bins` says."""
    edges = [(0, 0), (1, 1), (2, 2)]
    while edges[-1][1] < degree[counted > 0].max(initial=0):
        edges.append((edges[-1][1] + 1, 2 * edges[-1][1]))
    return merged_bins(edges, degree, counted, fewest)


def merged_bins(
    edges: Sequence[tuple[int, int]], values: np.ndarray, counted: np.ndarray, fewest: float
) -> list[tuple[int, int]]:
    """Neighbouring bins merged until each holds enough test predictions.

    Args:
      edges: (lowest, highest) value of each bin, in order and without gaps.
      values: [n] what items are put into bins by.
      counted: [n] test predictions for each item, over all seeds.
      fewest: test predictions that a bin needs.

    Returns:
      (lowest, highest) value that occurs in each bin, both included.
    """
    bins: list[tuple[int, int]] = []
    pending = None
    for low, high in edges:
        pending = low if pending is None else pending
        if counted[(values >= pending) & (values <= high)].sum() >= fewest:
            bins.append((pending, high))
            pending = None
    if pending is not None and bins:
        bins[-1] = (bins[-1][0], edges[-1][1])
    inside = [values[(counted > 0) & (values >= low) & (values <= high)] for low, high in bins]
    return [(int(found.min()), int(found.max())) for found in inside]


def draw_degree(run: Run) -> Drawing | None:
    """Test accuracy over the degree of a node. None without degrees, without predictions, or with one bin only."""
    predictions = run.predictions
    if predictions is None or predictions.degree is None or not predictions.has_classes:
        return None
    rows = compared_rows(predictions)
    if "student_distilled" not in rows:
        return None
    degree = predictions.degree
    tested = predictions.tested("student_distilled")
    # All rows over the same seeds: the distilled student may have been trained with a few of them.
    of = tested.any(axis=1)
    seeds, counted = int(of.sum()), tested.sum(axis=0)
    bins = degree_bins(degree, counted, max(FEWEST_IN_BIN * seeds, _SMALLEST_BIN * counted.sum()))
    if len(bins) < 2:
        return None
    return draw_bins(
        run,
        Scale("accuracy", "%", 100.0, 1, True),
        {row: _accuracy_by_bin(predictions, row, bins)[of] for row in rows},
        bins,
        [counted[(degree >= low) & (degree <= high)].sum() / seeds for low, high in bins],
        by="number of neighbours",
        axis="degree of the node",
        place="degree {}",
    )


def compared_rows(predictions: Predictions) -> list[str]:
    """Teacher and students, as far as they have test predictions."""
    rows = [row for row in ("teacher", *STUDENTS) if row in predictions.by_row]
    return [row for row in rows if predictions.tested(row).any()]


def draw_bins(
    run: Run,
    scale: Scale,
    values: Mapping[str, np.ndarray],
    bins: Sequence[tuple[int, int]],
    sizes: Sequence[float],
    *,
    by: str,
    axis: str,
    place: str,
) -> Drawing:
    """A test metric of teacher and students over bins of something that items have.

    Args:
      run: the run.
      scale: how the metric is written.
      values: row → [seeds, bins], NaN where a seed has no value.
      bins: (lowest, highest) of each; sizes: test items of each, a seed.
      by: what the bins are of, in words; axis: the same for the axis.
      place: a bin in the title, with {} for its bounds.
    """
    title = _bins_title(treatment_of(run.summary), scale, values, bins, place)
    seeds = max(len(table) for table in values.values())
    subtitle = f"test {scale.name} by {by}{'' if scale.higher_is_better else ', lower is better'}"
    subtitle += f": mean, band: ± one standard deviation over {seeds} splits" if seeds > 1 else ", one seed"
    figure, axes = new_axes(title, subtitle)
    positions = np.arange(len(bins))
    ends = []
    for row, table in values.items():
        mean, deviation = _mean_and_deviation(scale.factor * table)
        colour = row_colour(row)
        if row != "teacher":
            axes.fill_between(positions, mean - deviation, mean + deviation, color=colour, alpha=0.18, linewidth=0)
        style = (0, (4, 2)) if row == "teacher" else "-"
        axes.plot(positions, mean, marker="o", color=colour, markersize=4.5, linestyle=style)
        ends.append((mean[-1], short_name(run, row), colour))
    names = [f"{_bin_name(*bounds)}\nn = {size:,.0f}" for bounds, size in zip(bins, sizes, strict=True)]
    axes.set_xticks(positions, names)
    axes.set_xlim(-0.15, len(bins) - 0.85)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 1.01 * scale.factor) if is_share(scale.name) else high)
    axes.yaxis.grid(True)
    axes.spines["left"].set_visible(False)
    axes.set(xlabel=f"{axis}, below it the number of test {run.items} per seed", ylabel=f"test {scale.label}")
    label_ends(axes, ends)
    return Drawing(figure, title)


def short_name(run: Run, row: str) -> str:
    """Teacher, alone or distilled: what a line is called where there is no room for the row's own name."""
    treatment = treatment_of(run.summary)
    return {"student_alone": treatment.lacking, "student_distilled": treatment.having}.get(row, row)


def _bin_name(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _accuracy_by_bin(predictions: Predictions, row: str, bins: list[tuple[int, int]]) -> np.ndarray:
    """Share of right predictions [seeds, bins], NaN where a seed tests no node of a bin."""
    tested, right = predictions.tested(row), predictions.by_row[row] == predictions.labels
    degree = np.asarray(predictions.degree)
    columns = []
    for low, high in bins:
        inside = tested & (degree >= low) & (degree <= high)
        n = inside.sum(axis=1)
        columns.append(np.where(n > 0, (right & inside).sum(axis=1) / np.maximum(n, 1), np.nan))
    return np.stack(columns, axis=1)


def _mean_and_deviation(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [bins] over the seeds that have a value; a single one deviates by zero."""
    n = np.isfinite(values).sum(axis=0)
    mean = np.where(n > 0, np.nansum(values, axis=0) / np.maximum(n, 1), np.nan)
    variance = np.nansum((values - mean) ** 2, axis=0) / np.maximum(n - 1, 1)
    return mean, np.sqrt(variance)


def _bins_title(
    treatment: Treatment, scale: Scale, values: Mapping[str, np.ndarray], bins: Sequence[tuple[int, int]], place: str
) -> str:
    thing = place.replace("{}", "").strip()
    if "student_alone" not in values:
        return f"{scale.name[:1].upper()}{scale.name[1:]} of {treatment.of_student} by {thing}"
    change = _mean_and_deviation(values["student_distilled"])[0] - _mean_and_deviation(values["student_alone"])[0]
    if treatment.missing or not np.isfinite(change).any():
        return f"{scale.name[:1].upper()}{scale.name[1:]} by {thing}"
    gain = change if scale.higher_is_better else -change
    best, worst = int(np.nanargmax(gain)), int(np.nanargmin(gain))
    if gain[best] <= 0 or not float(scale.number(gain[best])):
        return f"Nowhere, by {thing}, is {treatment.of_student} better than {treatment.lacking}"
    where = place.format(_bin_name(*bins[best]))
    amount = f"{scale.change(change[best])} {scale.change_unit}".strip()
    other = f"{'least' if gain[worst] >= 0 else 'harms'} at {_bin_name(*bins[worst])} ({scale.change(change[worst])})"
    return f"{treatment.name} helps most at {where} ({amount}), {other}"
