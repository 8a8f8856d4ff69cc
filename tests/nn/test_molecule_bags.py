import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.nn.molecule_bags import AtomMLP, FingerprintMLP, ReadAtoms, bags_of, bags_of_fragments, damped, padded_bags

SIZES = (5, 3)
COUNTS = [3, 1, 6, 2]


@pytest.fixture(scope="module")
def atoms():
    fields = np.random.default_rng(0).integers(0, SIZES, (sum(COUNTS), 2))
    fields[4] = fields[0]  # the same atom in two molecules
    fields[1] = fields[0]  # and twice in one
    return fields, np.concatenate([[0], np.cumsum(COUNTS)])


def test_an_atom_that_is_there_many_times_is_computed_once(atoms):
    bags = bags_of(*atoms)
    assert len(bags.things) == len(np.unique(atoms[0], axis=0)) < len(atoms[0])
    assert float(bags.counts.sum()) == len(atoms[0]) and float(bags.counts.max()) >= 2


def test_a_bag_says_what_a_pass_over_every_atom_says(atoms):
    fields, start = atoms
    model = AtomMLP(SIZES, 4, 3, 2, rngs=nnx.Rngs(0))
    model.bias[...] = jnp.arange(4.0)
    found = model(bags_of(fields, start))
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    table = np.asarray(model.embedding.kernel[...])
    linear = lambda layer, x: x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])  # noqa: E731
    for i, count in enumerate(COUNTS):
        mine = fields[start[i] : start[i] + count]
        state = table[mine[:, 0]] + table[SIZES[0] + mine[:, 1]] + np.arange(4.0)
        for layer in model.layers:
            state = linear(layer, relu(state))
        summed = relu(state).sum(axis=0)
        state = relu(linear(model.joint, np.concatenate([summed / count, summed / 25.0])))
        np.testing.assert_allclose(found.state[i], state, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.outputs[i], linear(model.head, state), rtol=1e-5, atol=1e-5)


def test_neither_the_order_of_atoms_nor_other_molecules_matter(atoms):
    fields, start = atoms
    model = AtomMLP(SIZES, 4, 2, 1, rngs=nnx.Rngs(1))
    whole = model(bags_of(fields, start)).outputs
    third = model(bags_of(fields[start[2] : start[3]][::-1], np.array([0, COUNTS[2]]))).outputs
    np.testing.assert_allclose(whole[2], third[0], rtol=1e-5)


def test_bits_are_an_mlp_over_the_fingerprint():
    bits = np.random.default_rng(0).integers(0, 2, (5, 12)).astype(np.uint8)
    bits[3] = 0
    model = FingerprintMLP(12, 4, 2, rngs=nnx.Rngs(0))
    state = np.maximum(bits @ np.asarray(model.kernel[...]) + np.asarray(model.bias[...]), 0)
    found = model(bags_of_fragments(bits))
    np.testing.assert_allclose(found.state, state, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.outputs, model.head(jnp.asarray(state)), rtol=1e-5, atol=1e-6)


def test_a_fragment_that_is_there_more_than_once_counts_for_its_logarithm():
    counts = np.array([[0, 1, 3], [7, 0, 0]], np.uint16)
    model = FingerprintMLP(3, 4, 1, rngs=nnx.Rngs(0))
    kernel = np.asarray(model.kernel[...])
    state = np.maximum(np.array([kernel[1] + 2 * kernel[2], 3 * kernel[0]]), 0)
    np.testing.assert_allclose(model(bags_of_fragments(counts)).state, state, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(damped([0, 1, 3, 7]), [0, 1, 2, 3], rtol=1e-6)


def test_padding_changes_nothing_that_is_said(atoms):
    fields, start = atoms
    bags = bags_of(fields, start)
    n = len(start) - 1
    padded = padded_bags(bags, n + 3, round_up=lambda size: 8 * (size // 8 + 1))
    assert padded.things.shape[0] % 8 == 0 and padded.counts.shape[0] % 8 == 0
    student = AtomMLP(SIZES, 6, 2, 2, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(student(padded).outputs[:n], student(bags).outputs, atol=1e-6)


def test_dropout_is_of_the_states_and_in_training_alone(atoms):
    bags, model = bags_of(*atoms), AtomMLP(SIZES, 64, 2, 1, rngs=nnx.Rngs(0))
    still = model(bags)
    dropped = model(bags, dropout_key=jax.random.key(0), dropout_rate=0.5)
    np.testing.assert_array_equal(still.state, dropped.state)
    assert (np.asarray(still.outputs) != np.asarray(dropped.outputs)).any()


def test_a_head_reads_texts_and_atoms(atoms):
    bags = bags_of(*atoms)
    texts = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    graphdef, state = nnx.split(ReadAtoms(6, SIZES, 8, 1, rngs=nnx.Rngs(0)))

    def total(state, texts):
        return jnp.sum(nnx.merge(graphdef, state)((texts, bags)).outputs)

    to_weights, to_texts = jax.grad(total, argnums=(0, 1))(state, texts)
    assert jnp.abs(to_texts).sum() > 0
    names = {name for name, leaf in nnx.to_flat_state(to_weights) if jnp.abs(leaf[...]).sum() == 0}
    # The head of the deep set is not asked.
    assert names == {("atoms", "head", "kernel"), ("atoms", "head", "bias")}
