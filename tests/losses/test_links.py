from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.losses import link_losses
from jaxgkd.losses.links import LossKind

KINDS = get_args(LossKind)
B, K = 7, 5
jitted = jax.jit(link_losses, static_argnums=0)
WHERE = np.arange(B) != 2
NEGATIVE_WHERE = np.random.default_rng(3).random((B, K)) < 0.6
NEGATIVE_WHERE[4] = False
WEIGHTS = np.linspace(0.0, 2.0, B).astype(np.float32)


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def oracle(kind, positive, negative, where=None, negative_where=None, edge_weights=None, temperature=1.0, alpha=1.0):
    """Edge by edge in float64."""
    values = np.zeros(len(positive))
    for i, p in enumerate(np.float64(positive)):
        if where is not None and not where[i]:
            continue
        n = np.float64(negative[i] if negative_where is None else negative[i][negative_where[i]])
        w, k = 1.0 if edge_weights is None else float(edge_weights[i]), max(len(n), 1)
        if kind == "cross_entropy":
            values[i] = -(w * log_sigmoid(p) + log_sigmoid(-n).sum()) / (1 + len(n))
        elif kind == "log_sigmoid":
            values[i] = -w * log_sigmoid(p) - log_sigmoid(-n).sum() / k
        elif kind == "self_adversarial":
            shares = np.exp(alpha * n) / max(np.exp(alpha * n).sum(), 1e-300)
            values[i] = -w * log_sigmoid(p) - (shares * log_sigmoid(-n)).sum()
        elif kind == "contrastive":
            scores = np.exp(np.r_[p, n] / temperature)
            values[i] = -w * np.log(scores[0] / scores.sum())
        else:
            values[i] = -w * log_sigmoid(p - n).sum() / k
    return values


@pytest.fixture
def scores(normal):
    return jnp.asarray(2 * normal(0, B)), jnp.asarray(2 * normal(1, B, K))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_their_equations(kind, scores):
    masks = {"where": WHERE, "negative_where": NEGATIVE_WHERE, "edge_weights": WEIGHTS}
    for given in ({}, masks):
        wanted = oracle(kind, *scores, temperature=0.7, alpha=0.5, **given)
        settings = {name: jnp.asarray(array) for name, array in given.items()}
        got = jitted(kind, *scores, temperature=0.7, adversarial_temperature=0.5, **settings)
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "self_adversarial"])
def test_gradients(kind, scores, check_gradients):
    masks = {"where": jnp.asarray(WHERE), "negative_where": jnp.asarray(NEGATIVE_WHERE)}

    def loss(positive, negative, weights, temperature):
        return link_losses(kind, positive, negative, edge_weights=weights, temperature=temperature, **masks)

    check_gradients(loss, *scores, WEIGHTS, 0.8)


def test_shares_of_the_self_adversarial_loss_are_constant(scores):
    positive, negative = scores
    powers = np.exp(2.0 * np.float64(negative))
    wanted = powers / powers.sum(axis=1, keepdims=True) / (1 + np.exp(-np.float64(negative)))
    got = jax.jit(
        jax.grad(lambda n: jnp.sum(link_losses("self_adversarial", positive, n, adversarial_temperature=2.0)))
    )
    np.testing.assert_allclose(got(negative), wanted, rtol=2e-5)
    # At a small temperature all negatives weigh alike.
    flat = jitted("self_adversarial", positive, negative, adversarial_temperature=1e-6)
    np.testing.assert_allclose(flat, oracle("log_sigmoid", positive, negative), rtol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_scores_take_no_part_whatever_they_are(kind, scores):
    positive, negative = scores
    rubbish = jnp.where(WHERE, positive, jnp.nan), jnp.where(NEGATIVE_WHERE & WHERE[:, None], negative, jnp.nan)
    masks = {"where": jnp.asarray(WHERE), "negative_where": jnp.asarray(NEGATIVE_WHERE)}

    def of(positive, negative):
        values = link_losses(kind, positive, negative, **masks)
        return jnp.sum(values), values

    run = jax.jit(jax.value_and_grad(of, (0, 1), has_aux=True))
    for one, other in zip(jax.tree.leaves(run(*rubbish)), jax.tree.leaves(run(*scores)), strict=True):
        np.testing.assert_array_equal(one, other)
    (_, values), gradients = run(*rubbish)
    assert values[2] == 0 and gradients[0][2] == 0 and not np.any(gradients[1][~NEGATIVE_WHERE])
    # No negatives are left of edge 4.
    assert (values[4] == 0) == (kind in ("contrastive", "bpr"))


@pytest.mark.parametrize("kind", KINDS)
def test_large_scores_do_not_overflow(kind):
    positive, negative = jnp.array([-1e4, 1e4]), jnp.array([[1e4, 0.0], [-1e4, -1e4]])
    values, gradient = jax.jit(jax.value_and_grad(lambda p: jnp.sum(link_losses(kind, p, negative))))(positive)
    assert np.isfinite(values) and values > 1e3 and np.all(np.isfinite(gradient))


def test_bad_arguments(scores, untyped):
    positive, negative = scores
    mask = jnp.ones((B, K), bool)
    for arguments, settings, message in (
        (("hinge", positive, negative), {}, "one of cross_entropy"),
        (("bpr", positive[:3], negative), {}, "the same edges"),
        (("bpr", positive, negative[:, :0]), {}, "a column at least"),
        (("bpr", positive, positive), {}, "rank 2"),
        (("bpr", positive, negative), {"where": mask}, "where must have shape"),
        (("bpr", positive, negative), {"negative_where": mask[:2]}, "negative_where"),
        (("bpr", positive, negative), {"negative_where": negative}, "boolean"),
        (("bpr", positive, negative), {"edge_weights": positive[:2]}, "edge_weights"),
        (("contrastive", positive, negative), {"temperature": 0.0}, "temperature must be above 0"),
        (("self_adversarial", positive, negative), {"adversarial_temperature": -1.0}, "above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            link_losses(*arguments, **settings)
