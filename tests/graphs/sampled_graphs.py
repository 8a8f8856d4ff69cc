"""Small random graphs that the tests of sampling share, and what their neighbourhoods are by a walk in Python."""

import numpy as np

from jaxgkd.graphs.compressed import compress

N_NODE = {"paper": 40, "author": 25, "venue": 3}
WRITES, CITES, HAS = ("author", "writes", "paper"), ("paper", "cites", "paper"), ("paper", "in", "venue")


def random_edges(seed=0):
    """Relations with repeated edges, loops, nodes without neighbours, and (in the last one) no edge at all."""
    random = np.random.default_rng(seed)
    sizes = {WRITES: 120, CITES: 200, HAS: 40, ("venue", "hosts", "paper"): 0}
    return {
        relation: tuple(random.integers(0, N_NODE[relation[end]] - (end == 2), n) for end in (0, 2))
        for relation, n in sizes.items()
    }


def typed_graph(seed=0):
    return compress(N_NODE, random_edges(seed))


def walk(edges, seeds, relations_of_hops):
    """Edges of every hop as (relation, sender, receiver, id), and all nodes, when every hop takes all neighbours."""
    nodes = {(kind, int(node)) for kind, ids in seeds for node in np.ravel(ids) if node >= 0}
    frontier, hops = set(nodes), []
    for relations in relations_of_hops:
        taken = [
            (relation, int(s), int(r), i)
            for relation in relations
            for i, (s, r) in enumerate(zip(*edges[relation], strict=True))
            if (relation[2], int(r)) in frontier
        ]
        reached = {(relation[0], s) for relation, s, _, _ in taken}
        frontier = reached - nodes
        nodes |= reached
        hops.append(sorted(taken))
    return hops, nodes
