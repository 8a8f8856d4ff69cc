"""Figures and tables of cohorts of brains: how well subjects are told apart at every site."""

from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from jaxgkd.report.markdown import literal, table_head, table_row
from jaxgkd.report.run_directory import Run
from jaxgkd.report.style import FAINT, MUTED, TEXT, Drawing, new_axes, row_colour, shortened
from jaxgkd.report.wording import row_name, run_rows
from jaxgkd.training.summary import STUDENTS

_FEWEST = 10  # subjects of the smaller group, below which an area is noise and its mark hollow
#: What doctors ask for, as a row of a summary holds it beside its metric.
_DIAGNOSIS = ("accuracy", "sensitivity", "specificity", "f1")


def sites_of(run: Run) -> list[dict[str, Any]]:
    """Sites with a value for both students, the one with most subjects first; none where a run has no sites."""
    sites = run.summary.get("sites")
    if not isinstance(sites, list):
        return []
    drawn = [site for site in sites if all(site["auroc"].get(row) is not None for row in STUDENTS)]
    return sorted(drawn, key=lambda site: -sum(site["subjects"]))


def draw_sites(run: Run) -> Drawing | None:
    """The test area under the ROC of both students at every site, joined by a line. None with fewer than two sites."""
    sites = sites_of(run)
    if len(sites) < 2:
        return None
    values = {row: 100 * np.array([site["auroc"][row] for site in sites]) for row in STUDENTS}
    better = int((values["student_distilled"] > values["student_alone"]).sum())
    title = f"The distilled student is better than alone at {better} of {len(sites)} sites"
    subtitle = (
        "test AUROC at every site, × 100: pairs of subjects that one fold tests; hollow: a group of fewer than 10"
    )
    figure, axes = new_axes(title, subtitle, height=1.1 + 0.24 * len(sites))
    positions = np.arange(len(sites))
    small = np.array([min(site["subjects"]) < _FEWEST for site in sites])
    axes.hlines(positions, values["student_alone"], values["student_distilled"], color=FAINT, linewidth=3, zorder=1)
    axes.axvline(50, color=MUTED, linewidth=0.8, zorder=1)
    for row, scores in values.items():
        colour, name = row_colour(row), row.removeprefix("student_")
        for hollow, shown in ((False, ~small), (True, small)):
            face = "white" if hollow else colour
            label = name if not hollow or small.all() else None
            axes.scatter(scores[shown], positions[shown], s=26, facecolor=face, edgecolor=colour, zorder=2, label=label)
    names = [f"{shortened(site['site'], 1.2, 8.0)} ({sum(site['subjects'])})" for site in sites]
    axes.set_yticks(positions, names, color=TEXT, size=8)
    axes.set_ylim(len(sites) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.grid(True)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("test AUROC × 100, behind a site's name its test subjects")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.1, handletextpad=0.2)
    return Drawing(figure, title)


def diagnosis_table(run: Run) -> str:
    """Accuracy, sensitivity, specificity and F1 of every row, means over the folds; empty where no row has any."""
    results = run.summary["results"]
    rows = [row for row in run_rows(run.summary) if all(name in results[row] for name in _DIAGNOSIS)]
    if not rows:
        return ""
    lines = table_head(["", *_DIAGNOSIS[:3], "F1"])
    for row in rows:
        cells = [_mean(results[row][name]) for name in _DIAGNOSIS]
        lines.append(table_row([literal(row_name(run.summary, row)), *cells]))
    return "\n".join([*lines, "", "In percent, at a probability of one half; means over the test parts of all folds."])


def sites_table(run: Run) -> str:
    """Test subjects and area under the ROC of every row at every site; empty with fewer than two sites."""
    sites = sites_of(run)
    if len(sites) < 2:
        return ""
    rows = [row for row in run_rows(run.summary) if row in sites[0]["auroc"]]
    groups = run.config.get("class_names") or ["group 0", "group 1"]
    heads = ["site", *(literal(str(name)) for name in groups), *(literal(row_name(run.summary, row)) for row in rows)]
    lines = table_head(heads)
    for site in sites:
        areas = [_mean([site["auroc"][row]]) for row in rows]
        lines.append(table_row([literal(site["site"]), *map(str, site["subjects"]), *areas]))
    return "\n".join(lines)


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * float(np.mean(known)):.1f}" if known else "–"
