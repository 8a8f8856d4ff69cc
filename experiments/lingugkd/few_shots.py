"""Draw accuracy against labels a class, ``figures/few-shots.png``, from ``results/``.

python experiments/lingugkd/few_shots.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from result_tables import summaries  # noqa: E402

from jaxgkd.report.style import Drawing, house_style, label_ends, new_axes, row_colour, save  # noqa: E402
from jaxgkd.training.statistics import mean_std  # noqa: E402

#: Row → labels a class; the last is 60 % of 2,708 nodes over seven classes.
LABELS = {
    "cora-gcn-5-shots": 5,
    "cora-gcn-10-shots": 10,
    "cora-gcn-20-shots": 20,
    "cora-gcn-50-shots": 50,
    "cora-gcn": 232,
}
NAMES = {"teacher": "teacher", "student_distilled": "GCN distilled", "student_alone": "GCN alone"}


def main() -> None:
    found = {LABELS[name]: summary for name, summary in summaries(HERE / "results") if name in LABELS}
    counts = sorted(found)
    gains = [100 * found[count]["difference"]["mean"] for count in (counts[0], counts[-1])]
    title = f"The fewer labels, the more a teacher is worth: {gains[0]:+.1f} points at {counts[0]} a class"
    subtitle = f"Cora, test accuracy (%), mean and deviation over ten seeds; {gains[1]:+.1f} with all training labels"
    with house_style():
        figure, axes = new_axes(title, subtitle)
        ends = []
        for row, label in NAMES.items():
            scores = [mean_std(found[count]["results"][row]["test"]) for count in counts]
            middle = [100 * mean for mean, _ in scores]
            low, high = ([100 * (mean + sign * std) for mean, std in scores] for sign in (-1, 1))
            axes.plot(counts, middle, color=row_colour(row), marker="o", markersize=4)
            axes.fill_between(counts, low, high, color=row_colour(row), alpha=0.12, linewidth=0)
            ends.append((middle[-1], label, row_colour(row)))
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("labels a class")
        axes.grid(axis="y")
        axes.margins(x=0)
        axes.set_ylim(*axes.get_ylim())
        label_ends(axes, ends)
        save(Drawing(figure, title), HERE / "figures" / "few-shots.png")


if __name__ == "__main__":
    main()
