"""An epoch of R-GCN and of HGT on a real typed graph: python experiments/benchmarks/hetero_layers.py

Full batch on the hyperlinks of wikispeedia (``$JAXGKD_DATA/hetero``) and their reverses: 384 inputs, a projection to
width 128, two layers, a linear head on the classes, cross-entropy, backward pass and a step of Adam. R-GCN with two
bases and mean aggregation, HGT with four heads, on both sides.
"""

import os
from pathlib import Path

import numpy as np
from sides import record, take_turns

CLAIM = "an epoch of a two-layer R-GCN and HGT over 239,538 typed edges, forward, backward and Adam"
WIDTH, D_IN, HEADS = 128, 384, 4


def data():
    from jaxgkd.data.hetero_files import load_hetero_graph

    graph = load_hetero_graph(Path(os.environ["JAXGKD_DATA"]) / "hetero" / "wikispeedia")
    edges = graph.edges["article", "links_to", "article"]
    inputs = np.random.default_rng(0).standard_normal((len(graph.nodes["article"]), D_IN), np.float32)
    return edges.senders, edges.receivers, inputs, np.maximum(graph.nodes["article"].labels, 0)


def jaxgkd(case: dict):
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from jaxgkd.graphs import build_hetero_layout, with_reverses
    from jaxgkd.nn.hetero_convolutions import HETERO_CONVOLUTIONS

    senders, receivers, inputs, labels = data()
    kinds = {("article", "links_to", "article"): (senders, receivers)}
    layout = build_hetero_layout(kinds, {"article": len(inputs)})
    convolution, rngs = HETERO_CONVOLUTIONS[case["encoder"]], nnx.Rngs(0)

    class Network(nnx.Module):
        def __init__(self):
            self.project = nnx.Linear(D_IN, WIDTH, rngs=rngs)
            self.layers = nnx.List([convolution(WIDTH, ["article"], with_reverses(kinds), rngs=rngs) for _ in range(2)])
            self.head = nnx.Linear(WIDTH, 15, rngs=rngs)

        def __call__(self, inputs, layout):
            state = {"article": self.project(inputs)}
            for layer in self.layers:
                state = layer({"article": jax.nn.relu(state["article"])}, layout)
            return self.head(state["article"])

    graphdef, params = nnx.split(Network())
    optimizer = optax.adam(1e-3)

    @jax.jit
    def epoch(params, moments, inputs, labels, layout):
        def loss(params):
            logits = nnx.merge(graphdef, params)(inputs, layout)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, moments = optimizer.update(jax.grad(loss)(params), moments)
        return optax.apply_updates(params, updates), moments

    state = [params, optimizer.init(params)]
    inputs, labels = jnp.asarray(inputs), jnp.asarray(labels)

    def run():
        state[:] = jax.block_until_ready(epoch(*state, inputs, labels, layout))

    return run


def pyg(case: dict):
    import torch
    from torch_geometric.nn import HGTConv, RGCNConv

    senders, receivers, inputs, labels = data()
    ends = torch.from_numpy(np.stack([senders, receivers])).long()
    inputs, labels = torch.from_numpy(inputs), torch.from_numpy(labels).long()
    project, head = torch.nn.Linear(D_IN, WIDTH), torch.nn.Linear(WIDTH, 15)
    if case["encoder"] == "rgcn":
        layers = [RGCNConv(WIDTH, WIDTH, 2, num_bases=2) for _ in range(2)]
        edges = torch.cat([ends, ends.flip(0)], dim=1)
        kinds = torch.arange(2).repeat_interleave(ends.shape[1])
        # Edges sorted by receiver, as PyG advises for speed.
        order = torch.argsort(edges[1], stable=True)
        edges, kinds = edges[:, order], kinds[order]
        call = lambda layer, state: layer(state, edges, kinds)  # noqa: E731
    else:
        metadata = (["article"], [("article", "links_to", "article"), ("article", "rev_links_to", "article")])
        layers = [HGTConv(WIDTH, WIDTH, metadata, HEADS) for _ in range(2)]
        by_kind = dict(zip(metadata[1], (ends, ends.flip(0)), strict=True))
        call = lambda layer, state: layer({"article": state}, by_kind)["article"]  # noqa: E731
    modules = torch.nn.ModuleList([project, head, *layers])
    optimizer = torch.optim.Adam(modules.parameters(), lr=1e-3)

    def epoch():
        optimizer.zero_grad()
        state = project(inputs)
        for layer in layers:
            state = call(layer, torch.relu(state))
        torch.nn.functional.cross_entropy(head(state), labels).backward()
        optimizer.step()

    return epoch


if __name__ == "__main__":
    measured = []
    for encoder in ("rgcn", "hgt"):
        case = {"encoder": encoder, "width": WIDTH, "edges": 239_538}
        measured.append({"case": case, "seconds": take_turns({"jaxgkd": jaxgkd, "pyg": pyg}, case, repetitions=7)})
    record("hetero_layers", CLAIM, measured)
