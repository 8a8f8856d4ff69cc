import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgkd.training.loop import Problem, fit
from jaxgkd.training.parts import fit_in_parts

RUNS = 7  # not a multiple of what goes together


@pytest.fixture(scope="module")
def problem():
    def loss(params, rest, key, progress, run, shared):
        noise = 0.1 * jax.random.normal(key, ())
        return jnp.sum((params["w"] - run["target"] - shared) ** 2) + noise * params["w"][0], (rest, {})

    def evaluate(params, rest, run, shared):
        return {"valid": -jnp.sum((params["w"] - run["target"] - shared) ** 2)}

    init = lambda key, run: ({"w": jax.random.normal(key, (3,))}, {})  # noqa: E731
    return Problem(init, loss, evaluate, lambda run: optax.adam(run["rate"]))


@pytest.mark.parametrize("workers", [1, 2])
def test_parts_are_the_runs_one_would_have_had_together(problem, workers):
    keys = jax.random.split(jax.random.key(0), RUNS)
    data = {"target": jnp.arange(RUNS, dtype=jnp.float32), "rate": jnp.linspace(0.01, 0.1, RUNS)}
    options = {"epochs": 6, "evaluate_every": 2}
    told = []
    whole = fit(problem, keys, data, jnp.float32(1), **options)
    parts = fit_in_parts(
        problem, keys, data, jnp.float32(1), workers=workers, on_progress=lambda *what: told.append(what), **options
    )
    np.testing.assert_allclose(whole.params["w"], parts.params["w"], rtol=1e-5)
    np.testing.assert_array_equal(whole.best_epoch, parts.best_epoch)
    assert whole.curves.keys() == parts.curves.keys()
    for name in whole.curves:
        np.testing.assert_allclose(whole.curves[name], parts.curves[name], rtol=1e-5)
    assert [epoch for epoch, _ in told] == [3, 6]


def test_a_run_that_breaks_is_named(problem):
    data = {"target": jnp.full(RUNS, jnp.nan), "rate": jnp.full(RUNS, 0.1)}
    with pytest.raises(FloatingPointError, match="not finite"):
        fit_in_parts(problem, jax.random.split(jax.random.key(0), RUNS), data, jnp.float32(0), workers=2, epochs=2)
