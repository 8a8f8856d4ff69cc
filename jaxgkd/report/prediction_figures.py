"""Figures of predictions: which classes are confused, and a map of the embeddings."""

from collections.abc import Callable

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
    new_axes,
    shortened,
    text_width,
)
from jaxgkd.report.wording import treatment_of

_MOST_CLASSES = 24  # rows that fit into one figure
MOST_POINTS = 3000  # points that can be told apart at this size
_BLUES = LinearSegmentedColormap.from_list("house", ["#ffffff", "#cfe3f2", "#6fb0da", "#0072b2", "#08305c"])


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
    whose = treatment_of(run.summary).of_student
    subtitle = f"test predictions of {whose}, % of each true class; classes from best to worst found"
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
        return f"No test prediction of {treatment_of(run.summary).of_student} is wrong"
    true, predicted = (shortened(run.class_name(kept[index]), 2.4, 10.5) for index in (row, column))
    share = f"{100 * wrong[row, column] / support[row]:.0f} %"
    return f"Most frequent mistake: {share} of “{true}” is taken for “{predicted}”"


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
    labels, has_classes, class_name = predictions.labels, predictions.has_classes, run.class_name
    if not has_classes:
        labels = labels[:, 0]
    known = labels >= 0 if has_classes else np.isfinite(labels)
    chosen = np.flatnonzero((predictions.split[0] == TEST) & np.isfinite(predictions.embedding).all(axis=1) & known)
    if len(chosen) < 3:
        return None
    total = len(chosen)
    if total > MOST_POINTS:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, MOST_POINTS, replace=False))
    points, variance = principal_map(predictions.embedding[chosen])
    if variance.sum() == 0:
        return None
    labels = labels[chosen]
    if not has_classes and np.isin(labels, (0, 1)).all():
        labels, has_classes, class_name = labels.astype(np.int64), True, ("negative", "positive").__getitem__
    title = f"{100 * variance.sum():.0f} % of the variance of the student's embeddings lies in this plane"
    if has_classes:
        share = same_class_neighbours(predictions.embedding[chosen], labels)
        title = f"For {100 * share:.3g} % of the test {run.items} the nearest embedding is of the same class"
    sample = f"{len(chosen):,} of {total:,}" if len(chosen) < total else f"{total:,}"
    subtitle = f"{sample} test {run.items} of the first seed, {predictions.embedding.shape[1]} dimensions shown in two"
    subtitle += ", coloured by class" if has_classes else ", coloured by label"
    figure, axes = new_axes(title, subtitle, height=4.3)
    if has_classes:
        _scatter_classes(class_name, axes, points, labels)
    else:
        dots = axes.scatter(*points.T, c=labels, cmap="cividis", s=9, linewidths=0, alpha=0.85)
        bar = figure.colorbar(dots, ax=axes, fraction=0.035, pad=0.02)
        unit = run.summary.get("unit")
        bar.set_label(f"label ({unit})" if unit else "label", color=MUTED)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(FAINT)
    axes.spines[:].set_visible(True)
    axes.set_xlabel(f"first direction ({100 * variance[0]:.0f} % of the variance)")
    axes.set_ylabel(f"second direction ({100 * variance[1]:.0f} %)")
    return Drawing(figure, title)


def _scatter_classes(class_name: Callable[[int], str], axes: Axes, points: np.ndarray, labels: np.ndarray) -> None:
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
            label=shortened(class_name(index), 1.6, 7.5),
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
    names = [shortened(class_name(index), 1.9, 8.5) for index in named]
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
