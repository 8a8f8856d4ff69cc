import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxgkd.graphs import (
    aggregate,
    build_hetero_layout,
    build_layout,
    degrees,
    edge_dot,
    relations_between,
    with_reverses,
    without_edges,
)
from jaxgkd.graphs.hetero import host_hetero_layout, reverse_of, stack_relations

N_NODE = {"paper": 6, "author": 4, "venue": 3, "lonely": 2}
CITES, WRITES, IN = ("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "in", "venue")


leave_out, counted = jax.jit(without_edges), jax.jit(degrees)
joining = jax.jit(relations_between, static_argnames="source")


def random_edges(seed):
    """Repeated edges and loops; the last paper and author have none, no edge reaches "lonely"."""
    random = np.random.default_rng(seed)
    ends = lambda kind, n: tuple(random.integers(0, N_NODE[kind[end]] - 1, n) for end in (0, 2))  # noqa: E731
    return {CITES: ends(CITES, 11), WRITES: ends(WRITES, 8), IN: ends(IN, 5)}


def both_ways(edges):
    return {kind: ends for k, (s, r) in edges.items() for kind, ends in ((k, (s, r)), (reverse_of(k), (r, s)))}


def values_of(seed, width=3):
    random = np.random.default_rng(seed)
    kinds = both_ways(random_edges(0))
    return {kind: random.normal(size=(N_NODE[kind[0]], width)).astype(np.float32) for kind in kinds}


def sums_of_means(edges, values, node_type):
    """Σ over relations of the mean over neighbours, dense, in float64."""
    out = np.zeros((N_NODE[node_type], 3))
    for kind, (senders, receivers) in both_ways(edges).items():
        if kind[2] == node_type:
            counts = np.zeros((N_NODE[node_type], N_NODE[kind[0]]))
            np.add.at(counts, (receivers, senders), 1.0)
            out += counts @ values[kind].astype(np.float64) / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    return out


@jax.jit
def reached(layout, values):
    return {
        name: aggregate(stack_relations(values, to), to.layout, edge_weights=to.weights) for name, to in layout.items()
    }


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_a_weighted_sum_is_the_sum_of_the_relations_means(seed):
    edges, values = random_edges(seed), values_of(seed)
    layout = build_hetero_layout(edges, N_NODE)
    assert set(layout) == {"paper", "author", "venue"}
    for name, got in reached(layout, values).items():
        np.testing.assert_allclose(got, sums_of_means(edges, values, name), atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_relations_between_two_nodes(seed):
    random = np.random.default_rng(seed)
    edges = {}
    # As many distinct ones for every seed, so that one program answers for all of them.
    for kind, n in ((CITES, 11), (WRITES, 8), (IN, 5)):
        n_from, n_to = N_NODE[kind[0]] - 1, N_NODE[kind[2]] - 1
        edges[kind] = np.divmod(random.permutation(n_from * n_to)[:n], n_to)
    gone = random.random(11) < 0.4
    layout = leave_out(build_hetero_layout(edges, N_NODE), {CITES: jnp.asarray(gone)})
    left = both_ways(edges | {CITES: tuple(ends[~gone] for ends in edges[CITES])})
    for node_type, to in layout.items():
        for source in ("paper", "author", "venue", "lonely"):
            kinds = [kind for kind in to.edge_types if kind[0] == source]
            pairs = np.meshgrid(np.arange(N_NODE[source]), np.arange(N_NODE[node_type]), indexing="ij")
            wanted = np.zeros((*pairs[0].shape, len(kinds)))
            for column, kind in enumerate(kinds):
                wanted[*left[kind], column] = 1.0
            got = joining(to, source, *pairs)
            np.testing.assert_array_equal(got, wanted)


def test_every_relation_is_followed_by_its_reverse():
    assert with_reverses([CITES, WRITES]) == (
        CITES,
        ("paper", "rev_cites", "paper"),
        WRITES,
        ("paper", "rev_writes", "author"),
    )
    for kind in with_reverses([CITES, WRITES, IN]):
        assert reverse_of(reverse_of(kind)) == kind
    layout = build_hetero_layout(random_edges(0), N_NODE)
    assert layout["paper"].edge_types == (CITES, reverse_of(CITES), WRITES, reverse_of(IN))
    one_way = build_hetero_layout(random_edges(0), N_NODE, reverses=False)
    assert set(one_way) == {"paper", "venue"} and one_way["paper"].edge_types == (CITES, WRITES)


def test_degrees_are_counted_relation_by_relation():
    edges = random_edges(1)
    found = counted(build_hetero_layout(edges, N_NODE))
    for name, to in build_hetero_layout(edges, N_NODE).items():
        for column, kind in enumerate(to.edge_types):
            expected = np.bincount(both_ways(edges)[kind][1], minlength=N_NODE[name])
            np.testing.assert_array_equal(found[name][:, column], expected)


@pytest.mark.parametrize("seed", range(4))
def test_leaving_edges_out_is_building_the_layout_without_them(seed):
    edges, values = random_edges(seed), values_of(seed)
    random = np.random.default_rng(seed)
    masks = {CITES: random.random(11) < 0.4, IN: random.random(5) < 0.6}
    if seed == 3:
        masks = {CITES: np.ones(11, bool), WRITES: np.ones(8, bool), IN: np.ones(5, bool)}
    left = {kind: tuple(end[~masks[kind]] for end in ends) if kind in masks else ends for kind, ends in edges.items()}
    got = leave_out(build_hetero_layout(edges, N_NODE), {k: jnp.asarray(m) for k, m in masks.items()})
    wanted = build_hetero_layout(left, N_NODE)
    sums, counts, wanted_counts = reached(got, values), counted(got), counted(wanted)
    for name in got:
        np.testing.assert_allclose(sums[name], sums_of_means(left, values, name), atol=1e-5)
        np.testing.assert_array_equal(counts[name], wanted_counts[name])
        for weights in ("kept", "weights"):
            assert edges_of(got[name], weights) == edges_of(wanted[name], weights)
    assert sum(float(to.kept.sum()) for to in got.values()) == 2 * sum(len(s) for s, _ in left.values())


def test_a_layout_may_be_built_with_edges_that_are_out():
    edges = both_ways(random_edges(1))
    kept = {kind: np.random.default_rng(0).random(len(ends[0])) < 0.5 for kind, ends in edges.items()}
    built = host_hetero_layout(edges, N_NODE, kept)
    wanted = host_hetero_layout({k: tuple(end[kept[k]] for end in ends) for k, ends in edges.items()}, N_NODE)
    for name, to in built.items():
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(to))
        for weights in ("kept", "weights"):
            assert edges_of(to, weights) == edges_of(wanted[name], weights)


def edges_of(to, weights):
    """Relation, ends and weight of every edge that is kept, sorted."""
    relation, senders, receivers = np.asarray(to.relation), to.senders(), np.asarray(to.layout.receivers)
    of_edge, kept = np.asarray(getattr(to, weights)), np.asarray(to.kept) > 0
    rows = zip(relation[kept], senders[kept], receivers[kept], of_edge[kept], strict=True)
    return sorted((to.edge_types[r], int(s), int(d), round(float(w), 6)) for r, s, d, w in rows)


def test_masks_of_reverses_and_of_both_ways():
    edges = random_edges(2)
    layout = build_hetero_layout(edges, N_NODE)
    mask = jnp.arange(8) < 3
    one, other = leave_out(layout, {WRITES: mask}), leave_out(layout, {reverse_of(WRITES): mask})
    for name in layout:
        np.testing.assert_array_equal(one[name].weights, other[name].weights)
    np.testing.assert_array_equal(one["venue"].weights, layout["venue"].weights)
    assert float(one["author"].kept.sum()) == float(one["paper"].kept[one["paper"].relation == 2].sum()) == 5


def test_masks_may_differ_from_member_to_member():
    edges, values = random_edges(5), values_of(5)
    layout = build_hetero_layout(edges, N_NODE)
    masks = np.random.default_rng(0).random((3, 11)) < 0.5
    several = jax.jit(jax.vmap(lambda mask: reached(without_edges(layout, {CITES: mask}), values)["paper"]))(masks)
    for mask, got in zip(masks, several, strict=True):
        left = edges | {CITES: tuple(end[~mask] for end in edges[CITES])}
        np.testing.assert_allclose(got, sums_of_means(left, values, "paper"), atol=1e-5)


def test_wrong_edges_and_masks_are_refused():
    edges = random_edges(0)
    with pytest.raises(ValueError, match="not among"):
        build_hetero_layout({("cat", "cites", "paper"): edges[CITES]}, N_NODE)
    with pytest.raises(ValueError, match="there twice"):
        build_hetero_layout({WRITES: edges[WRITES], reverse_of(WRITES): edges[WRITES][::-1]}, N_NODE)
    for wrong in (6, -1):
        with pytest.raises(ValueError, match="leads outside the 6 nodes"):
            build_hetero_layout({CITES: (np.array([0, 1]), np.array([0, wrong]))}, N_NODE)
        # Rows of another type are stacked before: too far is not the next type's.
        with pytest.raises(ValueError, match="leads outside the 4 nodes"):
            build_hetero_layout(edges | {WRITES: (np.array([4 if wrong > 0 else -1]), np.array([0]))}, N_NODE)
    with pytest.raises(ValueError, match="2 senders and 1 receivers"):
        build_hetero_layout({CITES: (np.array([0, 1]), np.array([0]))}, N_NODE)
    layout = build_hetero_layout(edges, N_NODE)
    with pytest.raises(ValueError, match="is not among the relations"):
        without_edges(layout, {("paper", "in", "paper"): jnp.zeros(5, bool)})
    with pytest.raises(ValueError, match=r"10.* for the 11 edges"):
        without_edges(layout, {CITES: jnp.zeros(10, bool)})


def dots(layout, x, y):
    senders, receivers = np.asarray(layout.senders), np.asarray(layout.receivers)
    return np.einsum("ehd,ehd->eh", np.asarray(x, np.float64)[senders], np.asarray(y, np.float64)[receivers])


@pytest.fixture(scope="module")
def ends():
    random = np.random.default_rng(3)
    layout = build_layout(random.integers(0, 6, 17), random.integers(0, 3, 17), 4, n_senders=7)
    x, y = (jnp.asarray(random.normal(size=(n, 2, 5)), jnp.float32) for n in (7, 4))
    return layout, x, y


def test_edge_dot_is_the_product_of_both_ends(ends):
    layout, x, y = ends
    np.testing.assert_allclose(jax.jit(edge_dot)(x, y, layout), dots(layout, x, y), rtol=1e-5, atol=1e-6)
    several = jax.jit(jax.vmap(edge_dot, in_axes=(0, None, None)))(jnp.stack([x, 2 * x]), y, layout)
    np.testing.assert_allclose(several[1], 2 * dots(layout, x, y), rtol=1e-5, atol=1e-6)


def test_edge_dot_many_edges_at_a_time(ends, monkeypatch):
    """Blocks of edges give what all at once do, the last and shorter one too."""
    layout, x, y = ends
    monkeypatch.setattr(importlib.import_module("jaxgkd.graphs.aggregate"), "_WEIGHT_GRADIENT_NUMBERS", 50)
    np.testing.assert_allclose(edge_dot(x, y, layout), dots(layout, x, y), rtol=1e-5, atol=1e-6)


def test_edge_dot_has_the_gradients_of_a_dense_product(ends):
    layout, x, y = ends
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=(17, 2)), jnp.float32)

    def dense(x, y):
        return jnp.sum(cotangent * jnp.sum(x[layout.senders] * y[layout.receivers], axis=-1))

    def sparse(x, y):
        return jnp.sum(cotangent * edge_dot(x, y, layout))

    expected = jax.jit(jax.grad(dense, argnums=(0, 1)))(x, y)
    for got, wanted in zip(jax.jit(jax.grad(sparse, argnums=(0, 1)))(x, y), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    dot = jax.jit(lambda x, y: edge_dot(jnp.asarray(x), jnp.asarray(y), layout))
    check_grads(lambda x, y: dot(x, y), (x, y), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)
    # Under vmap too: every seed of a run has its own states.
    several = jax.jit(jax.vmap(jax.grad(sparse, argnums=(0, 1))))(jnp.stack([x, x]), jnp.stack([y, -y]))
    np.testing.assert_allclose(several[0][1], -expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(several[1][1], expected[1], rtol=1e-5, atol=1e-5)
