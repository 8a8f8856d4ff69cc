import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.graphs import build_layout, undirected
from jaxgkd.nn.convolutions import (
    CONVOLUTIONS,
    GATConvolution,
    GCNConvolution,
    GINConvolution,
    NoConvolution,
    SAGEConvolution,
)

N, D_IN, D_OUT = 9, 5, 8


@nnx.jit
def applied(layer, values, layout):
    return layer(values, layout)


def graph():
    """Edges among the first seven nodes; the last two are alone."""
    return undirected(*np.random.default_rng(0).integers(0, N - 2, (2, 14)))


def inputs():
    senders, receivers = graph()
    values = np.random.default_rng(1).normal(size=(N, D_IN)).astype(np.float32)
    adjacency = np.zeros((N, N))
    adjacency[receivers, senders] = 1
    return jnp.asarray(values), build_layout(senders, receivers, N), adjacency


def numbers(parameter):
    return np.asarray(parameter[...], np.float64)


def with_random_parameters(layer, seed=7):
    """Biases and ε start at zero, which would hide an error in them."""
    params = nnx.state(layer, nnx.Param)
    random = np.random.default_rng(seed)
    new = jax.tree.map(lambda leaf: jnp.asarray(0.5 * random.normal(size=leaf.shape), jnp.float32), params)
    nnx.update(layer, new)
    return layer


def make(kind, **settings):
    return with_random_parameters(kind(D_IN, D_OUT, rngs=nnx.Rngs(0), **settings))


def test_gcn_is_the_normalised_adjacency_with_self_loops():
    values, layout, adjacency = inputs()
    layer = make(GCNConvolution)
    looped = adjacency + np.eye(N)
    root = 1 / np.sqrt(looped.sum(axis=1))
    expected = root[:, None] * looped * root @ np.asarray(values) @ numbers(layer.linear.kernel) + numbers(layer.bias)
    np.testing.assert_allclose(applied(layer, values, layout), expected, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 4])
def test_gat_is_attention_over_neighbours_and_the_node_itself(heads):
    values, layout, adjacency = inputs()
    layer = make(GATConvolution, heads=heads)
    by_head = (np.asarray(values) @ numbers(layer.linear.kernel)).reshape(N, heads, -1)
    expected = np.zeros_like(by_head)
    for head in range(heads):
        sender = by_head[:, head] @ numbers(layer.from_sender)[head]
        receiver = by_head[:, head] @ numbers(layer.from_receiver)[head]
        scores = receiver[:, None] + sender[None, :]
        scores = np.where(scores > 0, scores, 0.2 * scores)
        weights = np.exp(scores) * (adjacency + np.eye(N))
        expected[:, head] = weights / weights.sum(axis=1, keepdims=True) @ by_head[:, head]
    np.testing.assert_allclose(
        applied(layer, values, layout), expected.reshape(N, D_OUT) + numbers(layer.bias), atol=1e-5
    )


def test_gat_refuses_a_width_that_its_heads_do_not_share():
    with pytest.raises(ValueError, match="8 does not divide into 3 heads"):
        GATConvolution(4, 8, heads=3, rngs=nnx.Rngs(0))


def test_sage_adds_the_mean_of_the_neighbours():
    values, layout, adjacency = inputs()
    layer = make(SAGEConvolution)
    mean = adjacency @ np.asarray(values) / np.maximum(adjacency.sum(axis=1), 1)[:, None]
    expected = np.asarray(values) @ numbers(layer.itself.kernel) + numbers(layer.itself.bias)
    np.testing.assert_allclose(
        applied(layer, values, layout), expected + mean @ numbers(layer.neighbours.kernel), atol=1e-5
    )


def test_gin_is_an_mlp_of_the_sum():
    values, layout, adjacency = inputs()
    layer = make(GINConvolution)
    summed = (1 + numbers(layer.epsilon)) * np.asarray(values) + adjacency @ np.asarray(values)
    hidden = np.maximum(summed @ numbers(layer.first.kernel) + numbers(layer.first.bias), 0)
    expected = hidden @ numbers(layer.second.kernel) + numbers(layer.second.bias)
    np.testing.assert_allclose(applied(layer, values, layout), expected, atol=1e-4)


def test_an_mlp_layer_reads_no_edge():
    values, layout, _ = inputs()
    layer = make(NoConvolution)
    expected = np.asarray(values) @ numbers(layer.linear.kernel) + numbers(layer.linear.bias)
    np.testing.assert_allclose(applied(layer, values, layout), expected, atol=1e-5)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_renaming_the_nodes_renames_the_output(kind):
    values, layout, _ = inputs()
    layer = make(CONVOLUTIONS[kind])
    to = np.random.default_rng(2).permutation(N)
    senders, receivers = graph()
    renamed = build_layout(to[senders], to[receivers], N)
    moved = jnp.zeros_like(values).at[to].set(values)
    np.testing.assert_allclose(
        np.asarray(applied(layer, moved, renamed))[to], applied(layer, values, layout), atol=1e-5
    )


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_node_alone_sees_itself_only(kind):
    values, layout, _ = inputs()
    layer = make(CONVOLUTIONS[kind])
    out = np.asarray(applied(layer, values, layout))
    other = np.asarray(applied(layer, values.at[:-2].set(7.0).at[-1].set(-3.0), layout))
    assert np.all(np.isfinite(out))
    np.testing.assert_allclose(other[-2], out[-2], atol=1e-6)
    assert np.abs(other[-1] - out[-1]).max() > 1e-2


@pytest.mark.parametrize("kind", ["gcn", "gat"])
def test_members_with_their_own_weights_are_a_loop(kind):
    values, layout, _ = inputs()
    layers = [with_random_parameters(CONVOLUTIONS[kind](D_IN, D_OUT, rngs=nnx.Rngs(0)), seed) for seed in range(2)]
    graphdef = nnx.graphdef(layers[0])
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(nnx.state(layer) for layer in layers))

    def loss(state):
        return jnp.sum(jnp.sin(nnx.merge(graphdef, state)(values, layout)))

    @jax.jit
    def both_ways(states):
        step = jax.value_and_grad(loss)
        return jax.vmap(step)(states), jax.lax.map(step, states)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *both_ways(states))
