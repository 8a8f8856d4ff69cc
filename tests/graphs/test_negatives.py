import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.graphs.negatives import (
    KnownEdges,
    hard_negatives,
    in_batch_negatives,
    joint_negatives,
    uniform_negatives,
)

RANDOM = np.random.default_rng(0)
N_SOURCE, N_NODE, B = 9, 14, 6
EDGES = RANDOM.integers(0, N_SOURCE - 1, 50), RANDOM.integers(0, N_NODE, 50)
PAIRS = set(zip(*(end.tolist() for end in EDGES), strict=True))
KNOWN = KnownEdges.from_edges(*EDGES, N_SOURCE, N_NODE)
SOURCES, TARGETS = (end[:B] for end in EDGES)


def test_known_edges_are_found_on_host_and_device():
    sources, targets = np.arange(N_SOURCE)[:, None], np.arange(N_NODE)[None]
    wanted = [[(s, t) in PAIRS for t in range(N_NODE)] for s in range(N_SOURCE)]
    found = KNOWN.contains(sources, targets)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, wanted)
    compiled = jax.jit(lambda known, *ends: known.contains(*ends))
    np.testing.assert_array_equal(compiled(KNOWN, sources, targets), wanted)
    nothing = KnownEdges.from_edges(EDGES[0][:0], EDGES[1][:0], N_SOURCE, N_NODE)
    assert not nothing.contains(sources, targets).any()
    assert not compiled(nothing, sources, targets).any()
    with pytest.raises(DataError, match="outside the 9"):
        KnownEdges.from_edges(np.array([9]), np.array([0]), N_SOURCE, N_NODE)


def kinds(random, sources, targets, known):
    given = np.r_[np.arange(B * 3 - 1) % N_NODE, -1].reshape(B, 3)
    given = given if isinstance(sources, np.ndarray) else jnp.asarray(given)
    return {
        "uniform": uniform_negatives(random, sources, targets, 8, N_NODE, known),
        "joint": joint_negatives(random, sources, targets, 8, N_NODE, known),
        "in_batch": in_batch_negatives(sources, targets, known),
        "hard": hard_negatives(sources, targets, given, known),
    }


SHAPES = {"uniform": (B, 8), "joint": (8,), "in_batch": (B,), "hard": (B, 3)}


@pytest.mark.parametrize("known", [None, KNOWN])
def test_targets_and_edges_are_no_negatives(known):
    draws = {"host": kinds(np.random.default_rng(1), SOURCES, TARGETS, known)}
    if known:
        draws["device"] = jax.jit(kinds)(jax.random.key(1), jnp.asarray(SOURCES), jnp.asarray(TARGETS), known)
    for side, of_side in draws.items():
        for kind, (nodes, where) in of_side.items():
            assert isinstance(nodes, np.ndarray) == (side == "host")
            assert nodes.shape == SHAPES[kind] and where.shape == np.broadcast_shapes(nodes.shape, (B, 1))
            assert nodes.min() >= 0 and nodes.max() < N_NODE
            for i, row in enumerate(np.broadcast_to(nodes, where.shape)):
                taken = {t for s, t in PAIRS if s == SOURCES[i]} if known else {TARGETS[i]}
                allowed = [node not in taken for node in row.tolist()]
                if kind == "hard" and i == B - 1:
                    allowed[-1] = False
                np.testing.assert_array_equal(where[i], allowed)
    for kind in ("in_batch", "hard") if known else ():
        jax.tree.map(np.testing.assert_array_equal, draws["host"][kind], draws["device"][kind])


def test_padding_is_no_negative_of_a_batch():
    real = np.arange(B) < 4
    _, where = in_batch_negatives(SOURCES, TARGETS, None, real)
    np.testing.assert_array_equal(where, in_batch_negatives(SOURCES, TARGETS).where & real)


def test_draws_are_uniform_and_depend_on_the_key_alone():
    for make in (jax.random.key, np.random.default_rng):
        nodes = uniform_negatives(make(0), np.zeros(2000, int), np.zeros(2000, int), 8, N_NODE).nodes
        assert scipy.stats.chisquare(np.bincount(np.ravel(nodes), minlength=N_NODE)).pvalue > 1e-3
        one, again, other = (joint_negatives(make(seed), SOURCES, TARGETS, 8, N_NODE).nodes for seed in (3, 3, 4))
        np.testing.assert_array_equal(one, again)
        assert np.any(one != other)


@pytest.mark.parametrize("draw", [uniform_negatives, joint_negatives])
def test_more_negatives_than_nodes(draw):
    for random in (jax.random.key(0), np.random.default_rng(0)):
        with pytest.raises(ConfigError, match="15 negatives are more than the 14 nodes"):
            draw(random, SOURCES, TARGETS, 15, N_NODE)
        with pytest.raises(ConfigError, match="0 negatives"):
            draw(random, SOURCES, TARGETS, 0, N_NODE)
        assert draw(random, SOURCES, TARGETS, 14, N_NODE).where.shape == (B, 14)
