"""The residual adapter of BLEG: what is trained on top of a graph network that has been tuned to texts."""

import jax
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.nn.dropout import dropout
from jaxgkd.nn.row_linear import RowLinear


class ResidualAdapter(nnx.Module):
    """``BatchNorm``, then ``x + dropout(GELU(BatchNorm(Linear(Linear(x)))))`` through a quarter of the width."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        """``width`` is d of the states; ``rngs`` gives the initial weights."""
        self.before = nnx.BatchNorm(width, momentum=0.9, rngs=rngs)
        self.down = RowLinear(width, max(1, width // 4), rngs=rngs)
        self.up = RowLinear(max(1, width // 4), width, rngs=rngs)
        self.after = nnx.BatchNorm(width, momentum=0.9, rngs=rngs)

    def __call__(
        self,
        regions: Array,
        *,
        dropout_key: Array | None = None,
        dropout_rate: ArrayLike = 0.0,
    ) -> Array:
        """[n, r, d] → [n, r, d].

        Args:
          regions: states of regions.
          dropout_key: given in training only: dropout on, BatchNorm uses and updates the subjects' own statistics.
          dropout_rate: of what is added to the states.
        """
        known = dropout_key is None
        normed = self.before(regions, use_running_average=known)
        added = jax.nn.gelu(self.after(self.up(self.down(normed)), use_running_average=known))
        return normed + (added if dropout_key is None else dropout(added, dropout_key, dropout_rate))
