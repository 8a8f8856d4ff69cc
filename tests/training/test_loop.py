import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgkd.training.execution import Execution, executing
from jaxgkd.training.loop import Problem, fit

KEYS = jax.random.split(jax.random.key(0), 3)


def regression(optimizer=lambda run: optax.sgd(run["learning_rate"]), noise=0.0):
    """A linear model of 20 points that all runs share; a run has a learning rate and a target of its own."""

    def init(key, run):
        return {"w": jax.random.normal(key, (3,))}, {"steps": jnp.int32(0)}

    def loss(params, rest, key, progress, run, shared):
        inputs = shared["x"] + noise * jax.random.normal(key, shared["x"].shape)
        error = jnp.mean((inputs @ params["w"] - shared["x"] @ run["target"]) ** 2)
        return error, ({"steps": rest["steps"] + 1}, {"progress": progress})

    def evaluate(params, rest, run, shared):
        return {"valid": jnp.mean((shared["valid"] @ params["w"] - shared["valid"] @ run["target"]) ** 2)}

    return Problem(init, loss, evaluate, optimizer)


def regression_data(runs=3):
    random = np.random.default_rng(0)
    x, valid = (jnp.asarray(random.normal(size=(n, 3)), jnp.float32) for n in (20, 9))
    run_data = {
        "learning_rate": jnp.array([0.1, 0.05, 0.3])[:runs],
        "target": jnp.asarray(random.normal(size=(3, 3)), jnp.float32)[:runs],
    }
    return run_data, {"x": x, "valid": valid}


def test_every_run_learns_its_own_target():
    run_data, shared = regression_data()
    result = fit(regression(), KEYS, run_data, shared, epochs=80, higher_is_better=False)
    np.testing.assert_allclose(result.params["w"], run_data["target"], atol=0.05)
    assert np.all(result.curves["train_loss"][:, -1] < 1e-2 * result.curves["train_loss"][:, 0])
    np.testing.assert_array_equal(result.epochs, np.arange(1, 81))
    np.testing.assert_allclose(result.curves["progress"], np.tile(np.arange(80) / 80, (3, 1)), atol=1e-6)
    np.testing.assert_array_equal(result.rest["steps"], result.best_epoch)


def test_epochs_are_the_steps_of_the_optimizer_that_was_given():
    run_data, shared = regression_data(runs=1)

    def optimizer(run):
        return optax.chain(optax.clip(0.5), optax.adamw(run["learning_rate"], weight_decay=0.01))

    problem = regression(optimizer, noise=0.1)
    result = fit(problem, KEYS[:1], run_data, shared, epochs=6, higher_is_better=False)
    data = jax.tree.map(lambda leaf: leaf[0], run_data)
    params, rest = problem.init(jax.random.fold_in(KEYS[0], 0), data)
    state = optimizer(data).init(params)

    @jax.jit
    def step(params, rest, state, key):
        (loss, (rest, _)), gradients = jax.value_and_grad(problem.loss, has_aux=True)(
            params, rest, key, 0.0, data, shared
        )
        updates, state = optimizer(data).update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return params, rest, state, loss, problem.evaluate(params, rest, data, shared)["valid"]

    losses, scores, weights = [], [], []
    for epoch in range(1, 7):
        params, rest, state, loss, score = step(params, rest, state, jax.random.fold_in(KEYS[0], epoch))
        losses.append(loss), scores.append(score), weights.append(params["w"])
    np.testing.assert_allclose(result.curves["train_loss"][0], losses, rtol=1e-4)
    np.testing.assert_allclose(result.curves["valid"][0], scores, rtol=1e-4)
    np.testing.assert_allclose(result.params["w"][0], weights[int(np.argmin(scores))], atol=1e-5)


