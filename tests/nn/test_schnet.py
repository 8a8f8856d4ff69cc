import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.nn.schnet import SchNet, cosine_cutoff, shifted_softplus
from tests.nn.molecule_rows import ATOM_SIZES, in_rows, molecules, moved, reordered

SIZES, WIDTH, LAYERS, KERNELS, CUTOFF = [5, 1, 4, 3], 6, 2, 5, 4.0
GRAPHS, PATHS = molecules(SIZES)


def rows(which=(0, 1, 2, 3), longest=5, n_row=None):
    return in_rows(GRAPHS, PATHS, which, longest, n_row)


@pytest.fixture(scope="module")
def parts():
    make = lambda key: SchNet(  # noqa: E731
        ATOM_SIZES[0], WIDTH, LAYERS, 2, n_kernels=KERNELS, cutoff=CUTOFF, rngs=nnx.Rngs(key)
    )
    graphdef = nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))))[0]
    return graphdef, jax.jit(lambda key: nnx.split(make(key))[1])(jax.random.key(0))


@pytest.fixture(scope="module")
def run(parts):
    graphdef, state = parts
    return jax.jit(lambda batch: nnx.merge(graphdef, state)(batch))


def test_the_cutoff_ends_at_zero_and_softplus_begins_there():
    np.testing.assert_allclose(cosine_cutoff(jnp.array([0.0, 2.0, 4.0, 9.0]), 4.0), [1, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(shifted_softplus(jnp.array([0.0, 1.0])), [0, np.log(0.5 * np.e + 0.5)], atol=1e-6)


def test_states_are_what_the_equations_say(parts, run):
    model = nnx.merge(*parts)
    batch = rows(longest=6, n_row=5)
    got = run(batch)
    numbers = lambda values: np.asarray(values, np.float64)  # noqa: E731
    affine = lambda linear, x: x @ numbers(linear.kernel[...]) + numbers(linear.bias[...])  # noqa: E731
    softplus = lambda x: np.log(0.5 * np.exp(x) + 0.5)  # noqa: E731
    centres, spacing = np.linspace(0, CUTOFF, KERNELS), CUTOFF / (KERNELS - 1)
    far = 0
    for row, n in enumerate(SIZES):
        x = numbers(model.atoms.kernel[...])[batch.nodes["fields"][row, :n, 0].astype(int)]
        places = numbers(batch.nodes["coordinates"])[row, :n]
        for layer in range(LAYERS + 1):
            np.testing.assert_allclose(got.atoms[layer][row, :n], x, atol=1e-5)
            np.testing.assert_allclose(got.molecules[layer][row], x.mean(axis=0), atol=1e-5)
            assert not np.asarray(got.atoms[layer])[row, n:].any()
            if layer == LAYERS:
                break
            block, received = model.interactions[layer], np.zeros((n, WIDTH))
            for i, j in np.ndindex(n, n):
                distance = np.linalg.norm(places[i] - places[j])
                far += distance >= CUTOFF
                if i == j or distance >= CUTOFF:
                    continue
                kernels = np.exp(-0.5 * ((distance - centres) / spacing) ** 2)
                weights = affine(block.filter_second, softplus(affine(block.filter_first, kernels)))
                weights = weights * 0.5 * (np.cos(np.pi * distance / CUTOFF) + 1)
                received[i] += x[j] @ numbers(block.inward.kernel[...]) * weights
            x = x + affine(block.second, softplus(affine(block.first, received)))
        outputs = affine(model.second, softplus(affine(model.first, x))).sum(axis=0)
        np.testing.assert_allclose(got.outputs[row], outputs, atol=1e-5)
    assert far, "no two atoms are further apart than the cutoff"
    assert not np.asarray(got.outputs)[len(SIZES) :].any()


def test_what_a_molecule_is_does_not_depend_on_its_batch(run):
    together = run(rows(longest=7, n_row=6))
    for row, n in enumerate(SIZES):
        alone = run(rows([row], longest=n))
        np.testing.assert_allclose(together.outputs[row], alone.outputs[0], atol=1e-5)
        for a, b in zip(together.atoms, alone.atoms, strict=True):
            np.testing.assert_allclose(a[row, :n], b[0], atol=1e-5)


def test_neither_moving_a_molecule_nor_the_order_of_its_atoms_matters(run):
    order = np.array([3, 0, 4, 1, 2])
    here, there, other = run(rows()), run(moved(rows())), run(reordered(rows(), order))
    np.testing.assert_allclose(here.outputs, there.outputs, atol=1e-4)
    np.testing.assert_allclose(here.outputs, other.outputs, atol=1e-4)
    np.testing.assert_allclose(here.atoms[-1][:, order], other.atoms[-1], atol=1e-4)
    bent = rows()
    bent.nodes["coordinates"][:, 0] *= 1.5
    assert not np.allclose(here.outputs[0], run(bent).outputs[0], atol=1e-4)


def test_forces_are_finite_differences(parts):
    graphdef, state = parts
    batch = rows(longest=6)

    def energy(coordinates):
        nodes = batch.nodes | {"coordinates": coordinates}
        moved = type(batch)(nodes, batch.pairs, batch.globals, batch.node_mask, batch.graph_mask, batch.index)
        return jnp.sum(nnx.merge(graphdef, state)(moved).outputs)

    places = batch.nodes["coordinates"]
    direction = np.random.default_rng(0).normal(size=places.shape).astype(np.float32)
    direction /= np.linalg.norm(direction)
    run = jax.jit(energy)
    slope = (run(places + 1e-2 * direction) - run(places - 1e-2 * direction)) / 2e-2
    gradient = jax.jit(jax.grad(energy))(places)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(slope, np.vdot(gradient, direction), rtol=1e-2, atol=2e-3)


def test_parameters_side_by_side_are_those_one_after_another(parts):
    graphdef, state = parts
    batch = rows()
    value = jax.value_and_grad(lambda state: jnp.sum(jnp.sin(nnx.merge(graphdef, state)(batch).outputs)))
    other = jax.tree.map(lambda leaf: 1.1 * leaf, state)
    got = jax.jit(jax.vmap(value))(jax.tree.map(lambda *leaves: jnp.stack(leaves), state, other))
    one = jax.jit(value)
    for i, each in enumerate((state, other)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4), got, one(each))  # noqa: B023
