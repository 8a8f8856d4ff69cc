import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.graphs.batching import ManyGraphs, assemble
from jaxgkd.graphs.budgets import Budget
from jaxgkd.nn.gine import GINE, FieldEmbedding, GINEConvolution

ATOMS, BONDS, WIDTH, LAYERS = (5, 3), (4, 2), 6, 2


def molecules(n=4, seed=0):
    """Chains of 2 to 5 atoms with random fields."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        size = int(random.integers(2, 6))
        ends = np.arange(size - 1)
        bonds = random.integers(0, BONDS, (size - 1, 2))
        made.append(
            {
                "nodes": {"fields": random.integers(0, ATOMS, (size, 2))},
                "edges": {"fields": np.concatenate([bonds, bonds])},
                "senders": np.concatenate([ends, ends + 1]),
                "receivers": np.concatenate([ends + 1, ends]),
                "globals": {"label": random.normal(size=1)},
            }
        )
    return made


@pytest.fixture(scope="module")
def model():
    return GINE(ATOMS, BONDS, WIDTH, LAYERS, 2, rngs=nnx.Rngs(0))


def states(model, graphs, rows, budget):
    graphdef, state = nnx.split(model)
    batch = assemble(graphs, np.asarray(rows), budget)
    return jax.jit(lambda b: nnx.merge(graphdef, state)(b))(batch), batch


def test_an_embedding_is_the_sum_of_one_row_per_field():
    embedding = FieldEmbedding(ATOMS, WIDTH, rngs=nnx.Rngs(0))
    table = np.asarray(embedding.kernel[...])
    fields = np.array([[4, 0], [0, 2], [3, 1]])
    np.testing.assert_allclose(embedding(jnp.asarray(fields)), table[fields[:, 0]] + table[5 + fields[:, 1]], rtol=1e-5)


def test_a_convolution_is_the_equation_written_out():
    graphs = ManyGraphs.from_list(molecules(1, seed=3))
    n, e = int(graphs.n_node[0]), int(graphs.n_edge[0])
    batch = assemble(graphs, np.array([0]), Budget(n + 3, e + 4, 2, n))
    random = np.random.default_rng(1)
    atoms, bonds = (random.normal(size=(rows, WIDTH)).astype(np.float32) for rows in (n + 3, e + 4))
    convolution = GINEConvolution(WIDTH, rngs=nnx.Rngs(1))
    convolution.epsilon[...] = jnp.float32(0.3)
    got = convolution(jnp.asarray(atoms), jnp.asarray(bonds), jax.tree.map(jnp.asarray, batch.layout))
    summed = 1.3 * atoms.astype(np.float64)
    for k, (j, i) in enumerate(zip(batch.layout.senders, batch.layout.receivers, strict=True)):
        summed[i] += np.maximum(atoms[j] + bonds[k], 0)
    first, second = convolution.first, convolution.second
    hidden = np.maximum(summed @ np.asarray(first.kernel[...]) + np.asarray(first.bias[...]), 0)
    expected = hidden @ np.asarray(second.kernel[...]) + np.asarray(second.bias[...])
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_what_a_molecule_is_does_not_depend_on_its_batch(model):
    graphs = ManyGraphs.from_list(molecules())
    together, batch = states(model, graphs, [0, 1, 2, 3], Budget(32, 64, 6, 5))
    assert len(together.atoms) == len(together.molecules) == LAYERS + 1
    assert together.outputs.shape == (6, 2)
    start = 0
    for i in range(4):
        alone, _ = states(model, graphs, [i], Budget(8, 12, 2, 5))
        size = int(batch.graph.n_node[i])
        np.testing.assert_allclose(together.outputs[i], alone.outputs[0], atol=1e-5)
        for a, b in zip(together.atoms, alone.atoms, strict=True):
            np.testing.assert_allclose(a[start : start + size], b[:size], atol=1e-5)
        for a, b in zip(together.molecules, alone.molecules, strict=True):
            np.testing.assert_allclose(a[i], b[0], atol=1e-5)
        start += size


def test_padding_sends_no_gradient(model):
    graphs = ManyGraphs.from_list(molecules())
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def gradient(params, batch):
        def loss(params):
            outputs = nnx.merge(graphdef, params, rest)(batch).outputs
            return jnp.sum(jnp.where(batch.graph_mask[:, None], outputs, 0.0) ** 2)

        return jax.grad(loss)(params)

    small, large = (assemble(graphs, np.arange(4), budget) for budget in (Budget(24, 48, 5, 5), Budget(40, 80, 8, 5)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradient(params, small), gradient(params, large)
    )


def test_the_order_of_atoms_does_not_matter(model):
    molecule = molecules(1, seed=5)[0]
    n = len(molecule["nodes"]["fields"])
    order = np.random.default_rng(0).permutation(n)
    place = np.argsort(order)
    other = molecule | {
        "nodes": {"fields": molecule["nodes"]["fields"][order]},
        "senders": place[molecule["senders"]],
        "receivers": place[molecule["receivers"]],
    }
    outputs = [
        states(model, ManyGraphs.from_list([each]), [0], Budget(8, 12, 2, 5))[0].outputs[0]
        for each in (molecule, other)
    ]
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_dropout_changes_what_is_said_in_training_only(model):
    graphs = ManyGraphs.from_list(molecules())
    graphdef, state = nnx.split(model)
    batch = assemble(graphs, np.arange(4), Budget(32, 64, 6, 5))
    run = jax.jit(lambda key, b: nnx.merge(graphdef, state)(b, dropout_key=key, dropout_rate=0.5).outputs[:4])
    calm = jax.jit(lambda b: nnx.merge(graphdef, state)(b).outputs[:4])(batch)
    assert not np.allclose(run(jax.random.key(0), batch), calm)
    assert not np.allclose(run(jax.random.key(0), batch), run(jax.random.key(1), batch))
