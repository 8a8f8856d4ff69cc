import numpy as np
import pytest
from scipy.special import expit

from jaxgkd.data.splits import Split
from jaxgkd.recipes.brain_baselines import (
    BASELINE_LABELS,
    PENALTIES,
    fit_linear,
    logistic_weights,
    map_to_coordinates,
    principal_coordinates,
)

N, F = 40, 90
RANDOM = np.random.default_rng(0)
LABELS = np.arange(N) % 2
FEATURES = (RANDOM.normal(size=(N, F)) + 0.5 * LABELS[:, None] * (np.arange(F) < 20)).astype(np.float32)
FEATURES[:, 5] = 3.0
ROWS = np.arange(N, dtype=np.int32)
SPLIT = Split(ROWS[:24], ROWS[24:32], ROWS[32:], "given", None)


def test_coordinates_keep_the_inner_products_of_standardised_features():
    found = principal_coordinates(FEATURES, SPLIT.train)
    values = FEATURES.astype(np.float64)
    train = values[SPLIT.train]
    varies = np.arange(F) != 5
    standard = ((values - train.mean(axis=0)) / np.where(varies, train.std(axis=0), 1))[:, varies]
    wanted = standard @ standard[SPLIT.train].T / varies.sum()
    np.testing.assert_allclose(found @ found[SPLIT.train].T, wanted, atol=1e-4)


@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_coordinates_are_a_function_of_features(factor):
    random = np.random.default_rng(0)
    features = random.normal(size=(12, 30)).astype(np.float32)
    features[:, 4] = 2.0
    train = np.arange(8)
    # Any directions may have the other sign, and there may be columns of 0 behind them.
    coordinates = factor * principal_coordinates(features, train)
    coordinates *= np.where(np.arange(coordinates.shape[1]) % 2, 1.0, -1.0)
    padded = np.pad(coordinates, ((0, 0), (0, 2))).astype(np.float32)
    mean, directions = map_to_coordinates(features, train, padded)
    np.testing.assert_allclose((features - mean) @ directions, padded, atol=1e-5)


def test_ridge_is_the_closed_form():
    inputs = principal_coordinates(FEATURES, SPLIT.train)
    found = fit_linear("ridge", inputs, LABELS, SPLIT)
    signs = np.where(LABELS == 1, 1.0, -1.0)[SPLIT.train]
    kernel = inputs[SPLIT.train] @ inputs[SPLIT.train].T
    dual = np.linalg.solve(kernel + found.penalty * np.eye(24), signs - signs.mean())
    wanted = inputs @ inputs[SPLIT.train].T @ dual + signs.mean()
    # Coordinates come from float32 products, and are uncorrelated to as many digits.
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, expit(2 * found.scores))


@pytest.mark.parametrize("kind", list(BASELINE_LABELS))
def test_labels_of_the_test_part_play_no_part_and_those_of_training_do(kind):
    inputs = principal_coordinates(FEATURES, SPLIT.train)
    found = fit_linear(kind, inputs, LABELS, SPLIT)
    assert found.penalty in PENALTIES and ((found.scores[SPLIT.train] > 0) == (LABELS[SPLIT.train] == 1)).mean() > 0.8
    hidden = np.where(np.isin(ROWS, SPLIT.test), -1, LABELS)
    np.testing.assert_array_equal(fit_linear(kind, inputs, hidden, SPLIT).scores, found.scores)
    flipped = np.where(np.isin(ROWS, SPLIT.train), 1 - LABELS, LABELS)
    assert np.abs(fit_linear(kind, inputs, flipped, SPLIT).scores - found.scores).max() > 0.1


def test_logistic_weights_have_no_slope():
    inputs, signs = FEATURES[:, :6].astype(np.float64), np.where(LABELS == 1, 1.0, -1.0)
    weights, bias = logistic_weights(inputs, signs, 2.0)
    pull = -signs * expit(-signs * (inputs @ weights + bias))
    np.testing.assert_allclose(inputs.T @ pull + 0.5 * weights, 0, atol=1e-6)
    assert abs(pull.sum()) < 1e-6