def test_runs_together_are_the_runs_alone():
    run_data, shared = regression_data()
    problem = regression(noise=0.3)
    together = fit(problem, KEYS, run_data, shared, epochs=12, higher_is_better=False)
    for i in (0, 2):
        data = jax.tree.map(lambda leaf: leaf[i : i + 1], run_data)  # noqa: B023
        alone = fit(problem, KEYS[i : i + 1], data, shared, epochs=12, higher_is_better=False)
        np.testing.assert_allclose(together.params["w"][i], alone.params["w"][0], atol=1e-5)
        np.testing.assert_allclose(together.curves["valid"][i], alone.curves["valid"][0], atol=1e-5)
        assert together.best_epoch[i] == alone.best_epoch[0]


def test_the_state_that_is_kept_is_that_of_the_best_epoch():
    run_data, shared = regression_data()
    problem = regression(noise=1.0)
    result = fit(problem, KEYS, run_data, shared, epochs=30, higher_is_better=False)
    again = jax.vmap(problem.evaluate, in_axes=(0, 0, 0, None))(result.params, result.rest, run_data, shared)["valid"]
    curves = result.curves["valid"]
    np.testing.assert_allclose(again, curves[np.arange(3), result.best_epoch - 1], rtol=1e-4)
    np.testing.assert_array_equal(result.best_epoch, curves.argmin(axis=1) + 1)
    assert np.any(result.best_epoch < 30)


def walk(score, loss=lambda w, run: run["slope"] * w):
    """One weight that moves by -slope an epoch, so that every value along the way is known."""
    return Problem(
        init=lambda key, run: ({"w": jnp.zeros(())}, {}),
        loss=lambda params, rest, key, progress, run, shared: (loss(params["w"], run), (rest, {})),
        evaluate=lambda params, rest, run, shared: score(params["w"], run),
        optimizer=lambda run: optax.sgd(1.0),
    )


def passing_five(sign):
    return walk(lambda w, run: {"valid": sign * (w + 5) ** 2, "w": w})


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_run_stops_when_it_no_longer_gets_better_and_keeps_its_best(sign):
    slopes = {"slope": jnp.array([1.0, 0.5])}
    settings = {"epochs": 30, "higher_is_better": sign < 0}
    result = fit(passing_five(sign), KEYS[:2], slopes, {}, patience=3, **settings)
    assert result.best_epoch.tolist() == [5, 10]
    np.testing.assert_allclose(result.params["w"], -5.0)
    # Epochs 1 to 8 and 1 to 13 are there, of logs and metrics alike; what comes after a stop is not.
    for curve in result.curves.values():
        np.testing.assert_array_equal(np.isfinite(curve).sum(axis=1), [8, 13])
        assert np.all(np.isfinite(curve[0, :8])) and np.all(np.isfinite(curve[1, :13]))
    patient = fit(passing_five(sign), KEYS[:2], slopes, {}, **settings)
    np.testing.assert_array_equal(patient.params["w"], result.params["w"])
    np.testing.assert_array_equal(patient.best_epoch, result.best_epoch)
    assert np.all(np.isfinite(patient.curves["valid"]))


def test_what_a_run_would_reach_after_it_stopped_does_not_count():
    problem = walk(lambda w, run: {"valid": jnp.where(w < -8.5, 10.0, -((w + 2) ** 2))})
    result = fit(problem, KEYS[:2], {"slope": jnp.array([1.0, 0.1])}, {}, epochs=25, patience=3)
    # The first run passes -8.5 while the second one still trains.
    assert result.best_epoch.tolist() == [2, 20]
    np.testing.assert_allclose(result.params["w"], -2.0, atol=1e-5)


def test_evaluation_every_few_epochs_rounds_the_epochs_up():
    result = fit(passing_five(-1.0), KEYS[:1], {"slope": jnp.ones(1)}, {}, epochs=11, evaluate_every=3, patience=4)
    assert result.epochs.tolist() == [3, 6, 9, 12]
    assert result.best_epoch.tolist() == [6]
    # 9 is 3 epochs after the best, 12 the first evaluation at least 4 after it.
    np.testing.assert_allclose(result.curves["w"][0], [-3, -6, -9, -12])
    np.testing.assert_allclose(result.curves["train_loss"][0], [-2, -5, -8, -11])


