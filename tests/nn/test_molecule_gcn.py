import jax
import numpy as np
import pytest
from flax import nnx

from jaxgkd.graphs.batching import ManyGraphs, assemble
from jaxgkd.graphs.budgets import Budget
from jaxgkd.nn.molecule_gcn import MoleculeGCN

ATOMS = (5, 3)


def chain(random, size):
    ends = np.arange(size - 1)
    return {
        "nodes": {"fields": random.integers(0, ATOMS, (size, 2))},
        "edges": {"fields": np.zeros((2 * size - 2, 1), np.int64)},
        "senders": np.concatenate([ends, ends + 1]),
        "receivers": np.concatenate([ends + 1, ends]),
        "globals": {},
    }


@pytest.fixture(scope="module")
def graphs():
    random = np.random.default_rng(0)
    return ManyGraphs.from_list([chain(random, size) for size in (2, 5, 3)])


@pytest.fixture(scope="module")
def states():
    graphdef, state = nnx.split(MoleculeGCN(ATOMS, 4, 2, 2, rngs=nnx.Rngs(0)))
    return jax.jit(lambda batch: nnx.merge(graphdef, state)(batch))


def test_a_layer_is_the_equation_written_out(graphs):
    model = MoleculeGCN(ATOMS, 4, 1, 2, rngs=nnx.Rngs(0))
    found = model(jax.device_put(assemble(graphs, np.array([1]), Budget(6, 9, 2, 5))))
    fields = graphs.nodes["fields"][2:7]
    table = np.asarray(model.atoms.kernel[...])
    adjacency = np.eye(5) + np.eye(5, k=1) + np.eye(5, k=-1)
    root = 1 / np.sqrt(adjacency.sum(axis=1))
    embedded = table[fields[:, 0]] + table[5 + fields[:, 1]]
    layer = model.convolutions[0]
    wanted = root[:, None] * adjacency * root @ embedded @ np.asarray(layer.linear.kernel[...])
    np.testing.assert_allclose(found.atoms[1][:5], wanted + np.asarray(layer.bias[...]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.molecules[1][0], wanted.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_what_is_said_of_a_molecule_does_not_depend_on_its_batch(graphs, states):
    alone = states(assemble(graphs, np.array([1]), Budget(6, 9, 2, 5)))
    together = states(assemble(graphs, np.array([0, 2, 1]), Budget(14, 20, 5, 5)))
    np.testing.assert_allclose(alone.outputs[0], together.outputs[2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(alone.molecules[-1][0], together.molecules[-1][2], rtol=1e-5, atol=1e-6)


def test_the_order_of_atoms_does_not_matter(graphs, states):
    random = np.random.default_rng(1)
    order = random.permutation(5)
    place = np.argsort(order)
    fields = graphs.nodes["fields"][2:7]
    ends = np.arange(4)
    other = ManyGraphs.from_list(
        [
            {
                "nodes": {"fields": fields[order]},
                "edges": {"fields": np.zeros((8, 1), np.int64)},
                "senders": place[np.concatenate([ends, ends + 1])],
                "receivers": place[np.concatenate([ends + 1, ends])],
                "globals": {},
            }
        ]
    )
    budget = Budget(6, 9, 2, 5)
    one, two = states(assemble(graphs, np.array([1]), budget)), states(assemble(other, np.array([0]), budget))
    np.testing.assert_allclose(one.outputs[0], two.outputs[0], rtol=1e-5, atol=1e-6)


def test_dropout_is_in_training_alone(graphs):
    model = MoleculeGCN(ATOMS, 16, 2, 1, rngs=nnx.Rngs(0))
    batch = jax.device_put(assemble(graphs, np.array([1]), Budget(6, 9, 2, 5)))
    still, dropped = model(batch), model(batch, dropout_key=jax.random.key(0), dropout_rate=0.5)
    assert float(still.outputs[0, 0]) != float(dropped.outputs[0, 0])
