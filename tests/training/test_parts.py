import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.training import loop
from jaxgkd.training.loop import Problem, fit
from jaxgkd.training.parts import join, rows_of_parts, side_by_side, take

RUNS = 7  # two parts of four, the last run twice


@pytest.fixture(scope="module")
def problem():
    def loss(params, rest, key, progress, run, shared):
        noise = 0.1 * jax.random.normal(key, ())
        return jnp.sum((params["w"] - run["target"] - shared) ** 2) + noise * params["w"][0], (rest, {})

    def evaluate(params, rest, run, shared):
        return {"valid": -jnp.sum((params["w"] - run["target"] - shared) ** 2)}

    init = lambda key, run: ({"w": jax.random.normal(key, (3,))}, {})  # noqa: E731
    return Problem(init, loss, evaluate, lambda run: optax.adam(run["rate"]))


@given(st.integers(1, 400))
def test_parts_hold_every_run_once_and_fill_up_with_the_last(n_run):
    rows = rows_of_parts(n_run)
    assert rows.ravel()[:n_run].tolist() == list(range(n_run)) and set(rows.ravel()[n_run:].tolist()) <= {n_run - 1}
    assert rows.shape[1] <= 5 or n_run < 4
    assert len(rows) % 2 == 0 or n_run < 4
    assert rows_of_parts(n_run, 1).tolist() == [[run] for run in range(n_run)]
    # What fills up is little, and no part consists of it.
    assert rows.size - n_run <= max(1, 0.2 * n_run) and rows[-1, 0] <= n_run - 1


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(0, 1))
def test_what_is_taken_apart_is_joined_again(n_run, axis):
    tree = {"a": jnp.arange(6 * n_run).reshape((n_run, 6) if axis == 0 else (6, n_run))}
    parts = [take(tree, rows, axis=axis) for rows in rows_of_parts(n_run)]
    np.testing.assert_array_equal(join(parts, n_run, axis=axis)["a"], tree["a"])


def test_results_come_in_order_and_errors_come_through():
    assert side_by_side(lambda a, b: a * b, [(i, 2) for i in range(9)]) == [2 * i for i in range(9)]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda a: 1 / a, [(1,), (0,), (2,)])


@pytest.mark.parametrize("patience", [None, 2])
def test_parts_are_the_runs_one_would_have_had_together(problem, patience, monkeypatch):
    keys = jax.random.split(jax.random.key(0), RUNS)
    # With these rates some runs soon get worse, in one part more than in the other.
    data = {"target": jnp.arange(RUNS, dtype=jnp.float32), "rate": jnp.geomspace(3.0, 0.01, RUNS)}
    told = []

    def train():
        progress = lambda *what: told.append(what)  # noqa: E731
        return fit(problem, keys, data, jnp.float32(1), epochs=40, patience=patience, on_progress=progress)

    parts = train()
    monkeypatch.setattr(loop, "rows_of_parts", lambda n_run, most: np.arange(n_run)[None])
    in_parts, told = told, []
    whole = train()
    np.testing.assert_allclose(whole.params["w"], parts.params["w"], rtol=1e-5)
    np.testing.assert_array_equal(whole.best_epoch, parts.best_epoch)
    assert whole.curves.keys() == parts.curves.keys()
    for name in whole.curves:
        np.testing.assert_allclose(whole.curves[name], parts.curves[name], rtol=1e-5, atol=1e-6)
    assert [epoch for epoch, _ in in_parts] == [epoch for epoch, _ in told]
    np.testing.assert_allclose([score for _, score in in_parts], [score for _, score in told], rtol=1e-5)


@pytest.mark.parametrize("broken", [1, RUNS - 1])
def test_a_run_that_breaks_is_named_whichever_part_it_is_in(problem, broken):
    data = {"target": jnp.zeros(RUNS).at[broken].set(jnp.nan), "rate": jnp.full(RUNS, 0.1)}
    with pytest.raises(FloatingPointError, match=f"loss of run {broken} is not finite at epoch 1"):
        fit(problem, jax.random.split(jax.random.key(0), RUNS), data, jnp.float32(0), epochs=90)
