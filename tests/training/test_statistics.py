import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxgkd.errors import DataError
from jaxgkd.training.statistics import corrected_difference, holm, mean_std, paired_difference


def test_paired_difference_is_the_paired_t_test_of_a_minus_b():
    random = np.random.default_rng(0)
    b = random.uniform(0.6, 0.9, size=8)
    a = b + 0.01 + 0.02 * random.normal(size=8)
    result = paired_difference(a, b)
    assert result["mean"] == pytest.approx((a - b).mean())
    assert result["std"] == pytest.approx((a - b).std(ddof=1))
    assert result["p_value"] == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
    assert result["n"] == 8


def test_paired_difference_at_its_edges():
    assert paired_difference([0.5, 0.7], [0.5, 0.7]) == {"mean": 0.0, "std": 0.0, "p_value": 1.0, "n": 2}
    assert paired_difference([0.5], [0.25]) == {"mean": 0.25, "std": 0.0, "p_value": None, "n": 1}
    assert paired_difference([0.75, 0.5], [0.5, 0.25])["p_value"] == 0.0
    assert paired_difference([None, np.nan], [0.5, 0.5]) == {"mean": None, "std": None, "p_value": None, "n": 0}


def test_pairs_without_a_value_are_left_out():
    whole = paired_difference([0.9, 0.8, 0.7], [0.6, 0.7, 0.5])
    assert paired_difference([0.9, None, 0.8, 0.7, 0.2], [0.6, 0.1, 0.7, 0.5, np.inf]) == whole


def test_arrays_of_different_length_are_refused():
    with pytest.raises(DataError, match=r"shapes \[3\] and \[2\]"):
        paired_difference([1, 2, 3], [1, 2])


def test_mean_std_of_few_values():
    assert mean_std([0.25]) == (0.25, 0.0)
    assert np.isnan(mean_std([None])).all()
    assert mean_std([1.0, 2.0, 6.0]) == pytest.approx((3.0, np.sqrt(7.0)))


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.04, 0.9 times 4, 3, 2, 1 is 0.04, 0.06, 0.08, 0.9.
    assert holm([0.04, 0.9, None, 0.01, 0.02]) == pytest.approx([0.08, 0.9, None, 0.04, 0.06], nan_ok=True)
    assert holm([None]) == [None]
    assert holm([]) == []


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values):
    corrected = np.array(holm(p_values), dtype=float)
    given_p = np.array(p_values)
    assert (corrected >= given_p).all()
    assert (corrected <= np.minimum(1, len(given_p) * given_p) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(given_p, kind="stable")]) >= 0).all()


def test_corrected_difference_is_the_formula_of_nadeau_and_bengio():
    a, b = [0.8, 0.75, 0.9, 0.7, None], [0.7, 0.72, 0.8, 0.71, 0.5]
    found = corrected_difference(a, b, 0.25)
    difference = np.array([0.1, 0.03, 0.1, -0.01])
    error = difference.std(ddof=1) * np.sqrt(1 / 4 + 0.25)
    half = stats.t.ppf(0.975, 3) * error
    np.testing.assert_allclose([found["low"], found["high"]], [difference.mean() - half, difference.mean() + half])
    np.testing.assert_allclose(found["p_value"], 2 * stats.t.sf(difference.mean() / error, 3))
    assert found["n"] == 4 and found["mean"] == pytest.approx(difference.mean())
    # Without an overlap it is the ordinary test.
    assert corrected_difference(a, b, 0.0)["p_value"] == pytest.approx(paired_difference(a, b)["p_value"])


def test_corrected_difference_of_too_little():
    assert corrected_difference([0.5], [0.25], 0.25) == {
        "mean": 0.25,
        "low": None,
        "high": None,
        "p_value": None,
        "n": 1,
    }
    assert corrected_difference([None], [0.25], 0.25)["mean"] is None
    same = corrected_difference([0.5, 0.6], [0.5, 0.6], 0.25)
    assert same["p_value"] == 1 and same["low"] == same["high"] == 0
    with pytest.raises(DataError, match="ratio"):
        corrected_difference([0.5], [0.5], -1.0)
