"""The connections of a brain that go along with what a student says, as chords of a circle of regions."""

from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from jaxgkd.report.markdown import literal, table_head, table_row
from jaxgkd.report.run_directory import Run
from jaxgkd.report.style import CLASS_COLOURS, FAINT, MUTED, TEXT, Drawing, new_axes, shortened

_HEIGHT = 5.4
_LISTED = 12
# Of positive and of negative correlations.
_SIGNS = (CLASS_COLOURS[0], CLASS_COLOURS[1])


def connections_of(run: Run) -> list[dict[str, Any]]:
    """What a run remembers of telling connections; none where it is not about brains."""
    found = run.summary.get("connections")
    return list(found) if isinstance(found, list) else []


def draw_connections(run: Run) -> Drawing | None:
    """Telling connections between regions on a circle, ordered by network. None with fewer than three."""
    found = connections_of(run)
    if len(found) < 3:
        return None
    network = {name: of for each in found for name, of in zip(each["regions"], each["networks"], strict=True)}
    regions = sorted(network, key=lambda name: (network[name], name))
    angle = {name: 2 * np.pi * i / len(regions) + np.pi / 2 for i, name in enumerate(regions)}
    place = {name: np.array([np.cos(angle[name]), np.sin(angle[name])]) for name in regions}
    groups, common = _groups(run), _common_beginning(regions)
    title = f"{len(found)} connections go along with the distilled student's answer"
    subtitle = "over test subjects that it has not seen, mean over folds; wider: a correlation further from 0"
    subtitle += f"; names go without {common}" if common else ""
    figure, axes = new_axes(title, subtitle, height=_HEIGHT)
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set(xlim=(-1.95, 1.95), ylim=(-1.45, 1.45))
    largest = max(abs(each["correlation"]) for each in found)
    for each in reversed(found):
        a, b = (place[name] for name in each["regions"])
        share = abs(each["correlation"]) / largest
        curve = Path([a, (a + b) * 0.12, b], [Path.MOVETO, Path.CURVE3, Path.CURVE3])
        colour = _SIGNS[0] if each["correlation"] > 0 else _SIGNS[1]
        axes.add_patch(PathPatch(curve, facecolor="none", edgecolor=colour, linewidth=0.5 + 2.5 * share**2, alpha=0.75))
    for i, name in enumerate(regions):
        x, y = place[name]
        axes.plot(x, y, "o", color=TEXT, markersize=2.5, zorder=3)
        left, turn = x < 0, np.degrees(angle[name])
        axes.text(
            1.04 * x, 1.04 * y, shortened(name.removeprefix(common), 1.0, 6.5), size=6.5, color=MUTED, va="center",
            ha="right" if left else "left", rotation=turn - 180 if left else turn, rotation_mode="anchor",
        )  # fmt: skip
        if i and network[name] != network[regions[i - 1]]:
            edge = 0.5 * (angle[name] + angle[regions[i - 1]])
            axes.plot(*(np.outer([np.cos(edge), np.sin(edge)], [0.97, 1.06])), color=FAINT, linewidth=1.2)
    lines = [Line2D([], [], color=colour, linewidth=2) for colour in _SIGNS]
    names = [f"stronger: {groups[1]}", f"weaker: {groups[1]}"]
    axes.legend(lines, names, loc="lower left", frameon=False, fontsize=8)
    return Drawing(figure, title)


def connections_table(run: Run) -> str:
    """The strongest of them; empty where there is none."""
    found = connections_of(run)
    if not found:
        return ""
    lines = table_head(["connection", "networks", "correlation with the answer"])
    for each in found[:_LISTED]:
        networks = " – ".join(literal(name or "–") for name in each["networks"])
        regions = " – ".join(literal(name) for name in each["regions"])
        lines.append(table_row([regions, networks, f"{each['correlation']:+.2f}"]))
    return "\n".join(lines)


def _common_beginning(names: list[str]) -> str:
    """What all names begin with, up to an underscore."""
    first, last = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return "".join(first[:same].rpartition("_")[:2])


def _groups(run: Run) -> list[str]:
    names = run.config.get("class_names") or []
    return [str(name) for name in names] if len(names) == 2 else ["group 0", "group 1"]
