import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.nn.brain_head import BrainHead, MeanReadout, OrthonormalReadout, RegionReadout

REGIONS = jax.random.normal(jax.random.key(0), (3, 7, 6))


def test_the_mean_does_not_know_places_and_the_others_do():
    turned = REGIONS[:, ::-1]
    np.testing.assert_allclose(MeanReadout(6)(REGIONS), MeanReadout(6)(turned), atol=1e-6)
    by_place = RegionReadout(7, 6, rngs=nnx.Rngs(0))
    assert by_place(REGIONS).shape == (3, 6)
    assert np.abs(by_place(REGIONS) - by_place(turned)).max() > 1e-2


def test_centres_of_clusters_are_orthonormal_and_regions_are_shared_out_whole():
    readout = OrthonormalReadout(4, 6, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(readout.centres[...] @ readout.centres[...].T, np.eye(4), atol=1e-5)
    narrow = np.asarray(readout.narrow(REGIONS), np.float64)
    shares = np.exp(np.asarray(REGIONS @ readout.centres[...].T, np.float64))
    shares /= shares.sum(axis=-1, keepdims=True)
    shares /= shares.sum(axis=1, keepdims=True)
    clusters = np.einsum("nrk,nrd->nkd", shares, narrow)
    wanted = readout.joint(jax.nn.gelu(jnp.asarray(clusters, jnp.float32)).reshape(3, -1))
    np.testing.assert_allclose(readout(REGIONS), wanted, atol=1e-5)
    # They are drawn, not trained.
    assert not any("centres" in str(path) for path, _ in jax.tree.leaves_with_path(nnx.state(readout, nnx.Param)))


def test_more_clusters_than_can_be_orthogonal_are_refused():
    with pytest.raises(ValueError, match="7 clusters"):
        OrthonormalReadout(7, 6, rngs=nnx.Rngs(0))


def test_dropout_of_the_head_needs_a_key():
    head, state = BrainHead(6, 2, rngs=nnx.Rngs(0)), REGIONS[:, 0]
    np.testing.assert_array_equal(head(state, dropout_rate=0.9), head(state))
    assert np.abs(head(state, dropout_key=jax.random.key(1), dropout_rate=0.9) - head(state)).max() > 1e-3
    np.testing.assert_allclose(head(state, dropout_key=jax.random.key(1)), head(state), atol=1e-6)
