import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.training.metrics import accuracy, cross_entropy

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
