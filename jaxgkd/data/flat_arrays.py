"""Arrays that grow on disk: written row by row in constant memory, read back memory-mapped.

Each is an ordinary ``.npy`` file, one after the other along the first axis. A folder of them appears whole or not at
all.
"""

import hashlib
import json
import shutil
import tempfile
import tokenize
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxgkd import processes
from jaxgkd.errors import DataError

_META = "meta.json"


class GrowingArray:
    """An ``.npy`` file to which rows are added at the end."""

    def __init__(self, path: Path, dtype: Any, row_shape: tuple[int, ...] = ()):
        """Begin the file.

        Args:
          path: of the file.
          dtype: of its numbers.
          row_shape: shape of a row.
        """
        self._dtype, self._row_shape, self._n_row = np.dtype(dtype), row_shape, 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        """Add ``rows`` ``[k, *row_shape]``."""
        rows = np.ascontiguousarray(rows, self._dtype)
        if rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows of {self._row_shape} cannot be followed by rows of {rows.shape[1:]}")
        self._file.write(rows.data if rows.size else b"")
        self._digest.update(rows.data if rows.size else b"")
        self._n_row += len(rows)

    def close(self) -> str:
        """Write the number of rows into the header and close; returns the SHA-256 of the rows."""
        self._file.seek(0)
        self._write_header()
        self._file.close()
        return self._digest.hexdigest()

    @property
    def kind(self) -> list[Any]:
        """The dtype and the shape, as JSON values."""
        return [self._dtype.str, [self._n_row, *self._row_shape]]

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the first dimension to grow, so it can be written again in its place.
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._n_row, *self._row_shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


class ArrayFolderWriter:
    """The arrays of a folder that is being written, made as they are first added to."""

    def __init__(self, folder: Path):
        """Args: folder: an empty folder."""
        self._folder, self._arrays = folder, {}

    def append(self, **rows: np.ndarray) -> None:
        """Add rows to the arrays of these names; the first ones given fix an array's dtype and shape of a row."""
        for name, values in rows.items():
            if name not in self._arrays:
                self._arrays[name] = GrowingArray(self._folder / f"{name}.npy", values.dtype, values.shape[1:])
            self._arrays[name].append(values)

    def finish(self, meta: dict[str, Any]) -> None:
        """Close all arrays and write ``meta`` beside them, with the hash of every array."""
        hashes = {name: array.close() for name, array in sorted(self._arrays.items())}
        content = meta | {"arrays": hashes, "kinds": {name: array.kind for name, array in self._arrays.items()}}
        content = json.loads(json.dumps(content))
        (self._folder / _META).write_text(json.dumps(content | {"seal": _seal(content)}), encoding="utf-8")

    def abandon(self) -> None:
        """Close all files, whatever is in them."""
        for array in self._arrays.values():
            array.close()


def array_folder(folder: Path, write: Callable[[ArrayFolderWriter], dict[str, Any]]) -> Path:
    """The folder of arrays, made by ``write`` when it is not there or not whole; warns of a folder that was damaged.

    Args:
      folder: where it is kept.
      write: adds rows to the writer it is given and returns what else is to be remembered, as JSON values.

    Raises:
      DataError: there is no room or no right to write it.
    """
    with processes.leader_first("array-folder"):
        if fault := _fault(folder):
            _make(folder, fault, write)
    return folder


def _make(folder: Path, fault: str, write: Callable[[ArrayFolderWriter], dict[str, Any]]) -> None:
    if folder.is_dir():
        warnings.warn(f"{folder / fault} is damaged or missing; the folder is made again.", stacklevel=3)
    with _room(folder) as temporary:
        writer = ArrayFolderWriter(temporary)
        try:
            meta = write(writer)
        except BaseException:
            writer.abandon()
            raise
        writer.finish(meta)
        if read_meta(folder) is None:
            # What lies there is damaged, or of a process that did the same work at the same time and came first.
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)


def read_meta(folder: Path) -> dict[str, Any] | None:
    """What was remembered with a folder of arrays, or None where the folder is not there or not whole."""
    return None if _fault(folder) else json.loads((folder / _META).read_text(encoding="utf-8"))


def _fault(folder: Path) -> str | None:
    """The name of a file that is missing or not what was written, if any; every file is read once a process."""
    try:
        content = (folder / _META).read_bytes()
        meta = json.loads(content)
        if meta.pop("seal") != _seal(meta):
            return _META
        hashes, kinds = meta["arrays"], meta["kinds"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _META
    for name, digest in hashes.items():
        try:
            array = open_array(folder, name)
            whole = [array.dtype.str, list(array.shape)] == kinds[name] and digest == _digest(
                folder / f"{name}.npy", (folder / f"{name}.npy").stat().st_mtime_ns
            )
        except (OSError, ValueError, KeyError, TypeError, SyntaxError, tokenize.TokenError):
            whole = False
        if not whole:
            return f"{name}.npy"
    return None


def _seal(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1024)
def _digest(path: Path, changed: int) -> str:
    """The SHA-256 of the rows of a file, about a second a gigabyte."""
    del changed
    digest, rows = hashlib.sha256(), np.load(path, mmap_mode="r", allow_pickle=False)
    for start in range(0, len(rows), step := max(1, 2**24 // max(1, rows[:1].nbytes))):
        digest.update(np.ascontiguousarray(rows[start : start + step]).data if rows.size else b"")
    return digest.hexdigest()


def open_array(folder: Path, name: str) -> np.ndarray:
    """An array of a folder, memory-mapped and read-only."""
    return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def content_hash(meta: dict[str, Any], fields: Sequence[str]) -> str:
    """SHA-256 over the arrays of a folder and over ``fields`` of what was remembered with them."""
    content = {"arrays": meta["arrays"]} | {field: meta[field] for field in fields}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def _room(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder``, gone at the end unless it was renamed."""
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        yield temporary
    except OSError as error:
        mend = "make room there, or set XDG_CACHE_HOME to another folder"
        raise DataError(f"cannot be written to ({error.strerror or error})", file=folder.parent, mend=mend) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
