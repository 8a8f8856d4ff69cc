"""Figures of results and of training: the metric of all rows, learning curves, terms of the loss, layer weights."""

from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from jaxgkd.report.bin_figures import draw_degree, short_name
from jaxgkd.report.brain_figures import draw_sites
from jaxgkd.report.calibration_figure import draw_calibration
from jaxgkd.report.connections_figure import draw_connections
from jaxgkd.report.molecule_figures import draw_errors, draw_roc, draw_size
from jaxgkd.report.prediction_figures import draw_confusion, draw_embedding
from jaxgkd.report.run_directory import Run
from jaxgkd.report.style import (
    CLASS_COLOURS,
    FAINT,
    MUTED,
    TEXT,
    Drawing,
    house_style,
    label_ends,
    new_axes,
    on_two_lines,
    row_colour,
    save,
)
from jaxgkd.report.wording import (
    SIGNIFICANT,
    Scale,
    p_of_difference,
    paired_means,
    row_name,
    row_values,
    run_rows,
    runs_phrase,
    scale_of,
    treatment_of,
)
from jaxgkd.training.statistics import mean_std
from jaxgkd.training.summary import STUDENTS

_MOST_LABELS = 7


def draw_results(run: Run) -> Drawing | None:
    """Test values of every row: a bar of mean ± standard deviation, each seed a dot. None where no row has a value.

    Bars span the spread rather than start at zero: what matters is a few points among values that are all far from it.
    For the same reason a baseline that is far from teacher and students lies outside the frame, an arrow points to it.
    """
    summary, scale = run.summary, scale_of(run.summary)
    rows = [row for row in run_rows(summary) if np.isfinite(row_values(summary, row, "test")).any()]
    if not rows:
        return None
    title = _results_title(run, scale)
    runs = runs_phrase(summary)
    subtitle = "" if scale.higher_is_better else "lower is better; "
    subtitle += "one seed" if runs == "one seed" else f"mean, bar: ± one standard deviation, a dot for each of {runs}"
    figure, axes = new_axes(title, subtitle, height=1.05 + 0.4 * len(rows))
    by_row = {row: scale.factor * row_values(summary, row, "test") for row in rows}
    by_row = {row: values[np.isfinite(values)] for row, values in by_row.items()}
    near = np.concatenate([values for row, values in by_row.items() if row in ("teacher", *STUDENTS)] or [[]])
    for position, (row, values) in enumerate(by_row.items()):
        colour = row_colour(row)
        if (side := _far_side(values, near)) != 0:
            axes.axhline(position, color=FAINT, linewidth=0.8, zorder=1)
            axes.plot(
                (1 + side) / 2, position, marker=">" if side > 0 else "<", color=colour, markersize=6,
                transform=axes.get_yaxis_transform(), clip_on=False,
            )  # fmt: skip
            _write_value(axes, position, scale.mean_and_std(values / scale.factor), row)
            continue
        mean, deviation = mean_std(values)
        axes.axhline(position, color=FAINT, linewidth=0.8, zorder=1)
        axes.barh(position, 2 * deviation, left=mean - deviation, height=0.56, color=colour, alpha=0.28, linewidth=0)
        axes.plot([mean] * 2, [position - 0.28, position + 0.28], color=colour, linewidth=2.4, solid_capstyle="butt")
        if len(values) > 1:
            # In the order of the seeds from top to bottom, the same in every row.
            heights = position + 0.2 * np.linspace(-1, 1, len(values))
            axes.scatter(values, heights, s=13, color=colour, edgecolor="white", linewidth=0.6, zorder=3)
        _write_value(axes, position, scale.mean_and_std(values / scale.factor), row)
    names = [on_two_lines(row_name(summary, row), 1.7, 8.5) for row in rows]
    axes.set_yticks(range(len(rows)), names, color=TEXT, size=8.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.use_sticky_edges = False
    axes.margins(x=0.06)
    axes.spines["left"].set_visible(False)
    axes.xaxis.grid(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(f"test {scale.label}")
    return Drawing(figure, title)


def _far_side(values: np.ndarray, near: np.ndarray) -> int:
    """1 or -1 where a row's mean is above or below teacher and students by more than 4 times their range, else 0."""
    if not len(near):
        return 0
    reach = 4 * max(np.ptp(near), 0.05 * np.abs(near).max())
    return int(values.mean() > near.max() + reach) - int(values.mean() < near.min() - reach)


def _write_value(axes: Axes, position: int, text: str, row: str) -> None:
    axes.annotate(
        text, (1, position), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
        va="center", weight="bold" if row == "student_distilled" else "normal", annotation_clip=False,
    )  # fmt: skip


def _results_title(run: Run, scale: Scale) -> str:
    difference, (alone, distilled, pairs) = run.summary["difference"], paired_means(run.summary)
    treatment = treatment_of(run.summary)
    if difference["mean"] is None or pairs == 0 or treatment.missing:
        return f"Test {scale.name} of every row"
    values = f"{scale.number(alone)} → {scale.value(distilled)}"
    p_value = p_of_difference(run.summary)
    if p_value is None:
        return f"A single pair: {scale.name} {values} with {treatment.within}"
    if p_value >= SIGNIFICANT:
        return f"No clear difference with {treatment.within}: {scale.name} {values}"
    helped = scale.better(difference["mean"])
    return f"{treatment.name} {'improves' if helped else 'worsens'} {scale.name}: {values}"


def draw_learning_curves(run: Run) -> Drawing | None:
    """Validation values of both students over epochs. None unless both were logged more than once."""
    scale = scale_of(run.summary)
    curves = {row: run.curves(row, "valid") for row in STUDENTS}
    if any(len(epochs) < 2 for epochs, _ in curves.values()):
        return None
    means = {row: (epochs, _common_mean(values)) for row, (epochs, values) in curves.items()}
    if any(np.isfinite(mean).sum() < 2 for _, mean in means.values()):
        return None
    title = _curves_title(scale, means)
    subtitle = f"validation {scale.label}{'' if scale.higher_is_better else ', lower is better'}"
    subtitle += _lines_drawn([values for _, values in curves.values()])
    figure, axes = new_axes(title, subtitle)
    ends = []
    for row, (epochs, values) in curves.items():
        mean = scale.factor * means[row][1]
        _band(axes, epochs, scale.factor * values, mean, row_colour(row))
        last = mean[np.isfinite(mean)][-1]
        ends.append((last, f"{short_name(run, row)}\n{scale.number(last / scale.factor)}", row_colour(row)))
    _frame_curves(axes, scale, [scale.factor * values for _, values in curves.values()])
    axes.set_xlim(min(e[0] for e, _ in curves.values()), max(e[-1] for e, _ in curves.values()))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("epoch")
    label_ends(axes, ends)
    return Drawing(figure, title)


def _lines_drawn(curves: list[np.ndarray]) -> str:
    """What the lines of curves [runs, e] are, for a subtitle."""
    runs = max(len(values) for values in curves)
    if runs == 1:
        return ", one run"
    text = f": mean, band: ± one standard deviation over {runs} runs"
    stopped = any(np.isnan(values[:, -1]).any() for values in curves)
    return f"{text}; thin: single runs after the first has stopped" if stopped else text


def _common_mean(values: np.ndarray) -> np.ndarray:
    """Mean [e] over seeds where all of them have a value, so that a seed that stops early does not bend the line."""
    complete = np.isfinite(values).all(axis=0)
    return np.where(complete, np.where(complete, values, 0).mean(axis=0), np.nan)


def _band(axes: Axes, epochs: np.ndarray, values: np.ndarray, mean: np.ndarray, colour: str) -> None:
    common = np.isfinite(mean)
    if len(values) > 1:
        deviation = values[:, common].std(axis=0, ddof=1)
        axes.fill_between(
            epochs[common], mean[common] - deviation, mean[common] + deviation, color=colour, alpha=0.2, linewidth=0
        )
        # Where only some seeds still train, each is drawn by itself: a mean over the rest would not be comparable.
        for seed in values:
            rest = np.isfinite(seed) & (epochs >= epochs[common][-1])
            axes.plot(epochs[rest], seed[rest], color=colour, alpha=0.35, linewidth=0.8)
    axes.plot(epochs[common], mean[common], color=colour)


def _curves_title(scale: Scale, means: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    sign = 1 if scale.higher_is_better else -1
    epochs, distilled = means["student_distilled"]
    best = np.nanmax(sign * means["student_alone"][1])
    reached = np.flatnonzero(sign * np.nan_to_num(distilled, nan=-sign * np.inf) >= best)
    if len(reached) == 0:
        return "Distilled, the student does not reach the validation mean of its best epoch alone"
    best_epoch = means["student_alone"][0][np.nanargmax(sign * means["student_alone"][1])]
    return f"Distilled for {epochs[reached[0]]} epochs, the student matches its best alone (epoch {best_epoch})"


def _frame_curves(axes: Axes, scale: Scale, curves: list[np.ndarray]) -> None:
    """Give the end of training most of the room: the first tenth of epochs may leave the frame where it is worse."""
    drawn = [_drawn_range(values) for values in curves]
    low = min(np.nanmin(bottom[len(bottom) // 10 :]) for bottom, _ in drawn)
    high = max(np.nanmax(top[len(top) // 10 :]) for _, top in drawn)
    everything = np.concatenate([edge for edges in drawn for edge in edges])
    reach = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    bottom = low - reach if scale.higher_is_better else np.nanmin(everything) - reach
    top = np.nanmax(everything) + reach if scale.higher_is_better else high + reach
    axes.set_ylim(bottom, top)
    axes.yaxis.grid(True)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.spines["left"].set_visible(False)
    axes.set_ylabel(f"validation {scale.label}")


def _drawn_range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest [e] of what `_band` draws of curves [seeds, e]: a band, then single lines; NaN for nothing."""
    mean = _common_mean(values)
    common = np.isfinite(mean)
    deviation = np.zeros_like(mean)
    if len(values) > 1:
        deviation[common] = values[:, common].std(axis=0, ddof=1)
    single = np.isfinite(values).any(axis=0) & ~common
    low, high = mean - deviation, mean + deviation
    low[single], high[single] = np.nanmin(values[:, single], axis=0), np.nanmax(values[:, single], axis=0)
    return low, high


def _logged(run: Run, prefix: str) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, np.ndarray]]:
    """What the distilled student logged as ``<prefix><name>`` more than once: name → epochs and curves, name → mean."""
    row = "student_distilled"
    keys = dict.fromkeys(key for line in run.metrics if line["row"] == row for key in line if key.startswith(prefix))
    curves = {key.removeprefix(prefix): run.curves(row, key) for key in keys}
    means = {name: _common_mean(values) for name, (_, values) in curves.items() if len(values)}
    means = {name: mean for name, mean in means.items() if np.isfinite(mean).sum() > 1}
    return {name: curves[name] for name in means}, means


def draw_loss_terms(run: Run) -> Drawing | None:
    """The terms of the distilled student's loss over epochs, ``loss/…``. None unless two were logged more than once."""
    curves, means = _logged(run, "loss/")
    means = {name: mean for name, mean in means.items() if (mean[np.isfinite(mean)] > 0).all()}
    if len(means) < 2:
        return None
    settled = {name: mean[np.isfinite(mean)] for name, mean in means.items()}
    parts = [f"{name} {100 * mean[-1] / mean[0]:.2g} %" for name, mean in settled.items()]
    title = f"What is left of each loss at the end of training: {', '.join(parts)}"
    subtitle = "terms of the distilled student's training loss on a logarithmic scale, before they are weighted"
    subtitle += _lines_drawn([curves[name][1] for name in means])
    figure, axes = new_axes(title, subtitle)
    axes.set_yscale("log")
    for (name, mean), colour in zip(means.items(), cycle(CLASS_COLOURS)):
        _band(axes, *curves[name], mean, colour)
    axes.set_xlim(min(curves[name][0][0] for name in means), max(curves[name][0][-1] for name in means))
    low, high = min(map(np.min, settled.values())), max(map(np.max, settled.values()))
    axes.set_ylim(low / 1.5, high * 1.5)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.grid(True)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.spines["left"].set_visible(False)
    axes.set(xlabel="epoch", ylabel="loss")
    ends = [(settled[name][-1], name.replace("_", " "), colour) for name, colour in zip(means, cycle(CLASS_COLOURS))]
    label_ends(axes, ends)
    return Drawing(figure, title)


def draw_layer_weights(run: Run) -> Drawing | None:
    """The weights of the layers' losses over epochs. None unless at least two layers were logged more than once."""
    curves, means = _logged(run, "layer_weight/")
    if len(means) < 2:
        return None
    means = {layer: means[layer] for layer in sorted(means, key=lambda name: (len(name), name))}
    last = {layer: mean[np.isfinite(mean)][-1] for layer, mean in means.items()}
    heaviest, lightest = max(last, key=last.__getitem__), min(last, key=last.__getitem__)
    if last[heaviest] - last[lightest] < 0.02:
        title = f"The layer weights stay nearly equal: {last[lightest]:.3f} to {last[heaviest]:.3f} at the end"
    else:
        title = (
            f"Layer {heaviest} ends with the largest weight ({last[heaviest]:.2f}), layer {lightest} with the smallest"
        )
        title += f" ({last[lightest]:.2f})"
    subtitle = "weight of each layer in the loss of the distilled student"
    subtitle += _lines_drawn([values for _, values in curves.values()])
    figure, axes = new_axes(title, subtitle)
    shades = _layer_shades(len(means))
    for (layer, mean), colour in zip(means.items(), shades, strict=True):
        _band(axes, curves[layer][0], curves[layer][1], mean, colour)
    top = 1.15 * max(np.nanmax(mean) for mean in means.values())
    axes.set_ylim(min(0.0, 1.15 * min(np.nanmin(mean) for mean in means.values())), top)
    axes.set_xlim(min(curves[layer][0][0] for layer in means), max(curves[layer][0][-1] for layer in means))
    axes.yaxis.grid(True)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}"))
    axes.spines["left"].set_visible(False)
    axes.set(xlabel="epoch", ylabel="layer weight")
    ends = [(last[layer], f"layer {layer}", colour) for layer, colour in zip(means, shades, strict=True)]
    # More labels than these would stand far from their lines; the shades give the order of those between.
    ends = [ends[i] for i in sorted(set(np.linspace(0, len(ends) - 1, _MOST_LABELS).round().astype(int)))]
    if abs(sum(last.values()) - 1) < 0.01:  # other weightings need not sum to one, and then nothing is "equal"
        axes.axhline(1 / len(means), color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        ends.append((1 / len(means), "equal", MUTED))
    label_ends(axes, ends)
    return Drawing(figure, title)


def _layer_shades(n: int) -> list[str]:
    """From light to dark blue, in the order of the layers; light enough at one end, readable as text at the other."""
    light, dark = np.array([0x4F, 0xA8, 0xDC]), np.array([0x08, 0x30, 0x5C])
    steps = np.linspace(0, 1, max(n, 2))[:n]
    return ["#" + "".join(f"{round(c):02x}" for c in light + step * (dark - light)) for step in steps]


FIGURES: Mapping[str, Callable[[Run], Drawing | None]] = {
    "results": draw_results,
    "learning_curves": draw_learning_curves,
    "loss_terms": draw_loss_terms,
    "layer_weights": draw_layer_weights,
    "degree": draw_degree,
    "size": draw_size,
    "errors": draw_errors,
    "roc": draw_roc,
    "calibration": draw_calibration,
    "sites": draw_sites,
    "connections": draw_connections,
    "confusion": draw_confusion,
    "embedding": draw_embedding,
}


def write_figures(run: Run, folder: Path) -> dict[str, str]:
    """Draw every figure a run has the data for.

    Args:
      run: the run.
      folder: where the PNG files go; a figure of an earlier report that can no longer be drawn is removed.

    Returns:
      Name of each figure written (its file is ``<name>.png``) → its title.
    """
    titles = {}
    with house_style():
        for name, draw in FIGURES.items():
            drawing = draw(run)
            if drawing is None:
                (folder / f"{name}.png").unlink(missing_ok=True)
                continue
            save(drawing, folder / f"{name}.png")
            titles[name] = drawing.title
    return titles