def test_ties_keep_the_earlier_epoch():
    problem = walk(lambda w, run: {"valid": jnp.float32(1.0)})
    assert fit(problem, KEYS[:1], {"slope": jnp.ones(1)}, {}, epochs=5).best_epoch.tolist() == [1]


@pytest.mark.parametrize("patience", [None, 0, 1])
def test_the_initial_weights_are_no_candidate(patience):
    problem = walk(lambda w, run: {"valid": -(w**2), "w": w})
    result = fit(problem, KEYS[:1], {"slope": jnp.ones(1)}, {}, epochs=3, patience=patience)
    assert result.best_epoch.tolist() == [1]
    np.testing.assert_allclose(result.params["w"], [-1.0])
    there = {None: 3, 0: 1, 1: 2}[patience]
    np.testing.assert_array_equal(result.curves["w"][0], [-1.0, -2.0, -3.0][:there] + [np.nan] * (3 - there))


def breaking(w, run):
    """Not a number from the epoch on that starts with this weight."""
    return jnp.where(w < run["limit"], jnp.nan, 1.0) * run["slope"] * w


@pytest.mark.parametrize(("evaluate_every", "select_by"), [(1, "valid"), (3, "valid"), (1, "valid_loss")])
def test_a_loss_that_is_not_finite_names_the_run_and_the_epoch(evaluate_every, select_by):
    # The selecting metric may break at the same epoch as the loss, or not at all.
    problem = walk(lambda w, run: {"valid": jnp.float32(1.0), "valid_loss": breaking(w - 1, run)}, breaking)
    run_data = {"slope": jnp.ones(3), "limit": jnp.array([-99.0, -3.5, -99.0])}
    with pytest.raises(FloatingPointError, match="loss of run 1 is not finite at epoch 5"):
        fit(problem, KEYS, run_data, {}, epochs=12, evaluate_every=evaluate_every, select_by=select_by)


def test_a_run_that_has_stopped_may_break():
    problem = walk(lambda w, run: {"valid": -((w + 2) ** 2)}, breaking)
    run_data = {"slope": jnp.array([1.0, 0.25]), "limit": jnp.array([-5.5, -99.0])}
    result = fit(problem, KEYS[:2], run_data, {}, epochs=12, patience=2)
    assert result.best_epoch.tolist() == [2, 8]


@pytest.mark.parametrize("evaluate_every", [1, 2])
def test_what_would_break_after_the_last_epoch_does_not_count(evaluate_every):
    problem = walk(lambda w, run: {"valid": -w}, breaking)
    run_data = {"slope": jnp.ones(1), "limit": jnp.array([-3.5])}
    result = fit(problem, KEYS[:1], run_data, {}, epochs=4, evaluate_every=evaluate_every)
    assert result.best_epoch.tolist() == [4]
    np.testing.assert_allclose(result.curves["train_loss"][0, -1], -3.0)


def test_weights_that_break_at_their_best_epoch_are_not_returned():
    problem = walk(
        lambda w, run: {"valid": jnp.where(jnp.isnan(w), 1.0, 0.0)},
        # At 0 the value of the root is 0, and its gradient infinite times 0 where the slope is 0.
        lambda w, run: jnp.sqrt(run["slope"] * w + run["offset"]),
    )
    with pytest.raises(FloatingPointError, match="weights of run 1 are not finite at its best epoch, 1"):
        fit(problem, KEYS[:2], {"slope": jnp.array([1.0, 0.0]), "offset": jnp.array([1.0, 0.0])}, {}, epochs=1)


def test_a_metric_that_is_never_a_number_selects_nothing():
    problem = walk(lambda w, run: {"valid": jnp.where(run["slope"] > 1, jnp.nan, 1.0)})
    with pytest.raises(FloatingPointError, match="'valid' of run 1 is not finite at any epoch"):
        fit(problem, KEYS[:2], {"slope": jnp.array([1.0, 2.0])}, {}, epochs=3)


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"epochs": 3, "evaluate_every": 0}])
def test_there_is_at_least_one_epoch(settings):
    with pytest.raises(ValueError, match="at least 1"):
        fit(passing_five(-1.0), KEYS[:1], {"slope": jnp.ones(1)}, {}, **settings)


