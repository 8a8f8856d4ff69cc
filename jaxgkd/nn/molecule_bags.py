"""Students that see a molecule as a bag: of its atoms, each by itself, or of its fragments. No bonds.

A network over single atoms says the same of two atoms with the same fields, and a data set of a hundred thousand atoms
has a few hundred different ones. So the network is computed once for each of these, and a molecule is a row of counts:
the same values as with one pass an atom, at a hundredth of the price, and whole data sets fit into one step.

Deep sets: Zaheer et al., arXiv 1703.06114; the student of GALLON: per-atom layers, a mean, a linear layer.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.graphs import Layout, aggregate, build_layout
from jaxgkd.nn.dropout import dropout
from jaxgkd.nn.gine import FieldEmbedding

#: A usual number of atoms: sums over atoms are counted in it.
_USUAL_SIZE = 25.0


class Bags(NamedTuple):
    """n molecules as bags of u different things (a pytree: pass it into compiled functions).

    Fields:
      things: [u, fields] integers that tell the things apart.
      layout: from the things to the molecules that hold them; counts: [e] how often, in the layout's order.
      size: [n, 1] things of every molecule, each as often as it is there.
    """

    things: Array
    layout: Layout
    counts: Array
    size: Array


class Summary(NamedTuple):
    """What a student says of n molecules: ``state`` [n, d] before the last layer, and ``outputs`` [n, t]."""

    state: Array
    outputs: Array


def bags_of(fields: np.ndarray, start: np.ndarray) -> Bags:
    """Molecules as bags of atoms.

    Args:
      fields: [N, f] integers of all atoms; atoms ``start[i]:start[i + 1]`` are those of molecule i.
      start: [n + 1].
    """
    things, thing_of = np.unique(fields, axis=0, return_inverse=True)
    n, u = len(start) - 1, len(things)
    molecule = np.repeat(np.arange(n), np.diff(start))
    pairs, counts = np.unique(molecule * u + thing_of.reshape(-1), return_counts=True)
    return _bags(things, pairs // u, pairs % u, counts, n)


def bags_of_fragments(counts: np.ndarray) -> Bags:
    """Molecules as bags of fragments: [n, u] how often each is there, `damped`; or 0 and 1, a fingerprint's bits."""
    molecule, fragment = np.nonzero(counts)
    often = np.asarray(damped(counts[molecule, fragment]))
    return _bags(np.arange(counts.shape[1])[:, None], molecule, fragment, often, len(counts))


def damped(counts: ArrayLike) -> Array:
    """``log2(1 + c)``: once counts as a bit does, and each further time for less."""
    return jnp.log2(1.0 + jnp.asarray(counts, jnp.float32))


def padded_bags(bags: Bags, n: int, *, round_up: Callable[[int], int]) -> Bags:
    """The same bags in one of few shapes, for programs that meet many chunks; rows past the first are padding.

    Args:
      bags: of fewer than ``n`` molecules.
      n: molecules there will be; the last one holds what is padding.
      round_up: a number of things or of their places in molecules → what it is filled up to.
    """
    layout, counts = bags.layout, np.asarray(bags.counts)
    u, e = bags.things.shape[0], layout.n_edges
    more = round_up(u + 1) - u
    things = np.concatenate([np.asarray(bags.things), np.zeros((more, bags.things.shape[1]), np.int32)])
    fill = lambda ends, value: np.concatenate([np.asarray(ends), np.full(round_up(e) - e, value)])  # noqa: E731
    return _bags(things, fill(layout.receivers, n - 1), fill(layout.senders, u), fill(counts, 0.0), n)


def _bags(things: np.ndarray, molecule: np.ndarray, thing: np.ndarray, counts: np.ndarray, n: int) -> Bags:
    layout = build_layout(thing, molecule, n, n_senders=len(things))
    ordered = np.asarray(counts)[np.asarray(layout.order)]
    size = np.bincount(molecule, weights=counts, minlength=n)[:, None]
    return Bags(jnp.asarray(things, jnp.int32), layout, *(jnp.asarray(x, jnp.float32) for x in (ordered, size)))


