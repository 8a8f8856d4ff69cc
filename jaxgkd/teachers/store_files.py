"""The files of a store: numbers as they lie on the disk, written whole, checked by their hashes."""

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.errors import StoreError
from jaxgkd.teachers.manifest import DTYPES


def to_disk(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values rounded to a store's dtype, as an array that ``.npy`` knows."""
    # What overflows becomes infinite here, and is refused by name where it is written.
    with np.errstate(over="ignore"):
        if dtype != "bfloat16":
            return np.ascontiguousarray(values, dtype=DTYPES[dtype])
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # Round to nearest, ties to even, on the upper half; NaN is kept from rounding over into another value.
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(bits.view(np.float32)), 0x7FC0, rounded).astype(np.uint16)


def from_disk(values: np.ndarray) -> np.ndarray:
    """Float32 values of what `to_disk` made: a bfloat16's 16 bits are the upper half of the same float32's."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def damaged_file(folder: Path, chunk: Mapping[str, Any]) -> str | None:
    """The name of a chunk's file that is missing or not what was written, if any."""
    files = chunk["files"].values()
    return next((each["file"] for each in files if not is_whole(folder, each["file"], each["sha256"])), None)


def is_whole(folder: Path, name: str, sha256: str) -> bool:
    """Whether a folder holds a file of that name and hash."""
    # A name with a folder in it was not written here and could lead anywhere.
    return Path(name).name == name and (folder / name).is_file() and _sha256(folder / name) == sha256


def npy_bytes(values: np.ndarray) -> bytes:
    """An array as the content of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, content: bytes) -> str:
    """Put a file in place whole or not at all, even through a power cut; returns its sha256."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        # On a full disk half a file is in the way.
        part.unlink(missing_ok=True)
        raise
    # The new name is only safe once the folder that lists it is on the disk as well.
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return hashlib.sha256(content).hexdigest()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        place = error.filename or folder
        raise StoreError(
            f"cannot be used ({error.strerror or error})",
            file=place,
            mend="choose another folder or set XDG_CACHE_HOME, and check rights and free space",
        ) from None
