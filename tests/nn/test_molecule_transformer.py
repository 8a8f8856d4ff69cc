from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.nn.molecule_relations import DistanceRelations, PathRelations
from jaxgkd.nn.molecule_transformer import MoleculeTransformer
from tests.nn.molecule_rows import ATOM_SIZES, BOND_SIZES, N_BOND_KINDS, in_rows, molecules, moved, reordered

SIZES, WIDTH, HEADS, LAYERS = [5, 1, 4, 3], 8, 2, 2
KINDS = ("bonds", "space")


@cache
def graphs_and_paths():
    return molecules(SIZES)


def make(kind, rngs, **options):
    if kind == "bonds":
        relations = PathRelations(graphs_and_paths()[1], HEADS, n_bond_kinds=N_BOND_KINDS, rngs=rngs)
    else:
        relations = DistanceRelations(ATOM_SIZES[0], HEADS, 5, rngs=rngs)
    bonds = BOND_SIZES if kind == "bonds" else None
    return MoleculeTransformer(
        ATOM_SIZES, WIDTH, LAYERS, HEADS, 2, relations=relations, bond_sizes=bonds, rngs=rngs, **options
    )


@cache
def initial(kind):
    return jax.jit(lambda key: nnx.split(make(kind, nnx.Rngs(key)), nnx.Param, ...)[1:])


@cache
def parts(kind, seed=0, **options):
    """Structure, parameters and the rest of a network, all parameters moved away from where they start."""
    graphdef = nnx.split(nnx.eval_shape(lambda: make(kind, nnx.Rngs(0), **options)), nnx.Param, ...)[0]
    params, rest = initial(kind)(jax.random.key(seed))
    random = np.random.default_rng(seed)
    noise = lambda leaf: jnp.asarray(leaf + random.normal(0, 0.1, leaf.shape), jnp.float32)  # noqa: E731
    return graphdef, jax.tree.map(noise, params), rest


@cache
def program(kind, **options):
    graphdef, params, rest = parts(kind, **options)
    return jax.jit(lambda batch: nnx.merge(graphdef, params, rest)(batch))


@cache
def value(kind, **options):
    """A function of the parameters and a batch that all states and outputs of what is real enter."""
    graphdef, _, rest = parts(kind, **options)

    def value(params, batch, rate=None):
        key = None if rate is None else jax.random.key(3)
        states = nnx.merge(graphdef, params, rest)(batch, dropout_key=key, dropout_rate=0.0 if rate is None else rate)
        atoms = sum(jnp.sum(jnp.sin(a) * batch.node_mask[..., None]) for a in states.atoms)
        return atoms + sum(jnp.sum(jnp.sin(m) * batch.graph_mask[:, None]) for m in (*states.molecules, states.outputs))

    return value


@cache
def gradient(kind, **options):
    """Value and gradient by the parameters, compiled."""
    return jax.jit(jax.value_and_grad(value(kind, **options)))


