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
