import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxgkd.graphs import aggregate, build_hetero_layout, degrees, relations_between, reverse_of
from jaxgkd.graphs.traced_hetero import traced_hetero_layout

N_NODE = {"actor": 6, "film": 5}
PLAYS, KNOWN = ("actor", "plays_in", "film"), ("actor", "known_for", "film")


def some_edges(sizes):
    random = np.random.default_rng(0)
    drawn = [random.choice(30, size, replace=False).astype(np.int32) for size in sizes]
    return {kind: tuple(map(jnp.asarray, divmod(pair, 5))) for kind, pair in zip((PLAYS, KNOWN), drawn, strict=True)}


def on_host(edges):
    return {kind: tuple(map(np.asarray, ends)) for kind, ends in edges.items()}


def with_reverses(edges):
    return {each: ends for kind, pair in edges.items() for each, ends in ((kind, pair), (reverse_of(kind), pair[::-1]))}


@jax.jit
def laid_out(plays, known):
    return traced_hetero_layout(with_reverses({PLAYS: plays, KNOWN: known}), N_NODE)


@pytest.mark.parametrize("sizes", [(12, 7), (12, 0), (0, 0)])
def test_it_is_the_layout_made_beforehand_and_an_edge_that_leads_nowhere(sizes):
    edges = some_edges(sizes)
    expected = build_hetero_layout(on_host(edges), N_NODE)
    found = laid_out(edges[PLAYS], edges[KNOWN])
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        got, n_edge = found[name], sum(sizes)
        assert (got.edge_types, got.sources) == (wanted.edge_types, wanted.sources)
        assert int(got.layout.receivers[-1]) == N_NODE[name] and float(got.weights[-1]) == 0
        for field in ("senders", "receivers"):
            np.testing.assert_array_equal(getattr(got.layout, field)[:n_edge], getattr(wanted.layout, field))
        np.testing.assert_array_equal(got.layout.row_start, wanted.layout.row_start)
        np.testing.assert_array_equal(got.relation[:n_edge], wanted.relation)
        np.testing.assert_allclose(got.weights[:n_edge], wanted.weights)


def test_it_lowers_with_symbols_and_says_the_same_of_any_sizes():
    senders, receivers = map(jnp.asarray, np.divmod(np.arange(30), 5))

    def asked(values, plays, known):
        layout = traced_hetero_layout(with_reverses({PLAYS: plays, KNOWN: known}), {"actor": 6, "film": 5})
        rows = jnp.repeat(values, 2, axis=0)
        mean = aggregate(rows, layout["film"].layout, edge_weights=layout["film"].weights)
        return mean, degrees(layout)["actor"], relations_between(layout["film"], "actor", senders, receivers)

    e, f = export.symbolic_shape("e - 1, f - 1")
    shapes = [jax.ShapeDtypeStruct((6, 3), "f4"), *((jax.ShapeDtypeStruct((size,), "i4"),) * 2 for size in (e, f))]
    program = export.export(jax.jit(asked), platforms=("cpu", "cuda", "tpu"))(*shapes)
    values = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    for sizes in ((12, 7), (3, 0), (0, 0)):
        plays, known = some_edges(sizes).values()
        layout = build_hetero_layout(on_host({PLAYS: plays, KNOWN: known}), N_NODE)
        mean, n_edge, joined = program.call(values, plays, known)
        rows = jnp.repeat(jnp.asarray(values), 2, axis=0)
        wanted = aggregate(rows, layout["film"].layout, edge_weights=layout["film"].weights)
        np.testing.assert_allclose(mean, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(n_edge, degrees(layout)["actor"])
        np.testing.assert_array_equal(joined, relations_between(layout["film"], "actor", senders, receivers))
