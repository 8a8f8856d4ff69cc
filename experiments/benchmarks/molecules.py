"""An epoch of a four-layer GIN over QM7 in batches of 128: python experiments/benchmarks/molecules.py

JAXGKD_DATA names the folder with molecules/qm7.csv. Both sides get the same atom and bond fields, featurised in
advance; collating, copying and training steps are in the clock. Width 128, bond features in every message, mean of the
atoms, absolute error, Adam.
"""

import os
from pathlib import Path

import numpy as np
from sides import record, take_turns

CLAIM = "an epoch over QM7's molecules with a four-layer GIN with bond features, batches of 128"
CASE = {"molecules": 0, "batch": 128, "layers": 4, "width": 128}


def molecules():
    from jaxgkd.data.molecules import load_molecules

    return load_molecules(Path(os.environ["JAXGKD_DATA"]) / "molecules" / "qm7.csv", labels=["hof_kcal_mol"])


def target(graphs) -> np.ndarray:
    labels = graphs.globals["labels"]
    return (labels - labels.mean()) / labels.std()


def jaxgkd(case: dict):
    import itertools

    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from jaxgkd.data.atom_fields import ATOM_FIELDS, BOND_FIELDS
    from jaxgkd.graphs import to_nodes
    from jaxgkd.graphs.batching import Batches
    from jaxgkd.nn.gine import FieldEmbedding, GINEConvolution
    from jaxgkd.training.stream import over_stacks, stacked

    graphs = molecules().graphs()
    graphs.globals["labels"] = target(graphs)
    batches = Batches(graphs, case["batch"])
    print("jaxgkd:", batches.report())

    class GIN(nnx.Module):
        def __init__(self, rngs):
            self.atoms = FieldEmbedding(ATOM_FIELDS.values(), case["width"], rngs=rngs)
            self.bonds = FieldEmbedding(BOND_FIELDS.values(), case["width"], rngs=rngs)
            self.convolutions = nnx.List([GINEConvolution(case["width"], rngs=rngs) for _ in range(case["layers"])])
            self.head = nnx.Linear(case["width"], 1, rngs=rngs)

        def __call__(self, batch):
            state, bonds = self.atoms(batch.graph.nodes["fields"]), self.bonds(batch.graph.edges["fields"])
            for convolution in self.convolutions:
                state = jax.nn.relu(convolution(state, bonds, batch.layout))
            size = jnp.maximum(batch.graph.n_node, 1)[:, None]
            return self.head(to_nodes(state, batch.readout) / size)

    graphdef, params = nnx.split(GIN(nnx.Rngs(0)))
    optimizer = optax.adam(1e-3)

    def loss(params, batch):
        error = jnp.abs(nnx.merge(graphdef, params)(batch) - batch.graph.globals["labels"])[:, 0]
        return jnp.sum(error * batch.graph_mask) / jnp.sum(batch.graph_mask)

    def step(state, batch):
        params, moments = state
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(params, updates), moments), value

    advance, epochs = over_stacks(step), itertools.count()

    def epoch():
        here = next(epochs)
        # The first call takes over the buffers of the state it is given.
        state = jax.tree.map(jnp.copy, (params, optimizer.init(params)))
        batches_of_epoch = (batch for batch, _ in batches.stream((here, 0), epochs=here + 1))
        for stack in stacked(batches_of_epoch, 4):
            state, values = advance(state, stack)
        return jax.block_until_ready(values)

    return epoch


def pyg(case: dict):
    import torch
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader
    from torch_geometric.nn import GINEConv, global_mean_pool

    from jaxgkd.data.atom_fields import ATOM_FIELDS, BOND_FIELDS

    graphs = molecules().graphs()
    labels = torch.from_numpy(target(graphs))
    data = []
    for i in range(len(graphs)):
        nodes = slice(graphs.node_start[i], graphs.node_start[i + 1])
        edges = slice(graphs.edge_start[i], graphs.edge_start[i + 1])
        ends = np.stack([graphs.senders[edges], graphs.receivers[edges]]).astype(np.int64)
        data.append(
            Data(
                x=torch.from_numpy(graphs.nodes["fields"][nodes].astype(np.int64)),
                edge_index=torch.from_numpy(ends),
                edge_attr=torch.from_numpy(graphs.edges["fields"][edges].astype(np.int64)),
                y=labels[i : i + 1],
            )
        )
    loader = DataLoader(data, batch_size=case["batch"], shuffle=True)
    width = case["width"]

    class GIN(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.atoms = torch.nn.ModuleList(torch.nn.Embedding(size, width) for size in ATOM_FIELDS.values())
            self.bonds = torch.nn.ModuleList(torch.nn.Embedding(size, width) for size in BOND_FIELDS.values())
            network = lambda: torch.nn.Sequential(  # noqa: E731
                torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, width)
            )
            self.convolutions = torch.nn.ModuleList(GINEConv(network(), train_eps=True) for _ in range(case["layers"]))
            self.head = torch.nn.Linear(width, 1)

        def forward(self, batch):
            x = sum(table(batch.x[:, i]) for i, table in enumerate(self.atoms))
            bonds = sum(table(batch.edge_attr[:, i]) for i, table in enumerate(self.bonds))
            for convolution in self.convolutions:
                x = convolution(x, batch.edge_index, bonds).relu()
            return self.head(global_mean_pool(x, batch.batch, batch.num_graphs))

    model = GIN()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch():
        for batch in loader:
            optimizer.zero_grad()
            torch.nn.functional.l1_loss(model(batch), batch.y).backward()
            optimizer.step()

    return epoch


if __name__ == "__main__":
    case = CASE | {"molecules": len(molecules())}
    record(
        "molecules", CLAIM, [{"case": case, "seconds": take_turns({"jaxgkd": jaxgkd, "pyg": pyg}, case, repetitions=5)}]
    )
