"""An encoder in the style of the Brain Network Transformer: attention over all regions, clusters as readout.

Rows of connectivity are narrowed to the model's width before attention, which the published network computes in the
width of the atlas: at 200 regions an eighth of the price.

Kan et al., Brain Network Transformer, arXiv 2210.06681.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.nn.brain_head import BrainHead, OrthonormalReadout
from jaxgkd.nn.brain_inputs import BrainInputs, BrainStates
from jaxgkd.nn.dropout import dropout
from jaxgkd.nn.row_linear import RowLinear


class RegionAttention(nnx.Module):
    """Attention of every region to all others and an MLP, each after a LayerNorm and added to its input."""

    def __init__(self, width: int, n_heads: int, *, rngs: nnx.Rngs):
        """Make the layers.

        Args:
          width: of the states, a multiple of ``n_heads``.
          n_heads: of attention.
          rngs: random streams of the initial weights.

        Raises:
          ValueError: the width is no such multiple.
        """
        if width % n_heads:
            raise ValueError(f"a width of {width} cannot be shared by {n_heads} heads")
        self.n_heads = n_heads
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.joint = RowLinear(width, 3 * width, rngs=rngs)
        self.out = RowLinear(width, width, rngs=rngs)
        self.first = RowLinear(width, 2 * width, rngs=rngs)
        self.second = RowLinear(2 * width, width, rngs=rngs)

    def __call__(self, regions: Array, *, dropout_key: Array | None = None, dropout_rate: ArrayLike = 0.0) -> Array:
        """[n, r, d] → [n, r, d]; dropout of what is added where a key is given."""
        n, r, d = regions.shape
        heads = self.joint(self.norms[0](regions)).reshape(n, r, 3, self.n_heads, d // self.n_heads)
        queries, keys, values = jnp.moveaxis(heads, (2, 3), (0, 2))
        scores = jnp.matmul(queries, keys.mT) / math.sqrt(d // self.n_heads)
        read = jnp.matmul(jax.nn.softmax(scores, axis=-1), values)
        added = self.out(jnp.moveaxis(read, 1, 2).reshape(n, r, d))
        regions = regions + _dropped(added, dropout_key, 0, dropout_rate)
        added = self.second(jax.nn.gelu(self.first(self.norms[1](regions))))
        return regions + _dropped(added, dropout_key, 1, dropout_rate)


class BrainTransformer(nnx.Module):
    """A linear layer, L layers of attention, the orthonormal readout, an MLP."""

    def __init__(
        self,
        n_regions: int,
        width: int,
        n_layers: int,
        n_classes: int,
        *,
        n_heads: int = 4,
        n_clusters: int = 10,
        rngs: nnx.Rngs,
    ):
        """Make the layers.

        Args:
          n_regions: r, also the width of the inputs; width: of every state; n_layers: L.
          n_classes: width of the logits.
          n_heads: of attention; n_clusters: of the readout, at most the width.
          rngs: random streams of the initial weights.
        """
        self.embedding = RowLinear(n_regions, width, rngs=rngs)
        self.layers = nnx.List([RegionAttention(width, n_heads, rngs=rngs) for _ in range(n_layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.readout = OrthonormalReadout(min(n_clusters, width), width, rngs=rngs)
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
          dropout_rate: of what layers add, and of the head.
        """
        state = self.embedding(inputs.rows)
        states = [state]
        for i, layer in enumerate(self.layers):
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, 10 + i)
            state = layer(state, dropout_key=key, dropout_rate=dropout_rate)
            states.append(state)
        pooled = self.readout(self.norm(state))
        logits = self.head(pooled, dropout_key=dropout_key, dropout_rate=dropout_rate)
        return BrainStates(tuple(states), pooled, logits)


def _dropped(values: Array, key: Array | None, number: int, rate: ArrayLike) -> Array:
    return values if key is None else dropout(values, jax.random.fold_in(key, number), rate)
