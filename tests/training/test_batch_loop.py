"""A linear model over batches of rows, where every number can be computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgkd.training import batch_loop
from jaxgkd.training.batch_loop import BatchProblem, fit_batches, predict_batches
from jaxgkd.training.execution import Execution, executing

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32)


def batches(epoch, size=4):
    order = np.random.default_rng(epoch).permutation(12)
    for start in range(0, 12, size):
        rows = order[start : start + size]
        yield {"x": X[rows], "y": Y[rows], "index": rows.astype(np.int32)}


def loss(params, key, settings, batch, shared):
    error = batch["x"] @ params - batch["y"] + settings["noise"] * jax.random.normal(key, batch["y"].shape)
    value = jnp.mean(error**2) * shared
    return value, {"half": 0.5 * value}


PROBLEM = BatchProblem(
    init=lambda key: jax.random.normal(key, (3,)),
    loss=loss,
    outputs=lambda params, batch: batch["x"] @ params,
    optimizer=lambda settings, progress: optax.sgd(settings["learning_rate"] * (1.0 - progress)),
)


def score(params):
    return np.mean(np.abs(np.asarray(params) @ X.T - Y), axis=1)


def fit(settings, keys, epochs=5, **changed):
    arguments = {"n_batch": 3, "epochs": epochs, "score": score} | changed
    return fit_batches(PROBLEM, keys, settings, batches, jnp.float32(1.0), **arguments)


def settings(*rates, noise=0.1):
    return {"learning_rate": jnp.array(rates), "noise": jnp.full(len(rates), noise)}


def keys(*seeds):
    return jax.vmap(jax.random.key)(jnp.array(seeds))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_every_run_goes_its_own_way_as_if_alone(backend, monkeypatch):
    # What is compiled is chosen by the platform: one run after another, or all at once.
    monkeypatch.setattr(batch_loop.jax, "default_backend", lambda: backend)
    jax.clear_caches()
    together = fit(settings(0.05, 0.1, 0.1), keys(0, 0, 1))
    for run, (rate, seed) in enumerate([(0.05, 0), (0.1, 0), (0.1, 1)]):
        alone = fit(settings(rate), keys(seed))
        np.testing.assert_allclose(together.params[run], alone.params[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(together.curves["valid"][run], alone.curves["valid"][0], rtol=1e-4)


def test_steps_are_those_of_gradient_descent_with_a_falling_rate():
    start = np.asarray(PROBLEM.init(jax.random.fold_in(keys(3)[0], 0)), np.float64)
    params, losses = start, []
    for epoch in range(2):
        for number, batch in enumerate(batches(epoch)):
            error = batch["x"].astype(np.float64) @ params - batch["y"]
            losses.append(np.mean(error**2))
            rate = 0.1 * (1 - (epoch + number / 3) / 2)
            params = params - rate * 2 * batch["x"].T @ error / 4
    found = fit(settings(0.1, noise=0.0), keys(3), epochs=2)
    np.testing.assert_allclose(found.params[0], params, rtol=1e-5)
    np.testing.assert_allclose(found.curves["train_loss"][0], [np.mean(losses[:3]), np.mean(losses[3:])], rtol=1e-5)
    np.testing.assert_allclose(found.curves["half"], 0.5 * found.curves["train_loss"], rtol=1e-6)


def test_the_best_epoch_is_kept_and_ties_keep_the_earlier():
    scores = iter(np.array([[3.0, 1.0], [1.0, 2.0], [1.0, np.nan], [2.0, 0.5]]))
    seen = []

    def told(params):
        seen.append(np.asarray(params))
        return next(scores)

    found = fit(settings(0.1, 0.2), keys(0, 1), epochs=4, score=told)
    np.testing.assert_array_equal(found.best_epoch, [2, 4])
    np.testing.assert_array_equal(found.params, [seen[1][0], seen[3][1]])


def test_predictions_are_in_the_places_of_their_graphs():
    params = jnp.array([[1.0, 0, 0], [0, 1.0, 0]])
    some = [batch | {"index": np.where(np.arange(4) < 3, batch["index"], -1)} for batch in batches(0)]
    found = predict_batches(PROBLEM, params, some, lambda batch: batch["index"], 12)
    assert found.shape == (2, 12)
    there = np.concatenate([batch["index"][:3] for batch in some])
    np.testing.assert_allclose(found[:, there], X[there, :2].T, rtol=1e-6)
    assert np.isnan(found).sum() == 2 * 3


def test_what_cannot_go_on_says_where():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        fit(settings(0.1), keys(0), epochs=0)
    with pytest.raises(FloatingPointError, match="the loss of run 1 is not finite at epoch 1"):
        fit(settings(0.1, np.nan), keys(0, 1))
    with pytest.raises(FloatingPointError, match="metric of run 1 is not finite at any epoch"):
        fit(settings(0.1, 0.1), keys(0, 1), score=lambda params: np.array([1.0, np.nan]))


def with_a_broken_batch(where):
    """The problem, but the loss or only its gradient is not finite at one number of the data."""

    def broken(params, key, settings, batch, shared):
        value, logs = loss(params, key, settings, batch, shared)
        # The root's value at 0 is 0, and its gradient infinite.
        root = jnp.sqrt(jnp.where(jnp.any(batch["y"] == Y[7]), 0.0, 1.0) * params[0] ** 2)
        added = {"loss": jnp.log(root) - jnp.log(jnp.abs(params[0])), "gradient": root - jnp.abs(params[0])}[where]
        return value + added, logs

    return PROBLEM._replace(loss=broken)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_left_out_and_counted(where):
    # Without noise, a step that is left out is as if its batch were not there.
    def without_it(epoch):
        return [batch for batch in batches(epoch) if not (batch["y"] == Y[7]).any()]

    given = {"epochs": 3, "score": score}
    fixed = PROBLEM._replace(optimizer=lambda settings, progress: optax.sgd(settings["learning_rate"]))
    arguments = (keys(3), settings(0.1, noise=0.0))
    expected = fit_batches(fixed, *arguments, without_it, jnp.float32(1.0), n_batch=2, **given)
    with executing(Execution(on_nan="skip")):
        broken = with_a_broken_batch(where)._replace(optimizer=fixed.optimizer)
        found = fit_batches(broken, *arguments, batches, jnp.float32(1.0), n_batch=3, **given)
        np.testing.assert_allclose(found.params, expected.params, rtol=1e-5)
        np.testing.assert_allclose(found.curves["train_loss"], expected.curves["train_loss"], rtol=1e-5)
        np.testing.assert_allclose(found.curves["skipped"], 1 / 3, rtol=1e-6)
        with pytest.raises(FloatingPointError, match="the loss of run 1 is not finite at epoch 1"):
            fit(settings(0.1, np.nan), keys(0, 1))
    assert "skipped" not in expected.curves


def test_by_default_a_step_that_is_not_finite_stops_the_run():
    with pytest.raises(FloatingPointError, match="the loss of run 0 is not finite at epoch 1"):
        fit_batches(
            with_a_broken_batch("loss"),
            keys(3),
            settings(0.1),
            batches,
            jnp.float32(1.0),
            n_batch=3,
            epochs=2,
            score=score,
        )
