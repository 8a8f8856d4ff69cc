"""Layouts made inside a compiled program, whose sizes may be symbols: for programs that are exported.

`jaxgkd.graphs.layout.build_layout` sorts edges in numpy beforehand and notes what gradients need. A program that is
to take any graph sorts them itself, and has no gradients: a layout from here serves forward passes alone.

JAX's symbols stand for 1 and more, and a graph may have no edge. So edges of which there may be none are followed by
one that leads to no receiver, which every reduction drops; what belongs to them is made as long with `one_more`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from jaxgkd.graphs.build import SparseRows
from jaxgkd.graphs.layout import Layout, Size


def traced_layout(senders: Int[Array, " e"], receivers: Int[Array, " e"], n_receivers: Size, n_senders: Size) -> Layout:
    """Edges in any order as a layout of e + 1 edges, sorted by receiver, those of one by sender.

    Args:
      senders, receivers: [e] int32.
      n_receivers, n_senders: sizes.
    """
    nowhere = jnp.full(1, n_receivers, jnp.int32)
    senders, receivers = one_more(senders), jnp.concatenate([receivers.astype(jnp.int32), nowhere])
    order = jnp.lexsort((senders, receivers)).astype(jnp.int32)
    counts = jnp.zeros(n_receivers, jnp.int32).at[receivers].add(1, mode="drop")
    starts = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(counts, dtype=jnp.int32)])
    return _forward_layout(senders[order], receivers[order], starts, order, n_receivers, n_senders)


def layout_of_starts(senders: Int[Array, " e"], starts: Int[Array, " rows"], n_senders: Size) -> Layout:
    """Edges that are sorted already: ``starts[i]:starts[i + 1]`` of them end in receiver i; compressed sparse rows.

    Args:
      senders: [e] int32, at least one; those past ``starts[n_receivers]`` lead nowhere.
      starts: [n_receivers + 1] int32.
      n_senders: size.
    """
    # Where a receiver ends the next one begins, several at one place where some have no edge.
    steps = jnp.zeros(senders.shape[0], jnp.int32).at[starts[1:]].add(1, mode="drop")
    receivers = jnp.cumsum(steps, dtype=jnp.int32)
    in_order = jnp.arange(senders.shape[0], dtype=jnp.int32)
    return _forward_layout(senders, receivers, starts, in_order, starts.shape[0] - 1, n_senders)


def one_more(values: Shaped[Array, "e ..."]) -> Shaped[Array, "e1 ..."]:
    """[e, ...] → [e + 1, ...], with zeros for the edge that leads nowhere."""
    return jnp.concatenate([values, jnp.zeros((1, *values.shape[1:]), values.dtype)])


def traced_sparse_rows(
    starts: Int[Array, " rows"], columns: Int[Array, " nnz"], values: Shaped[Array, " nnz"], width: int
) -> SparseRows:
    """A matrix [n, width] in compressed sparse rows, ``starts`` [n + 1], as node inputs."""
    return SparseRows(layout_of_starts(one_more(columns), starts, width), one_more(values))


def _forward_layout(senders: Array, receivers: Array, starts: Array, order: Array, n: Size, n_senders: Size) -> Layout:
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
