"""An MLP over the connectivity of all pairs of regions, as a long vector: what a network without a graph can do."""

import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.nn.brain_head import BrainHead
from jaxgkd.nn.brain_inputs import BrainInputs, BrainStates


class BrainMLP(nnx.Module):
    """A linear layer over the r (r − 1) / 2 pairs and an MLP."""

    def __init__(self, n_regions: int, width: int, n_classes: int, *, rngs: nnx.Rngs):
        """Make the layers.

        Args:
          n_regions: r; width: of every state; n_classes: width of the logits.
          rngs: random streams of the initial weights.
        """
        self.n_regions = n_regions
        self.first = nnx.Linear(n_regions * (n_regions - 1) // 2, width, rngs=rngs)
        self.head = BrainHead(width, n_classes, rngs=rngs)

    def __call__(
        self,
        inputs: BrainInputs,
        *,
        dropout_key: Array | None = None,
        dropout_rate: ArrayLike = 0.0,
        where: Array | None = None,
    ) -> BrainStates:
        """States and logits of n subjects, none of which depends on another (``where`` plays no part).

        Args:
          inputs: only the rows are read.
          dropout_key: given in training only: dropout on.
          dropout_rate: of the hidden states.
        """
        del where
        pairs = inputs.rows[:, *np.triu_indices(self.n_regions, 1)]
        pooled = self.first(pairs)
        logits = self.head(pooled, dropout_key=dropout_key, dropout_rate=dropout_rate)
        return BrainStates((), pooled, logits)
