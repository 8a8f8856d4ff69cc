"""Message passing over molecules with bond features: GINE layers and a virtual atom that is bound to all others.

Hu et al., Strategies for Pre-training Graph Neural Networks, arXiv 1905.12265 (GIN with edge features); virtual node as
in the Open Graph Benchmark's networks, Hu et al., arXiv 2005.00687. Every layer's atom and molecule states are
returned, because distillation compares them with a teacher's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.graphs import Layout, to_edges, to_nodes
from jaxgkd.graphs.batching import Batch
from jaxgkd.nn.dropout import dropout


class MoleculeStates(NamedTuple):
    """What a network over a batch of molecules says.

    Fields:
      atoms: one [n, d] per layer, the embedding first; molecules: one [g, d] per layer likewise.
      outputs: [g, tasks].
    """

    atoms: tuple[Array, ...]
    molecules: tuple[Array, ...]
    outputs: Array


class FieldEmbedding(nnx.Module):
    """The sum of one learned vector per categorical field, as a product with one-hot rows.

    Tables this small are cheaper to multiply with than to look up: the gradient is a product again, not a scatter.
    """

    def __init__(self, sizes: Sequence[int], width: int, *, rngs: nnx.Rngs):
        """One table for each field of ``sizes`` categories; ``width`` columns."""
        self.sizes = tuple(sizes)
        self.kernel = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), (sum(self.sizes), width)))

    def __call__(self, fields: Array) -> Array:
        """[n, fields] integers, each below its size → [n, width]."""
        rows = [jax.nn.one_hot(fields[:, i], size) for i, size in enumerate(self.sizes)]
        return jnp.concatenate(rows, axis=1) @ self.kernel[...]


class GINEConvolution(nnx.Module):
    """``MLP((1 + ε) x_i + Σ_j relu(x_j + e_ji))``, with ε learned and an MLP of one hidden layer."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.epsilon = nnx.Param(jnp.zeros(()))
        self.first = nnx.Linear(width, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, atoms: Array, bonds: Array, layout: Layout) -> Array:
        """States of atoms [n, d] and bonds [e, d] in the layout's order → [n, d]."""
        messages = to_nodes(jax.nn.relu(to_edges(atoms, layout) + bonds), layout)
        return self.second(jax.nn.relu(self.first((1.0 + self.epsilon[...]) * atoms + messages)))


class GINE(nnx.Module):
    """L layers of GINE with a virtual atom; the output is read from the mean of a molecule's atoms."""

    def __init__(
        self,
        atom_sizes: Sequence[int],
        bond_sizes: Sequence[int],
        width: int,
        n_layers: int,
        n_outputs: int,
        *,
        rngs: nnx.Rngs,
    ):
        """Make the layers.

        Args:
          atom_sizes: categories of each atom field; bond_sizes: of each bond field.
          width: of every state; n_layers: L; n_outputs: tasks.
          rngs: random streams of the initial weights.
        """
        self.atoms = FieldEmbedding(atom_sizes, width, rngs=rngs)
        self.virtual = nnx.Param(jnp.zeros(width))
        self.bonds = nnx.List([FieldEmbedding(bond_sizes, width, rngs=rngs) for _ in range(n_layers)])
        self.convolutions = nnx.List([GINEConvolution(width, rngs=rngs) for _ in range(n_layers)])
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(n_layers)])
        self.virtual_updates = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(n_layers)])
        self.head = nnx.Linear(width, n_outputs, rngs=rngs)

    def __call__(
        self, batch: Batch, *, dropout_key: Array | None = None, dropout_rate: ArrayLike = 0.0
    ) -> MoleculeStates:
        """States and outputs of a batch whose nodes and edges hold integer ``fields`` [n, …] and [e, …].

        Padding gives finite numbers that mean nothing; no molecule's outputs depend on what it shares a batch with.

        Args:
          batch: of molecules.
          dropout_key: given in training only; dropout_rate: of every layer's atom states.
        """
        graph, layout, readout = batch.graph, batch.layout, batch.readout
        atom_fields: Array = graph.nodes["fields"]  # type: ignore[index,call-overload]
        bond_fields: Array = graph.edges["fields"]  # type: ignore[index,call-overload]
        real = batch.node_mask[:, None]
        atoms = self.atoms(atom_fields)
        virtual = jnp.broadcast_to(self.virtual[...], (batch.graph_mask.shape[0], atoms.shape[1]))
        atom_states, molecule_states = [atoms], [virtual]
        for i, convolution in enumerate(self.convolutions):
            lifted = atoms + to_edges(virtual, readout, end="receiver")
            update = jax.nn.relu(self.norms[i](convolution(lifted, self.bonds[i](bond_fields), layout)))
            if dropout_key is not None:
                update = dropout(update, jax.random.fold_in(dropout_key, i), dropout_rate)
            atoms = atoms + update
            summed = to_nodes(jnp.where(real, atoms, 0.0), readout)
            virtual = virtual + jax.nn.relu(self.virtual_updates[i](summed))
            atom_states.append(atoms)
            molecule_states.append(virtual)
        size = to_nodes(real.astype(atoms.dtype), readout)
        mean = to_nodes(jnp.where(real, atoms, 0.0), readout) / jnp.maximum(size, 1.0)
        return MoleculeStates(tuple(atom_states), tuple(molecule_states), self.head(mean))
