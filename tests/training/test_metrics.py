import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxgkd.training.metrics import (
    accuracy,
    area_under_roc,
    average_precision,
    cross_entropy,
    macro_f1,
    mean_absolute_error,
    mean_over_columns,
    mean_over_traced_columns,
    root_mean_squared_error,
)

LOGITS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 4, 12)
WHERE = np.random.default_rng(2).random(12) < 0.6


def test_accuracy_counts_the_items_that_count():
    expected = np.mean(LOGITS[WHERE].argmax(axis=1) == LABELS[WHERE])
    assert float(accuracy(LOGITS, LABELS, jnp.asarray(WHERE))) == pytest.approx(expected)
    other = np.where(WHERE, LABELS, -1)
    assert float(accuracy(LOGITS, other, jnp.asarray(WHERE))) == pytest.approx(expected)
    assert np.isnan(accuracy(LOGITS, LABELS, jnp.zeros(12, bool)))


def nll():
    shifted = LOGITS.astype(np.float64)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(12), LABELS]


def test_cross_entropy_is_the_mean_over_the_items_that_count():
    loss = jax.jit(cross_entropy)
    assert float(loss(LOGITS, LABELS, WHERE)) == pytest.approx(nll()[WHERE].mean(), rel=1e-5)
    # Labels that do not count may be anything, and logits there send no gradient.
    other = np.where(WHERE, LABELS, -1)
    assert float(loss(LOGITS, other, WHERE)) == pytest.approx(nll()[WHERE].mean(), rel=1e-5)
    gradient = jax.jit(jax.grad(cross_entropy))(LOGITS, other, WHERE)
    assert np.all((np.abs(np.asarray(gradient)).sum(axis=1) > 0) == WHERE)


def test_cross_entropy_weighs_items_and_classes():
    item_weights = np.random.default_rng(3).random(12).astype(np.float32)
    class_weights = np.array([0.5, 1.0, 2.0, 0.0], np.float32)
    weights = item_weights * class_weights[LABELS]
    got = cross_entropy(LOGITS, LABELS, jnp.asarray(item_weights), jnp.asarray(class_weights))
    assert float(got) == pytest.approx(np.sum(weights * nll()) / weights.sum(), rel=1e-5)


def test_cross_entropy_of_nothing_is_zero():
    value, gradient = jax.value_and_grad(cross_entropy)(jnp.asarray(LOGITS), LABELS, jnp.zeros(12, bool))
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, 0)


