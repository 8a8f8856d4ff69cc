"""One message-passing layer each: [n, d_in] and a layout of the edges in, [n, d_out] out.

No layout holds self loops: where a layer sees the node itself, the term is added without an edge.

Where a layout holds a sample of the edges, ``degree`` says how many end in each node of the whole graph: sums over the
neighbours are then those over the sampled ones, made as large as they would be in the mean over all samples.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgkd.graphs import Layout, aggregate, aggregate_heads, edge_softmax


def normalized_sum(values: Array, layout: Layout, degree: Array | None = None) -> Array:
    """``D^-1/2 (A + I) D^-1/2 X`` with D the degree in A + I: [n, d] → [n, d].

    Of inputs that stay as they are (no dropout) it is worth computing once, before training.
    """
    inverse_root = jax.lax.rsqrt((layout.degree() if degree is None else degree) + 1.0)
    weights = inverse_root[layout.senders] * inverse_root[layout.receivers]
    if degree is not None:
        weights = weights * _times_sampled(layout, degree)[layout.receivers]
    return aggregate(values, layout, edge_weights=weights) + values * (inverse_root**2)[:, None]


def _times_sampled(layout: Layout, degree: Array) -> Array:
    """[n] how many times as many edges as in the layout end in each node of the whole graph; 0 without any."""
    return degree / jnp.maximum(layout.degree(), 1.0)


class GCNConvolution(nnx.Module):
    """``D^-1/2 (A + I) D^-1/2 X W + b`` with D the degree in A + I (Kipf & Welling, arXiv 1609.02907)."""

    def __init__(self, d_in: int, d_out: int, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(d_in, d_out, use_bias=False, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(d_out))

    def __call__(self, values: Array, layout: Layout, degree: Array | None = None) -> Array:
        """[n, d_in] → [n, d_out]."""
        return normalized_sum(self.linear(values), layout, degree) + self.bias[...]


class GATConvolution(nnx.Module):
    """Graph attention with ``heads`` heads, concatenated (Veličković et al., arXiv 1710.10903, equations 1–5)."""

    def __init__(self, d_in: int, d_out: int, *, heads: int = 4, rngs: nnx.Rngs):
        if d_out % heads:
            raise ValueError(f"a width of {d_out} does not divide into {heads} heads")
        self.heads = heads
        self.linear = nnx.Linear(d_in, d_out, use_bias=False, rngs=rngs)
        initializer = nnx.initializers.glorot_uniform()
        self.from_sender = nnx.Param(initializer(rngs.params(), (heads, d_out // heads)))
        self.from_receiver = nnx.Param(initializer(rngs.params(), (heads, d_out // heads)))
        self.bias = nnx.Param(jnp.zeros(d_out))

    def __call__(self, values: Array, layout: Layout, degree: Array | None = None) -> Array:
        """[n, d_in] → [n, d_out]; the attention is over the edges that are there."""
        del degree
        projected = self.linear(values)
        by_head = projected.reshape(projected.shape[0], self.heads, -1)
        sender_part = jnp.sum(by_head * self.from_sender[...], axis=-1)
        receiver_part = jnp.sum(by_head * self.from_receiver[...], axis=-1)
        edge_logits = jax.nn.leaky_relu(sender_part[layout.senders] + receiver_part[layout.receivers], 0.2)
        edge_weights, self_weights = edge_softmax(
            edge_logits, jax.nn.leaky_relu(sender_part + receiver_part, 0.2), layout
        )
        attended = aggregate_heads(by_head, layout, edge_weights) + by_head * self_weights[:, :, None]
        return attended.reshape(projected.shape) + self.bias[...]


class SAGEConvolution(nnx.Module):
    """``W_self x + W_mean mean_{j in N(i)} x_j`` (Hamilton et al., arXiv 1706.02216, mean aggregator)."""

    def __init__(self, d_in: int, d_out: int, *, rngs: nnx.Rngs):
        self.itself = nnx.Linear(d_in, d_out, rngs=rngs)
        self.neighbours = nnx.Linear(d_in, d_out, use_bias=False, rngs=rngs)

    def __call__(self, values: Array, layout: Layout, degree: Array | None = None) -> Array:
        """[n, d_in] → [n, d_out]; the mean is over the edges that are there."""
        del degree
        return self.itself(values) + self.neighbours(aggregate(values, layout, reduce="mean"))


class GINConvolution(nnx.Module):
    """``MLP((1 + ε) x + Σ_{j in N(i)} x_j)`` with ε learned (Xu et al., arXiv 1810.00826, equation 4.1)."""

    def __init__(self, d_in: int, d_out: int, *, rngs: nnx.Rngs):
        self.epsilon = nnx.Param(jnp.zeros(()))
        self.first = nnx.Linear(d_in, d_out, rngs=rngs)
        self.second = nnx.Linear(d_out, d_out, rngs=rngs)

    def __call__(self, values: Array, layout: Layout, degree: Array | None = None) -> Array:
        """[n, d_in] → [n, d_out]."""
        neighbours = aggregate(values, layout)
        if degree is not None:
            neighbours = neighbours * _times_sampled(layout, degree)[:, None]
        summed = (1.0 + self.epsilon[...]) * values + neighbours
        return self.second(jax.nn.relu(self.first(summed)))


class NoConvolution(nnx.Module):
    """``W x + b``: the layer of an MLP student, which uses no edges."""

    def __init__(self, d_in: int, d_out: int, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(d_in, d_out, rngs=rngs)

    def __call__(self, values: Array, layout: Layout, degree: Array | None = None) -> Array:
        """[n, d_in] → [n, d_out]; the layout is not read."""
        del layout, degree
        return self.linear(values)


CONVOLUTIONS = {
    "gcn": GCNConvolution,
    "gat": GATConvolution,
    "sage": SAGEConvolution,
    "gin": GINConvolution,
    "mlp": NoConvolution,
}
