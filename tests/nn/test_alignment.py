import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgkd.nn.alignment import Alignment, HopProjection


def numbers(parameter):
    return np.asarray(parameter[...], np.float64)


def test_a_hop_is_normalised_projected_and_bent():
    layer = HopProjection(6, 4, rngs=nnx.Rngs(0))
    features = np.random.default_rng(0).normal(size=(5, 6)) * 3 + 1
    centred = features - features.mean(axis=1, keepdims=True)
    normalised = centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + layer.norm.epsilon)
    hidden = normalised @ numbers(layer.first.kernel)
    hidden = np.where(hidden > 0, hidden, numbers(layer.activation.negative_slope) * hidden)
    got = nnx.jit(lambda layer, features: layer(features))(layer, jnp.asarray(features, jnp.float32))
    np.testing.assert_allclose(got, hidden @ numbers(layer.second.kernel), atol=1e-5)


def test_every_hop_has_its_own_projection_and_one_that_all_share():
    alignment = Alignment(6, 4, 3, 5, rngs=nnx.Rngs(0))
    features = jnp.asarray(np.random.default_rng(0).normal(size=(7, 3, 6)), jnp.float32)

    @nnx.jit
    def one_by_one(alignment, features):
        return alignment(features), [hop(features[:, i]) for i, hop in enumerate(alignment.by_hop)]

    aligned, by_hop = one_by_one(alignment, features)
    assert [hop.shape for hop in aligned] == [(7, 4)] * 3
    for projected, own in zip(aligned, by_hop, strict=True):
        np.testing.assert_allclose(projected, np.asarray(own) @ numbers(alignment.shared.kernel), atol=1e-5)
    np.testing.assert_array_equal(alignment.layer_weights[...], np.ones(3))
    np.testing.assert_array_equal(alignment.term_weights[...], np.ones(5))
    kernels = [numbers(hop.first.kernel) for hop in alignment.by_hop]
    assert not np.allclose(kernels[0], kernels[1])


def test_a_hop_reads_its_own_features_only():
    alignment = Alignment(6, 4, 3, 1, rngs=nnx.Rngs(1))
    features = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 6)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda f: jnp.sum(alignment(f)[1] ** 2)))(features)
    touched = np.abs(np.asarray(gradient)).sum(axis=(0, 2)) > 0
    assert touched.tolist() == [False, True, False]
