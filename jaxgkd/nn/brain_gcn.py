"""A graph convolutional network over brains, BLEG's student: dense products, the first of which is computed before.

A brain graph has as many edges as a dense product likes (a tenth of 200² or more), so messages are products with a
small square matrix a subject. Under ``vmap`` over folds XLA reads that matrix once for all of them.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.nn.brain_adapter import ResidualAdapter
from jaxgkd.nn.brain_head import BrainHead, MeanReadout, RegionReadout
from jaxgkd.nn.brain_inputs import BrainInputs, BrainStates
from jaxgkd.nn.row_linear import RowLinear

Readout = Literal["mean", "regions"]


@jax.custom_vjp
def _passed(adjacency: Array, state: Array) -> Array:
    """[n, r, r] symmetric × [n, r, d]; its gradient is the same product, faster than that with a transposed matrix."""
    return jnp.matmul(adjacency, state)


_passed.defvjp(
    lambda adjacency, state: (_passed(adjacency, state), adjacency),
    lambda adjacency, gradient: (None, jnp.matmul(adjacency, gradient)),
)


class BrainGCN(nnx.Module):
    """``GELU(BatchNorm(Â H W))`` in every layer, the residual adapter, a readout over the regions, an MLP."""

    def __init__(
        self,
        n_regions: int,
        width: int,
        n_layers: int,
        n_classes: int,
        *,
        readout: Readout = "mean",
        rngs: nnx.Rngs,
    ):
        """Make the layers.

        Args:
          n_regions: r, also the width of the inputs; width: of every state; n_layers: of messages.
          n_classes: width of the logits.
          readout: the mean over the regions, as published, or one that knows their places.
          rngs: random streams of the initial weights.
        """
        inputs = [n_regions, *[width] * (n_layers - 1)]
        self.layers = nnx.List([RowLinear(d, width, use_bias=False, rngs=rngs) for d in inputs])
        self.norms = nnx.List([nnx.BatchNorm(width, momentum=0.9, rngs=rngs) for _ in inputs])
        self.adapter = ResidualAdapter(width, rngs=rngs)
        self.readout = MeanReadout(width) if readout == "mean" else RegionReadout(n_regions, width, rngs=rngs)
        self.head = BrainHead(width, n_classes, rngs=rngs)

    def __call__(
        self,
        inputs: BrainInputs,
        *,
        dropout_key: Array | None = None,
        dropout_rate: ArrayLike = 0.0,
    ) -> BrainStates:
        """States and logits of n subjects.

        Args:
          inputs: with adjacency.
          dropout_key: given in training only: dropout on, BatchNorm uses and updates the subjects' own statistics.
          dropout_rate: of the adapter and the head.

        Raises:
          ValueError: the inputs have no adjacency.
        """
        if inputs.adjacency is None or inputs.propagated is None:
            raise ValueError("a graph network needs inputs with adjacency")
        state, states = inputs.propagated, []
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if i > 0:
                state = _passed(inputs.adjacency, state)
            state = jax.nn.gelu(norm(layer(state), use_running_average=dropout_key is None))
            states.append(state)
        options = {} if dropout_key is None else {"dropout_key": jax.random.fold_in(dropout_key, 2)}
        regions = self.adapter(state, **options, dropout_rate=dropout_rate)
        pooled = self.readout(regions)
        logits = self.head(pooled, dropout_key=dropout_key, dropout_rate=dropout_rate)
        return BrainStates((*states, regions), pooled, logits)
