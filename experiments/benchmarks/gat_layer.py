"""One graph attention layer, forward and backward: python experiments/benchmarks/gat_layer.py

Four heads of width 64 over the skewed graph of ``edge_sum.py``, self loops included, gradients of the input and of all
weights.
"""

import numpy as np
from sides import record, take_turns
from skewed_graph import skewed_edges

CLAIM = "a GAT layer with self loops, and its gradients by the input and by every weight"


def data(case: dict):
    senders, receivers = skewed_edges(case["nodes"], case["edges"])
    keep = senders != receivers
    rng = np.random.default_rng(1)
    width = case["heads"] * case["width"]
    values = rng.standard_normal((case["nodes"], width), np.float32)
    cotangent = rng.standard_normal((case["nodes"], width), np.float32)
    return senders[keep], receivers[keep], values, cotangent


def jaxgkd(case: dict):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from jaxgkd.graphs import build_layout
    from jaxgkd.nn.convolutions import GATConvolution

    senders, receivers, values, cotangent = data(case)
    layout = build_layout(senders, receivers, case["nodes"])
    width = values.shape[1]
    graphdef, params = nnx.split(GATConvolution(width, width, heads=case["heads"], rngs=nnx.Rngs(0)))

    @jax.jit
    def both(params, values, cotangent, layout):
        out, pull = jax.vjp(lambda p, x: nnx.merge(graphdef, p)(x, layout), params, values)
        return out, pull(cotangent)

    values, cotangent = jnp.asarray(values), jnp.asarray(cotangent)
    return lambda: jax.block_until_ready(both(params, values, cotangent, layout))


def pyg(case: dict):
    import torch
    from torch_geometric.nn import GATConv

    senders, receivers, values, cotangent = (torch.from_numpy(a) for a in data(case))
    layer = GATConv(values.shape[1], case["width"], heads=case["heads"])
    # Edges sorted by receiver, as PyG advises for speed.
    order = torch.argsort(receivers, stable=True)
    edges = torch.stack([senders[order], receivers[order]])
    values.requires_grad_()

    def both():
        values.grad = None
        layer.zero_grad()
        layer(values, edges).backward(cotangent)
        return values.grad

    return both


if __name__ == "__main__":
    case = {"nodes": 40_000, "edges": 500_000, "heads": 4, "width": 64}
    record(
        "gat_layer", CLAIM, [{"case": case, "seconds": take_turns({"jaxgkd": jaxgkd, "pyg": pyg}, case, repetitions=5)}]
    )
