"""Reads ``features.npz``: numbers of every node, dense or in SciPy's CSR parts, never pickled."""

from pathlib import Path
from typing import cast

import numpy as np
import scipy.sparse

from jaxgkd.data.array_files import load_arrays
from jaxgkd.errors import DataError

_CSR_PARTS = ("data", "indices", "indptr", "shape")


def read_features(path: Path, n_node: int) -> scipy.sparse.csr_array:
    """The features [n_node, f] float32 of ``path``, indices sorted.

    The file holds an array ``features`` [n_node, f], or the arrays ``data`` [nnz], ``indices`` [nnz], ``indptr``
    [n_node + 1] and ``shape`` [2] of a CSR matrix; row i belongs to node i of the node table.

    Raises:
      DataError: it is none of these, has another number of rows, or a value is not finite in float32.
    """
    parts = _load(path)
    dense = "features" in parts
    for name, part in parts.items():
        if part.dtype.kind not in "biuf" or (part.dtype.kind == "f" and name in _CSR_PARTS[1:]):
            raise DataError(f"holds {part.dtype} values", file=path, field=name, mend="write numbers")
    matrix = _from_dense(parts["features"], path) if dense else _from_csr_parts(parts, path)
    n_row, n_column = cast(tuple[int, int], matrix.shape)
    if n_row != n_node:
        raise DataError(
            f"there are {n_row} rows of features for {n_node} nodes",
            file=path,
            mend="write one row for every row of the node table, in its order",
        )
    if n_column == 0:
        raise DataError("the features have no columns", file=path, mend="remove the file or write features")
    bad = np.flatnonzero(~np.isfinite(matrix.data))
    if len(bad):
        node = int(np.searchsorted(matrix.indptr, bad[0], side="right")) - 1
        column = int(matrix.indices[bad[0]])
        raise DataError(
            f"the feature in row {node}, column {column} (counted from 0) is not a finite float32",
            file=path,
            mend="replace NaN and infinite values",
        )
    return matrix


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays that matter, whatever else the file holds."""
    mend = "write it with numpy.savez or scipy.sparse.save_npz, without objects"
    if not path.is_file():
        raise DataError("is not a file", file=path, mend="remove it or write features there")
    parts = load_arrays(path, ("features", *_CSR_PARTS))
    names = ("features",) if "features" in parts else _CSR_PARTS
    if missing := [name for name in names if name not in parts]:
        raise DataError(f"there is no array '{missing[0]}' and no array 'features'", file=path, mend=mend)
    return {name: parts[name] for name in names}


def _from_dense(features: np.ndarray, path: Path) -> scipy.sparse.csr_array:
    if features.ndim != 2:
        what = f"has {features.ndim} dimensions"
        raise DataError(what, file=path, field="features", mend="write an array [nodes, features]")
    with np.errstate(over="ignore", invalid="ignore"):
        return scipy.sparse.csr_array(features.astype(np.float32))


def _from_csr_parts(parts: dict[str, np.ndarray], path: Path) -> scipy.sparse.csr_array:
    data, indices, indptr, shape = (parts[name] for name in _CSR_PARTS)
    mend = "write the data, indices, indptr and shape of a SciPy CSR matrix"
    if shape.shape != (2,) or min(shape) < 0 or any(part.ndim != 1 for part in (data, indices, indptr)):
        raise DataError("the CSR parts do not have the right dimensions", file=path, mend=mend)
    n_row, n_column = (int(size) for size in shape)
    # Signed, since unsigned integers wrap around where they are subtracted.
    steps = np.diff(indptr.astype(np.int64))
    whole = len(indptr) == n_row + 1 and indptr[0] == 0 and indptr[-1] == len(data) == len(indices)
    if not whole or (steps < 0).any():
        raise DataError("the row pointers do not fit the values", file=path, field="indptr", mend=mend)
    outside = np.flatnonzero((indices < 0) | (indices >= n_column))
    if len(outside):
        row = int(np.searchsorted(indptr, outside[0], side="right")) - 1
        what = f"row {row} (counted from 0) has a value in column {int(indices[outside[0]])} of {n_column}"
        raise DataError(what, file=path, field="indices", mend="correct the indices or the shape")
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = scipy.sparse.csr_array(
            (data.astype(np.float32), indices.astype(np.int64), indptr.astype(np.int64)), shape=(n_row, n_column)
        )
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix
