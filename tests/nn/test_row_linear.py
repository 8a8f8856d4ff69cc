import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgkd.nn.row_linear import RowLinear


def test_it_is_the_linear_layer_of_flax_gradients_included():
    inputs = jax.random.normal(jax.random.key(0), (3, 4, 5))
    ours, theirs = (kind(5, 7, rngs=nnx.Rngs(1)) for kind in (RowLinear, nnx.Linear))
    assert ours(inputs).shape == (3, 4, 7) and ours(inputs[0, 0]).shape == (7,)
    np.testing.assert_allclose(ours(inputs), theirs(inputs), rtol=1e-6)

    def loss(layer, inputs):
        return jnp.sum(jnp.tanh(layer(inputs)))

    mine, flax = (nnx.grad(loss, argnums=(0, 1))(layer, inputs) for layer in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), mine[1], flax[1])
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(mine[0][name][...], flax[0][name][...], rtol=1e-5, atol=1e-6)
