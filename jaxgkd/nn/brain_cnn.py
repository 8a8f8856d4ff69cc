"""BrainNetCNN: filters over crosses of a connectivity matrix, written as products instead of convolutions.

An edge-to-edge filter sums row i and column j of its input, each with its weights, and puts the sum at (i, j): two
products [r, r] × [r, channels] and an addition. An edge-to-node filter is a product over the columns, a node-to-graph
filter one over the regions.

Kawahara et al., BrainNetCNN, NeuroImage 146 (2017), 1038–1049.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.nn.brain_head import BrainHead
from jaxgkd.nn.brain_inputs import BrainInputs, BrainStates
from jaxgkd.nn.dropout import dropout
from jaxgkd.nn.row_linear import RowLinear

_SLOPE = 1 / 3  # of the leaky rectifier below 0, as published


class BrainNetCNN(nnx.Module):
    """One edge-to-edge layer, one edge-to-node layer, node-to-graph, an MLP."""

    def __init__(self, n_regions: int, width: int, n_classes: int, *, n_channels: int = 4, rngs: nnx.Rngs):
        """Make the filters.

        Args:
          n_regions: r; width: numbers a region, and of the subject's state.
          n_classes: width of the logits.
          n_channels: of the edges; every one costs r² numbers a subject.
          rngs: random streams of the initial weights.
        """
        draw = nnx.initializers.lecun_normal()
        self.along_rows = nnx.Param(draw(rngs.params(), (n_regions, n_channels)))
        self.along_columns = nnx.Param(draw(rngs.params(), (n_regions, n_channels)))
        self.edge_bias = nnx.Param(jnp.zeros(n_channels))
        self.to_nodes = RowLinear(n_regions * n_channels, width, rngs=rngs)
        self.to_graph = RowLinear(n_regions * width, width, rngs=rngs)
        self.head = BrainHead(width, n_classes, rngs=rngs)

    def __call__(
        self,
        inputs: BrainInputs,
        *,
        dropout_key: Array | None = None,
        dropout_rate: ArrayLike = 0.0,
    ) -> BrainStates:
        """States and logits of n subjects. None of them depends on another.

        Args:
          inputs: only the rows are read.
          dropout_key: given in training only: dropout on.
          dropout_rate: of the regions' states and of the head.
        """
        n, r, _ = inputs.rows.shape
        edges = edge_to_edge(inputs.rows, self.along_rows[...], self.along_columns[...]) + self.edge_bias[...]
        edges = jax.nn.leaky_relu(edges, _SLOPE)
        regions = jax.nn.leaky_relu(self.to_nodes(edges.reshape(n, r, -1)), _SLOPE)
        kept = regions if dropout_key is None else dropout(regions, jax.random.fold_in(dropout_key, 2), dropout_rate)
        pooled = self.to_graph(kept.reshape(n, -1))
        logits = self.head(pooled, dropout_key=dropout_key, dropout_rate=dropout_rate)
        return BrainStates((regions,), pooled, logits)


def edge_to_edge(matrix: Array, along_rows: Array, along_columns: Array) -> Array:
    r"""``out[i, j, c] = Σ_k matrix[i, k] along_rows[k, c] + Σ_k matrix[k, j] along_columns[k, c]``.

    Args:
      matrix: [n, r, r].
      along_rows, along_columns: [r, channels].

    Returns:
      [n, r, r, channels].
    """
    return (matrix @ along_rows)[:, :, None, :] + (matrix.mT @ along_columns)[:, None, :, :]
