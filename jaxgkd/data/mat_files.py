"""Reads arrays of numbers and text from MATLAB's MAT files of versions 4 to 7, every length checked before it is used.

SciPy's reader trusts what a file says of itself, and a damaged file can take the whole process down with it. Cells,
structures, objects and sparse matrices are passed over.

Source: MathWorks, MAT-File Format.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Types of data elements, as NumPy's names without the byte order.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT_TYPES = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
# Classes of arrays.
_CHAR = 4
_NUMBERS = dict(zip(range(6, 16), ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), strict=True))
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_VERSION_4 = {0: "f8", 1: "f4", 2: "i4", 3: "i2", 4: "u2", 5: "u1"}


class _Element(NamedTuple):
    """A data element: its type and its bytes."""

    kind: int
    content: memoryview


def read_mat(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a MAT file by their names, text as an array of its rows.

    Raises:
      ValueError: the file is damaged, or not of these versions.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        return dict(_version_4(memoryview(content)))
    found = {}
    for element in _elements(memoryview(content)[128:], order):
        if element.kind == _COMPRESSED:
            element = _inflated(element.content, order)
        if element.kind == _MATRIX:
            name, array = _matrix(element.content, order)
            if array is not None:
                found[name] = array
    return found


def _elements(content: memoryview, order: str) -> Iterator[_Element]:
    at = 0
    while at + 8 <= len(content):
        tag, size = struct.unpack_from(f"{order}II", content, at)
        if tag >> 16:
            # A short element keeps its length in the upper half of its tag, and its bytes in what is the length else.
            kind, size, start, step = tag & 0xFFFF, tag >> 16, at + 4, 8
            if size > 4:
                raise ValueError("a short element is too long")
        else:
            kind, start = tag, at + 8
            step = 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(content):
            raise ValueError("an element reaches beyond the end")
        yield _Element(kind, content[start : start + size])
        at += step


def _inflated(content: memoryview, order: str) -> _Element:
    inflate = zlib.decompressobj()
    head = inflate.decompress(content, 8)
    if len(head) < 8:
        raise ValueError("a compressed element is empty")
    kind, size = struct.unpack(f"{order}II", head)
    body = inflate.decompress(inflate.unconsumed_tail, size) if size else b""
    if len(body) < size:
        raise ValueError("a compressed element is cut short")
    return _Element(kind, memoryview(body))


def _matrix(content: memoryview, order: str) -> tuple[str, np.ndarray | None]:
    parts = list(_elements(content, order))
    if len(parts) < 3 or len(parts[0].content) != 8:
        raise ValueError("an array has no header")
    (flags,) = struct.unpack(f"{order}I", parts[0].content[:4])
    kind = flags & 0xFF
    shape = tuple(_plain(parts[1], order).astype(np.int64).tolist())
    if len(shape) < 2 or any(size < 0 for size in shape):
        raise ValueError("an array has no shape")
    name = bytes(parts[2].content).decode("latin-1")
    n = math.prod(shape)
    if kind == _CHAR and len(shape) == 2 and len(parts) > 3:
        letters = _letters(parts[3], order)
        if len(letters) != n:
            raise ValueError("a text has another length than its shape")
        rows = ["".join(letters[row :: shape[0]]).rstrip() for row in range(shape[0])] if n else []
        return name, np.array(rows)
    if kind not in _NUMBERS:
        return name, None
    if len(parts) < (5 if flags & _COMPLEX else 4):
        raise ValueError("an array has no values")
    dtype = np.dtype("?" if flags & _LOGICAL else _NUMBERS[kind])
    values = [_plain(part, order) for part in parts[3 : 5 if flags & _COMPLEX else 4]]
    if any(len(part) != n for part in values):
        raise ValueError("an array has another length than its shape")
    if flags & _COMPLEX:
        return name, (values[0] + 1j * values[1]).reshape(shape, order="F")
    with np.errstate(invalid="ignore", over="ignore"):
        return name, values[0].astype(dtype).reshape(shape, order="F")


def _plain(element: _Element, order: str) -> np.ndarray:
    if element.kind not in _TYPES:
        raise ValueError(f"values are stored as type {element.kind}")
    return np.frombuffer(element.content, f"{order}{_TYPES[element.kind]}")


def _letters(element: _Element, order: str) -> str:
    if element.kind in _TEXT_TYPES:
        encoding = _TEXT_TYPES[element.kind]
        suffix = "" if encoding == "utf-8" else "-le" if order == "<" else "-be"
        return bytes(element.content).decode(encoding + suffix)
    return "".join(map(chr, _plain(element, order).tolist()))


def _version_4(content: memoryview) -> Iterator[tuple[str, np.ndarray]]:
    at = 0
    while at < len(content):
        if at + 20 > len(content):
            raise ValueError("a header is cut short")
        kind, rows, columns, imaginary, length = struct.unpack_from("<5i", content, at)
        precision, layout = kind // 10 % 10, kind % 10
        if not 0 <= kind < 100 or precision not in _VERSION_4 or min(rows, columns) < 0 or not 1 <= length < 512:
            raise ValueError("this is no MAT file of version 4 on a little-endian machine")
        dtype = np.dtype(f"<{_VERSION_4[precision]}")
        start, size = at + 20 + length, rows * columns * dtype.itemsize * (2 if imaginary else 1)
        if start + size > len(content):
            raise ValueError("an array reaches beyond the end")
        name = bytes(content[at + 20 : start]).rstrip(b"\0").decode("latin-1")
        if layout == 0 and not imaginary:
            values = np.frombuffer(content[start : start + size], dtype)
            yield name, values.reshape((rows, columns), order="F").astype(dtype.newbyteorder("="))
        at = start + size
