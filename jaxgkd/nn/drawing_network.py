"""A small convolutional network that looks at drawings of molecules.

Every convolution is written as a matrix product over the neighbourhoods of all positions, which compiled for a CPU runs
faster than the convolution itself: a step with 128 drawings of 64 times 64 pixels takes some 25 ms of one core.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.nn.dropout import dropout
from jaxgkd.nn.row_linear import RowLinear

# Pixels of a side of the squares the first layer sees, which come every half of it.
_SQUARE = 8
_CHANNELS = (16, 32, 64)


class DrawingNetwork(nnx.Module):
    """Squares of the drawing, three convolutions that halve it each, the mean and the maximum over what is left.

    Attributes:
      n_state: width d of the pooled state.
    """

    def __init__(self, size: int, width: int, n_outputs: int, *, rngs: nnx.Rngs):
        """Make the layers.

        Args:
          size: pixels of a side of a drawing.
          width: channels of the last convolution; the pooled state has twice as many numbers.
          n_outputs: numbers that are predicted of every drawing.
          rngs: random streams of the initial weights.

        Raises:
          ValueError: ``size`` is smaller than the squares of the first layer.
        """
        if size < _SQUARE:
            raise ValueError(f"drawings of {size} pixels are too small; use {_SQUARE} or more")
        self.size, self.n_state = size, 2 * width
        # Paper is 0 and ink at most 1, so that the first layer needs no norm, which would blow up traces of ink.
        self.squares = RowLinear(_SQUARE**2, _CHANNELS[0], kernel_init=nnx.initializers.he_normal(), rngs=rngs)
        widths = (*_CHANNELS, width)
        self.convolutions = nnx.List(
            [
                RowLinear(9 * narrow, wide, use_bias=False, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
                for narrow, wide in pairwise(widths)
            ]
        )
        self.norms = nnx.List([nnx.LayerNorm(wide, epsilon=1e-3, rngs=rngs) for wide in widths[1:]])
        self.head = RowLinear(self.n_state, n_outputs, rngs=rngs)

    def __call__(
        self, drawings: Array, *, dropout_key: Array | None = None, dropout_rate: ArrayLike = 0.0
    ) -> tuple[Array, Array]:
        """What there is to see, and what is predicted from it.

        Args:
          drawings: [b, size, size] uint8, ink being 255.
          dropout_key: given in training only; dropout_rate: of the pooled state before the head.

        Returns:
          pooled states [b, d] without dropout, and outputs [b, n_outputs].
        """
        if drawings.shape[1:] != (self.size, self.size):
            raise ValueError(f"drawings are [b, {self.size}, {self.size}], not {list(drawings.shape)}")
        ink = drawings.astype(self.squares.kernel[...].dtype) / 255.0
        state = jax.nn.relu(self.squares(squares(ink)))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            state = jax.nn.relu(norm(convolution(neighbourhoods(state))))
        places = state.reshape(state.shape[0], -1, state.shape[-1])
        pooled = jnp.concatenate([places.mean(axis=1), _largest(places)], axis=1)
        seen = pooled if dropout_key is None else dropout(pooled, dropout_key, dropout_rate)
        return pooled, self.head(seen)


def squares(ink: Array) -> Array:
    """Overlapping squares of 8 pixels, one every 4, as rows of numbers.

    Args:
      ink: [b, s, s]; beyond its borders there is paper.

    Returns:
      [b, t, t, 64] with t = ⌈s / 4⌉; square (i, j) begins 4 pixels above and to the left of pixel (4 i, 4 j).
    """
    half = _SQUARE // 2
    b, t = ink.shape[0], -(-ink.shape[1] // half)
    missing = t * half - ink.shape[1]
    padded = jnp.pad(ink, ((0, 0), (half, missing), (half, missing)))
    # Cut into tiles of half a square first: that moves every pixel once, and a square is four whole tiles.
    tiles = padded.reshape(b, t + 1, half, t + 1, half).swapaxes(2, 3).reshape(b, t + 1, t + 1, half * half)
    return jnp.concatenate([tiles[:, i : i + t, j : j + t] for i in (0, 1) for j in (0, 1)], axis=-1)


def neighbourhoods(state: Array) -> Array:
    """Each second position of both axes with its eight neighbours.

    Args:
      state: [b, t, t, c]; beyond its borders there are zeros.

    Returns:
      [b, ⌈t / 2⌉, ⌈t / 2⌉, 9 c], row by row from the upper left neighbour.
    """
    t = state.shape[1]
    padded = jnp.pad(state, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, i : i + t : 2, j : j + t : 2] for i in range(3) for j in range(3)], axis=-1)


def _largest(places: Array) -> Array:
    """[b, places, c] → [b, c], with a gradient for the first place only that has the maximum.

    The gradient of ``jnp.max`` compares all numbers with the maximum, and a compiler that computes them twice, in two
    ways, may find none that is equal to it: the gradient is then infinite.
    """
    first = jax.nn.one_hot(jnp.argmax(places, axis=1), places.shape[1], axis=1, dtype=places.dtype)
    return jnp.sum(places * first, axis=1)
