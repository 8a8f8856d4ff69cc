"""Every reduction over edges: ``out[i] = reduce over edges (j -> i) of weight[j -> i] * values[j]``.

A `Layout` is built once in numpy, with edges sorted by receiver and, for the gradient, by sender. The sum is then a
product of a compressed sparse matrix with a dense one: on a CPU XLA's own kernel for it, which never holds an array of
edges × width, and elsewhere a gather and a sorted segment sum. Its gradient is the same product with the
transposed matrix. Under ``vmap`` (many seeds) a CPU computes the product for one member after another.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental import sparse
from jaxtyping import Array, Float

from jaxgkd.graphs.layout import Layout

# Columns that a maximum reads at a time: bounds its memory to edges × 32 whatever the width.
_MAX_COLUMNS = 32
# Numbers gathered from each end of the edges at a time when edge weights are differentiated: they stay in cache.
_WEIGHT_GRADIENT_NUMBERS = 2**20
# Columns that a CPU takes at once. Those left over it takes one by one: 7 columns cost three times what 8 do.
_VECTOR = 8


def aggregate(
    node_values: Float[Array, "n_senders d"],
    layout: Layout,
    *,
    edge_weights: Float[Array, " e"] | None = None,
    reduce: Literal["sum", "mean", "max"] = "sum",
) -> Float[Array, "n_receivers d"]:
    """Reduce the values of the senders over the edges into every receiver.

    Args:
      node_values: [n_senders, d]; lower precisions are accumulated in float32.
      layout: where the edges are.
      edge_weights: [e] in the layout's order, multiplied into the senders' values; differentiable.
      reduce: ``sum``; ``mean`` divides the sum by the number of edges; ``max``. Without edges: zeros.

    Returns:
      [n_receivers, d] in the dtype of ``node_values``.

    Example:
      >>> import numpy as np
      >>> from jaxgkd.graphs import build_layout
      >>> layout = build_layout(np.array([0, 1, 2]), np.array([2, 0, 0]), n_node=3)
      >>> values = jnp.array([[1.0], [10.0], [100.0]])
      >>> print(aggregate(values, layout).ravel(), aggregate(values, layout, reduce="mean").ravel())
      [110.   0.   1.] [55.  0.  1.]
    """
    if reduce == "max":
        return _maximum(node_values, layout, edge_weights)
    weights = jnp.ones(layout.n_edges, jnp.float32) if edge_weights is None else edge_weights
    summed = _weighted_sum(*_varying_alike(node_values, weights, layout))
    if reduce == "mean":
        summed = summed / jnp.maximum(layout.degree(), 1.0)[:, None]
    return summed.astype(node_values.dtype)


def aggregate_heads(
    node_values: Float[Array, "n_senders h d"], layout: Layout, edge_weights: Float[Array, "e h"]
) -> Float[Array, "n_receivers h d"]:
    """The sum of `aggregate` for h heads, each with edge weights of its own: ``out[i, h] = Σ w[j -> i, h] x[j, h]``.

    Args:
      node_values: [n_senders, h, d]; lower precisions are accumulated in float32.
      layout: where the edges are.
      edge_weights: [e, h] in the layout's order; differentiable.

    Returns:
      [n_receivers, h, d] in the dtype of ``node_values``.

    Example:
      >>> import numpy as np
      >>> from jaxgkd.graphs import build_layout
      >>> layout = build_layout(np.array([0, 1]), np.array([1, 1]), n_node=2)
      >>> values = jnp.array([[[1.0], [1.0]], [[10.0], [10.0]]])
      >>> print(aggregate_heads(values, layout, jnp.array([[1.0, 0.5], [1.0, 0.0]]))[1].ravel())
      [11.   0.5]
    """
    return _weighted_sum(*_varying_alike(node_values, edge_weights, layout)).astype(node_values.dtype)


def edge_dot(
    sender_values: Float[Array, "n_senders h d"], receiver_values: Float[Array, "n_receivers h d"], layout: Layout
) -> Float[Array, "e h"]:
    """For every edge and head the dot product of its two ends: ``out[e, h] = x[senders[e], h] · y[receivers[e], h]``.

    Neither end's values are ever held edge by edge; the gradients are two weighted sums over the edges.

    Args:
      sender_values: [n_senders, h, d]; receiver_values: [n_receivers, h, d].
      layout: where the edges are.

    Returns:
      [e, h] float32 in the layout's order.

    Example:
      >>> import numpy as np
      >>> from jaxgkd.graphs import build_layout
      >>> layout = build_layout(np.array([0, 1]), np.array([1, 0]), n_node=2)
      >>> values = jnp.array([[[1.0, 2.0]], [[3.0, 4.0]]])
      >>> print(edge_dot(values, values, layout).ravel())
      [11. 11.]
    """
    return _dot(*_varying_alike(sender_values, receiver_values, layout))


def to_edges(
    node_values: Float[Array, "n d"], layout: Layout, *, end: Literal["sender", "receiver"] = "sender"
) -> Float[Array, "e d"]:
    """The value [d] of the node at one end of every edge: ``out[e] = x[senders[e]]`` or ``x[receivers[e]]``, [e, d].

    For messages that are no product of a weight and a value, and to hand what a graph holds to its nodes (the receivers
    of ``Batch.readout``). Its gradient is a sum over sorted edges, not a scatter.

    Example:
      >>> import numpy as np
      >>> from jaxgkd.graphs import build_layout
      >>> layout = build_layout(np.array([0, 1]), np.array([1, 0]), n_node=2)
      >>> values = jnp.array([[5.0], [7.0]])
      >>> print(to_edges(values, layout).ravel(), to_edges(values, layout, end="receiver").ravel())
      [7. 5.] [5. 7.]
    """
    if end == "receiver":
        sorting = layout.receivers, jnp.arange(layout.n_edges, dtype=jnp.int32), layout.row_start
    else:
        sorting = layout.senders, layout.transpose_order, layout.column_start
    return _gather(*_varying_alike(node_values, *sorting))


def to_nodes(edge_values: Float[Array, "e d"], layout: Layout) -> Float[Array, "n_receivers d"]:
    """The sum over the edges into every receiver: ``out[i] = Σ m[e]`` over the edges e that end in i, [n_receivers, d].

    Lower precisions are accumulated in float32 and returned in the dtype of ``edge_values`` [e, d], which are in the
    layout's order.

    Example:
      >>> import numpy as np
      >>> from jaxgkd.graphs import build_layout
      >>> layout = build_layout(np.array([0, 1, 2]), np.array([2, 0, 0]), n_node=3)
      >>> print(to_nodes(jnp.array([[1.0], [2.0], [4.0]]), layout).ravel())
      [3. 0. 4.]
    """
    in_order = jnp.arange(layout.n_edges, dtype=jnp.int32)
    return _sum_sorted(*_varying_alike(edge_values, layout.receivers, in_order, layout.row_start))


def edge_softmax(
    edge_logits: Float[Array, "e h"], self_logits: Float[Array, "n_receivers h"], layout: Layout
) -> tuple[Float[Array, "e h"], Float[Array, "n_receivers h"]]:
    """Softmax over the edges into each node and the node itself, for each of h heads.

    Args:
      edge_logits: [e, h] in the layout's order.
      self_logits: [n_receivers, h], the node's own term (a self loop that needs no edge).

    Returns:
      weights of the edges [e, h] and of the nodes themselves [n_receivers, h]; together they sum to 1 at each node.

    Example:
      >>> import numpy as np
      >>> from jaxgkd.graphs import build_layout
      >>> layout = build_layout(np.array([1]), np.array([0]), n_node=2)
      >>> edges, selves = edge_softmax(jnp.array([[0.0]]), jnp.array([[0.0], [3.0]]), layout)
      >>> print(edges.ravel(), selves.ravel())
      [0.5] [0.5 1. ]
    """
    # The maximum only keeps exp in range: the softmax does not depend on it, so no gradient flows through it.
    largest = jnp.maximum(
        jax.ops.segment_max(
            jax.lax.stop_gradient(edge_logits), layout.receivers, layout.n_receivers, indices_are_sorted=True
        ),
        jax.lax.stop_gradient(self_logits),
    )
    edge_part = jnp.exp(edge_logits - largest[layout.receivers])
    self_part = jnp.exp(self_logits - largest)
    total = self_part + jax.ops.segment_sum(edge_part, layout.receivers, layout.n_receivers, indices_are_sorted=True)
    return edge_part / total[layout.receivers], self_part / total


def _varying_alike(*arguments: Any) -> Any:
    """``arguments`` for a function with a gradient of its own, which under ``shard_map`` must agree on its axes.

    What is the same on all devices is said to differ like the rest; its gradient is summed over the devices for that.
    """
    axes = {axis for leaf in jax.tree.leaves(arguments) for axis in _axes(leaf)}
    return jax.tree.map(lambda leaf: _varying(leaf, axes), arguments) if axes else arguments


def _axes(array: Any) -> set[str]:
    """The axes of ``shard_map`` along which an array differs between devices."""
    return set(jax.typeof(array).manual_axis_type.varying)


def _varying(array: Any, axes: set[str]) -> Any:
    missing = tuple(axes - _axes(array))
    return jax.lax.pcast(array, missing, to="varying") if missing else array


@jax.custom_vjp
def _dot(sender_values: Array, receiver_values: Array, layout: Layout) -> Array:
    return _edge_dot(sender_values, receiver_values, layout)


def _dot_forward(sender_values, receiver_values, layout):
    return _dot(sender_values, receiver_values, layout), (sender_values, receiver_values, layout)


def _dot_backward(saved, cotangent):
    sender_values, receiver_values, layout = saved
    to_receivers = _weighted_sum(sender_values, cotangent, layout)
    to_senders = _weighted_sum(receiver_values, cotangent[layout.transpose_order], _transposed(layout))
    return to_senders.astype(sender_values.dtype), to_receivers.astype(receiver_values.dtype), None


_dot.defvjp(_dot_forward, _dot_backward)


@jax.custom_vjp
def _weighted_sum(values: Array, weights: Array, layout: Layout) -> Array:
    """[n_senders, d] and [e], or [n_senders, h, d] and [e, h]."""
    product = lambda v, w: _product(w, layout.senders, layout.receivers, layout.row_start, v)  # noqa: E731
    if values.ndim == 2:
        return product(values, weights)
    # One product for each head: the values of one stay in cache where those of all would not.
    return jnp.stack([product(values[:, head], weights[:, head]) for head in range(values.shape[1])], axis=1)


def _weighted_sum_forward(values, weights, layout):
    return _weighted_sum(values, weights, layout), (values, weights, layout)


def _weighted_sum_backward(saved, cotangent):
    # Whichever of the two gradients the caller does not use is removed by the compiler.
    values, weights, layout = saved
    to_values = _weighted_sum(cotangent, weights[layout.transpose_order], _transposed(layout))
    return to_values.astype(values.dtype), _edge_dot(values, cotangent, layout).astype(weights.dtype), None


_weighted_sum.defvjp(_weighted_sum_forward, _weighted_sum_backward)


def _transposed(layout: Layout) -> Layout:
    order = layout.transpose_order
    positions = jnp.arange(layout.n_edges, dtype=jnp.int32)
    return Layout(
        senders=layout.receivers[order],
        receivers=layout.senders[order],
        row_start=layout.column_start,
        transpose_order=jnp.zeros_like(order).at[order].set(positions, unique_indices=True),
        column_start=layout.row_start,
        order=layout.order[order],
        n_senders=layout.n_receivers,
        n_receivers=layout.n_senders,
    )


@jax.custom_vjp
def _gather(values, index, order, start):
    """``values[index]``; ``order`` sorts ``index``, ``start`` says where each of its values begins in that order."""
    del order, start
    return values[index]


@jax.custom_vjp
def _sum_sorted(edge_values, index, order, start):
    """``out[index[e]] += edge_values[e]``, the transpose of `_gather`."""
    ones = jnp.ones(index.shape, jnp.float32)
    return _product(ones, order, index[order], start, edge_values).astype(edge_values.dtype)


_gather.defvjp(
    lambda values, *sorting: (_gather(values, *sorting), sorting),
    lambda sorting, cotangent: (_sum_sorted(cotangent, *sorting), None, None, None),
)
_sum_sorted.defvjp(
    lambda edge_values, *sorting: (_sum_sorted(edge_values, *sorting), sorting),
    lambda sorting, cotangent: (_gather(cotangent, *sorting), None, None, None),
)


@custom_vmap
def _product(weights, senders, receivers, row_start, values):
    """The matrix with ``weights`` at (receivers, senders) times ``values``, summed in float32.

    Where a size is a symbol, in a program that is exported for any graph, a CPU takes the segment sum as well: its own
    kernel wants to know how many edges there are, and would tie the program to the XLA that exported it.
    """
    sizes = (*weights.shape, *row_start.shape, *values.shape)
    if not all(isinstance(size, int) for size in sizes):
        return _gathered(weights, senders, receivers, row_start, values)
    return jax.lax.platform_dependent(
        weights, senders, receivers, row_start, values, cpu=_compressed, default=_gathered
    )


def _compressed(weights, senders, receivers, row_start, values):
    del receivers
    values, weights = values.astype(jnp.float32), weights.astype(jnp.float32)
    matrix = sparse.BCSR((weights, senders, row_start), shape=(row_start.shape[0] - 1, values.shape[0]))
    width = values.shape[1]
    if width <= 2 * _VECTOR and width % _VECTOR:
        values = jnp.pad(values, ((0, 0), (0, -width % _VECTOR)))
    # JAX forgets in this product along which axes of a mesh it differs.
    return _varying((matrix @ values)[:, :width], _axes(values))


def _gathered(weights, senders, receivers, row_start, values):
    messages = weights.astype(jnp.float32)[:, None] * values[senders].astype(jnp.float32)
    return jax.ops.segment_sum(messages, receivers, row_start.shape[0] - 1, indices_are_sorted=True)


@_product.def_vmap
def _product_of_members(axis_size, in_batched, *arguments):
    """On a CPU one member after another, each small enough to stay in cache; elsewhere all in one kernel."""
    del axis_size

    def one_by_one(*arguments):
        batched = [a for a, is_batched in zip(arguments, in_batched, strict=True) if is_batched]

        def member(leaves):
            leaves = iter(leaves)
            return _product(*(next(leaves) if b else a for a, b in zip(arguments, in_batched, strict=True)))

        return jax.lax.map(member, batched)

    together = jax.vmap(_gathered, in_axes=[0 if is_batched else None for is_batched in in_batched])
    return jax.lax.platform_dependent(*arguments, cpu=one_by_one, default=together), True


def _edge_dot(values, cotangent, layout):
    """For every edge the dot product of its sender's value and its receiver's cotangent: [e], or [e, h] for h heads."""

    def dot(ends):
        sender, receiver = (
            array.at[rows].get(mode="promise_in_bounds").astype(jnp.float32)
            for array, rows in zip((values, cotangent), ends, strict=True)
        )
        products = sender * receiver
        # On a CPU XLA sums short rows number by number: a product with ones takes half the time.
        ones = jnp.ones(products.shape[-1], jnp.float32)
        return jnp.matmul(products.reshape(-1, len(ones)), ones, precision="highest").reshape(products.shape[:-1])

    at_a_time = max(1, _WEIGHT_GRADIENT_NUMBERS // max(1, values[0].size))
    # A symbol cannot be compared.
    if not isinstance(layout.n_edges, int) or layout.n_edges <= at_a_time:
        return dot((layout.senders, layout.receivers))
    padding = -layout.n_edges % at_a_time
    blocks = [jnp.pad(ends, (0, padding)).reshape(-1, at_a_time) for ends in (layout.senders, layout.receivers)]
    dots = jax.lax.map(dot, tuple(blocks))
    return dots.reshape(-1, *dots.shape[2:])[: layout.n_edges]


def _maximum(values, layout, edge_weights):
    def columns(block):
        messages = block[layout.senders]
        if edge_weights is not None:
            messages = edge_weights[:, None] * messages
        largest = jax.ops.segment_max(messages, layout.receivers, layout.n_receivers, indices_are_sorted=True)
        return jnp.where((layout.degree() > 0)[:, None], largest, 0).astype(values.dtype)

    width = values.shape[1]
    if width <= _MAX_COLUMNS:
        return columns(values)
    padded = jnp.pad(values, ((0, 0), (0, -width % _MAX_COLUMNS)))
    blocks = padded.reshape(values.shape[0], -1, _MAX_COLUMNS).swapaxes(0, 1)
    return jax.lax.map(columns, blocks).swapaxes(0, 1).reshape(layout.n_receivers, -1)[:, :width]
