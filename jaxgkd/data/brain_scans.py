"""Scans as correlations: checks series and matrices of all subjects and says what was mended.

A region that was not covered (no numbers at all, or a constant series) has no correlation: it gets 0 with all others,
and is counted. A single missing number among others is refused, since nobody can tell what it should be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jaxgkd.data.brain_files import SCAN_ENDINGS, Scan, ending, read_arrays, read_scan
from jaxgkd.data.brain_subjects import subject_key
from jaxgkd.data.connectivity import correlation, from_upper
from jaxgkd.errors import DataError

# Half precision rounds by 5e-4 near 1.
_TOLERANCE = 2e-3
_SHORTEST = 5
_SUBJECT_KEYS = ("subject", "subjects", "subject_id", "subject_ids", "sub_id")
_UPPER_KEYS = ("fc_upper", "upper")
_MATRIX_KEYS = ("correlation", "correlations", "connectivity", "fc", "matrices")
_SERIES_KEYS = ("series", "timeseries", "time_series")


@dataclass(frozen=True, eq=False)
class Scans:
    """What the files hold, before subjects are matched.

    Fields:
      path: the file or the folder.
      subjects: [n] ids, or None where the order of the table is meant.
      correlations: [n, r, r] float32, symmetric with 1 on the diagonal.
      series: [n] arrays [time, r] float32, or None where matrices were read.
      header: [r] names of the columns, or None.
      files: what was read.
      notes: what was mended.
    """

    path: Path
    subjects: tuple[str, ...] | None
    correlations: np.ndarray
    series: tuple[np.ndarray, ...] | None
    header: tuple[str, ...] | None
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def read_scan_array(path: Path) -> Scans:
    """All subjects from one file, with one of

    - ``fc_upper`` [n, r (r − 1) / 2], entries above the diagonal row by row,
    - ``correlation`` (or ``connectivity``, …) [n, r, r],
    - ``series`` [n, time, r],

    and their ids in ``subject`` [n]; without ids, and in an NPY file, they come in the order of the table of subjects.

    Raises:
      DataError: the file cannot be read, holds none of these, or its values cannot be used.
    """
    arrays = read_arrays(path)
    subjects = next((arrays[name] for name in _SUBJECT_KEYS if name in arrays), None)
    if subjects is not None:
        subjects = tuple(str(each).strip() for each in np.ravel(subjects))
    kinds = {"upper": _UPPER_KEYS, "matrix": _MATRIX_KEYS, "series": _SERIES_KEYS}
    found = [(kind, name) for kind, names in kinds.items() for name in names if name in arrays]
    if path.suffix.lower() == ".npy":
        # A matrix is as wide as it is high and has itself on the diagonal; a series hardly ever is.
        square = arrays["data"].ndim == 3 and arrays["data"].shape[1] == arrays["data"].shape[2]
        found = [("upper" if arrays["data"].ndim == 2 else "matrix" if square else "series", "data")]
    if len(found) != 1:
        what = (
            f"holds {' and '.join(name for _, name in found)}" if found else f"holds {', '.join(arrays) or 'nothing'}"
        )
        raise DataError(what, file=path, mend="save one array, named series, correlation or fc_upper, and subject")
    kind, name = found[0]
    values = arrays[name]
    if values.dtype.kind not in "fiu" or values.ndim != (2 if kind == "upper" else 3) or not values.size:
        what = f"is {values.dtype} {list(values.shape)}"
        mend = "save real numbers, [n, r (r − 1) / 2] for fc_upper and [n, …, r] for the others"
        raise DataError(what, file=path, field=name, mend=mend)
    if subjects is not None and len(subjects) != len(values):
        what = f"has {len(values)} scans and {len(subjects)} subjects"
        raise DataError(what, file=path, field=name, mend="save one subject a scan")
    names = subjects or tuple(f"number {i} (counted from 1)" for i in range(1, len(values) + 1))
    _refuse_duplicates(names, path)
    if kind == "series":
        series = [_single(one) for one in values]
        correlations, notes = series_correlations(series, names, path)
        return Scans(path, subjects, correlations, tuple(series), None, (path,), notes)
    matrices = from_upper(_single(values), field=name, file=path) if kind == "upper" else _single(values)
    correlations, notes = checked_correlations(matrices, names, path)
    return Scans(path, subjects, correlations, None, None, (path,), notes)


def read_scan_folder(folder: Path, holds: Literal["series", "correlation"]) -> Scans:
    """One file a subject: its series [time, r], or its matrix of correlations [r, r].

    Raises:
      DataError: there are no files, one cannot be read, or they do not fit together.
    """
    paths = sorted(path for path in folder.iterdir() if ending(path) and not path.name.startswith("."))
    if not paths:
        raise DataError(f"holds no scans ({', '.join(SCAN_ENDINGS)})", file=folder, mend="put one file a subject there")
    scans = [read_scan(path) for path in paths]
    names = tuple(path.name[: -len(ending(path))] for path in paths)
    _refuse_duplicates(names, folder)
    _check_widths(scans)
    headers = {scan.header for scan in scans if scan.header is not None}
    if len(headers) > 1:
        first = next(scan for scan in scans if scan.header is not None)
        odd = next(scan for scan in scans if scan.header not in (None, first.header))
        what = f"names other columns than {first.path.name}"
        raise DataError(what, file=odd.path, row=1, mend="extract all subjects with the same atlas and order")
    header = next(iter(headers), None)
    values = [_single(scan.values) for scan in scans]
    if holds == "correlation":
        odd = next((scan for scan in scans if scan.values.shape[0] != scan.values.shape[1]), None)
        if odd is not None:
            what = f"is a matrix of {odd.values.shape[0]} × {odd.values.shape[1]}"
            raise DataError(what, file=odd.path, mend="save a square one, or put series into a folder named series")
        correlations, notes = checked_correlations(np.stack(values), names, folder)
        return Scans(folder, names, correlations, None, header, tuple(paths), notes)
    correlations, notes = series_correlations(values, names, folder)
    return Scans(folder, names, correlations, tuple(values), header, tuple(paths), notes)


def checked_correlations(
    matrices: np.ndarray, subjects: Sequence[str], file: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Correlation matrices made exactly symmetric with 1 on the diagonal, and notes on missing regions.

    Args:
      matrices: [n, r, r] float32; what stands on the diagonal is not read.
      subjects: [n] names, for errors; file: for errors.

    Raises:
      DataError: a matrix is not symmetric, has a NaN among numbers, a value outside [−1, 1], or no number at all.
    """
    r = matrices.shape[-1]
    if matrices.ndim != 3 or matrices.shape[1] != r or r < 2:
        raise DataError(f"has matrices of shape {list(matrices.shape[1:])}", file=file, mend="save square ones")
    matrices = matrices.copy()
    diagonal = np.arange(r)
    matrices[:, diagonal, diagonal] = 0.0
    unknown = ~np.isfinite(matrices)
    if unknown.any():
        missing = unknown.sum(axis=2) == r - 1  # all but the diagonal
        outside = unknown & ~missing[:, :, None] & ~missing[:, None, :]
        if outside.any():
            i, a, b = (int(at[0]) for at in np.nonzero(outside))
            what = f"subject {subjects[i]} has no number between regions {a + 1} and {b + 1}"
            raise DataError(what, file=file, mend="compute it again, or leave the subject out")
        matrices[unknown] = 0.0
    skewed = np.abs(matrices - matrices.swapaxes(1, 2)).reshape(len(matrices), -1).max(axis=1)
    if (skewed > _TOLERANCE).any():
        i = int(np.argmax(skewed > _TOLERANCE))
        what = f"the matrix of subject {subjects[i]} is not symmetric (by up to {skewed[i]:.2g})"
        raise DataError(what, file=file, mend="save correlations, which are")
    largest = np.abs(matrices).reshape(len(matrices), -1).max(axis=1)
    if (largest > 1 + _TOLERANCE).any():
        i = int(np.argmax(largest))
        what = f"subject {subjects[i]} has a value of size {largest[i]:.3g}, which no correlation has"
        raise DataError(what, file=file, mend="save correlations (the tanh of Fisher's z), not z or covariances")
    if (skewed > 0).any():
        matrices = (matrices + matrices.swapaxes(1, 2)) / 2
    np.clip(matrices, -1, 1, out=matrices)
    silent = (matrices == 0).all(axis=2)
    _refuse_empty(silent, subjects, file)
    matrices[:, diagonal, diagonal] = 1.0
    return matrices, _missing_note(silent)


