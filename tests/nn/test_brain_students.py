import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.nn.brain_inputs import BrainInputs, brain_inputs
from jaxgkd.nn.brain_students import brain_student_maker

N, R, F, KINDS = 6, 12, 66, ["gcn", "bnt", "brainnetcnn", "mlp"]


@pytest.fixture(scope="module")
def inputs():
    values = np.random.default_rng(0).uniform(-1, 1, (N, R, R)).astype(np.float32)
    connectivity = (values + values.swapaxes(1, 2)) / 2
    return brain_inputs(connectivity, (connectivity > 0.1).astype(np.float32))


def make(kind, readout="mean"):
    return brain_student_maker(kind, F if kind == "mlp" else R, 8, 2, 2, 3, readout)(jax.random.key(0))


def read_by(kind, inputs):
    """An MLP reads the pairs of regions in a row."""
    return BrainInputs(inputs.rows[:, *np.triu_indices(R, 1)]) if kind == "mlp" else inputs


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_that_subjects_do_not_see_each_other(kind, inputs):
    graphdef, state = nnx.split(make(kind))
    model, inputs = jax.jit(lambda inputs: nnx.merge(graphdef, state)(inputs)), read_by(kind, inputs)
    states, projected = model(inputs)
    assert states.logits.shape == (N, 2) and states.pooled.shape == (N, 8) and projected.shape == (N, 3)
    assert all(layer.shape == (N, R, 8) for layer in states.layers)
    for others in ([4] * (N - 1), [0, 5, 1, 2, 3]):
        found, _ = model(inputs.take(jnp.array([4, *others])))
        np.testing.assert_allclose(found.logits[0], states.logits[4], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_has_a_gradient(kind, inputs):
    graphdef, params, rest = nnx.split(make(kind), nnx.Param, ...)
    inputs = read_by(kind, inputs)

    def loss(params):
        states, projected = nnx.merge(graphdef, params, rest, copy=True)(inputs, dropout_key=jax.random.key(1))
        return jnp.square(states.logits).sum() + jnp.square(projected).sum()

    gradients = jax.jit(jax.grad(loss))(params)
    flat = {
        jax.tree_util.keystr(path): float(jnp.abs(leaf).max()) for path, leaf in jax.tree.leaves_with_path(gradients)
    }
    # A bias of keys moves all scores of a region alike, which a softmax does not see.
    assert all(value > 0 for value in flat.values()), flat


def test_a_graph_network_that_reads_means_does_not_know_the_order_of_regions(inputs):
    order = np.random.default_rng(1).permutation(R)
    model = make("gcn")
    # The regions are renumbered where they are places; the columns are features, and stay.
    turned = BrainInputs(inputs.rows[:, order], inputs.adjacency[:, order][:, :, order], inputs.propagated[:, order])
    np.testing.assert_allclose(model(turned)[0].logits, model(inputs)[0].logits, atol=1e-5)
    by_place = make("gcn", "regions")
    assert np.abs(by_place(turned)[0].logits - by_place(inputs)[0].logits).max() > 1e-4


def test_a_graph_network_needs_a_graph_and_a_student_a_name(inputs):
    with pytest.raises(ValueError, match="adjacency"):
        make("gcn")(BrainInputs(inputs.rows))
    with pytest.raises(ValueError, match="'gat' is no student"):
        brain_student_maker("gat", R, 8, 2, 2, 3)
    with pytest.raises(ValueError, match="4 heads"):
        brain_student_maker("bnt", R, 6, 1, 2, 3)(jax.random.key(0))
