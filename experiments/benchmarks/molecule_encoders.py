"""Training steps of transformers over QM7 by bonds and by distances: python experiments/benchmarks/molecule_encoders.py

JAXGKD_DATA names the folder with molecules/qm7.csv and qm7.sdf.gz. Both sides get the same dense batches, assembled in
advance: molecules of similar size with their hydrogens, in rows of one length. Forward, backward and Adam are in the
clock. The peer is made of PyTorch's own parts (``nn.TransformerEncoderLayer``, norm first, GELU, no dropout), the
biases given as its ``attn_mask``. Both start from random weights of their own; the absolute error is trained.
"""

import os
from itertools import islice
from pathlib import Path

import numpy as np
from sides import record, take_turns

CLAIM = "sixteen training steps over QM7's molecules of a transformer biased by paths of bonds, or by distances"
CASE = {"batches": 16, "batch": 128, "layers": 6, "width": 128, "heads": 8, "kernels": 32}
HOPS = 5


def prepared(case: dict):
    """The first batches of an epoch in rows, the kinds of paths between their atoms, and what the padding is."""
    from jaxgkd.data.molecules import load_molecules
    from jaxgkd.graphs import Batches, row_batches, shortest_paths
    from jaxgkd.nn.molecule_relations import bond_counts, bond_kinds

    folder = Path(os.environ["JAXGKD_DATA"]) / "molecules"
    molecules = load_molecules(
        folder / "qm7.csv", sdf=folder / "qm7.sdf.gz", labels=["hof_kcal_mol"], hydrogens="explicit"
    )
    graphs = molecules.graphs()
    labels = graphs.globals["labels"]
    graphs.globals["labels"] = (labels - labels.mean()) / labels.std()
    graphs.nodes["bonds"] = bond_counts(graphs)
    paths = shortest_paths(graphs, bond_kinds(graphs.edges["fields"]), n_hop=HOPS)
    batches = Batches(graphs, case["batch"], mode="similar")
    return list(islice(row_batches(batches, 0, {"path": paths.kind}), case["batches"])), paths, batches.report()


def jaxgkd(case: dict):
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from jaxgkd.data.atom_fields import ATOM_FIELDS, BOND_FIELDS
    from jaxgkd.nn.molecule_relations import DistanceRelations, PathRelations
    from jaxgkd.nn.molecule_transformer import MoleculeTransformer
    from jaxgkd.training.stream import over_stacks, stacked

    batches, paths, _ = prepared(case)
    rngs, heads = nnx.Rngs(0), case["heads"]
    if case["relations"] == "bonds":
        relations = PathRelations(paths, heads, n_bond_kinds=60, rngs=rngs)
    else:
        relations = DistanceRelations(ATOM_FIELDS["atomic_number"], heads, case["kernels"], rngs=rngs)
    model = MoleculeTransformer(
        tuple(ATOM_FIELDS.values()),
        case["width"],
        case["layers"],
        heads,
        1,
        relations=relations,
        bond_sizes=tuple(BOND_FIELDS.values()) if case["relations"] == "bonds" else None,
        rngs=rngs,
    )
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    optimizer = optax.adam(1e-4)

    def loss(params, batch):
        error = jnp.abs(nnx.merge(graphdef, params, rest)(batch).outputs - batch.globals["labels"])[:, 0]
        return jnp.sum(error * batch.graph_mask) / jnp.sum(batch.graph_mask)

    def step(state, batch):
        params, moments = state
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(params, updates), moments), value

    advance = over_stacks(step)

    def steps():
        # The first call takes over the buffers of the state it is given.
        state = jax.tree.map(jnp.copy, (params, optimizer.init(params)))
        values = [None]
        for stack in stacked(batches, 4):
            state, values = advance(state, stack)
        return jax.block_until_ready(values)

    return steps