@pytest.mark.parametrize(("epochs", "patience"), [(4, None), (130, None), (130, 3)])
def test_progress_is_reported_in_order_to_the_last_epoch(epochs, patience):
    heard = []
    slopes = {"slope": jnp.array([1.0, 0.1])}
    result = fit(
        passing_five(-1.0), KEYS[:2], slopes, {}, epochs=epochs, patience=patience,
        on_progress=lambda epoch, score: heard.append((epoch, score)),
    )  # fmt: skip
    silent = fit(passing_five(-1.0), KEYS[:2], slopes, {}, epochs=epochs, patience=patience)
    for name, curve in silent.curves.items():
        np.testing.assert_array_equal(result.curves[name], curve)
    reported = [epoch for epoch, _ in heard]
    assert all(a < b for a, b in itertools.pairwise(reported))
    assert len(heard) <= 50
    assert reported[-1] == (epochs if patience is None else 53)
    scores = [np.nanmean(result.curves["valid"][:, epoch - 1]) for epoch in reported]
    np.testing.assert_allclose([score for _, score in heard], scores, rtol=1e-5)


def test_all_parts_and_stretches_are_one_program_which_is_compiled_once(caplog):
    problem, (run_data, shared) = regression(), regression_data()
    several = jax.tree.map(lambda leaf: jnp.repeat(leaf, 4, axis=0), run_data)

    def compiled():
        caplog.clear()
        with jax.log_compiles():
            fit(problem, jnp.repeat(KEYS, 4), several, shared, epochs=120, higher_is_better=False)
        return sum("Finished XLA compilation of jit(advance)" in each.getMessage() for each in caplog.records)

    assert compiled() == 1
    assert compiled() == 0


def broken_between(first, last, epochs):
    """The regression, whose loss is not finite in some epochs, counted from 0."""
    problem = regression()

    def loss(params, rest, key, progress, run, shared):
        value, (rest, logs) = problem.loss(params, rest, key, progress, run, shared)
        epoch = jnp.round(progress * epochs)
        return value / jnp.where((epoch >= first) & (epoch <= last), 0.0, 1.0), (rest, logs)

    return problem._replace(loss=loss)


def test_epochs_that_are_not_finite_are_left_out_and_counted():
    run_data, shared = regression_data()
    given = {"epochs": 12, "higher_is_better": False}
    plain = fit(regression(), KEYS, run_data, shared, **given)
    with executing(Execution(on_nan="skip")):
        found = fit(broken_between(3, 4, 12), KEYS, run_data, shared, **given)
    for name in ("valid", "train_loss"):
        curve, expected = found.curves[name], plain.curves[name]
        np.testing.assert_allclose(curve[:, :3], expected[:, :3], rtol=1e-6)
        np.testing.assert_allclose(curve[:, 5:], expected[:, 3:10], rtol=1e-5)
    np.testing.assert_array_equal(found.curves["valid"][:, 3:5], found.curves["valid"][:, 2:3].repeat(2, axis=1))
    assert np.isnan(found.curves["train_loss"][:, 3:5]).all()
    np.testing.assert_array_equal(found.curves["skipped"], np.tile(np.isin(np.arange(12), (3, 4)), (3, 1)))
    # State without gradients counts the steps that were made.
    np.testing.assert_array_equal(found.rest["steps"], found.best_epoch - 2)


def test_a_run_that_stays_broken_stops_and_by_default_at_once():
    run_data, shared = regression_data()
    with executing(Execution(on_nan="skip")):
        assert fit(broken_between(3, 12, 20), KEYS, run_data, shared, epochs=20).curves["skipped"].sum() == 30
        with pytest.raises(FloatingPointError, match="loss of run 0 is not finite at epoch 14"):
            fit(broken_between(3, 13, 20), KEYS, run_data, shared, epochs=20)
    with pytest.raises(FloatingPointError, match="loss of run 0 is not finite at epoch 4"):
        fit(broken_between(3, 4, 20), KEYS, run_data, shared, epochs=20)
