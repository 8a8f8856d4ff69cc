"""Reads the arrays of scans: NPZ, NPY, MAT (up to version 7), and tables of numbers as CSV, TSV, text or AFNI's 1D."""

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxgkd.data.array_files import load_arrays
from jaxgkd.data.mat_files import read_mat
from jaxgkd.data.tables import reading
from jaxgkd.errors import DataError, shown

TEXT_ENDINGS = (".csv", ".csv.gz", ".tsv", ".txt", ".1d")
SCAN_ENDINGS = (".npy", ".mat", *TEXT_ENDINGS)
# What pandas calls the column of row numbers that it writes in front.
_ROW_NUMBERS = ("", "Unnamed: 0")
# Names under which toolboxes save a subject's series or matrix, of which a file may hold several.
_USUAL = ("series", "timeseries", "time_series", "ROISignals", "correlation", "connectivity", "data")


@dataclass(frozen=True)
class Scan:
    """What one file holds of one subject.

    Fields:
      path: the file.
      values: [rows, columns] float64.
      header: [columns] as the file names them, or None.
    """

    path: Path
    values: np.ndarray
    header: tuple[str, ...] | None


def ending(path: Path) -> str:
    """The ending of a scan's file in lower case, "" where it is none of `SCAN_ENDINGS`."""
    name = path.name.lower()
    return next((each for each in SCAN_ENDINGS if name.endswith(each)), "")


def read_scan(path: Path) -> Scan:
    """The series or the matrix of one subject.

    Of a MAT file that holds several matrices the one is taken that has a usual name (series, ROISignals,
    correlation, …).

    Raises:
      DataError: the file cannot be read or does not hold one matrix of numbers.
    """
    if ending(path) in TEXT_ENDINGS:
        return _read_text(path)
    arrays = {name: array for name, array in read_arrays(path).items() if array.ndim == 2 and min(array.shape) > 1}
    name = next((name for name in _USUAL if name in arrays), None) or (next(iter(arrays)) if len(arrays) == 1 else None)
    if name is None:
        what = f"holds {len(arrays)} matrices ({shown(', '.join(arrays), 100)})" if arrays else "holds no matrix"
        raise DataError(what, file=path, mend="save one matrix a file, named series or correlation")
    array = arrays[name]
    if array.dtype.kind not in "fiu":
        raise DataError(f"holds {array.dtype} values", file=path, field=name, mend="save it as real numbers")
    with np.errstate(invalid="ignore"):  # a NaN of the signalling kind
        return Scan(path, array.astype(np.float64), None)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an NPZ, NPY or MAT file by their names; that of an NPY file has the name "data".

    Raises:
      DataError: it cannot be read, or holds Python objects.
    """
    kind = path.suffix.lower()
    if kind not in (".npz", ".npy", ".mat"):
        raise DataError("is not an NPZ, NPY or MAT file", file=path, mend="save it as one of them")
    if kind != ".mat":
        return load_arrays(path)
    with reading(path):
        content = path.read_bytes()
    if content[:8] == b"\x89HDF\r\n\x1a\n" or content[:10] == b"MATLAB 7.3":
        raise DataError("is a MAT file of version 7.3", file=path, mend="save it with the option -v7")
    try:
        return read_mat(content)
    except (ValueError, OverflowError, MemoryError, struct.error, zlib.error) as error:
        what = f"is not a readable MAT file ({shown(str(error), 80)})"
        raise DataError(what, file=path, mend="save it again with the option -v7") from error


def _read_text(path: Path) -> Scan:
    with reading(path):
        content = gzip.decompress(path.read_bytes()) if path.name.lower().endswith(".gz") else path.read_bytes()
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", file=path, mend="save it as a table of numbers") from error
    numbered = [(row, line.strip()) for row, line in enumerate(lines, start=1) if line.strip()]
    # AFNI writes the numbers of regions as a comment, each with its own mark.
    comments = [line.split() for _, line in numbered if line.startswith("#")]
    comments = [cells for cells in comments if all(cell.startswith("#") and cell != "#" for cell in cells)]
    body = [(row, line) for row, line in numbered if not line.startswith("#")]
    if not body:
        raise DataError("holds no numbers", file=path, mend="write one row a time point, one column a region")
    mark = next((mark for mark in ("\t", ",", ";") if mark in body[0][1]), None)
    header = None
    if not _all_numbers(body[0][1].split(mark)):
        header = tuple(cell.strip().strip('"') for cell in body[0][1].split(mark))
        body = body[1:]
    values = _numbers(body, mark, path, None if header is None else len(header))
    if header is not None and header[0] in _ROW_NUMBERS:
        if not np.array_equal(values[:, 0] - values[0, 0], np.arange(len(values))):
            raise DataError("the first column has no name", file=path, row=1, mend="name its region, or leave it out")
        header, values = header[1:], values[:, 1:]
    if header is None and comments and len(comments[-1]) == values.shape[1]:
        header = tuple(cell.lstrip("#") for cell in comments[-1])
    return Scan(path, values, header)


def _numbers(body: list[tuple[int, str]], mark: str | None, path: Path, width: int | None) -> np.ndarray:
    rows = [line.split(mark) for _, line in body]
    if not rows:
        raise DataError("holds no numbers below its header", file=path, mend="write one row a time point")
    width = width or len(rows[0])
    for (row, _), cells in zip(body, rows, strict=True):
        if len(cells) != width:
            what = f"has {len(cells)} columns where the first row has {width}"
            raise DataError(what, file=path, row=row, mend="write one number for every region")
    try:
        return np.array(rows, np.float64)
    except ValueError as error:
        row, cell = next(
            (row, cell)
            for (row, _), cells in zip(body, rows, strict=True)
            for cell in cells
            if not _all_numbers([cell])
        )
        raise DataError(f"'{shown(cell)}' is not a number", file=path, row=row, mend="write numbers only") from error


def _all_numbers(cells: list[str]) -> bool:
    try:
        [float(cell) for cell in cells]
    except ValueError:
        return False
    return True
