"""Time and memory of a sum over edges as the graph grows: python experiments/benchmarks/scaling.py"""

import numpy as np
from edge_sum import CLAIM, jaxgkd, pyg_scatter
from sides import record, take_turns
from skewed_graph import skewed_edges

EDGES = (100_000, 316_000, 1_000_000, 3_160_000, 10_000_000)
# What PyG writes for every edge would not fit beside the inputs much longer.
LARGEST_OF_PEER = 3_160_000


def temporary_bytes(case: dict) -> int:
    """Memory the compiler sets aside for value and gradient, beside inputs and outputs."""
    import jax

    from jaxgkd.graphs import aggregate, build_layout

    layout = build_layout(*skewed_edges(case["nodes"], case["edges"]), case["nodes"])

    def both(values, cotangent, layout):
        out, pull = jax.vjp(lambda x: aggregate(x, layout), values)
        return out, pull(cotangent)[0]

    shape = jax.ShapeDtypeStruct((case["nodes"], case["width"]), np.float32)
    return jax.jit(both).lower(shape, shape, layout).compile().memory_analysis().temp_size_in_bytes


if __name__ == "__main__":
    measured = []
    for edges in EDGES:
        case = {"nodes": edges * 2 // 25, "edges": edges, "width": 64}
        sides = {"jaxgkd": jaxgkd}
        if edges <= LARGEST_OF_PEER:
            sides["pyg_scatter"] = pyg_scatter
        seconds = take_turns(sides, case, repetitions=5)
        measured.append({"case": case, "seconds": seconds, "temporary_bytes": temporary_bytes(case)})
    record("scaling", CLAIM, measured)
