import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from jaxgkd.graphs import without_edges
from jaxgkd.nn.hetero_convolutions import HETERO_CONVOLUTIONS, RGCNConvolution
from tests.nn.typed_graph import (
    CITES,
    KINDS,
    N_NODE,
    WIDTH,
    WRITES,
    double,
    layout_of,
    linear,
    matrices,
    random_edges,
    random_states,
)

HEADS = 4
ALL = sorted(HETERO_CONVOLUTIONS)


@pytest.fixture(scope="module", params=ALL)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def layer(kind):
    """A convolution whose weights are all drawn: none is at zero, or one, where a wrong use would not show."""
    made = HETERO_CONVOLUTIONS[kind](WIDTH, tuple(N_NODE), KINDS, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(made)
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(1)
    drawn = [leaf + 0.3 * random.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return nnx.merge(graphdef, jax.tree.unflatten(tree, drawn))


@pytest.fixture(scope="module")
def apply(layer):
    graphdef, params = nnx.split(layer)
    compiled = jax.jit(lambda params, states, layout: nnx.merge(graphdef, params)(states, layout))
    return lambda states, layout: compiled(params, states, layout)


def means(edges, states, maps):
    """Σ over relations of the mean over neighbours of the mapped states."""
    out = {name: np.zeros((n, WIDTH)) for name, n in N_NODE.items()}
    for kind, counts in matrices(edges).items():
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        out[kind[2]] += share @ (double(states[kind[0]]) @ maps[kind])
    return out


def rgcn(layer, edges, states):
    kernels = {
        k: sum(a * v for a, v in zip(double(layer.mixing)[i], double(layer.bases), strict=True))
        for i, k in enumerate(KINDS)
    }
    passed = means(edges, states, kernels)
    return {name: linear(layer.itself, values) + passed[name] for name, values in states.items()}


def sage(layer, edges, states):
    passed = means(edges, states, dict(zip(KINDS, double(layer.kernels), strict=True)))
    return {name: linear(layer.itself[name], values) + passed[name] for name, values in states.items()}


def leaky(value):
    return value if value > 0 else 0.2 * value


def rgat(layer, edges, states):
    """One node, one head, one edge at a time."""
    size = WIDTH // HEADS
    a, b, found = double(layer.from_sender), double(layer.from_receiver), {}
    sent = {k: double(states[k[0]]) @ double(layer.kernels)[i] for i, k in enumerate(KINDS)}
    for name, values in states.items():
        own = linear(layer.itself, values)
        found[name] = np.zeros_like(own)
        for i in range(len(own)):
            for h in range(HEADS):
                part = slice(h * size, (h + 1) * size)
                logits, heard = [leaky(own[i, part] @ (a[-1, h] + b[-1, h]))], [own[i, part]]
                for r, kind in enumerate(KINDS):
                    for j in np.flatnonzero(matrices(edges)[kind][i]) if kind[2] == name else ():
                        logits.append(leaky(a[r, h] @ sent[kind][j, part] + b[r, h] @ own[i, part]))
                        heard.append(sent[kind][j, part])
                weights = np.exp(logits) / np.exp(logits).sum()
                found[name][i, part] = weights @ np.array(heard)
    return found


def gelu(values):
    return 0.5 * values * (1 + np.tanh(np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)))


def hgt(layer, edges, states):
    size, found = WIDTH // HEADS, {}
    types = list(N_NODE)
    for name, values in states.items():
        values = double(values)
        query = linear(layer.query[name], values)
        messages = np.zeros_like(values)
        for i in range(len(values)):
            for h in range(HEADS):
                part, logits, heard = slice(h * size, (h + 1) * size), [], []
                for r, kind in enumerate(KINDS):
                    source = types.index(kind[0])
                    both = (
                        double(states[kind[0]]) @ double(layer.key_value)[source] + double(layer.key_value_bias)[source]
                    )
                    key, value = both[:, :WIDTH][:, part], both[:, WIDTH:][:, part]
                    key, value = (x @ double(layer.relations)[n, r, h] for n, x in enumerate((key, value)))
                    for j in np.flatnonzero(matrices(edges)[kind][i]) if kind[2] == name else ():
                        logits.append(key[j] @ query[i, part] * double(layer.prior)[r, h] / np.sqrt(size))
                        heard.append(value[j])
                if heard:
                    weights = np.exp(logits) / np.exp(logits).sum()
                    messages[i, part] = weights @ np.array(heard)
        gate = 1 / (1 + np.exp(-double(layer.skip)[types.index(name)]))
        found[name] = gate * linear(layer.out[name], gelu(messages)) + (1 - gate) * values
    return found


ORACLES = {"rgcn": rgcn, "sage": sage, "rgat": rgat, "hgt": hgt}


def assert_alike(got, wanted, **tolerance):
    assert set(got) == set(wanted)
    for name in wanted:
        np.testing.assert_allclose(got[name], wanted[name], **({"rtol": 2e-4, "atol": 2e-5} | tolerance))


def test_a_layer_is_its_equation(kind, layer, apply):
    """Isolated nodes, and a type that no edge reaches, included."""
    edges, states = random_edges(), random_states(1)
    assert_alike(apply(states, layout_of(edges)), ORACLES[kind](layer, edges, states))


def test_an_edge_that_is_left_out_has_no_influence_at_all(kind, layer, apply):
    """What comes out is what the graph without it gives: also where nothing is left of a node's edges."""
    edges, states = random_edges(), random_states(2)
    for masks in (
        {CITES: np.arange(len(edges[CITES][0])) % 2 == 0},
        {k: np.ones(len(edges[k][0]), bool) for k in edges},
    ):
        left = {k: tuple(end[~masks[k]] for end in ends) if k in masks else ends for k, ends in edges.items()}
        thinned = without_edges(layout_of(edges), {k: jnp.asarray(mask) for k, mask in masks.items()})
        assert_alike(apply(states, thinned), ORACLES[kind](layer, left, states))


def test_what_is_far_away_does_not_matter(layer, apply):
    """Not even a state beyond all bounds at the other end of an edge that is left out."""
    edges, states = random_edges(), random_states(3)
    thinned = without_edges(layout_of(edges), {WRITES: jnp.ones(len(edges[WRITES][0]), bool)})
    before, changed = apply(states, thinned), apply({**states, "author": states["author"] + 1e4}, thinned)
    for name in ("paper", "venue"):
        np.testing.assert_array_equal(before[name], changed[name])


def test_the_order_of_nodes_and_edges_does_not_matter(apply):
    edges, states = random_edges(), random_states(4)
    random = np.random.default_rng(0)
    new = {name: random.permutation(n) for name, n in N_NODE.items()}
    moved = {}
    for kind, (senders, receivers) in edges.items():
        order = random.permutation(len(senders))
        moved[kind] = new[kind[0]][senders][order], new[kind[2]][receivers][order]
    carried = {name: jnp.zeros_like(values).at[new[name]].set(values) for name, values in states.items()}
    got, wanted = apply(carried, layout_of(moved)), apply(states, layout_of(edges))
    assert_alike({name: values[new[name]] for name, values in got.items()}, wanted, rtol=1e-4)


def test_gradients_are_numbers_and_leave_out_what_is_left_out(layer):
    """Also of nodes with no edge left, where a softmax has nothing to go by."""
    edges, states = random_edges(), random_states(5)
    graphdef, params = nnx.split(layer)

    @jax.jit
    def gradient(params, states, mask):
        thinned = without_edges(layout_of(edges), {WRITES: mask, CITES: jnp.ones(len(edges[CITES][0]), bool)})
        total = lambda p, s: jnp.sum(nnx.merge(graphdef, p)(s, thinned)["paper"] ** 2)  # noqa: E731
        return jax.grad(total, argnums=(0, 1))(params, states)

    of_params, of_states = gradient(params, states, jnp.ones(len(edges[WRITES][0]), bool))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of_params))
    assert np.isfinite(of_states["paper"]).all() and float(jnp.abs(of_states["paper"]).min()) > 0
    np.testing.assert_array_equal(of_states["author"], 0.0)
    _, with_authors = gradient(params, states, jnp.zeros(len(edges[WRITES][0]), bool))
    assert float(jnp.abs(with_authors["author"]).max()) > 0


@pytest.mark.parametrize("n_bases", [1, 3])
def test_few_bases_are_mixed_as_kernels_would_be(n_bases):
    """Papers start two relations into papers: states are multiplied with one base, or with kernels made of three."""
    edges, states = random_edges(), random_states(6)
    layer = RGCNConvolution(WIDTH, tuple(N_NODE), KINDS, n_bases=n_bases, rngs=nnx.Rngs(3))
    graphdef, params = nnx.split(layer)
    layout = layout_of(edges)
    apply = jax.jit(lambda params, states: nnx.merge(graphdef, params)(states, layout))
    assert layer.bases.shape == (n_bases, WIDTH, WIDTH)
    assert_alike(apply(params, states), rgcn(layer, edges, states))
    check_grads(lambda params: apply(params, states)["paper"], (params,), order=1, modes=["rev"], rtol=2e-2)


@pytest.mark.parametrize("name", ["rgat", "hgt"])
def test_a_width_has_to_divide_into_heads(name):
    with pytest.raises(ValueError, match="width of 6 does not divide into 4 heads"):
        HETERO_CONVOLUTIONS[name](6, tuple(N_NODE), KINDS, rngs=nnx.Rngs(0))