def test_errors_of_a_regression_are_their_equations():
    random = np.random.default_rng(4)
    labels, where = 1e6 + random.normal(size=50), random.random(50) < 0.7
    predictions = (labels + random.normal(size=50)).astype(np.float32)
    # Far from 0 the difference of float32 numbers would lose the digits that matter.
    wrong = [float(p) - y for p, y, counted in zip(predictions, labels, where, strict=True) if counted]
    unknown = np.where(where, labels, np.nan)
    assert mean_absolute_error(predictions, unknown, where) == pytest.approx(sum(map(abs, wrong)) / len(wrong))
    expected = (sum(error**2 for error in wrong) / len(wrong)) ** 0.5
    assert root_mean_squared_error(predictions, unknown, where) == pytest.approx(expected)
    nothing = np.zeros(50, bool)
    assert np.isnan(mean_absolute_error(predictions, labels, nothing))
    assert np.isnan(root_mean_squared_error(predictions, labels, nothing))


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 1.0, np.nan]), st.booleans()), max_size=30))
def test_area_under_roc_counts_pairs(items):
    """All pairs of a positive and a negative, one by one; few values of the score make many ties."""
    scores, labels, counted = (np.array([item[i] for item in items]) for i in range(3))
    where = counted.astype(bool) & ~np.isnan(labels)
    pairs = [
        (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
        for i in np.flatnonzero(where)
        for j in np.flatnonzero(where)
        if labels[i] == 1 and labels[j] == 0
    ]
    area = area_under_roc(scores, labels, where)
    if not pairs:
        assert np.isnan(area)
        return
    assert area == pytest.approx(np.mean(pairs))
    # Only the order of the scores matters, and turning it round turns the area round.
    assert area_under_roc(np.exp(3 * scores) - 7, labels, where) == pytest.approx(area)
    assert area_under_roc(-scores, labels, where) == pytest.approx(1 - area)


def test_area_under_roc_of_an_undecided_model_is_one_half():
    labels = np.arange(9) % 3 == 0
    assert area_under_roc(np.zeros(9), labels, np.ones(9, bool)) == 0.5
    assert area_under_roc(labels, labels, np.ones(9, bool)) == 1.0


def test_the_mean_over_columns_leaves_out_those_without_a_value():
    labels = np.array([[1.0, 0.0, np.nan], [0.0, 0.0, np.nan], [1.0, 0.0, 1.0]])
    predictions = np.array([[0.2, 0.5, 0.1], [0.6, 0.1, 0.1], [0.9, 0.4, 0.1]])
    known = ~np.isnan(labels)
    # The second column has one class alone, the third one label.
    assert mean_over_columns("auroc", predictions, labels, known) == 0.5
    assert mean_over_columns("mae", predictions, labels, known) == pytest.approx((1.5 / 3 + 1.0 / 3 + 0.9) / 3)
    assert np.isnan(mean_over_columns("auroc", predictions, labels, known & False))


@pytest.mark.parametrize("metric", ["mae", "rmse", "auroc"])
def test_traced_columns_are_those_of_numpy_with_the_better_ones_higher(metric):
    random = np.random.default_rng(0)
    predictions = np.round(random.normal(size=(40, 4)), 1).astype(np.float32)  # rounded, so that some are tied
    labels = random.integers(0, 2, (40, 4)).astype(np.float32)
    where = random.random((40, 4)) < 0.7
    where[:, 2] = False
    labels[:, 3] = 1.0
    sign = 1.0 if metric == "auroc" else -1.0
    wanted = sign * mean_over_columns(metric, predictions, labels, where)
    got = jax.jit(mean_over_traced_columns, static_argnums=0)(metric, predictions, labels, where)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert np.isnan(mean_over_traced_columns(metric, predictions, labels, np.zeros_like(where)))


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 1.0, np.nan]), st.booleans()), max_size=30))
def test_average_precision_is_the_area_of_steps_under_the_curve(items):
    """Threshold by threshold, from the highest: precision times the recall that is gained."""
    scores, labels, counted = (np.array([item[i] for item in items]) for i in range(3))
    where = counted.astype(bool) & ~np.isnan(labels)
    n_positive = (labels[where] == 1).sum()
    got = average_precision(scores, labels, where)
    if not n_positive:
        assert np.isnan(got)
        return
    wanted = recall = 0.0
    for threshold in sorted(set(scores[where]), reverse=True):
        above = labels[where & (scores >= threshold)]
        wanted += above.mean() * ((above == 1).sum() / n_positive - recall)
        recall = (above == 1).sum() / n_positive
    assert got == pytest.approx(wanted)
    assert average_precision(np.exp(3 * scores) - 7, labels, where) == pytest.approx(got)
    assert average_precision(0 * scores, labels, where) == pytest.approx((labels[where] == 1).mean())


@pytest.mark.parametrize("seed", range(3))
def test_macro_f1_is_the_mean_over_classes_that_occur(seed):
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(30, 6)).astype(np.float32), random.integers(0, 4, 30)
    logits[:, 5] = -9.0
    where = random.random(30) < 0.6
    predicted, wanted = logits.argmax(axis=1)[where], []
    for c in set(predicted) | set(labels[where]):
        right = np.sum((predicted == c) & (labels[where] == c))
        precision, recall = right / max(np.sum(predicted == c), 1), right / max(np.sum(labels[where] == c), 1)
        wanted.append(2 * precision * recall / max(precision + recall, 1e-9))
    other = np.where(where, labels, -1)
    assert float(jax.jit(macro_f1)(logits, other, where)) == pytest.approx(np.mean(wanted), rel=1e-5)
    assert np.isnan(macro_f1(jnp.asarray(logits), labels, np.zeros(30, bool)))


def test_the_traced_area_of_many_items_and_of_scores_that_are_no_numbers():
    random = np.random.default_rng(0)
    labels = (random.random((200_000, 1)) < 0.5).astype(float)
    scores = labels + random.normal(size=labels.shape)
    there = np.ones(labels.shape, bool)
    traced = float(mean_over_traced_columns("auroc", jnp.asarray(scores), jnp.asarray(labels), jnp.asarray(there)))
    assert traced == pytest.approx(mean_over_columns("auroc", scores, labels, there), abs=1e-4)
    scores[7] = np.nan
    assert np.isnan(mean_over_traced_columns("auroc", scores[:50], labels[:50], there[:50]))
    there[7] = False
    assert 0 <= mean_over_traced_columns("auroc", scores[:50], labels[:50], there[:50]) <= 1


def test_what_does_not_count_may_be_no_number():
    logits, labels, where = jnp.array([[1.0, 2.0], [jnp.nan, -jnp.inf]]), jnp.array([0, 1]), jnp.array([True, False])
    value, gradient = jax.value_and_grad(cross_entropy)(logits, labels, where)
    assert value == pytest.approx(cross_entropy(logits[:1], labels[:1], where[:1]))
    np.testing.assert_array_equal(gradient[1], 0.0)
