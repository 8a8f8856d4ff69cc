"""What networks over brains read and say: rows of connectivity, a normalised adjacency, and the first product of both.

The first step of message passing multiplies two constant matrices, so it is done once for all networks, folds and
epochs: what is left of the first layer is a product with its weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgkd.data.brain_graphs import normalised_adjacency

# Subjects whose adjacency is multiplied at a time.
_BLOCK = 64


class BrainInputs(NamedTuple):
    """n subjects with r regions (a pytree: pass it into compiled functions).

    Fields:
      rows: [n, r, r] a region's connectivity with all others, 0 with itself; [n, m] numbers of the whole subject for
        networks without regions.
      adjacency: [n, r, r] normalised, with loops; None where no network needs it.
      propagated: [n, r, r] ``adjacency @ rows``, or None.
    """

    rows: Array
    adjacency: Array | None = None
    propagated: Array | None = None

    def take(self, index: Array) -> "BrainInputs":
        """The subjects of an index [b]."""
        return jax.tree.map(lambda leaf: leaf[index], self)


class BrainStates(NamedTuple):
    """What a network says of n subjects.

    Fields:
      layers: states of the regions after every layer, each [n, r, d].
      pooled: [n, d] of the subject, before the head.
      logits: [n, classes].
    """

    layers: tuple[Array, ...]
    pooled: Array
    logits: Array


def brain_inputs(connectivity: np.ndarray, adjacency: np.ndarray | None = None) -> BrainInputs:
    """Inputs of all networks, or, without adjacency, of those that pass no messages.

    Args:
      connectivity: [n, r, r] symmetric.
      adjacency: [n, r, r] symmetric weights, see `jaxgkd.data.brain_graphs`.
    """
    r = connectivity.shape[-1]
    rows = np.where(np.eye(r, dtype=bool), np.float32(0), connectivity.astype(np.float32))
    if adjacency is None:
        return BrainInputs(jnp.asarray(rows))
    normalised = normalised_adjacency(adjacency).astype(np.float32)
    propagated = [
        np.matmul(normalised[i : i + _BLOCK], rows[i : i + _BLOCK]) for i in range(0, max(len(rows), 1), _BLOCK)
    ]
    return BrainInputs(jnp.asarray(rows), jnp.asarray(normalised), jnp.asarray(np.concatenate(propagated)))