class AtomMLP(nnx.Module):
    """A deep set: an MLP of every atom, the mean and the sum over a molecule, one hidden layer, a linear layer."""

    def __init__(self, atom_sizes: Sequence[int], width: int, n_layers: int, n_outputs: int, *, rngs: nnx.Rngs):
        """Make the layers.

        Args:
          atom_sizes: categories of each atom field.
          width: of every state; n_layers: of the MLP of an atom, its embedding counted.
          n_outputs: tasks.
          rngs: random streams of the initial weights.
        """
        self.embedding = FieldEmbedding(atom_sizes, width, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(width))
        self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(n_layers - 1)])
        self.joint = nnx.Linear(2 * width, width, rngs=rngs)
        self.head = nnx.Linear(width, n_outputs, rngs=rngs)

    def __call__(self, bags: Bags, *, dropout_key: Array | None = None, dropout_rate: ArrayLike = 0.0) -> Summary:
        """States and outputs of all molecules; dropout, of their states, where a key is given."""
        atoms = self.embedding(bags.things) + self.bias[...]
        for layer in self.layers:
            atoms = layer(jax.nn.relu(atoms))
        summed = aggregate(jax.nn.relu(atoms), bags.layout, edge_weights=bags.counts)
        pooled = jnp.concatenate([summed / jnp.maximum(bags.size, 1.0), summed / _USUAL_SIZE], axis=1)
        return _read(self.joint(pooled), self.head, dropout_key, dropout_rate)


class ReadAtoms(nnx.Module):
    """An MLP over what a language model says of a molecule, beside a deep set of its atoms."""

    def __init__(self, d_text: int, atom_sizes: Sequence[int], width: int, n_outputs: int, *, rngs: nnx.Rngs):
        """``d_text`` is the width of what is read, ``width`` that of every state; see `AtomMLP`."""
        self.atoms = AtomMLP(atom_sizes, width, 2, n_outputs, rngs=rngs)
        self.text = nnx.Linear(d_text, width, rngs=rngs)
        self.joint = nnx.Linear(2 * width, width, rngs=rngs)
        self.head = nnx.Linear(width, n_outputs, rngs=rngs)

    def __call__(
        self, molecules: tuple[Array, Bags], *, dropout_key: Array | None = None, dropout_rate: ArrayLike = 0.0
    ) -> Summary:
        """States and outputs of all molecules, given texts [n, d_text] and bags; dropout where a key is given."""
        texts, bags = molecules
        both = jnp.concatenate([jax.nn.relu(self.text(texts)), self.atoms(bags).state], axis=1)
        if dropout_key is not None:
            dropout_key, key = jax.random.split(dropout_key)
            both = dropout(both, key, dropout_rate)
        return _read(self.joint(both), self.head, dropout_key, dropout_rate)


class FingerprintMLP(nnx.Module):
    """An MLP over the bits of a fingerprint, or over how often each of its fragments is there; one hidden layer."""

    def __init__(self, n_bit: int, width: int, n_outputs: int, *, rngs: nnx.Rngs):
        """``n_bit`` inputs, ``width`` hidden units and ``n_outputs`` tasks; ``rngs`` of the initial weights."""
        self.kernel = nnx.Param(nnx.initializers.he_uniform()(rngs.params(), (n_bit, width)))
        self.bias = nnx.Param(jnp.zeros(width))
        self.head = nnx.Linear(width, n_outputs, rngs=rngs)

    def __call__(self, bags: Bags, *, dropout_key: Array | None = None, dropout_rate: ArrayLike = 0.0) -> Summary:
        """States and outputs of all molecules; dropout, of their states, where a key is given."""
        state = aggregate(self.kernel[...], bags.layout, edge_weights=bags.counts) + self.bias[...]
        return _read(state, self.head, dropout_key, dropout_rate)


def _read(state: Array, head: nnx.Linear, dropout_key: Array | None, dropout_rate: ArrayLike) -> Summary:
    state = jax.nn.relu(state)
    kept = state if dropout_key is None else dropout(state, dropout_key, dropout_rate)
    return Summary(state, head(kept))
