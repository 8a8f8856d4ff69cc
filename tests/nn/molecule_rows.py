"""Random molecules as row batches, for the networks over rows."""

import jax
import numpy as np

from jaxgkd.graphs import Budget, ManyGraphs, assemble_rows, shortest_paths
from jaxgkd.nn.molecule_relations import bond_counts, bond_kinds

ATOM_SIZES, BOND_SIZES = (7, 3), (3, 2)
N_BOND_KINDS = 6


def molecule(random, size):
    """A random tree of ``size`` atoms with one more bond where there is room."""
    ends = [(int(random.integers(0, i)), i) for i in range(1, size)]
    if size > 3 and (0, size - 1) not in ends:
        ends.append((0, size - 1))
    ends = np.array(ends, np.int64).reshape(-1, 2)
    bonds = random.integers(0, BOND_SIZES, (len(ends), 2))
    return {
        "nodes": {
            "fields": random.integers(0, ATOM_SIZES, (size, 2)).astype(np.uint8),
            "coordinates": random.normal(size=(size, 3)).astype(np.float32) * 2,
        },
        "edges": {"fields": np.concatenate([bonds, bonds]).astype(np.uint8)},
        "senders": ends.T.reshape(-1),
        "receivers": ends[:, ::-1].T.reshape(-1),
        "globals": {"label": random.normal()},
    }


def molecules(sizes, seed=0):
    """Graphs with all that the networks look at, and the paths between their atoms."""
    random = np.random.default_rng(seed)
    graphs = ManyGraphs.from_list([molecule(random, size) for size in sizes])
    graphs.nodes["bonds"] = bond_counts(graphs, BOND_SIZES)
    return graphs, shortest_paths(graphs, bond_kinds(graphs.edges["fields"], BOND_SIZES), n_hop=3)


def in_rows(graphs, paths, rows, longest, n_row=None):
    rows = np.asarray(rows)
    budget = Budget(99, 99, (n_row or len(rows)) + 1, longest)
    return jax.tree.map(np.asarray, assemble_rows(graphs, rows, budget, {"path": paths.kind}))


def reordered(batch, order):
    """The same molecules with their atoms in another order; ``order`` [L] leaves padding behind."""
    nodes = {name: leaf[:, order] for name, leaf in batch.nodes.items()}
    pairs = {name: leaf[:, order][:, :, order] for name, leaf in batch.pairs.items()}
    return type(batch)(nodes, pairs, batch.globals, batch.node_mask[:, order], batch.graph_mask, batch.index)


def moved(batch, seed=0):
    """The same molecules turned, mirrored or not, and shifted in space."""
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    coordinates = batch.nodes["coordinates"] @ turn.astype(np.float32) + np.float32([1, -2, 3])
    nodes = batch.nodes | {"coordinates": np.where(batch.node_mask[..., None], coordinates, 0)}
    return type(batch)(nodes, batch.pairs, batch.globals, batch.node_mask, batch.graph_mask, batch.index)
