"""Node inputs that stay on the host: rows of some nodes, dense or sparse, in few shapes.

Sparse rows are padded with values of zero to a number of slots out of a growing row of numbers, so that a compiled
function meets few shapes. Rows of which a quarter or more is there are gathered as dense ones, which costs less.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from jaxgkd.graphs.batching import ranges
from jaxgkd.graphs.build import SparseRows
from jaxgkd.graphs.layout import host_layout

# From this share of values that are there, dense rows cost less.
_DENSE = 0.25
# Slots grow by this factor from one number of slots to the next, and are multiples of `_ROUND`.
_GROWTH = 1.25
_ROUND = 256
# Room above the values that rows hold in the mean.
_ABOVE = 1.05


@runtime_checkable
class InputRows(Protocol):
    """Inputs of all nodes, of which some are asked for.

    Attributes:
      shape: (n, f).
    """

    @property
    def shape(self) -> tuple[int, int]:
        """(n, f)."""
        ...

    def of(self, nodes: np.ndarray) -> np.ndarray | SparseRows:
        """Inputs of the nodes [k], in numpy: [k, f] dense or `SparseRows`; -1 is padding, whose row is anything."""
        ...


@dataclass(frozen=True, eq=False)
class DenseInputs:
    """Dense inputs.

    Fields:
      values: [n, f] float32, in memory or memory-mapped.
    """

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(n, f)."""
        n, width = self.values.shape
        return n, width

    def of(self, nodes: np.ndarray) -> np.ndarray:
        """[k] → [k, f]."""
        return self.values[nodes]


@dataclass(frozen=True, eq=False)
class SparseInputs:
    """Sparse inputs in compressed rows.

    Fields:
      indptr: [n + 1], values ``indptr[i]:indptr[i + 1]`` are those of row i; columns, values: [nnz].
      width: number of columns f.
    """

    indptr: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(n, f)."""
        return len(self.indptr) - 1, self.width

    def of(self, nodes: np.ndarray) -> SparseRows:
        """[k] → rows of these nodes, empty for -1; slots that are left over hold zeros of the last row."""
        start = self.indptr[nodes].astype(np.int64)
        size = np.where(nodes >= 0, self.indptr[nodes + 1] - start, 0)
        places = ranges(start, size)
        # What so many rows hold in the mean, so that a batch with few nodes takes no shape of its own.
        usual = int(_ABOVE * len(nodes) * len(self.values) / max(1, len(self.indptr) - 1))
        padding = slots(max(len(places), usual)) - len(places)
        rows = np.concatenate([np.repeat(np.arange(len(nodes)), size), np.full(padding, len(nodes) - 1)])
        columns = np.concatenate([self.columns[places], np.zeros(padding, np.int32)])
        layout = host_layout(columns, rows, len(nodes), n_senders=self.width)
        values = np.concatenate([self.values[places], np.zeros(padding, np.float32)])
        return SparseRows(layout, values[np.asarray(layout.order)])  # type: ignore[arg-type]


def host_inputs(nodes: "np.ndarray | SparseRows") -> InputRows:
    """Inputs of all nodes, [n, f] dense or sparse, brought to the host."""
    if not isinstance(nodes, SparseRows):
        return DenseInputs(np.asarray(nodes, np.float32))
    layout = nodes.layout
    n, width = nodes.shape
    indptr, columns, values = (np.asarray(each) for each in (layout.row_start, layout.senders, nodes.values))
    if len(values) < _DENSE * n * width:
        return SparseInputs(indptr, columns, values, width)
    dense = np.zeros((n, width), np.float32)
    np.add.at(dense, (np.asarray(layout.receivers), columns), values)
    return DenseInputs(dense)


def slots(count: int) -> int:
    """The smallest number of slots of the growing row that holds so many values."""
    size = _ROUND
    while size < count:
        size = -(-int(size * _GROWTH) // _ROUND) * _ROUND
    return size
