import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgkd.nn.brain_adapter import ResidualAdapter

REGIONS = jax.random.normal(jax.random.key(0), (4, 5, 8)) + 2


def test_what_is_added_goes_through_a_quarter_of_the_width():
    adapter = ResidualAdapter(8, rngs=nnx.Rngs(0))
    assert adapter.down.kernel.shape == (8, 2) and adapter.up.kernel.shape == (2, 8)
    normed = np.asarray(REGIONS, np.float64) / np.sqrt(1 + 1e-5)
    inner = normed @ np.asarray(adapter.down.kernel[...]) @ np.asarray(adapter.up.kernel[...]) / np.sqrt(1 + 1e-5)
    added = jax.nn.gelu(jnp.asarray(inner, jnp.float32))
    np.testing.assert_allclose(adapter(REGIONS), normed + added, atol=1e-4)


def test_in_training_subjects_are_normalised_by_their_own_statistics():
    adapter = ResidualAdapter(8, rngs=nnx.Rngs(0))
    actual = adapter(REGIONS, dropout_key=jax.random.key(0), dropout_rate=0.0)

    def normal(values):
        return (values - values.mean(axis=(0, 1))) / np.sqrt(values.var(axis=(0, 1)) + 1e-5)

    normed = normal(np.asarray(REGIONS, np.float64))
    inner = normal(normed @ np.asarray(adapter.down.kernel[...]) @ np.asarray(adapter.up.kernel[...]))
    np.testing.assert_allclose(actual, normed + jax.nn.gelu(jnp.asarray(inner, jnp.float32)), atol=1e-3)
    assert abs(float(actual.mean())) < abs(float(REGIONS.mean()))