def series_correlations(
    series: Sequence[np.ndarray], subjects: Sequence[str], file: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Correlations of the series of all subjects, and notes on their lengths and on constant regions.

    Args:
      series: [n] arrays [time, r]; regions without any number become 0 in place.
      subjects: [n] names, for errors; file: for errors.

    Raises:
      DataError: a series is too short, has a NaN among numbers, or every region of a subject is missing or constant.
    """
    correlations = np.empty((len(series), series[0].shape[1], series[0].shape[1]), np.float32)
    silent = np.zeros(correlations.shape[:2], bool)
    for i, (values, subject) in enumerate(zip(series, subjects, strict=True)):
        if len(values) < _SHORTEST:
            what = f"subject {subject} has {len(values)} time points"
            raise DataError(what, file=file, mend=f"give series of at least {_SHORTEST}, one row a time point")
        unknown = ~np.isfinite(values)
        if unknown.any():
            partly = unknown.any(axis=0) & ~unknown.all(axis=0)
            if partly.any():
                what = f"subject {subject} has a NaN in the series of region {int(np.argmax(partly)) + 1}"
                raise DataError(what, file=file, mend="extract it again, or leave the subject out")
            values[unknown] = 0.0
        silent[i] = np.ptp(values, axis=0) == 0
        correlations[i] = correlation(values)
    _refuse_empty(silent, subjects, file)
    lengths = [len(values) for values in series]
    notes = [f"series of {min(lengths):,} to {max(lengths):,} time points"] if min(lengths) < max(lengths) else []
    return correlations, (*notes, *_missing_note(silent))


def _single(values: np.ndarray) -> np.ndarray:
    """In single precision; what is too large for it becomes infinite, which is refused further on."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)


def _refuse_empty(silent: np.ndarray, subjects: Sequence[str], file: Path) -> None:
    empty = silent.all(axis=1)
    if empty.any():
        what = f"every region of subject {subjects[int(np.argmax(empty))]} is missing or constant"
        raise DataError(what, file=file, mend="leave the subject out")


def _missing_note(silent: np.ndarray) -> tuple[str, ...]:
    count, subjects = int(silent.sum()), int(silent.any(axis=1).sum())
    if not count:
        return ()
    regions = f"{count:,} missing or constant region{'' if count == 1 else 's'}"
    return (f"{regions} in {subjects:,} subject{'' if subjects == 1 else 's'}, with correlation 0 to all others",)


def _check_widths(scans: Sequence[Scan]) -> None:
    widths = [scan.values.shape[1] for scan in scans]
    usual = max(set(widths), key=widths.count)
    odd = next((scan for scan in scans if scan.values.shape[1] != usual), None)
    if odd is not None:
        what = f"has {odd.values.shape[1]} regions where most subjects have {usual}"
        raise DataError(what, file=odd.path, mend="extract it with the same atlas, one column a region")


def _refuse_duplicates(subjects: Sequence[str], file: Path) -> None:
    seen: set[str] = set()
    for subject in subjects:
        if subject_key(subject) in seen:
            raise DataError(f"subject {subject} is there twice", file=file, mend="keep one scan a subject")
        seen.add(subject_key(subject))
