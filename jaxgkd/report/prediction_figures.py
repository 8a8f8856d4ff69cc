"""Figures of predictions: which classes are confused, at which degrees distillation helps, a map of the embeddings."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.patheffects import withStroke

from jaxgkd.report.run_directory import TEST, Predictions, Run
from jaxgkd.report.style import (
    CLASS_COLOURS,
    CLASS_MARKERS,
    FAINT,
    MUTED,
    TEXT,
    Drawing,
    label_ends,
    new_axes,
    row_colour,
    shortened,
    text_width,
)
from jaxgkd.report.wording import row_name

_MOST_CLASSES = 24  # rows that fit into one figure
_FEWEST_IN_BIN, _SMALLEST_BIN = 20, 0.03  # test nodes a seed, and their share, before an accuracy means anything
_MOST_POINTS = 3000  # points that can be told apart at this size
_BLUES = LinearSegmentedColormap.from_list("house", ["#ffffff", "#cfe3f2", "#6fb0da", "#0072b2", "#08305c"])


def _items(run: Run) -> str:
    """What the run predicts for: items of a graph with degrees are nodes."""
    has_degree = run.predictions is not None and run.predictions.degree is not None
    return str(run.summary["data"].get("items", "nodes" if has_degree else "items"))


def confusion_counts(predictions: Predictions, row: str) -> np.ndarray:
    """How often class i was called class j in the test splits of all seeds: counts [classes, classes]."""
    mask = predictions.tested(row)
    true = np.broadcast_to(predictions.labels, mask.shape)[mask].astype(np.int64)
    predicted = predictions.by_row[row][mask].astype(np.int64)
    n = int(max(true.max(initial=-1), predicted.max(initial=-1))) + 1
    return np.bincount(true * n + predicted, minlength=n * n).reshape(n, n)


def draw_confusion(run: Run) -> Drawing | None:
    """Rows are true classes, columns predicted ones, each row sums to one. None without test predictions of a class."""
    predictions = run.predictions
    if predictions is None or not predictions.has_classes or "student_distilled" not in predictions.by_row:
        return None
    counts = confusion_counts(predictions, "student_distilled")
    support = counts.sum(axis=1)
    if (support > 0).sum() < 2:
        return None
    kept = np.argsort(-support, kind="stable")[:_MOST_CLASSES]
    kept = kept[support[kept] > 0]
    recall = counts[kept, kept] / support[kept]
    kept = kept[np.argsort(-recall, kind="stable")]
    shares = counts[np.ix_(kept, kept)] / support[kept, None]
    title = _confusion_title(run, kept, counts[np.ix_(kept, kept)], support[kept])
    subtitle = "test predictions of the distilled student, % of each true class; classes from best to worst found"
    if len(kept) < (support > 0).sum():
        subtitle += f"; the {len(kept)} largest of {(support > 0).sum()} classes, so that rows may not add up to 100"
    annotated = len(kept) <= 12
    size = 8 if annotated else 7
    figure, axes = new_axes(title, subtitle, height=0.9 + max(2.2, len(kept) * (0.3 if annotated else 0.18)))
    image = axes.imshow(100 * shares, cmap=_BLUES, vmin=0, vmax=100, aspect="auto", interpolation="nearest")
    # Columns carry the numbers of the rows: long names would not fit below narrow columns.
    numbers = [str(number) for number in range(1, len(kept) + 1)]
    names = [f"{shortened(run.class_name(index), 2.1, size)}  {n}" for index, n in zip(kept, numbers, strict=True)]
    axes.set_yticks(range(len(kept)), names, size=size, color=TEXT)
    axes.set_xticks(range(len(kept)), numbers, size=size if annotated else 6, color=TEXT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted class", ylabel="true class")
    for (row, column), share in np.ndenumerate(shares):
        if row == column or (annotated and share >= 0.02):
            axes.text(column, row, f"{100 * share:.0f}", size=size if annotated else 6, ha="center", va="center",
                      color="white" if share > 0.55 else TEXT)  # fmt: skip
    if not annotated:
        bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.015, aspect=40, shrink=0.7)
        bar.set_label("% of the true class", size=8, color=MUTED)
        bar.ax.tick_params(labelsize=7.5, length=0)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return Drawing(figure, title)


def _confusion_title(run: Run, kept: np.ndarray, counts: np.ndarray, support: np.ndarray) -> str:
    wrong = counts - np.diag(np.diag(counts))
    row, column = np.unravel_index(np.argmax(wrong), wrong.shape)
    if wrong[row, column] == 0:
        return "No test prediction of the distilled student is wrong"
    true, predicted = (shortened(run.class_name(kept[index]), 2.4, 10.5) for index in (row, column))
    share = f"{100 * wrong[row, column] / support[row]:.0f} %"
    return f"Most frequent mistake: {share} of “{true}” is taken for “{predicted}”"


def degree_bins(degree: np.ndarray, counted: np.ndarray, fewest: float) -> list[tuple[int, int]]:
    """Bins of degrees 0, 1, 2, 3–4, 5–8, 9–16, …, neighbours merged until each holds enough test predictions.

    Args:
      degree: [n] neighbours of each node.
      counted: [n] test predictions for each node, over all seeds.
      fewest: test predictions that a bin needs.

    Returns:
      (lowest, highest) degree of each bin, both included.
    """
    highest = int(degree[counted > 0].max(initial=0))
    edges = [(0, 0), (1, 1), (2, 2)]
    while edges[-1][1] < highest:
        edges.append((edges[-1][1] + 1, 2 * edges[-1][1]))
    bins: list[tuple[int, int]] = []
    pending = None
    for low, high in edges:
        pending = low if pending is None else pending
        if counted[(degree >= pending) & (degree <= high)].sum() >= fewest:
            bins.append((pending, high))
            pending = None
    if pending is not None and bins:
        bins[-1] = (bins[-1][0], edges[-1][1])
    if bins:
        inside = [degree[(counted > 0) & (degree >= low) & (degree <= high)] for low, high in bins]
        bins = [(int(values.min()), int(values.max())) for values in inside]
    return bins


def draw_degree(run: Run) -> Drawing | None:
    """Test accuracy over the degree of a node. None without degrees, without predictions, or with one bin only."""
    predictions = run.predictions
    if predictions is None or predictions.degree is None or not predictions.has_classes:
        return None
    rows = [row for row in ("teacher", "student_alone", "student_distilled") if row in predictions.by_row]
    rows = [row for row in rows if predictions.tested(row).any()]
    if "student_distilled" not in rows:
        return None
    degree = predictions.degree
    seeds, counted = len(predictions.split), predictions.tested("student_distilled").sum(axis=0)
    bins = degree_bins(degree, counted, max(_FEWEST_IN_BIN * seeds, _SMALLEST_BIN * counted.sum()))
    if len(bins) < 2:
        return None
    accuracy = {row: _accuracy_by_bin(predictions, row, bins) for row in rows}
    title = _degree_title(accuracy, bins)
    subtitle = "test accuracy by number of neighbours"
    subtitle += f": mean, band: ± one standard deviation over {seeds} splits" if seeds > 1 else ", one seed"
    figure, axes = new_axes(title, subtitle)
    positions = np.arange(len(bins))
    ends = []
    for row in rows:
        with np.errstate(invalid="ignore"):
            mean, deviation = _mean_and_deviation(100 * accuracy[row])
        colour = row_colour(row)
        if row != "teacher":
            axes.fill_between(positions, mean - deviation, mean + deviation, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            positions,
            mean,
            marker="o",
            color=colour,
            markersize=4.5,
            linestyle=(0, (4, 2)) if row == "teacher" else "-",
        )
        ends.append((mean[-1], shortened(row_name(run.summary, row).removeprefix("student "), 1.2, 8.5), colour))
    sizes = [counted[(degree >= low) & (degree <= high)].sum() / seeds for low, high in bins]
    axes.set_xticks(
        positions, [f"{_bin_name(*bounds)}\nn = {size:,.0f}" for bounds, size in zip(bins, sizes, strict=True)]
    )
    axes.set_xlim(-0.15, len(bins) - 0.85)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 101))
    axes.yaxis.grid(True)
    axes.spines["left"].set_visible(False)
    axes.set(xlabel="degree of the node, below it the number of test nodes per seed", ylabel="test accuracy (%)")
    label_ends(axes, ends)
    return Drawing(figure, title)


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


def _degree_title(accuracy: dict[str, np.ndarray], bins: list[tuple[int, int]]) -> str:
    if "student_alone" not in accuracy:
        return "Accuracy of the distilled student by node degree"
    gain = 100 * (
        _mean_and_deviation(accuracy["student_distilled"])[0] - _mean_and_deviation(accuracy["student_alone"])[0]
    )
    if not np.isfinite(gain).any():
        return "Accuracy by node degree"
    best, worst = int(np.nanargmax(gain)), int(np.nanargmin(gain))
    if gain[best] < 0.05:
        return "At no degree is the distilled student better than alone"
    title = f"Distillation gains most at degree {_bin_name(*bins[best])} (+{gain[best]:.1f} points)"
    sign = "+" if gain[worst] >= 0.05 else "−" if gain[worst] <= -0.05 else ""
    return f"{title}, least at {_bin_name(*bins[worst])} ({sign}{abs(gain[worst]):.1f})"


def principal_map(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two directions of largest variance of unit-length embeddings.

    Args:
      embedding: [n, d].

    Returns:
      Coordinates [n, 2] and the share of the variance [2] each holds. The sign is such that the coordinate of largest
      magnitude is positive.
    """
    values = np.asarray(embedding, dtype=np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    values = values / np.where(norms > 0, norms, 1)
    values = values - values.mean(axis=0)
    left, singular, _ = np.linalg.svd(values, full_matrices=False)
    points = left[:, :2] * singular[:2]
    points = points * np.where(np.take_along_axis(points, np.abs(points).argmax(axis=0)[None], axis=0) < 0, -1, 1)
    total = (singular**2).sum()
    return points, singular[:2] ** 2 / total if total > 0 else np.zeros(2)


def same_class_neighbours(embedding: np.ndarray, labels: np.ndarray) -> float:
    """Share of items whose nearest other item, by cosine in all dimensions, has their label.

    Args:
      embedding: [n, d] with n of at least 2.
      labels: [n].
    """
    values = np.asarray(embedding, dtype=np.float32)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    values = values / np.where(norms > 0, norms, 1)
    similarity = values @ values.T
    np.fill_diagonal(similarity, -np.inf)
    return float((labels[similarity.argmax(axis=1)] == labels).mean())


def draw_embedding(run: Run) -> Drawing | None:
    """Test items of the first seed on the two directions of largest variance, coloured by label. None without them."""
    predictions = run.predictions
    if predictions is None or predictions.embedding is None or predictions.embedding.shape[1] < 2:
        return None
    shown = (predictions.split[0] == TEST) & np.isfinite(predictions.embedding).all(axis=1)
    labelled = predictions.labels >= 0 if predictions.has_classes else np.isfinite(predictions.labels)
    chosen = np.flatnonzero(shown & labelled)
    if len(chosen) < 3:
        return None
    total = len(chosen)
    if total > _MOST_POINTS:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, _MOST_POINTS, replace=False))
    points, variance = principal_map(predictions.embedding[chosen])
    if variance.sum() == 0:
        return None
    labels = predictions.labels[chosen]
    title = f"{100 * variance.sum():.0f} % of the variance of the student's embeddings lies in this plane"
    if predictions.has_classes:
        share = same_class_neighbours(predictions.embedding[chosen], labels)
        title = f"For {100 * share:.3g} % of the test {_items(run)} the nearest embedding is of the same class"
    sample = f"{len(chosen):,} of {total:,}" if len(chosen) < total else f"{total:,}"
    subtitle = (
        f"{sample} test {_items(run)} of the first seed, {predictions.embedding.shape[1]} dimensions shown in two"
    )
    subtitle += ", coloured by class" if predictions.has_classes else ", coloured by label"
    figure, axes = new_axes(title, subtitle, height=4.3)
    if predictions.has_classes:
        _scatter_classes(run, axes, points, labels)
    else:
        dots = axes.scatter(*points.T, c=labels, cmap="cividis", s=9, linewidths=0, alpha=0.85)
        bar = figure.colorbar(dots, ax=axes, fraction=0.035, pad=0.02)
        bar.set_label("label", color=MUTED)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(FAINT)
    axes.spines[:].set_visible(True)
    axes.set_xlabel(f"first direction ({100 * variance[0]:.0f} % of the variance)")
    axes.set_ylabel(f"second direction ({100 * variance[1]:.0f} %)")
    return Drawing(figure, title)


