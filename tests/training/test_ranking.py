import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxgkd.training.ranking import hits_at, mean_reciprocal_rank, ranks, ranks_of_lists


def expected_rank(positive, candidates):
    """The mean over all orders in which equal scores may come."""
    better = [not c <= positive for c in candidates]
    equal = [c == positive for c in candidates]
    places = [1 + sum(better) + i for i in range(sum(equal) + 1)]
    return float(np.mean(places))


LISTS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan]), max_size=6)),
    min_size=1,
    max_size=8,
)


@given(LISTS)
def test_ranks_count_those_above_and_half_of_those_beside(links):
    """Rows with a mask and lists of different length say the same."""
    positive = np.array([float(score) for score, _ in links])
    wanted = [expected_rank(score, candidates) for score, candidates in links]
    size = max(1, *(len(candidates) for _, candidates in links))
    rows = np.full((len(links), size), 99.0)
    for row, (_, candidates) in zip(rows, links, strict=True):
        row[: len(candidates)] = candidates
    where = np.arange(size) < np.array([[len(candidates)] for _, candidates in links])
    np.testing.assert_array_equal(ranks(positive, rows, where), wanted)
    start = np.cumsum([0, *(len(candidates) for _, candidates in links)])
    flat = np.array([score for _, candidates in links for score in candidates])
    np.testing.assert_array_equal(ranks_of_lists(positive, flat, start), wanted)


def test_a_scorer_that_tells_nothing_apart_gets_the_middle():
    constant = ranks(np.zeros(5), np.zeros((5, 100)))
    assert mean_reciprocal_rank(constant) == pytest.approx(1 / 51)
    assert hits_at(1, constant) == hits_at(50, constant) == 0 and hits_at(51, constant) == 1
    broken = np.full(5, np.nan)
    assert np.all(ranks(broken, np.zeros((5, 100))) == 101)
    assert np.all(ranks(np.zeros(5), np.full((5, 100), np.nan)) == 101)
    assert np.all(ranks(broken, np.full((5, 100), np.nan)) == 101)


def test_compiled_ranks_are_those_of_numpy():
    random = np.random.default_rng(0)
    positive, candidates = np.round(random.normal(size=20), 1), np.round(random.normal(size=(20, 9)), 1)
    where, counted = random.random((20, 9)) < 0.7, random.random(20) < 0.5

    def both(ranks_of):
        return mean_reciprocal_rank(ranks_of, counted), hits_at(3, ranks_of, counted)

    got = jax.jit(lambda *arrays: both(ranks(*arrays)))(
        positive.astype(np.float32), candidates.astype(np.float32), where
    )
    wanted = ranks(positive.astype(np.float32), candidates.astype(np.float32), where)
    np.testing.assert_allclose(got, both(wanted), rtol=1e-6)
    np.testing.assert_allclose(both(wanted), [np.mean(1 / wanted[counted]), np.mean(wanted[counted] <= 3)])


def test_nothing_counted_has_no_value():
    one = np.array([1.0])
    assert np.isnan(mean_reciprocal_rank(one[:0])) and np.isnan(hits_at(1, one[:0]))
    assert np.isnan(mean_reciprocal_rank(one, np.array([False])))
    with pytest.raises(ValueError, match="not at 0"):
        hits_at(0, one)
