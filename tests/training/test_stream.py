import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.training.stream import over_stacks, stacked


@given(widths=st.lists(st.integers(1, 3), max_size=20), size=st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_every_batch_comes_once_in_stacks_of_two_lengths_at_most(widths, size):
    batches = [{"x": np.full((width, 2), i), "y": np.float32(i)} for i, width in enumerate(widths)]
    stacks = list(stacked(batches, size))
    assert all(len(stack["x"]) in (1, size) for stack in stacks)
    seen = [(int(y), x.shape[0]) for stack in stacks for x, y in zip(stack["x"], stack["y"], strict=True)]
    assert sorted(seen) == list(enumerate(widths))
    for stack in stacks:
        np.testing.assert_array_equal(stack["x"][:, 0, 0], stack["y"])


def test_stacks_are_full_as_soon_as_they_can_be():
    seen = []

    def batches():
        for i in range(5):
            seen.append(i)
            yield np.full(2, i)

    stacks = stacked(batches(), 2)
    np.testing.assert_array_equal(next(stacks), [[0, 0], [1, 1]])
    assert seen == [0, 1]


def test_an_empty_stack_is_refused():
    with pytest.raises(ValueError, match="at least 1 batch, not 0"):
        next(stacked([], 0))


def test_a_stack_trains_as_its_batches_one_by_one():
    batches = [np.random.default_rng(i).normal(size=3).astype(np.float32) for i in range(5)]

    def step(state, batch):
        loss, gradient = jax.value_and_grad(lambda w: jnp.sum((w - batch) ** 2))(state)
        return state - 0.1 * gradient, loss

    one_by_one, losses = jnp.zeros(3), []
    for batch in batches:
        one_by_one, loss = step(one_by_one, batch)
        losses.append(loss)
    state, logs = jnp.zeros(3), []
    advance = over_stacks(step)
    for stack in stacked(batches, 2):
        state, values = advance(state, stack)
        logs.extend(values)
    np.testing.assert_allclose(state, one_by_one, rtol=1e-6)
    np.testing.assert_allclose(logs, losses, rtol=1e-6)
