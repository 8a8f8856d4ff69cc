"""From states of regions to classes: readouts over the regions, and the MLP that reads the subject."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.nn.dropout import dropout
from jaxgkd.nn.row_linear import RowLinear


class MeanReadout(nnx.Module):
    """The mean over the regions: a subject's state does not know which region said what."""

    def __init__(self, width: int):
        self.width = width

    def __call__(self, regions: Array) -> Array:
        """[n, r, d] → [n, d]."""
        return regions.mean(axis=1)


class RegionReadout(nnx.Module):
    """A few numbers of every region, side by side, and a linear layer: regions keep their places.

    Source: the "concat" readout of Cui et al., BrainGB, arXiv 2204.07054, narrowed as in Kan et al., arXiv 2210.06681.
    """

    def __init__(self, n_regions: int, width: int, *, narrow: int = 8, rngs: nnx.Rngs):
        """Make the layers.

        Args:
          n_regions: r; width: d of the states, and of what comes out; narrow: numbers a region.
          rngs: random streams of the initial weights.
        """
        self.narrow = RowLinear(width, narrow, rngs=rngs)
        self.joint = RowLinear(n_regions * narrow, width, rngs=rngs)

    def __call__(self, regions: Array) -> Array:
        """[n, r, d] → [n, d]."""
        return self.joint(jax.nn.gelu(self.narrow(regions)).reshape(len(regions), -1))


class OrthonormalReadout(nnx.Module):
    """Regions are shared out between clusters with orthonormal centres, which stay as they are drawn.

    A cluster's state is the mean of its regions, weighted by their shares. The published one is the sum, which over
    hundreds of regions is so large that what differs between subjects is lost in what all have in common.

    Source: Kan et al., Brain Network Transformer, arXiv 2210.06681, section 3.2.
    """

    def __init__(self, n_clusters: int, width: int, *, narrow: int = 8, rngs: nnx.Rngs):
        """Make the centres and layers.

        Args:
          n_clusters: at most ``width``; width: d of the states, and of what comes out; narrow: numbers a region.
          rngs: random streams of the centres and initial weights.

        Raises:
          ValueError: more clusters than can be orthogonal.
        """
        if n_clusters > width:
            raise ValueError(f"{n_clusters} clusters cannot have orthogonal centres of width {width}")
        orthonormal = nnx.initializers.orthogonal()(rngs.params(), (n_clusters, width))
        self.centres = nnx.Variable(orthonormal)
        self.narrow = RowLinear(width, narrow, rngs=rngs)
        self.joint = RowLinear(n_clusters * narrow, width, rngs=rngs)

    def __call__(self, regions: Array) -> Array:
        """[n, r, d] → [n, d]."""
        shares = jax.nn.softmax(regions @ self.centres[...].T, axis=-1)
        shares = shares / shares.sum(axis=1, keepdims=True)
        clusters = jnp.einsum("nrk,nrd->nkd", shares, self.narrow(regions))
        return self.joint(jax.nn.gelu(clusters).reshape(len(regions), -1))


class BrainHead(nnx.Module):
    """``GELU → dropout → Linear → GELU → dropout → Linear`` from a subject's state to classes."""

    def __init__(self, width: int, n_classes: int, *, rngs: nnx.Rngs):
        self.first = RowLinear(width, width, rngs=rngs)
        self.second = RowLinear(width, n_classes, rngs=rngs)

    def __call__(self, pooled: Array, *, dropout_key: Array | None = None, dropout_rate: ArrayLike = 0.0) -> Array:
        """[n, d] → [n, classes]; dropout where a key is given."""
        state = jax.nn.gelu(pooled)
        if dropout_key is not None:
            state = dropout(state, jax.random.fold_in(dropout_key, 0), dropout_rate)
        state = jax.nn.gelu(self.first(state))
        if dropout_key is not None:
            state = dropout(state, jax.random.fold_in(dropout_key, 1), dropout_rate)
        return self.second(state)
