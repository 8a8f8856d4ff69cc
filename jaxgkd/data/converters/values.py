"""What converters share: arrays out of tensors, classes out of labels, parts of a split out of masks and indices."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import scipy.sparse

from jaxgkd.errors import DataError, shown

_PARTS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}


def as_array(value: Any, field: str) -> np.ndarray:
    """A tensor, list or array as numpy; a sparse or half-precision tensor as a dense one of numbers.

    Raises:
      DataError: it is no array, or one of Python objects.
    """
    for method in ("detach", "cpu", "to_dense"):
        if hasattr(value, method):
            value = getattr(value, method)()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        # numpy has no bfloat16; as single-precision numbers the values are the same.
        if not hasattr(value, "float"):
            raise DataError(f"{type(value).__name__} is no array", field=field, mend="give numbers") from error
        array = np.asarray(value.float())
    if array.dtype.kind not in "biuf":
        raise DataError(f"holds {array.dtype} values", field=field, mend="give numbers")
    return array


def edge_ends(value: Any, field: str = "edge_index") -> tuple[np.ndarray, np.ndarray]:
    """Senders and receivers [e] of an array [2, e] of whole numbers."""
    array = as_array(value, field)
    if array.ndim != 2 or len(array) != 2 or array.dtype.kind not in "iu":
        raise DataError(f"is {array.dtype} {list(array.shape)}", field=field, mend="give whole numbers [2, edges]")
    return array[0].astype(np.int64), array[1].astype(np.int64)


def classes_of(value: Any, n: int, field: str, names: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers [n] int32, −1 where there is none, and the names of the classes.

    Args:
      value: [n] or [n, 1] whole numbers, or such with NaN where there is no label.
      n: number of items.
      field: for errors.
      names: of the classes; by default their numbers.

    Raises:
      DataError: several labels an item, fractions, or a class without a name.
    """
    array = as_array(value, field)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (n,):
        mend = "give one class number an item; several labels an item are not read"
        raise DataError(f"has shape {list(array.shape)} for {n} items", field=field, mend=mend)
    if array.dtype.kind == "f":
        whole = np.where(np.isnan(array), -1, array)
        if (whole != np.floor(whole)).any():
            raise DataError("holds fractions, which are no classes", field=field, mend="give whole numbers")
        array = whole
    labels = np.maximum(array.astype(np.int64), -1)
    n_class = int(labels.max(initial=-1)) + 1
    if n_class > 2 * n + 1000:
        raise DataError(f"numbers a class {n_class - 1}", field=field, mend="number the classes 0, 1, 2, …")
    names = [str(number) for number in range(n_class)] if names is None else [str(name) for name in names]
    if len(names) < n_class:
        raise DataError(f"numbers {n_class} classes and {len(names)} have names", field=field, mend="name them all")
    return labels.astype(np.int32), tuple(names)


def features_of(value: Any, n: int, field: str) -> scipy.sparse.csr_array:
    """Features [n, f] float32."""
    if isinstance(value, scipy.sparse.sparray | scipy.sparse.spmatrix):
        matrix = scipy.sparse.csr_array(value)
    else:
        array = as_array(value, field)
        if array.ndim != 2:
            raise DataError(f"has {array.ndim} dimensions", field=field, mend="give features [nodes, f]")
        matrix = scipy.sparse.csr_array(array.astype(np.float32))
    shape = cast(tuple[int, int], matrix.shape)
    if shape[0] != n or not np.isfinite(matrix.data).all():
        what = f"has shape {list(shape)} for {n} nodes, or a value that is not finite"
        raise DataError(what, field=field, mend="give one row of finite numbers a node")
    return scipy.sparse.csr_array(matrix.astype(np.float32))


def texts_of(value: Any, n: int, field: str) -> list[str]:
    """n texts, None as "".

    Raises:
      DataError: another number of them, or something that is no text.
    """
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        raise DataError("is no list of texts", field=field, mend="give one text a node")
    texts = ["" if text is None else text for text in value]
    odd = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if odd is not None:
        raise DataError(f"number {odd} is {type(texts[odd]).__name__}, not text", field=field, mend="give texts")
    if len(texts) != n:
        raise DataError(f"has {len(texts)} texts for {n} nodes", field=field, mend="give one text a node")
    return [str(text).strip() for text in texts]


def split_of_masks(masks: Mapping[str, Any], n: int, column: int) -> np.ndarray | None:
    """[n] of "train", "valid", "test" or "" from masks [n] or [n, splits], or None where there are none.

    Raises:
      DataError: a mask has another shape, no such column, or an item is in two parts.
    """
    parts = {part: mask for part, mask in masks.items() if mask is not None}
    if not parts:
        return None
    split = np.full(n, "", "<U5")
    for part, mask in parts.items():
        array = as_array(mask, f"{part}_mask").astype(bool)
        if array.ndim == 2 and len(array) == n and column < array.shape[1]:
            array = array[:, column]
        if array.shape != (n,):
            what = f"has shape {list(array.shape)} for {n} nodes"
            raise DataError(what, field=f"{part}_mask", mend="give one mask a node, or choose another split")
        _fill(split, np.flatnonzero(array), part)
    return split


def split_of_indices(indices: Mapping[str, Any] | None, n: int) -> np.ndarray | None:
    """[n] of "train", "valid", "test" or "" from lists of items, or None."""
    if indices is None:
        return None
    split = np.full(n, "", "<U5")
    for part, items in indices.items():
        if part not in _PARTS:
            continue
        rows = as_array(items, f"split {part}")
        if rows.dtype.kind not in "iu" or (len(rows) and (rows.min() < 0 or rows.max() >= n)):
            raise DataError(f"names items that are not there ({n} are)", field=f"split {part}", mend="correct it")
        _fill(split, rows, part)
    return split if (split != "").any() else None


def part_named(name: str) -> str:
    """ "train", "valid" or "test" for a split's name, "" for any other.

    >>> part_named("validation"), part_named("unsupervised")
    ('valid', '')
    """
    return _PARTS.get(name, "")


def _fill(split: np.ndarray, rows: np.ndarray, part: str) -> None:
    taken = rows[split[rows] != ""]
    if len(taken):
        what = f"item {int(taken[0])} is in the {split[taken[0]]} part too"
        raise DataError(what, field=f"{shown(part)}", mend="keep it in one of them")
    split[rows] = _PARTS[part]
