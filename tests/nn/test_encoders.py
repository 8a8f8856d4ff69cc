import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from flax import nnx

from jaxgkd.graphs import SparseRows, from_edges, undirected
from jaxgkd.nn import LayerStates, make_student
from jaxgkd.nn.convolutions import CONVOLUTIONS

N, D_IN, WIDTH, LAYERS, CLASSES = 12, 7, 8, 2, 3
MATRIX = scipy.sparse.random_array((N, D_IN), density=0.5, format="csr", rng=np.random.default_rng(0))


def graph_of(nodes):
    senders, receivers = undirected(*np.random.default_rng(1).integers(0, N, (2, 20)))
    return from_edges(nodes, senders, receivers, N)


def dense():
    return graph_of(jnp.asarray(MATRIX.toarray(), jnp.float32))


def student(kind, seed=0, norm="none"):
    return make_student(kind, D_IN, WIDTH, LAYERS, CLASSES, jax.random.key(seed), norm=norm)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_there_is_a_state_for_the_inputs_and_one_a_convolution(kind, norm):
    graph, layout = dense()
    model = nnx.eval_shape(lambda: student(kind, norm=norm))
    states = nnx.eval_shape(lambda model: model(graph, layout), model)
    assert isinstance(states, LayerStates)
    assert [state.shape for state in states.hidden] == [(N, WIDTH)] * (LAYERS + 1)
    assert states.logits.shape == (N, CLASSES)


def test_the_first_state_comes_from_the_node_alone_and_the_last_one_feeds_the_head():
    graph, layout = dense()
    model = student("gcn")
    states = nnx.jit(lambda model: model(graph, layout))(model)
    first = MATRIX.toarray() @ np.asarray(model.kernel[...]) + np.asarray(model.bias[...])
    np.testing.assert_allclose(states.hidden[0], first, atol=1e-5)
    logits = np.asarray(states.hidden[-1]) @ np.asarray(model.head.kernel[...]) + np.asarray(model.head.bias[...])
    np.testing.assert_allclose(states.logits, logits, atol=1e-5)


def test_a_readout_of_all_layers_is_one_linear_map_of_all_states_side_by_side():
    graph, layout = dense()
    model = make_student("gcn", D_IN, WIDTH, LAYERS, CLASSES, jax.random.key(0), readout="all")
    states = nnx.jit(lambda model: model(graph, layout))(model)
    kernel = np.concatenate([np.asarray(part.kernel[...]) for part in (*model.earlier, model.head)])
    expected = np.concatenate(states.hidden, axis=1) @ kernel + np.asarray(model.head.bias[...])
    np.testing.assert_allclose(states.logits, expected, atol=1e-5)
    assert list(model.read_layers) == [0, 1, 2]
    assert list(student("gcn").read_layers) == [2]


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_training_without_dropout_or_norm_is_evaluation(kind):
    graph, layout = dense()

    @nnx.jit
    def both(model):
        return model(graph, layout), model(graph, layout, dropout_key=jax.random.key(0), where=jnp.ones(N, bool))

    evaluated, trained = both(student(kind))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), evaluated, trained)


def test_a_state_reaches_as_many_hops_as_it_has_convolutions():
    path = undirected(np.arange(5), np.arange(1, 6))
    graph, layout = from_edges(jnp.ones((6, D_IN)), *path, 6)
    model = student("sage")

    @jax.jit
    def reach(nodes):
        return jax.jacrev(lambda nodes: [s[0] for s in model(graph._replace(nodes=nodes), layout).hidden])(nodes)

    for hops, jacobian in enumerate(reach(jnp.asarray(np.random.default_rng(0).normal(size=(6, D_IN)), jnp.float32))):
        seen = np.abs(np.asarray(jacobian)).sum(axis=(0, 2)) > 0
        assert not seen[hops + 1 :].any()
        assert seen[hops]


