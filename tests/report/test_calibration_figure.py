from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.report.calibration_figure import calibration_error, draw_calibration, reliability
from jaxgkd.report.run_directory import TEST, Predictions, Run
from jaxgkd.report.style import house_style


def test_groups_hold_means_and_shares_worked_out_by_hand():
    said, happened, size = reliability(np.array([0.1, 0.2, 0.2, 0.9]), np.array([0, 0, 1, 1]), 2)
    # The two equal ones stay together: the middle of their ranks lies at the edge of the upper half.
    np.testing.assert_allclose(said, [0.1, 1.3 / 3])
    np.testing.assert_allclose(happened, [0.0, 2 / 3])
    assert size.tolist() == [1, 3]
    assert calibration_error(said, happened, size) == pytest.approx((0.1 + 3 * (2 / 3 - 1.3 / 3)) / 4)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=80), st.integers(1, 12))
def test_every_item_is_in_one_group_and_the_groups_are_ordered(items, bins):
    values = np.array([value / 20 for value, _ in items])
    labels = np.array([label for _, label in items], float)
    said, happened, size = reliability(values, labels, bins)
    assert size.sum() == len(items) and 1 <= len(size) <= bins and (np.diff(said) > 0).all()
    np.testing.assert_allclose((size * said).sum(), values.sum())
    np.testing.assert_allclose((size * happened).sum(), labels.sum())


def run_with(probabilities, labels, metric="auroc"):
    rows = ("teacher", "student_alone", "student_distilled")
    split = np.full((len(probabilities), len(labels)), TEST)
    by_row = {row: np.asarray(probabilities, np.float32)[..., None] for row in rows}
    predictions = Predictions(np.asarray(labels, float)[:, None], split, None, None, by_row, None)
    results = {row: {"valid": [0.6], "test": [0.6]} for row in rows}
    summary = {"results": results, "metric": metric, "higher_is_better": True, "data": {"items": "subjects"}}
    return Run(Path(), summary, {}, {}, [], predictions)


def test_a_row_that_says_what_happens_is_off_by_little(readable):
    random = np.random.default_rng(0)
    probabilities = random.random((3, 4000))
    labels = (random.random(4000) < probabilities[0]).astype(float)
    with house_style():
        drawing = draw_calibration(run_with(probabilities[:1], labels))
        assert drawing is not None and float(drawing.title.split(" by ")[1].split()[0]) < 3
        readable(drawing.figure)
        sure = draw_calibration(run_with((probabilities[:1] > 0.5).astype(float), labels))
    assert sure is not None and float(sure.title.split(" by ")[1].split()[0]) > 20


def test_what_is_no_probability_is_not_drawn():
    labels = np.arange(60) % 2
    scores = np.linspace(-1, 2, 60)[None]
    assert draw_calibration(run_with(scores, labels)) is None
    assert draw_calibration(run_with(np.clip(scores, 0, 1), labels, metric="rmse")) is None
    assert draw_calibration(run_with(np.clip(scores, 0, 1)[:, :9], labels[:9])) is None
