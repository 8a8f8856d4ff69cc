import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.teachers.token_batches import batch_shapes, plan_batches, share_of, tokenise
from tests.teachers.letters import letters


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=60),
    st.integers(1, 4),
    st.sampled_from([0, 30, 400]),
)
def test_shapes_are_the_cheapest_there_are(lengths, max_shapes, shape_tokens):
    shapes = batch_shapes(
        np.array(lengths), max_tokens=70, batch_tokens=512, shape_tokens=shape_tokens, max_shapes=max_shapes
    )
    candidates = sorted({min(-(-length // 8) * 8, 70) for length in lengths})

    def cost(tops):
        return sum(min(top for top in tops if top >= length) for length in lengths) + shape_tokens * len(tops)

    choices = (
        (*below, candidates[-1])
        for k in range(min(max_shapes, len(candidates)))
        for below in itertools.combinations(candidates[:-1], k)
    )
    assert cost([length for _, length in shapes]) == min(map(cost, choices))
    for rows, length in shapes:
        assert 256 < rows * length <= 512 or rows == rows_for_all(lengths)


def rows_for_all(lengths):
    """The smallest power of two that holds all of few sequences."""
    return 1 << (len(lengths) - 1).bit_length()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=80), st.integers(16, 200))
def test_batches_cover_every_row_once_and_continue_from_any_of_their_starts(lengths, batch_tokens):
    lengths = np.sort(np.array(lengths))[::-1]
    shapes = batch_shapes(lengths, max_tokens=40, batch_tokens=batch_tokens, shape_tokens=10)
    plan = list(plan_batches(lengths, shapes, 0, len(lengths)))
    assert [first for first, _, _ in plan] == [0, *(stop for _, stop, _ in plan[:-1])] and plan[-1][1] == len(lengths)
    for k, (first, stop, (rows, length)) in enumerate(plan):
        assert 0 < stop - first <= rows and lengths[first] <= length
        assert list(plan_batches(lengths, shapes, first, len(lengths))) == plan[k:]
        assert list(plan_batches(lengths, shapes, first, stop)) == [plan[k]]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 40)), max_size=40), st.integers(1, 9))
def test_shares_follow_each_other_and_are_about_as_large(shapes, n_parts):
    batches = [(i, i + 1, shape) for i, shape in enumerate(shapes)]
    shares = [share_of(batches, part, n_parts) for part in range(n_parts)]
    assert list(itertools.chain(*shares)) == batches
    tokens = [sum(rows * length for _, _, (rows, length) in share) for share in shares]
    largest = max((rows * length for rows, length in shapes), default=0)
    assert max(tokens) <= sum(tokens) / n_parts + largest


def test_tokenise_sorts_longest_first_and_maps_back():
    prompts = ["abc", "", "abcdef", "abc", "x" * 20]
    tokens = tokenise(letters(), prompts, max_tokens=10)
    assert tokens.lengths.tolist() == [10, 8, 5, 2] and tokens.rows.tolist() == [2, 3, 1, 2, 0]
    assert tokens.n_truncated == 1
    ids, mask = tokens.batch(2, 4, (3, 8))
    assert ids.tolist() == [[0, 3, 4, 5, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0], [0] * 8]
    assert mask.sum(axis=1).tolist() == [5, 2, 1]