def test_sparse_inputs_give_the_values_and_gradients_of_dense_ones():
    graphdef, params, rest = nnx.split(student("gcn"), nnx.Param, ...)

    @jax.jit
    def value_and_gradient(params, graph, layout):
        def loss(params):
            states = nnx.merge(graphdef, params, rest)(graph, layout)
            return jnp.sum(jnp.sin(states.logits)), states

        return jax.value_and_grad(loss, has_aux=True)(params)

    got = value_and_gradient(params, *graph_of(SparseRows.from_scipy(MATRIX)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, value_and_gradient(params, *dense()))


@pytest.fixture(scope="module")
def in_training():
    """(nodes, where, dropout rate) → states and BatchNorm statistics of an MLP student after one training pass."""
    graphdef, state = nnx.split(student("mlp", norm="batch"))
    _, layout = dense()

    @jax.jit
    def run(nodes, where, rate):
        model = nnx.merge(graphdef, state, copy=True)
        graph, _ = dense()
        states = model(
            graph._replace(nodes=nodes), layout, dropout_key=jax.random.key(0), dropout_rate=rate, where=where
        )
        return states, nnx.state(model, nnx.BatchStat)

    return run


def test_nodes_that_are_masked_do_not_touch_the_statistics(in_training):
    nodes = jnp.asarray(np.random.default_rng(2).normal(size=(N, D_IN)), jnp.float32)
    where = jnp.arange(N) < 8
    # With other values at the masked nodes nothing changes at the others, nor in what is kept for evaluation.
    states, statistics = in_training(nodes, where, 0.0)
    other_states, other_statistics = in_training(nodes.at[8:].set(50.0), where, 0.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:8], b[:8], atol=1e-5), states, other_states)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), statistics, other_statistics)
    # Without the mask they do.
    _, unmasked = in_training(nodes.at[8:].set(50.0), jnp.ones(N, bool), 0.0)
    apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), statistics, unmasked)
    assert max(jax.tree.leaves(apart)) > 0.1


def test_statistics_are_those_of_the_nodes_that_count(in_training):
    nodes = jnp.asarray(np.random.default_rng(2).normal(size=(N, D_IN)), jnp.float32)
    model = student("mlp", norm="batch")
    first, second = model.convolutions[0].linear, model.convolutions[1].linear
    before = (np.asarray(nodes) @ np.asarray(model.kernel[...]) @ np.asarray(first.kernel[...]))[:8]
    states, statistics = in_training(nodes, jnp.arange(N) < 8, 0.0)
    kept = statistics["norms"][0]
    np.testing.assert_allclose(kept["mean"][...], 0.1 * before.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(kept["var"][...], 0.9 + 0.1 * before.var(axis=0), atol=1e-5)
    normalised = (before - before.mean(axis=0)) / np.sqrt(before.var(axis=0) + 1e-5)
    after = np.maximum(normalised, 0) @ np.asarray(second.kernel[...])
    np.testing.assert_allclose(np.asarray(states.hidden[2])[:8], after, atol=1e-3)


def test_dropout_is_on_in_training_alone_and_evaluation_changes_nothing(in_training):
    graph, layout = dense()
    none, _ = in_training(graph.nodes, jnp.ones(N, bool), 0.0)
    half, _ = in_training(graph.nodes, jnp.ones(N, bool), 0.5)
    assert not np.allclose(none.hidden[0], half.hidden[0])
    model = student("mlp", norm="batch")
    before = jax.tree.map(np.asarray, nnx.state(model))
    evaluate = nnx.jit(lambda model: model(graph, layout))
    first, second = evaluate(model), evaluate(model)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), before)
    # Fresh running statistics (mean 0, variance 1) are not those of the nodes.
    assert not np.allclose(first.hidden[2], none.hidden[2], atol=1e-2)


def test_weights_come_from_the_key():
    leaves = [jax.tree.leaves(nnx.state(student("gin", seed), nnx.Param)) for seed in (0, 0, 1)]
    assert all(np.array_equal(a, b) for a, b in zip(leaves[0], leaves[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(leaves[0], leaves[2], strict=True))


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'gcnn' is no student; choose one of gcn, gat, sage, gin, mlp"):
        student("gcnn")
