"""Whether probabilities mean what they say: how often a label is positive where a row says how likely it is."""

import numpy as np

from jaxgkd.report.bin_figures import compared_rows, short_name
from jaxgkd.report.run_directory import Predictions, Run
from jaxgkd.report.style import FAINT, Drawing, label_ends, new_axes, row_colour

_BINS = 10
_FEWEST = 10  # tests in a bin


def draw_calibration(run: Run) -> Drawing | None:
    """Shares of positives over probabilities, of teacher and students. None unless binary labels have probabilities."""
    predictions = run.predictions
    if predictions is None or predictions.has_classes or run.summary["metric"] != "auroc":
        return None
    binned = {row: found for row in compared_rows(predictions) if (found := _binned(predictions, row)) is not None}
    if "student_distilled" not in binned:
        return None
    off = {row: 100 * calibration_error(*found) for row, found in binned.items()}
    title = f"The distilled student's probabilities are off by {off['student_distilled']:.1f} points on average"
    title += f", alone by {off['student_alone']:.1f}" if "student_alone" in off else ""
    subtitle = (
        f"share of positives over the probability that a row gives, test {run.items} of all splits in groups of one "
        "size; on the grey line they are the same"
    )
    figure, axes = new_axes(title, subtitle, height=4.0)
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1.2, zorder=1)
    ends = []
    for row, (said, happened, _) in binned.items():
        style = (0, (4, 2)) if row == "teacher" else "-"
        axes.plot(100 * said, 100 * happened, color=row_colour(row), linestyle=style, marker="o", markersize=3.5)
        ends.append((100 * happened[-1], f"{short_name(run, row)}\noff by {off[row]:.1f}", row_colour(row)))
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="probability (%)")
    axes.set_ylabel("positives (%)")
    axes.grid(True)
    label_ends(axes, ends, height=4.0)
    return Drawing(figure, title)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, share of positives and count of each of at most ``bins`` groups of about one size.

    Equal probabilities stay together.

    Args:
      probabilities: [n]; labels: [n] of 0 and 1.
      bins: groups wanted.
    """
    values, inverse, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    # A value belongs to the group that the middle of its ranks lies in.
    middle = np.cumsum(counts) - 0.5 * counts
    _, group = np.unique((middle * bins / len(probabilities)).astype(int), return_inverse=True)
    of_item = group[inverse]
    size = np.bincount(of_item)
    mean = lambda of: np.bincount(of_item, weights=of) / size  # noqa: E731
    return mean(values[inverse].astype(float)), mean(labels.astype(float)), size


def calibration_error(said: np.ndarray, happened: np.ndarray, size: np.ndarray) -> float:
    """The mean distance between what was said and what happened, groups weighed by their size.

    Source: the expected calibration error of Naeini, Cooper and Hauskrecht, AAAI 2015, over groups of one size.
    """
    return float(np.sum(size * np.abs(said - happened)) / np.sum(size))


def _binned(predictions: Predictions, row: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    tested = predictions.tested(row)
    said = predictions.by_row[row][tested]
    labels = np.broadcast_to(predictions.labels, tested.shape)[tested]
    if len(said) < 2 * _FEWEST or said.min() < 0 or said.max() > 1 or not np.isin(labels, (0, 1)).all():
        return None
    return reliability(said, labels, min(_BINS, len(said) // _FEWEST))
