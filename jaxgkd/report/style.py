"""The look of every figure: one canvas, fixed colours per row, a title that says what is seen, labels that fit.

Figures are matplotlib objects without pyplot, so that nothing global is left behind and no display is needed.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine

from jaxgkd.errors import ConfigError
from jaxgkd.whole_file import write_whole

WIDTH = 6.0  # inches; at 150 dots an inch this is the width of a README column
HEIGHT = 3.8
DPI = 150
TEXT, MUTED, FAINT = "#1f2328", "#656d76", "#d8dce1"

# Blue and vermilion stay apart under every common colour vision deficiency and in grey print.
_ROW_COLOURS = {
    "teacher": "#5c6470",
    "student_alone": "#d55e00",
    "student_distilled": "#0072b2",
    "text_student": "#00785a",
}
_OTHER_ROW = "#a3a9b1"
# Okabe and Ito's palette, yellow darkened to hold on white; beyond eight classes the marker tells them apart.
CLASS_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8579b", "#e69f00", "#56b4e9", "#8c5a2b", "#4d4d4d")
CLASS_MARKERS = ("o", "^", "s", "D", "v", "P")

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": TEXT,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
_TITLE_SIZE, _SUBTITLE_SIZE = 10.5, 8.5
_MARGIN = 0.1  # inches around everything


@dataclass(frozen=True)
class Drawing:
    """A figure and the sentence it shows, which is both its title and its alternative text."""

    figure: Figure
    title: str


@contextmanager
def house_style() -> Iterator[None]:
    """Draw and save in the style of the house, whatever matplotlib was set to; settings return to what they were."""
    with warnings.catch_warnings(), matplotlib.style.context(_STYLE, after_reset=True):
        # Class names may be in any script; a letter the font lacks becomes a box, which is no reason to warn or fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def row_colour(row: str) -> str:
    """The colour a row has in every figure."""
    return _ROW_COLOURS.get(row, _OTHER_ROW)


@cache
def _ruler() -> RendererAgg:
    """A canvas that is only measured on; text has the same width on any of the same resolution."""
    return FigureCanvasAgg(Figure(figsize=(1, 1), dpi=DPI)).get_renderer()


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a line of text in inches."""
    width, _, _ = _ruler().get_text_width_height_descent(text, FontProperties(size=size, weight=weight), False)
    return width / DPI


def shortened(text: str, inches: float, size: float) -> str:
    """The text on one line, its middle replaced by "…" where it is wider than it may be."""
    text = " ".join(text.split())
    if text_width(text, size) <= inches:
        return text
    low, high = 0, len(text)
    while low + 1 < high:
        kept = (low + high) // 2
        low, high = (kept, high) if text_width(_elided(text, kept), size) <= inches else (low, kept)
    return _elided(text, low)


