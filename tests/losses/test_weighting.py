import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd import losses

layer_adaptive, uncertainty_weighted = jax.jit(losses.layer_adaptive), jax.jit(losses.uncertainty_weighted)

LOSSES = jnp.array([0.5, 2.0, 4.0])
LOGITS = jnp.array([1.0, -0.5, 0.2])


def layer_adaptive_oracle(losses, logits):
    exponentials = np.exp(np.float64(logits))
    return np.sum(exponentials * np.float64(losses)) / np.sum(exponentials)


def uncertainty_oracle(losses, log_variances):
    return sum(
        loss / (2 * np.exp(v)) + np.log(np.sqrt(np.exp(v))) for loss, v in zip(losses, log_variances, strict=True)
    )


@pytest.mark.parametrize(
    ("weighted", "oracle"), [(layer_adaptive, layer_adaptive_oracle), (uncertainty_weighted, uncertainty_oracle)]
)
def test_weighted_sums_are_their_equations(weighted, oracle, check_gradients):
    expected = oracle(LOSSES, LOGITS)
    np.testing.assert_allclose(weighted(LOSSES, LOGITS), expected, rtol=1e-5)
    batched = jax.vmap(weighted)(jnp.stack([LOSSES, LOGITS]), jnp.stack([LOGITS, LOSSES]))
    np.testing.assert_allclose(batched, [expected, oracle(LOGITS, LOSSES)], rtol=1e-5)
    np.testing.assert_allclose(weighted(LOSSES[::-1], LOGITS[::-1]), expected, rtol=1e-5)
    assert weighted(LOSSES.astype(jnp.bfloat16), LOGITS.astype(jnp.bfloat16)).dtype == jnp.float32
    check_gradients(weighted, LOSSES, LOGITS)


def test_layer_adaptive_is_blind_to_a_shift_and_safe_with_large_logits():
    np.testing.assert_allclose(layer_adaptive(LOSSES, LOGITS + 500.0), layer_adaptive(LOSSES, LOGITS), rtol=1e-4)


def test_uncertainty_weighted_is_least_where_each_variance_is_its_loss():
    np.testing.assert_allclose(jax.grad(uncertainty_weighted, 1)(LOSSES, jnp.log(LOSSES)), 0.0, atol=1e-6)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("weighted", [layer_adaptive, uncertainty_weighted])
def test_wrong_arguments(weighted):
    with pytest.raises(ValueError, match=r"losses \[3\] and .* \[2\]"):
        weighted(LOSSES, LOGITS[:2])
    with pytest.raises(ValueError, match=r"losses must have rank 1, but its shape is \[\]"):
        weighted(LOSSES[0], LOGITS[0])
    with pytest.raises(ValueError, match="losses must hold floating-point numbers"):
        weighted(jnp.arange(3), LOGITS)
