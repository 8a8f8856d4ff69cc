"""An MLP over a subject's connectivity as one vector: what a network without a graph can do."""

from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.nn.brain_head import BrainHead
from jaxgkd.nn.brain_inputs import BrainInputs, BrainStates


class BrainMLP(nnx.Module):
    """A linear layer over all numbers of a subject, and an MLP."""

    def __init__(self, n_inputs: int, width: int, n_classes: int, *, rngs: nnx.Rngs):
        """Make the layers.

        Args:
          n_inputs: m; width: of every state; n_classes: width of the logits.
          rngs: random streams of the initial weights.
        """
        self.first = nnx.Linear(n_inputs, width, rngs=rngs)
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
          inputs: with rows [n, m].
          dropout_key: given in training only: dropout on.
          dropout_rate: of the hidden states.
        """
        pooled = self.first(inputs.rows)
        logits = self.head(pooled, dropout_key=dropout_key, dropout_rate=dropout_rate)
        return BrainStates((), pooled, logits)