def _scatter_classes(run: Run, axes: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    """Points by class: names beside the points where there are few, else a key to the right."""
    classes, sizes = np.unique(labels, return_counts=True)
    classes = classes[np.argsort(-sizes, kind="stable")]
    named, rest = classes[:_MOST_CLASSES], classes[_MOST_CLASSES:]
    for position, index in enumerate(named):
        axes.scatter(
            *points[labels == index].T,
            c=CLASS_COLOURS[position % len(CLASS_COLOURS)],
            marker=CLASS_MARKERS[position // len(CLASS_COLOURS)],
            s=11,
            linewidths=0,
            alpha=0.8,
            label=shortened(run.class_name(index), 1.6, 7.5),
            zorder=2,
        )
    if len(rest):
        others = np.isin(labels, rest)
        axes.scatter(*points[others].T, c=FAINT, s=9, linewidths=0, label=f"{len(rest)} smaller classes", zorder=1)
    if len(classes) > len(CLASS_COLOURS):
        axes.legend(
            loc="center left", bbox_to_anchor=(1.005, 0.5), fontsize=7.5, frameon=False, handletextpad=0.2,
            labelspacing=0.35, borderaxespad=0, markerscale=1.4,
        )  # fmt: skip
        return
    low, high = points.min(axis=0), points.max(axis=0)
    axes.set(xlim=(low[0] - 0.05 * (high - low)[0], high[0] + 0.05 * (high - low)[0]))
    axes.set(ylim=(low[1] - 0.05 * (high - low)[1], high[1] + 0.05 * (high - low)[1]))
    names = [shortened(run.class_name(index), 1.9, 8.5) for index in named]
    centres = np.stack([np.median(points[labels == index], axis=0) for index in named])
    for place, name, colour in zip(_label_places(axes, centres, names), names, CLASS_COLOURS, strict=False):
        axes.text(*place, name, color=_darker(colour), weight="bold", ha="center", va="center", zorder=3,
                  path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip


def _darker(colour: str) -> tuple[float, ...]:
    """The colour as it can be read as text on white."""
    return tuple(0.72 * channel for channel in to_rgb(colour))


def _label_places(axes: Axes, centres: np.ndarray, names: list[str]) -> list[tuple[float, float]]:
    """Where names go: at the centre of their class, or as near to it as no other name and no edge is touched."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    inch = np.array([(right - left) / 5.4, (top - bottom) / 3.5])
    reach = np.arange(0, 1.9, 0.1)
    offsets = np.array([(x * s, y * t) for x in reach for y in reach for s in (1, -1) for t in (1, -1)])
    # Sideways moves are cheaper than they look, as names are wider than they are high: stay near in both directions.
    offsets = offsets[np.argsort(np.hypot(*offsets.T), kind="stable")] * inch
    placed: list[tuple[np.ndarray, np.ndarray]] = []
    for centre, name in zip(centres, names, strict=True):
        half = np.array([text_width(name, 8.5, "bold") / 2 + 0.04, 0.085]) * inch
        inner_low, inner_high = np.array([left, bottom]) + half, np.array([right, top]) - half
        candidates = np.clip(centre + offsets, inner_low, inner_high)
        free = [
            place for place in candidates if all((np.abs(place - other) >= half + size).any() for other, size in placed)
        ]
        placed.append((free[0] if free else candidates[0], half))
    return [(float(place[0]), float(place[1])) for place, _ in placed]