def pytorch(case: dict):
    import math

    import torch
    from torch import nn

    from jaxgkd.data.atom_fields import ATOM_FIELDS, BOND_FIELDS
    from jaxgkd.graphs.paths import FARTHEST

    batches, paths, _ = prepared(case)
    width, heads, kernels = case["width"], case["heads"], case["kernels"]

    class PathBias(nn.Module):
        """The table of all kinds of paths once a step, then one row a pair."""

        def __init__(self):
            super().__init__()
            self.distance = nn.Embedding(FARTHEST + 2, heads)
            self.hops = nn.Embedding(1 + HOPS * 60, heads, padding_idx=0)
            hops = paths.hops
            self.of_distance = torch.from_numpy(paths.distance.astype(np.int64))
            self.of_hops = torch.from_numpy(np.where(hops > 0, hops + 60 * np.arange(HOPS), 0).astype(np.int64))
            self.n_hop = torch.from_numpy(np.maximum((hops > 0).sum(axis=1, keepdims=True), 1).astype(np.float32))

        def forward(self, batch):
            table = self.distance(self.of_distance) + self.hops(self.of_hops).sum(dim=1) / self.n_hop
            return nn.functional.embedding(batch["path"], table).permute(0, 3, 1, 2), None

    class DistanceBias(nn.Module):
        """Gaussians of the stretched distance, as in Graphormer's layer of the same purpose."""

        def __init__(self):
            super().__init__()
            elements = ATOM_FIELDS["atomic_number"]
            self.scale, self.shift = nn.Embedding(elements**2, 1), nn.Embedding(elements**2, 1)
            nn.init.constant_(self.scale.weight, 1.0)
            nn.init.constant_(self.shift.weight, 0.0)
            self.centre = nn.Parameter(torch.linspace(0.0, 9.0, kernels))
            self.deviation = nn.Parameter(torch.full((kernels,), 9.0 / kernels))
            self.network = nn.Sequential(
                nn.Linear(kernels, kernels), nn.GELU(approximate="tanh"), nn.Linear(kernels, heads)
            )

        def forward(self, batch):
            element = batch["fields"][..., 0]
            pair = element[:, :, None] * ATOM_FIELDS["atomic_number"] + element[:, None, :]
            places = batch["coordinates"]
            distance = (places[:, :, None] - places[:, None]).norm(dim=-1, keepdim=True)
            stretched = self.scale(pair) * distance + self.shift(pair)
            deviation = self.deviation.abs() + 1e-2
            each = torch.exp(-0.5 * ((stretched - self.centre) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
            summary = each.masked_fill(~batch["mask"][:, None, :, None], 0.0).sum(dim=2)
            return self.network(each).permute(0, 3, 1, 2), summary

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.atoms = nn.ModuleList(nn.Embedding(size, width) for size in ATOM_FIELDS.values())
            self.virtual = nn.Parameter(0.02 * torch.randn(width))
            self.virtual_bias = nn.Parameter(torch.zeros(2, heads))
            if case["relations"] == "bonds":
                self.relations = PathBias()
                self.bonds = nn.Linear(sum(BOND_FIELDS.values()), width, bias=False)
            else:
                self.relations = DistanceBias()
                self.summary = nn.Linear(kernels, width)
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(
                    width,
                    heads,
                    4 * width,
                    dropout=0.0,
                    activation=lambda x: nn.functional.gelu(x, approximate="tanh"),
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(case["layers"])
            )
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1)

        def forward(self, batch):
            fields = batch["fields"]
            g, n, _ = fields.shape
            bias, summary = self.relations(batch)
            atoms = sum(table(fields[..., i]) for i, table in enumerate(self.atoms))
            atoms = atoms + (self.bonds(batch["bonds"]) if summary is None else self.summary(summary))
            tokens = torch.cat([self.virtual.expand(g, 1, width), atoms], dim=1)
            to_atoms, to_virtual = self.virtual_bias[:, None, :, None, None]
            bias = torch.cat([to_virtual.expand(g, heads, n, 1), bias], dim=3)
            first = torch.cat([torch.zeros(g, heads, 1, 1), to_atoms.expand(g, heads, 1, n)], dim=3)
            bias = torch.cat([first, bias], dim=2)
            real = torch.cat([torch.ones(g, 1, dtype=torch.bool), batch["mask"]], dim=1)
            bias = bias.masked_fill(~real[:, None, None, :], -1e9).reshape(g * heads, n + 1, n + 1)
            for layer in self.layers:
                tokens = layer(tokens, src_mask=bias)
            return self.head(self.norm(tokens[:, 0]))

    def tensors(rows):
        return {
            "fields": torch.from_numpy(rows.nodes["fields"].astype(np.int64)),
            "bonds": torch.from_numpy(rows.nodes["bonds"].astype(np.float32)),
            "coordinates": torch.from_numpy(rows.nodes["coordinates"]),
            "path": torch.from_numpy(rows.pairs["path"].astype(np.int64)),
            "mask": torch.from_numpy(rows.node_mask),
            "labels": torch.from_numpy(rows.globals["labels"]),
            "graphs": torch.from_numpy(rows.graph_mask.astype(np.float32)),
        }

    data = [tensors(rows) for rows in batches]
    model = Transformer()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def steps():
        for batch in data:
            optimizer.zero_grad()
            error = (model(batch) - batch["labels"]).abs()[:, 0]
            ((error * batch["graphs"]).sum() / batch["graphs"].sum()).backward()
            optimizer.step()

    return steps


def padding() -> dict:
    _, paths, report = prepared(CASE)
    return {"padded_share_of_rows": round(report.padded_rows, 4), "shapes": report.shapes, "paths": len(paths.distance)}


if __name__ == "__main__":
    measured = []
    for relations in ("bonds", "distances"):
        case = CASE | {"relations": relations}
        seconds = take_turns({"jaxgkd": jaxgkd, "pytorch": pytorch}, case, repetitions=4)
        measured.append({"case": case, "seconds": seconds})
    record("molecule_encoders", CLAIM, measured, padding=padding())
