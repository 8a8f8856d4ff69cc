"""A graph convolutional network over molecules, GALLON's graph teacher: GCN layers, the mean of the atoms, linear."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.graphs import to_nodes
from jaxgkd.graphs.batching import Batch
from jaxgkd.nn.convolutions import GCNConvolution
from jaxgkd.nn.dropout import dropout
from jaxgkd.nn.gine import FieldEmbedding, MoleculeStates


class MoleculeGCN(nnx.Module):
    """L layers of GCN over the bonds, which it does not tell apart; the output is read from the mean of the atoms.

    Every layer normalises each atom's state by itself where the published network has BatchNorm, so that what it says
    of a molecule depends on no other.
    """

    def __init__(self, atom_sizes: Sequence[int], width: int, n_layers: int, n_outputs: int, *, rngs: nnx.Rngs):
        """Make the layers.

        Args:
          atom_sizes: categories of each atom field.
          width: of every state; n_layers: L; n_outputs: tasks.
          rngs: random streams of the initial weights.
        """
        self.atoms = FieldEmbedding(atom_sizes, width, rngs=rngs)
        self.convolutions = nnx.List([GCNConvolution(width, width, rngs=rngs) for _ in range(n_layers)])
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(n_layers - 1)])
        self.head = nnx.Linear(width, n_outputs, rngs=rngs)

    def __call__(
        self, batch: Batch, *, dropout_key: Array | None = None, dropout_rate: ArrayLike = 0.0
    ) -> MoleculeStates:
        """States and outputs of a batch whose nodes hold integer ``fields`` [n, …]; see `GINE`."""
        real = batch.node_mask[:, None]
        size = jnp.maximum(to_nodes(real.astype(jnp.float32), batch.readout), 1.0)
        mean = lambda atoms: to_nodes(jnp.where(real, atoms, 0.0), batch.readout) / size  # noqa: E731
        atoms = self.atoms(batch.graph.nodes["fields"])  # type: ignore[index,call-overload]
        states, means = [atoms], [mean(atoms)]
        for i, convolution in enumerate(self.convolutions):
            if i > 0:
                atoms = jax.nn.relu(self.norms[i - 1](atoms))
                if dropout_key is not None:
                    atoms = dropout(atoms, jax.random.fold_in(dropout_key, i), dropout_rate)
            atoms = convolution(atoms, batch.layout)
            states.append(atoms)
            means.append(mean(atoms))
        return MoleculeStates(tuple(states), tuple(means), self.head(means[-1]))