def rows(which=(0, 1, 2, 3), longest=5, n_row=None):
    return in_rows(*graphs_and_paths(), which, longest, n_row)


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_every_layer_and_what_the_equations_say(kind):
    graphdef, params, rest = parts(kind)
    model = nnx.merge(graphdef, params, rest)
    batch = rows()
    got = program(kind)(batch)
    assert [a.shape for a in got.atoms] == [(4, 5, WIDTH)] * (LAYERS + 1)
    assert [m.shape for m in got.molecules] == [(4, WIDTH)] * (LAYERS + 1)
    assert got.outputs.shape == (4, 2)
    relations = jax.jit(lambda batch: nnx.merge(graphdef, params, rest).relations(batch))(batch)
    numbers = lambda values: np.asarray(values, np.float64)  # noqa: E731
    affine = lambda linear, x: x @ numbers(linear.kernel[...]) + numbers(linear.bias[...])  # noqa: E731

    def norm(layer, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
        return scaled * numbers(layer.scale[...]) + numbers(layer.bias[...])

    to_atoms, to_virtual = numbers(model.virtual_bias[...])
    for row, n in enumerate(SIZES):
        table = numbers(model.atoms.kernel[...])
        fields = batch.nodes["fields"][row, :n].astype(int)
        atoms = table[fields[:, 0]] + table[ATOM_SIZES[0] + fields[:, 1]]
        if kind == "bonds":
            atoms = atoms + batch.nodes["bonds"][row, :n] @ numbers(model.bonds[...])
        else:
            atoms = atoms + affine(model.summary, numbers(relations.atoms)[row, :n])
        x = np.concatenate([numbers(model.virtual[...])[None], atoms])
        bias = np.zeros((HEADS, n + 1, n + 1))
        bias[:, 1:, 1:] = numbers(relations.bias)[row, :, :n, :n]
        bias[:, 0, 1:], bias[:, 1:, 0] = to_atoms[:, None], to_virtual[:, None]
        for layer in range(LAYERS + 1):
            np.testing.assert_allclose(got.molecules[layer][row], x[0], atol=2e-5)
            np.testing.assert_allclose(got.atoms[layer][row, :n], x[1:], atol=2e-5)
            if layer == LAYERS:
                break
            block = model.blocks[layer]
            parts_of = np.split(affine(block.query_key_value, norm(block.attention_norm, x)), 3 * HEADS, axis=1)
            attended = []
            for head in range(HEADS):
                query, key, value = parts_of[head], parts_of[HEADS + head], parts_of[2 * HEADS + head]
                weights = np.exp(query @ key.T / np.sqrt(WIDTH // HEADS) + bias[head])
                attended.append(weights / weights.sum(axis=1, keepdims=True) @ value)
            x = x + affine(block.mixed, np.concatenate(attended, axis=1))
            hidden = affine(block.first, norm(block.mlp_norm, x))
            x = x + affine(block.second, numbers(jax.nn.gelu(jnp.asarray(hidden, jnp.float32))))
        np.testing.assert_allclose(got.outputs[row], affine(model.head, norm(model.norm, x[:1]))[0], atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_molecule_is_does_not_depend_on_its_batch(kind):
    together = program(kind)(rows(longest=7, n_row=6))
    for row, n in enumerate(SIZES[:2]):
        alone = program(kind)(rows([row], longest=n))
        np.testing.assert_allclose(together.outputs[row], alone.outputs[0], atol=1e-5)
        for a, b in zip(together.atoms, alone.atoms, strict=True):
            np.testing.assert_allclose(a[row, :n], b[0, :n], atol=1e-5)
        for a, b in zip(together.molecules, alone.molecules, strict=True):
            np.testing.assert_allclose(a[row], b[0], atol=1e-5)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(together))


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_atoms_does_not_matter(kind):
    order = np.array([3, 0, 4, 1, 2])
    here, there = program(kind)(rows()), program(kind)(reordered(rows(), order))
    np.testing.assert_allclose(here.outputs, there.outputs, atol=1e-4)
    for a, b in zip(here.atoms, there.atoms, strict=True):
        mask = rows().node_mask[:, order, None]
        np.testing.assert_allclose(np.where(mask, a[:, order], 0), np.where(mask, b, 0), atol=1e-4)


def test_moving_a_molecule_changes_nothing():
    here, there = program("space")(rows()), program("space")(moved(rows()))
    np.testing.assert_allclose(here.outputs, there.outputs, atol=1e-4)
    bent = rows()
    bent.nodes["coordinates"][:, 0] *= 1.5
    assert not np.allclose(here.outputs[0], program("space")(bent).outputs[0], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_differences(kind):
    _, params, _ = parts(kind)
    run = lambda leaves: gradient(kind)(jax.tree.unflatten(tree, leaves), rows())  # noqa: E731
    leaves, tree = jax.tree.flatten(params)
    slopes = jax.tree.leaves(run(leaves)[1])
    random = np.random.default_rng(0)
    for i, leaf in enumerate(leaves):
        direction = random.normal(size=leaf.shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        after, before = (run([*leaves[:i], leaf + step * direction, *leaves[i + 1 :]])[0] for step in (1e-2, -1e-2))
        np.testing.assert_allclose((after - before) / 2e-2, np.vdot(slopes[i], direction), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_sends_no_gradient(kind):
    _, params, _ = parts(kind)
    tight, wide = gradient(kind)(params, rows()), gradient(kind)(params, rows(longest=8, n_row=7))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), tight, wide)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_side_by_side_are_those_one_after_another(kind):
    several = [parts(kind, seed)[1] for seed in range(3)]
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *several)
    got = jax.jit(jax.vmap(jax.value_and_grad(value(kind)), in_axes=(0, None)))(stack, rows())
    for i, params in enumerate(several):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4),  # noqa: B023
            got,
            gradient(kind)(params, rows()),
        )


def test_computing_blocks_again_changes_nothing():
    _, params, _ = parts("bonds")
    plain, again = (gradient("bonds", remat=remat)(params, rows(), 0.3) for remat in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), plain, again)


def test_what_nobody_reads_of_the_last_block_is_not_computed():
    graphdef, params, rest = parts("bonds")

    def products(read):
        value = lambda params: jnp.sum(read(nnx.merge(graphdef, params, rest)(rows())))  # noqa: E731
        return jax.jit(jax.grad(value)).lower(params).compile().cost_analysis()["flops"]

    outputs, atoms = products(lambda states: states.outputs), products(lambda states: states.atoms[-1])
    assert outputs < 0.8 * atoms


def test_half_precision_is_near():
    _, params, _ = parts("bonds")
    exact, rough = (gradient("bonds", **options)(params, rows())[1] for options in ({}, {"dtype": jnp.bfloat16}))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(rough))
    exact, rough = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(each)]) for each in (exact, rough))
    assert 0 < np.linalg.norm(exact - rough) < 0.05 * np.linalg.norm(exact)


def test_dropout_changes_what_is_said_in_training_only():
    graphdef, params, rest = parts("bonds")
    run = jax.jit(
        lambda key, rate: nnx.merge(graphdef, params, rest)(rows(), dropout_key=key, dropout_rate=rate).outputs
    )
    calm = program("bonds")(rows()).outputs
    assert not np.allclose(run(jax.random.key(0), 0.5), calm)
    assert not np.allclose(run(jax.random.key(0), 0.5), run(jax.random.key(1), 0.5))
    np.testing.assert_allclose(run(jax.random.key(0), 0.0), calm, atol=1e-6)


def test_a_width_that_heads_do_not_divide_is_refused():
    relations = DistanceRelations(ATOM_SIZES[0], 3, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="a width of 8 does not divide into 3 heads"):
        MoleculeTransformer(ATOM_SIZES, 8, 1, 3, 1, relations=relations, rngs=nnx.Rngs(0))
