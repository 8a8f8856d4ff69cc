from pathlib import Path

import numpy as np

from jaxgkd.report.connections_figure import connections_table, draw_connections
from jaxgkd.report.run_directory import Run
from jaxgkd.report.style import house_style
from tests.made_runs import texts_of


def run_with(connections):
    return Run(Path(), {"connections": connections}, {"class_names": ["control", "autism"]}, {}, [], None)


def found(n):
    random = np.random.default_rng(0)
    names = [f"7Networks_LH_Default_Temp_{i}" for i in range(30)]
    for i in range(n):
        a, b = random.choice(30, size=2, replace=False)
        value = (-1) ** i * (0.4 - 0.008 * i)
        yield {
            "regions": [names[a], names[b]],
            "networks": [f"net {a % 5}", f"net {b % 5}"],
            "correlation": value,
        }


def test_connections_are_drawn_between_the_regions_they_join():
    run = run_with(list(found(40)))
    with house_style():
        drawing = draw_connections(run)
        assert drawing is not None and drawing.title.startswith("40 connections")
        texts = texts_of(drawing.figure)
        for text, box in texts:
            assert box.x0 >= 0 and box.x1 <= drawing.figure.bbox.width, text
            assert box.y0 >= 0 and box.y1 <= drawing.figure.bbox.height, text
        # Around the circle names are turned; what lies between two of them is more than a letter's height.
        points = np.array([line.get_xydata()[0] for line in drawing.figure.axes[0].lines if line.get_marker() == "o"])
        across = drawing.figure.axes[0].transData.transform(points)
        gaps = np.linalg.norm(across - np.roll(across, 1, axis=0), axis=1)
        assert gaps.min() > 6 * drawing.figure.dpi / 72
        chords = drawing.figure.axes[0].patches
    assert len(chords) == 40
    first = connections_table(run).splitlines()[2]
    assert "+0.40" in first and len(connections_table(run).splitlines()) == 14


def test_without_connections_there_is_neither():
    for connections in (None, [], list(found(2))):
        assert draw_connections(run_with(connections)) is None
    assert connections_table(run_with(None)) == ""
    assert connections_table(run_with([{"regions": ["a|b", "c"], "networks": ["", ""], "correlation": -0.1}]))
