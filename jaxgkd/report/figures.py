"""Figures of results and of training: accuracy of all rows, learning curves, the weights of the layers."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxgkd.report.prediction_figures import draw_confusion, draw_degree, draw_embedding
from jaxgkd.report.run_directory import Run
from jaxgkd.report.style import (
    FAINT,
    MUTED,
    TEXT,
    Drawing,
    house_style,
    label_ends,
    new_axes,
    row_colour,
    save,
    shortened,
)
from jaxgkd.report.wording import (
    SIGNIFICANT,
    Scale,
    paired_means,
    row_name,
    row_values,
    run_rows,
    runs_phrase,
    scale_of,
)
from jaxgkd.training.statistics import mean_std
from jaxgkd.training.summary import STUDENTS

_MOST_LABELS = 7


def draw_results(run: Run) -> Drawing | None:
    """Test values of every row: a bar of mean ± standard deviation, each seed a dot. None where no row has a value.

    Bars span the spread rather than start at zero: what matters is a few points among values that are all far from it.
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
    for position, row in enumerate(rows):
        values = scale.factor * row_values(summary, row, "test")
        values = values[np.isfinite(values)]
        colour = row_colour(row)
        mean, deviation = mean_std(values)
        axes.axhline(position, color=FAINT, linewidth=0.8, zorder=1)
        axes.barh(position, 2 * deviation, left=mean - deviation, height=0.56, color=colour, alpha=0.28, linewidth=0)
        axes.plot([mean] * 2, [position - 0.28, position + 0.28], color=colour, linewidth=2.4, solid_capstyle="butt")
        if len(values) > 1:
            # In the order of the seeds from top to bottom, the same in every row.
            heights = position + 0.2 * np.linspace(-1, 1, len(values))
            axes.scatter(values, heights, s=13, color=colour, edgecolor="white", linewidth=0.6, zorder=3)
        axes.annotate(
            scale.mean_and_std(row_values(summary, row, "test")),
            (1, position), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
            va="center", weight="bold" if row == "student_distilled" else "normal", annotation_clip=False,
        )  # fmt: skip
    names = [shortened(row_name(summary, row), 1.7, 8.5) for row in rows]
    axes.set_yticks(range(len(rows)), names, color=TEXT, size=8.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.use_sticky_edges = False
    axes.margins(x=0.06)
    axes.spines["left"].set_visible(False)
    axes.xaxis.grid(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(f"test {scale.label}")
    return Drawing(figure, title)


def _results_title(run: Run, scale: Scale) -> str:
    difference, (alone, distilled, pairs) = run.summary["difference"], paired_means(run.summary)
    if difference["mean"] is None or pairs == 0:
        return f"Test {scale.name} of every row"
    values = f"{scale.number(alone)} → {scale.value(distilled)}"
    if difference["p_value"] is None:
        return f"A single pair: {scale.name} {values} with distillation"
    if difference["p_value"] >= SIGNIFICANT:
        return f"No clear difference with distillation: {scale.name} {values}"
    helped = scale.better(difference["mean"])
    return f"Distillation {'improves' if helped else 'worsens'} {scale.name}: {values}"


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
        ends.append((last, f"{_short_name(run, row)}\n{scale.number(last / scale.factor)}", row_colour(row)))
    _frame_curves(axes, scale, [scale.factor * mean for _, mean in means.values()])
    axes.set_xlim(min(e[0] for e, _ in curves.values()), max(e[-1] for e, _ in curves.values()))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("epoch")
    label_ends(axes, ends)
    return Drawing(figure, title)


def _short_name(run: Run, row: str) -> str:
    return shortened(row_name(run.summary, row).removeprefix("student "), 1.2, 8.5)


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


def _frame_curves(axes: Axes, scale: Scale, means: list[np.ndarray]) -> None:
    """Give the end of training most of the room: the first tenth of the epochs may leave the frame."""
    settled = np.concatenate([mean[np.isfinite(mean)][len(mean) // 10 :] for mean in means])
    low, high = settled.min(), settled.max()
    everything = np.concatenate([mean[np.isfinite(mean)] for mean in means])
    reach = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    bottom = low - reach if scale.higher_is_better else min(everything.min(), low) - reach
    top = max(everything.max(), high) + reach if scale.higher_is_better else high + reach
    axes.set_ylim(bottom, top)
    axes.yaxis.grid(True)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.spines["left"].set_visible(False)
    axes.set_ylabel(f"validation {scale.label}")


def draw_layer_weights(run: Run) -> Drawing | None:
    """The weights of the layers' losses over epochs. None unless at least two layers were logged more than once."""
    row = "student_distilled"
    names = {key for line in run.metrics if line["row"] == row for key in line if key.startswith("layer_weight/")}
    layers = sorted((name.split("/", 1)[1] for name in names), key=lambda name: (len(name), name))
    curves = {layer: run.curves(row, f"layer_weight/{layer}") for layer in layers}
    means = {layer: _common_mean(values) for layer, (_, values) in curves.items() if len(values)}
    means = {layer: mean for layer, mean in means.items() if np.isfinite(mean).sum() > 1}
    if len(means) < 2:
        return None
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
    "degree": draw_degree,
    "layer_weights": draw_layer_weights,
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
