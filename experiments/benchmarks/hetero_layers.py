"""An epoch of R-GCN and of HGT on a real typed graph: python experiments/benchmarks/hetero_layers.py

Full batch on wikispeedia (``$JAXGKD_DATA/hetero``): its hyperlinks alone, and all relations that ``jaxgkd run lmgnn
--mentions`` has there (hyperlinks, clicks, titles named in texts), both with their reverses. 384 inputs, a projection
to width 128, two layers, a linear head on the classes, cross-entropy, backward pass and a step of Adam. R-GCN with two
bases and mean aggregation, HGT with four heads, on both sides.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from sides import record, take_turns

CLAIM = "an epoch of a two-layer R-GCN and HGT over typed edges of wikispeedia, forward, backward and Adam"
WIDTH, D_IN, HEADS, BASES = 128, 384, 4, 2


def data(case: dict):
    """Edge type → both ends, without reverses; inputs and classes."""
    from jaxgkd.data.hetero_files import load_hetero_graph
    from jaxgkd.data.mentions import with_mentions

    graph = load_hetero_graph(Path(os.environ["JAXGKD_DATA"]) / "hetero" / "wikispeedia")
    if case["relations"] == 6:
        graph = with_mentions(graph)
    else:
        kept = ("article", "links_to", "article")
        graph = replace(graph, edges={kept: graph.edges[kept]})
    inputs = np.random.default_rng(0).standard_normal((len(graph.nodes["article"]), D_IN), np.float32)
    ends = {kind: (edges.senders, edges.receivers) for kind, edges in graph.edges.items()}
    assert 2 * sum(len(senders) for senders, _ in ends.values()) == case["edges"]
    return ends, inputs, np.maximum(graph.nodes["article"].labels, 0)


def jaxgkd(case: dict):
    from functools import partial

    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from jaxgkd.graphs import build_hetero_layout, with_reverses
    from jaxgkd.nn.hetero_convolutions import HETERO_CONVOLUTIONS

    ends, inputs, labels = data(case)
    layout = build_hetero_layout(ends, {"article": len(inputs)})
    convolution, rngs = HETERO_CONVOLUTIONS[case["encoder"]], nnx.Rngs(0)
    if case["encoder"] == "rgcn":
        convolution = partial(convolution, n_bases=BASES)

    class Network(nnx.Module):
        def __init__(self):
            self.project = nnx.Linear(D_IN, WIDTH, rngs=rngs)
            self.layers = nnx.List([convolution(WIDTH, ["article"], with_reverses(ends), rngs=rngs) for _ in range(2)])
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

    ends, inputs, labels = data(case)
    ends = {kind: torch.from_numpy(np.stack(both)).long() for kind, both in ends.items()}
    inputs, labels = torch.from_numpy(inputs), torch.from_numpy(labels).long()
    project, head = torch.nn.Linear(D_IN, WIDTH), torch.nn.Linear(WIDTH, 15)
    by_kind = {}
    for (source, name, to), both in ends.items():
        by_kind |= {(source, name, to): both, (to, f"rev_{name}", source): both.flip(0)}
    if case["encoder"] == "rgcn":
        layers = [RGCNConv(WIDTH, WIDTH, len(by_kind), num_bases=BASES) for _ in range(2)]
        edges = torch.cat(list(by_kind.values()), dim=1)
        kinds = torch.cat([torch.full((both.shape[1],), i) for i, both in enumerate(by_kind.values())])
        # Edges sorted by receiver, as PyG advises for speed.
        order = torch.argsort(edges[1], stable=True)
        edges, kinds = edges[:, order], kinds[order]
        call = lambda layer, state: layer(state, edges, kinds)  # noqa: E731
    else:
        metadata = (["article"], list(by_kind))
        layers = [HGTConv(WIDTH, WIDTH, metadata, HEADS) for _ in range(2)]
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
    for relations, edges in ((2, 239_538), (6, 457_248)):
        for encoder in ("rgcn", "hgt"):
            case = {"encoder": encoder, "width": WIDTH, "relations": relations, "edges": edges}
            measured.append({"case": case, "seconds": take_turns({"jaxgkd": jaxgkd, "pyg": pyg}, case, repetitions=7)})
    record("hetero_layers", CLAIM, measured)
