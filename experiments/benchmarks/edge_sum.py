"""Sum over the edges of a skewed graph, forward and backward: python experiments/benchmarks/edge_sum.py"""

import numpy as np
from sides import record, take_turns
from skewed_graph import skewed_edges

CLAIM = "out[i] = sum over edges (j, i) of x[j], and the gradient of its product with a fixed array"


def data(case: dict):
    senders, receivers = skewed_edges(case["nodes"], case["edges"])
    rng = np.random.default_rng(1)
    shape = (case["nodes"], case["width"])
    return senders, receivers, rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32)


def jaxgkd(case: dict):
    import jax
    import jax.numpy as jnp

    from jaxgkd.graphs import aggregate, build_layout

    senders, receivers, values, cotangent = data(case)
    layout = build_layout(senders, receivers, case["nodes"])

    @jax.jit
    def both(values, cotangent, layout):
        out, pull = jax.vjp(lambda x: aggregate(x, layout), values)
        return out, pull(cotangent)[0]

    values, cotangent = jnp.asarray(values), jnp.asarray(cotangent)
    return lambda: jax.block_until_ready(both(values, cotangent, layout))


def jraph_style(case: dict):
    """Gather and sorted segment sum, as jraph's networks do it."""
    import jax
    import jax.numpy as jnp

    senders, receivers, values, cotangent = data(case)
    order = np.argsort(receivers, kind="stable")
    senders, receivers = jnp.asarray(senders[order]), jnp.asarray(receivers[order])

    @jax.jit
    def both(values, cotangent, senders, receivers):
        out, pull = jax.vjp(
            lambda x: jax.ops.segment_sum(x[senders], receivers, case["nodes"], indices_are_sorted=True), values
        )
        return out, pull(cotangent)[0]

    values, cotangent = jnp.asarray(values), jnp.asarray(cotangent)
    return lambda: jax.block_until_ready(both(values, cotangent, senders, receivers))


def pyg_scatter(case: dict):
    import torch
    from torch_geometric.utils import scatter

    senders, receivers, values, cotangent = (torch.from_numpy(a) for a in data(case))
    values.requires_grad_()

    def both():
        values.grad = None
        out = scatter(values[senders], receivers, dim=0, dim_size=case["nodes"], reduce="sum")
        out.backward(cotangent)
        return values.grad

    return both


def torch_csr(case: dict):
    import torch

    senders, receivers, values, cotangent = (torch.from_numpy(a) for a in data(case))
    coo = torch.sparse_coo_tensor(
        torch.stack([receivers, senders]), torch.ones(case["edges"]), (case["nodes"], case["nodes"])
    )
    matrix, transposed = coo.to_sparse_csr(), coo.t().coalesce().to_sparse_csr()
    return lambda: (matrix @ values, transposed @ cotangent)


if __name__ == "__main__":
    case = {"nodes": 40_000, "edges": 500_000, "width": 256}
    sides = {f.__name__: f for f in (jaxgkd, jraph_style, pyg_scatter, torch_csr)}
    record("edge_sum", CLAIM, [{"case": case, "seconds": take_turns(sides, case, repetitions=9)}])
