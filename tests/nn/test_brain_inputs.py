import jax.numpy as jnp
import numpy as np

from jaxgkd.nn.brain_inputs import brain_inputs


def brains(n=5, r=7, seed=0):
    random = np.random.default_rng(seed)
    values = random.uniform(-1, 1, (n, r, r)).astype(np.float32)
    connectivity = np.where(np.eye(r, dtype=bool), 1, (values + values.swapaxes(1, 2)) / 2).astype(np.float32)
    return connectivity, (connectivity > 0.2).astype(np.float32) * (1 - np.eye(r, dtype=np.float32))


def test_the_first_product_is_that_of_kipf_and_welling():
    connectivity, adjacency = brains()
    inputs = brain_inputs(connectivity, adjacency)
    for i in range(5):
        looped = adjacency[i].astype(np.float64) + np.eye(7)
        scale = np.diag(1 / np.sqrt(looped.sum(axis=1)))
        rows = connectivity[i] - np.eye(7)
        np.testing.assert_allclose(inputs.rows[i], rows, atol=1e-6)
        np.testing.assert_allclose(inputs.adjacency[i], scale @ looped @ scale, rtol=1e-5)
        np.testing.assert_allclose(inputs.propagated[i], scale @ looped @ scale @ rows, atol=1e-5)


def test_without_adjacency_there_is_no_product():
    connectivity, _ = brains()
    inputs = brain_inputs(connectivity)
    assert inputs.adjacency is None and inputs.propagated is None
    np.testing.assert_array_equal(inputs.take(jnp.array([3, 1])).rows, inputs.rows[np.array([3, 1])])
