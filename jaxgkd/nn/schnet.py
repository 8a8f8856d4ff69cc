"""A light network over molecules in space: filters that depend on the distance alone, learned and continuous.

Schütt et al., SchNet: A continuous-filter convolutional neural network for modeling quantum interactions,
arXiv 1706.08566. Every layer's atom and molecule states are returned, because distillation compares them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.graphs.rows import RowBatch
from jaxgkd.nn.gine import FieldEmbedding, MoleculeStates
from jaxgkd.nn.molecule_relations import distances
from jaxgkd.nn.row_linear import RowLinear


def shifted_softplus(values: Array) -> Array:
    """``log(eˣ / 2 + 1 / 2)``: smooth, and 0 at 0."""
    return jax.nn.softplus(values) - np.log(2.0)


def cosine_cutoff(distance: Array, cutoff: float) -> Array:
    """``(cos(π d / cutoff) + 1) / 2`` below the cutoff, 0 from there on."""
    return jnp.where(distance < cutoff, 0.5 * (jnp.cos(np.pi / cutoff * distance) + 1.0), 0.0)


class Interaction(nnx.Module):
    """``x_i + MLP(Σ_j (W x_j) ∘ w(d_ij))``: a convolution with filters w of the distance."""

    def __init__(self, width: int, n_kernels: int, *, rngs: nnx.Rngs):
        self.filter_first = RowLinear(n_kernels, width, rngs=rngs)
        self.filter_second = RowLinear(width, width, rngs=rngs)
        self.inward = RowLinear(width, width, use_bias=False, rngs=rngs)
        self.first = RowLinear(width, width, rngs=rngs)
        self.second = RowLinear(width, width, rngs=rngs)

    def __call__(self, atoms: Array, kernels: Array, weight: Array) -> Array:
        """Atoms [g · n, d], kernels [g · n · n, k] and how much a pair counts [g, n, n] → [g · n, d]."""
        g, n, _ = weight.shape
        filters = self.filter_second(shifted_softplus(self.filter_first(kernels)))
        sent = self.inward(atoms).reshape(g, 1, n, -1)
        received = jnp.sum(sent * filters.reshape(g, n, n, -1) * weight[..., None], axis=2)
        return atoms + self.second(shifted_softplus(self.first(received.reshape(atoms.shape))))


class SchNet(nnx.Module):
    """L interactions over the atoms of molecules; the outputs are sums of what the single atoms contribute."""

    def __init__(
        self,
        n_elements: int,
        width: int,
        n_layers: int,
        n_outputs: int,
        *,
        n_kernels: int = 32,
        cutoff: float = 6.0,
        rngs: nnx.Rngs,
    ):
        """Make the layers.

        Args:
          n_elements: categories of the first atom field.
          width: d of every state; n_layers: L; n_outputs: tasks.
          n_kernels: Gaussians spread over distances from 0 to the cutoff.
          cutoff: Å from which on atoms do not see each other.
          rngs: random streams of the initial weights.
        """
        self.cutoff, self.n_kernels = cutoff, n_kernels
        self.atoms = FieldEmbedding((n_elements,), width, rngs=rngs)
        self.interactions = nnx.List([Interaction(width, n_kernels, rngs=rngs) for _ in range(n_layers)])
        self.first = RowLinear(width, width // 2, rngs=rngs)
        self.second = RowLinear(width // 2, n_outputs, rngs=rngs)

    def __call__(self, rows: RowBatch) -> MoleculeStates:
        """States and outputs of a batch with ``fields`` [g, n, …], the element first, and ``coordinates`` [g, n, 3].

        A molecule's state is the mean of its atoms. States of padding are 0.

        Args:
          rows: a batch of molecules, coordinates in Å.
        """
        g, n = rows.node_mask.shape
        real = rows.node_mask[..., None].astype(jnp.float32)
        atoms = self.atoms(rows.nodes["fields"].reshape(g * n, -1)[:, :1])
        distance = distances(rows.nodes["coordinates"])
        centres = jnp.linspace(0.0, self.cutoff, self.n_kernels)
        spacing = self.cutoff / (self.n_kernels - 1)
        kernels = jnp.exp(-0.5 * ((distance.reshape(-1, 1) - centres) / spacing) ** 2)
        # An atom is no neighbour of its own, and nothing is one of padding.
        pairs = rows.node_mask[:, :, None] & rows.node_mask[:, None] & ~np.eye(n, dtype=bool)
        weight = jnp.where(pairs, cosine_cutoff(distance, self.cutoff), 0.0)
        states = [atoms]
        for interaction in self.interactions:
            states.append(interaction(states[-1], kernels, weight))
        shares = self.second(shifted_softplus(self.first(states[-1]))).reshape(g, n, -1)
        masked = [state.reshape(g, n, -1) * real for state in states]
        size = jnp.maximum(real.sum(axis=1), 1.0)
        molecules = [state.sum(axis=1) / size for state in masked]
        return MoleculeStates(tuple(masked), tuple(molecules), jnp.sum(shares * real, axis=1))