def _elided(text: str, kept: int) -> str:
    # The beginning tells more than the end, but names that begin alike differ at the end; whole words where possible.
    size = kept // 3
    tail = text[len(text) - size :]
    if " " in tail[: size // 2 + 1]:
        tail = tail.split(" ", 1)[1]
    return text[: kept - size].rstrip() + "…" + tail


def wrapped(text: str, inches: float, size: float, weight: str = "normal") -> list[str]:
    """The text in lines that are no wider than they may be."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size, weight) <= inches:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def on_two_lines(text: str, inches: float, size: float) -> str:
    """The text on one line or two, the second with all that is left, see `shortened`."""
    first, *rest = wrapped(text, inches, size) or [""]
    return "\n".join(shortened(part, inches, size) for part in (first, " ".join(rest)) if part)


def balanced(text: str, inches: float, size: float, weight: str = "normal") -> list[str]:
    """The text in as few lines as fit, all of about the same width."""
    lines = wrapped(text, inches, size, weight)
    for narrower in np.arange(inches, inches / 3, -0.1):
        attempt = wrapped(text, narrower, size, weight)
        if len(attempt) > len(lines) or any(text_width(line, size, weight) > inches for line in attempt):
            break
        lines = attempt
    return lines


def new_axes(title: str, subtitle: str = "", *, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure with one set of axes, see `new_panels`."""
    figure, (axes,) = new_panels(1, title, subtitle, height=height)
    return figure, axes


def new_panels(n: int, title: str, subtitle: str = "", *, height: float = HEIGHT) -> tuple[Figure, list[Axes]]:
    """A figure with n sets of axes side by side, of the same scale, below a title block that reserves its own room.

    Args:
      n: how many.
      title: what is seen, a sentence without a full stop.
      subtitle: what is drawn, in smaller grey letters.
      height: inches for the axes and their labels; the title block comes on top.
    """
    room = WIDTH - 2 * _MARGIN
    title_lines = balanced(title, room, _TITLE_SIZE, "bold")
    subtitle_lines = balanced(subtitle, room, _SUBTITLE_SIZE)
    title_height = len(title_lines) * _TITLE_SIZE * 1.28 / 72
    subtitle_height = len(subtitle_lines) * _SUBTITLE_SIZE * 1.3 / 72
    block = _MARGIN + title_height + 0.05 + subtitle_height + 0.1
    total = height - 0.4 + block
    side = _MARGIN / WIDTH
    rect = (side, _MARGIN / total, 1 - 2 * side, 1 - (block + _MARGIN) / total)
    layout = ConstrainedLayoutEngine(rect=rect, w_pad=0, h_pad=0)
    figure = Figure(figsize=(WIDTH, total), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, n, sharex=True, sharey=True, squeeze=False)[0])
    top = 1 - _MARGIN / total
    figure.text(side, top, "\n".join(title_lines), size=_TITLE_SIZE, weight="bold", va="top", linespacing=1.25)
    if subtitle_lines:
        figure.text(
            side,
            top - (title_height + 0.05) / total,
            "\n".join(subtitle_lines),
            size=_SUBTITLE_SIZE,
            color=MUTED,
            va="top",
            linespacing=1.25,
        )
    return figure, panels


def spread(positions: Sequence[float], gap: float) -> np.ndarray:
    """Positions [n] moved as little as needed for neighbours to be at least ``gap`` apart, in the same order.

    The least-squares solution by pooling: labels that would touch become a block, centred on the mean of its members.
    """
    order = np.argsort(positions, kind="stable")
    blocks: list[tuple[float, int]] = []  # (mean of position − rank · gap, members)
    for rank, position in enumerate(np.asarray(positions, dtype=float)[order]):
        mean, size = position - rank * gap, 1
        while blocks and blocks[-1][0] > mean:
            other, members = blocks.pop()
            mean, size = (other * members + mean * size) / (members + size), members + size
        blocks.append((mean, size))
    flat = np.concatenate([np.full(size, mean) for mean, size in blocks]) if blocks else np.zeros(0)
    placed = np.empty(len(flat))
    placed[order] = flat + gap * np.arange(len(flat))
    return placed


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], *, height: float = HEIGHT) -> None:
    """Write labels to the right of lines that end at the right edge, moved apart where they would touch.

    Args:
      axes: axes whose limits are final.
      ends: (y, text, colour) per line; a text may have several lines.
      height: the height the figure was made with.
    """
    lines = max((text.count("\n") + 1 for _, text, _ in ends), default=1)
    gap = lines * 8.5 * 1.3 / 72 / (height - 0.8)
    # In shares of the height of the axes, so that their scale may be logarithmic.
    heights = [(axes.transScale + axes.transLimits).transform((1.0, y))[1] for y, _, _ in ends]
    for (_, text, colour), y in zip(ends, spread(heights, gap), strict=True):
        axes.annotate(
            text, (1, y), xycoords="axes fraction", xytext=(5, 0), textcoords="offset points",
            color=colour, va="center", annotation_clip=False,
        )  # fmt: skip


def save(drawing: Drawing, path: Path) -> None:
    """Write a figure as PNG, whole or not at all. Raises ConfigError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder cannot be made ({error.strerror})"
        raise ConfigError(what, file=path.parent, mend="choose a folder you may write to") from error
    write_whole(path, png_of(drawing))


def png_of(drawing: Drawing) -> bytes:
    """A figure as PNG; the same figure gives the same bytes."""
    content = io.BytesIO()
    drawing.figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()
