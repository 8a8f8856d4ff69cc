"""Layouts made inside a compiled program, whose sizes may be symbols: for programs that are exported.

`jaxgkd.graphs.aggregate.build_layout` sorts edges in numpy beforehand and notes what gradients need. A program that is
to take any graph sorts them itself, and has no gradients: a layout from here serves forward passes alone.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgkd.graphs.aggregate import Layout
from jaxgkd.graphs.build import SparseRows


def traced_layout(senders: Int[Array, " e"], receivers: Int[Array, " e"], n_receivers: int, n_senders: int) -> Layout:
    """Edges in any order as a layout, sorted by receiver.

    Args:
      senders, receivers: [e] int32.
      n_receivers, n_senders: sizes, integers or symbolic dimensions.
    """
    order = jnp.argsort(receivers, stable=True).astype(jnp.int32)
    counts = jnp.zeros(n_receivers, jnp.int32).at[receivers].add(1)
    starts = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(counts, dtype=jnp.int32)])
    return _forward_layout(senders[order], receivers[order], starts, order, n_receivers, n_senders)


def layout_of_starts(senders: Int[Array, " e"], starts: Int[Array, " rows"], n_senders: int) -> Layout:
    """Edges that are sorted already: ``starts[i]:starts[i + 1]`` of them end in receiver i; compressed sparse rows.

    Args:
      senders: [e] int32; starts: [n_receivers + 1] int32.
      n_senders: an integer or a symbolic dimension.
    """
    n_edge, n_receivers = senders.shape[0], starts.shape[0] - 1
    # Every receiver but the first begins a step; receivers without edges begin several at one place. Those that begin
    # past the last edge are dropped, as scattering out of range does.
    steps = jnp.zeros(n_edge, jnp.int32).at[starts[1:-1]].add(1, mode="drop")
    receivers = jnp.cumsum(steps, dtype=jnp.int32)
    in_order = jnp.arange(n_edge, dtype=jnp.int32)
    return _forward_layout(senders, receivers, starts, in_order, n_receivers, n_senders)


def traced_sparse_rows(
    starts: Int[Array, " rows"], columns: Int[Array, " nnz"], values: Float[Array, " nnz"], width: int
) -> SparseRows:
    """A matrix [n, width] in compressed sparse rows, ``starts`` [n + 1], as node inputs."""
    return SparseRows(layout_of_starts(columns, starts, width), values)


def _forward_layout(senders: Array, receivers: Array, starts: Array, order: Array, n: int, n_senders: int) -> Layout:
    return Layout(
        senders=senders,
        receivers=receivers,
        row_start=starts,
        # What only gradients read.
        transpose_order=jnp.zeros_like(order),
        column_start=jnp.zeros(n_senders + 1, jnp.int32),
        order=order,
        n_senders=n_senders,
        n_receivers=n,
    )
