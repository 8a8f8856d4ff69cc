import matplotlib
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.report.style import balanced, house_style, on_two_lines, row_colour, shortened, spread, text_width, wrapped


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-10, 10), max_size=8), st.floats(0.01, 2))
def test_spread_keeps_order_and_distance(positions, gap):
    placed = spread(positions, gap)
    order = np.argsort(positions, kind="stable")
    assert (np.diff(placed[order]) >= gap - 1e-9).all()
    if positions:
        np.testing.assert_allclose(placed.mean(), np.mean(positions), atol=1e-9)


def test_spread_leaves_labels_alone_that_do_not_touch():
    np.testing.assert_allclose(spread([3.0, 0.0, 1.0], 0.5), [3.0, 0.0, 1.0])
    np.testing.assert_allclose(spread([1.0, 1.0, 9.0], 2.0), [0.0, 2.0, 9.0])


def test_shortened_fits_and_keeps_both_ends():
    name = "Probabilistic methods for reinforcement learning"
    with house_style():
        short = shortened(name, 1.2, 8)
        assert text_width(short, 8) <= 1.2
        assert short.startswith("Prob")
        assert short.endswith("arning")
        assert "…" in short
        assert shortened("short", 1.2, 8) == "short"
        assert text_width(shortened("日本語のとても長いクラス名" * 3, 1.2, 8), 8) <= 1.2


def test_balanced_lines_fit_and_are_no_more_than_needed():
    text = "Layer 2 ends with the largest weight, layer 0 with the smallest, and all words are here"
    with house_style():
        lines, greedy = balanced(text, 3, 10, "bold"), wrapped(text, 3, 10, "bold")
        assert len(lines) == len(greedy)
        assert " ".join(lines) == text
        assert all(text_width(line, 10, "bold") <= 3 for line in lines)
        widths = [text_width(line, 10, "bold") for line in lines]
        assert max(widths) - min(widths) <= max(text_width(g, 10, "bold") for g in greedy) - widths[-1] + 1


def test_settings_return_to_what_they_were():
    before = dict(matplotlib.rcParams)
    with house_style():
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert dict(matplotlib.rcParams) == before


def test_rows_have_fixed_colours():
    assert len({row_colour(row) for row in ("teacher", "student_alone", "student_distilled", "forest")}) == 4
    assert row_colour("forest") == row_colour("mlp")


def test_names_of_rows_are_told_apart_on_two_lines():
    with house_style():
        assert on_two_lines("short", 1.7, 8.5) == "short"
        names = ["Transformer 2D + global, last layer", "Transformer 2D + global, all layers"]
        one, other = (on_two_lines(name, 1.7, 8.5) for name in names)
        assert one.replace("\n", " ") == names[0] and other.replace("\n", " ") == names[1]
        long = on_two_lines("Transformer " * 9, 1.7, 8.5).split("\n")
        assert len(long) == 2 and all(text_width(line, 8.5) <= 1.7 for line in long)
        assert on_two_lines("", 1.7, 8.5) == ""
