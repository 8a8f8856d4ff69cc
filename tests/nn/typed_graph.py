"""A small typed graph that the tests of heterogeneous networks share, and relations as dense matrices."""

import jax.numpy as jnp
import numpy as np

from jaxgkd.graphs import build_hetero_layout, with_reverses
from jaxgkd.graphs.hetero import reverse_of

N_NODE = {"paper": 6, "author": 4, "venue": 3}
CITES, WRITES = ("paper", "cites", "paper"), ("author", "writes", "paper")
KINDS = with_reverses([CITES, WRITES])
WIDTH = 8


def random_edges(seed=0):
    """The last paper and the last author have no edge, and no edge reaches a venue."""
    random = np.random.default_rng(seed)
    cites = np.unique(random.integers(0, 5, (9, 2)), axis=0)
    writes = np.unique(np.stack([random.integers(0, 3, 7), random.integers(0, 5, 7)], axis=1), axis=0)
    return {CITES: (cites[:, 0], cites[:, 1]), WRITES: (writes[:, 0], writes[:, 1])}


def layout_of(edges):
    return build_hetero_layout(edges, N_NODE)


def matrices(edges):
    """Edge type, reverses included → [receivers, senders] number of edges."""
    found = {}
    for kind, (senders, receivers) in edges.items():
        for each, (s, r) in ((kind, (senders, receivers)), (reverse_of(kind), (receivers, senders))):
            found[each] = np.zeros((N_NODE[each[2]], N_NODE[each[0]]))
            np.add.at(found[each], (r, s), 1.0)
    return found


def random_states(seed=0, width=WIDTH):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.normal(size=(n, width)), jnp.float32) for name, n in N_NODE.items()}


def double(array):
    return np.asarray(array[...] if hasattr(array, "set_value") else array, np.float64)


def linear(module, values):
    bias = 0.0 if module.bias is None else double(module.bias)
    return double(values) @ double(module.kernel) + bias


def layer_norm(module, values, epsilon=1e-6):
    values = double(values)
    centred = values - values.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    return normed * double(module.scale) + double(module.bias)
