"""Where edges start and end, sorted once in numpy: what every reduction over them reads."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

#: An integer, or a symbol that `jax.export` puts for one.
Size = Any


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["senders", "receivers", "row_start", "transpose_order", "column_start", "order"],
    meta_fields=["n_senders", "n_receivers"],
)
@dataclass(frozen=True)
class Layout:
    """Where every edge starts and ends, sorted once (a pytree: pass it into compiled functions, do not close over it).

    Fields:
      senders, receivers: [e] int32, sorted by receiver.
      row_start: [n_receivers + 1], edges ``row_start[i]:row_start[i + 1]`` end in node i.
      transpose_order: [e], positions of the edges sorted by sender; column_start: [n_senders + 1] likewise.
      order: [e], the position each edge had in the arrays given to `build_layout`.
      n_senders, n_receivers: static sizes.
    """

    senders: Int[Array, " e"]
    receivers: Int[Array, " e"]
    row_start: Int[Array, " rows"]
    transpose_order: Int[Array, " e"]
    column_start: Int[Array, " columns"]
    order: Int[Array, " e"]
    n_senders: int
    n_receivers: int

    # As a pytree it is also rebuilt with stacked arrays, axes of vmap and placeholders: no check of fields then.
    __no_type_check__ = True

    @property
    def n_edges(self) -> Size:
        """Number of edges e."""
        return self.senders.shape[0]

    def degree(self) -> Float[Array, " n_receivers"]:
        """Number of edges that end in each node."""
        return jnp.diff(self.row_start).astype(jnp.float32)


def build_layout(senders: np.ndarray, receivers: np.ndarray, n_node: int, *, n_senders: int | None = None) -> Layout:
    """Sort edges by receiver, and note their order by sender, in numpy; the arrays are then put on the device.

    Args:
      senders: [e] integer row of ``node_values`` an edge reads.
      receivers: [e] integer row of the result an edge adds to.
      n_node: number of receivers, and of senders unless ``n_senders`` says otherwise (bipartite graphs).
      n_senders: number of senders.

    Raises:
      ValueError: an index is out of range or the arrays differ in length.

    Example:
      >>> import numpy as np
      >>> layout = build_layout(np.array([0, 1, 2]), np.array([2, 0, 0]), n_node=3)
      >>> print(layout.senders, layout.receivers)
      [1 2 0] [0 0 2]
    """
    return jax.tree.map(jnp.asarray, host_layout(senders, receivers, n_node, n_senders=n_senders))


def host_layout(senders: np.ndarray, receivers: np.ndarray, n_node: int, *, n_senders: int | None = None) -> Layout:
    """`build_layout` with its arrays still in numpy, for whole batches that are put on the device together."""
    n_senders = n_node if n_senders is None else n_senders
    senders, receivers = np.asarray(senders), np.asarray(receivers)
    if senders.shape != receivers.shape or senders.ndim != 1:
        raise ValueError(f"senders and receivers are two [e] arrays, not {senders.shape} and {receivers.shape}")
    for name, index, size in (("senders", senders, n_senders), ("receivers", receivers, n_node)):
        if len(index) and (index.min() < 0 or index.max() >= size):
            raise ValueError(f"{name} hold {index.min()}..{index.max()}, outside the {size} nodes there are")
    order = _order(receivers, senders, n_senders)
    senders, receivers = senders[order].astype(np.int32), receivers[order].astype(np.int32)
    return Layout(
        senders=senders,  # type: ignore[arg-type]
        receivers=receivers,  # type: ignore[arg-type]
        row_start=_starts(receivers, n_node),  # type: ignore[arg-type]
        transpose_order=_order(senders, np.zeros(1, np.int32), 1).astype(np.int32),  # type: ignore[arg-type]
        column_start=_starts(senders, n_senders),  # type: ignore[arg-type]
        order=order.astype(np.int32),  # type: ignore[arg-type]
        n_senders=n_senders,
        n_receivers=n_node,
    )


def _order(major: np.ndarray, minor: np.ndarray, n_minor: int) -> np.ndarray:
    """Positions [e] by ``major`` and then ``minor``, both of 0 or more and ``minor < n_minor``; ties stay in order.

    The position is the last part of one number whose order decides: sorting numbers is several times faster than
    sorting positions by two keys, where all three go into 63 bits.
    """
    places = len(major).bit_length()
    if (int(major.max(initial=0)) + 1) * n_minor > 2 ** (63 - places):
        return np.lexsort((np.broadcast_to(minor, major.shape), major))
    pairs = major.astype(np.int64) * n_minor + minor.astype(np.int64)
    key = (pairs << places) + np.arange(len(major))
    key.sort()
    return key & (2**places - 1)


def _starts(index: np.ndarray, size: int) -> np.ndarray:
    """Where each of ``size`` values begins in the sorted ``index``, and the end: [size + 1] int32."""
    starts = np.zeros(size + 1, np.int32)
    np.cumsum(np.bincount(index, minlength=size), out=starts[1:])
    return starts


def sparse_rows(matrix) -> tuple[Layout, Float[Array, " nnz"]]:
    """A SciPy sparse matrix [n, f] as a layout from its f columns to its n rows, and the values in that order.

    ``aggregate(kernel [f, d], layout, edge_weights=values)`` is then the product ``matrix @ kernel``.

    Example:
      >>> import scipy.sparse
      >>> from jaxgkd.graphs import aggregate
      >>> layout, values = sparse_rows(scipy.sparse.csr_array([[0.0, 2.0], [3.0, 0.0]]))
      >>> print(aggregate(jnp.array([[1.0], [10.0]]), layout, edge_weights=values).ravel())
      [20.  3.]
    """
    coo = matrix.tocoo()
    layout = build_layout(coo.col, coo.row, coo.shape[0], n_senders=coo.shape[1])
    return layout, jnp.asarray(coo.data[np.asarray(layout.order)], jnp.float32)
