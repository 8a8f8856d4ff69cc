"""The public sets of molecules out of their files: tables of MoleculeNet, QM7, QM9 and PCQM4Mv2 with coordinates."""

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from jaxgkd.data.archives import Limits, Readable, read_gzip, read_members
from jaxgkd.data.tables import reading
from jaxgkd.errors import DataError, shown

_TABLE = Limits(size=1 << 30, files=10)
_STRUCTURES = Limits(size=64 << 30, files=20)
_PIECE = 1 << 20
_RECORD_END = b"\n$$$$"
# Columns that are neither SMILES nor labels, whatever their case.
_OTHERS = ("smiles", "mol", "mol_id", "name", "num", "id", "idx", "cid", "iupac", "cmpd_chemblid", "compound id", "")


def write_table(source: Path, folder: Path, name: str, labels: Sequence[str]) -> None:
    """A table of MoleculeNet as ``NAME.csv`` with ``id``, ``smiles`` and the labels.

    Args:
      source: ``.csv`` or ``.csv.gz`` with a column ``smiles`` or ``mol``.
      folder: to write into; name: of the file.
      labels: columns that are kept; all that are neither SMILES nor names where there are none.

    Raises:
      DataError: a column is missing.
    """
    if source.name.endswith(".gz"):
        rows = _rows(read_gzip(source, _TABLE), source)
    else:
        with reading(source):
            rows = _rows(io.BytesIO(source.read_bytes()), source)
    header = next(rows)
    lowered = [column.strip().lower() for column in header]
    smiles = next((lowered.index(column) for column in ("smiles", "mol") if column in lowered), None)
    missing = [label for label in ("smiles" if smiles is None else "", *labels) if label and label not in header]
    if smiles is None or missing:
        raise DataError(f"has no column '{missing[0]}'", file=source, row=1, mend="delete it and fetch it again")
    kept = [header.index(label) for label in labels]
    kept = kept or [i for i, column in enumerate(lowered) if column not in _OTHERS]
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["id", "smiles", *(header[i] for i in kept)])
        for number, row in enumerate(rows):
            writer.writerow([number, row[smiles], *(row[i] for i in kept)])


def write_gdb(source: Path, folder: Path, name: str) -> None:
    """QM7 or QM9 as ``NAME.csv`` and ``NAME.sdf.gz``: an archive with an SD file and a table beside it.

    Raises:
      DataError: one of them is missing.
    """
    found = set()
    for member, file in read_members(source, lambda member: member.endswith((".sdf", ".sdf.csv")), _STRUCTURES):
        if member.endswith(".csv"):
            with (folder / f"{name}.csv").open("wb") as out:
                _copy(file, out)
            found.add(".csv")
        else:
            with gzip.open(folder / f"{name}.sdf.gz", "wb", compresslevel=3) as out:
                _copy(file, out)
            found.add(".sdf")
    if len(found) < 2:
        raise DataError("holds no SD file with a table", file=source, mend="delete it and fetch it again")


def write_pcqm4m(table: Path, structures: Path, folder: Path, name: str) -> None:
    """PCQM4Mv2's training molecules as ``NAME.csv``, and their coordinates as ``NAME.sdf.gz``.

    The table begins with those that have coordinates; molecules that validate have a gap as well, but none of these.

    Args:
      table: pcqm4m-v2.zip, with ``idx``, ``smiles`` and ``homolumogap`` (empty for those that are tested on).
      structures: pcqm4m-v2-train.sdf.tar.gz, in the order of the table.
      folder: to write into; name: of the files.

    Raises:
      DataError: one of them does not hold what it should.
    """
    n_record = 0
    for _, file in read_members(structures, lambda member: member.endswith(".sdf"), _STRUCTURES):
        with gzip.open(folder / f"{name}.sdf.gz", "wb", compresslevel=1) as out:
            n_record = _copy(file, out)
        break
    if not n_record:
        raise DataError("holds no SD file", file=structures, mend="delete it and fetch it again")
    for _, file in read_members(table, lambda member: member.endswith("/raw/data.csv.gz"), _STRUCTURES):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out, lineterminator="\n")
            rows = _rows(gzip.GzipFile(fileobj=file), table)  # type: ignore[arg-type]
            header = next(rows)
            gap = header.index("homolumogap") if "homolumogap" in header else -1
            if gap < 0:
                raise DataError("has no column 'homolumogap'", file=table, mend="delete it and fetch it again")
            writer.writerow(header)
            writer.writerows(islice((row for row in rows if row[gap].strip()), n_record))
        return
    raise DataError("holds no raw/data.csv.gz", file=table, mend="delete it and fetch it again")


def _rows(lines: Readable, path: Path) -> Iterator[list[str]]:
    """The rows of a table, each as long as the first."""
    width = 0
    reader = csv.reader(line.decode("utf-8-sig", "replace") for line in lines)
    try:
        for number, row in enumerate(reader, start=1):
            if not row:
                continue
            width = width or len(row)
            if len(row) != width:
                what = f"has {len(row)} cells where the header has {width}"
                raise DataError(what, file=path, row=number, mend="delete it and fetch it again")
            yield row
    except csv.Error as error:
        raise DataError(f"is no table ({shown(str(error))})", file=path, mend="delete it and fetch it again") from error
    if not width:
        raise DataError("is empty", file=path, mend="delete it and fetch it again")


def _copy(source: Readable, target) -> int:
    """Copies a file; how many lines of it end a record of an SD file."""
    count, before = 0, b"\n"
    while piece := source.read(_PIECE):
        target.write(piece)
        count += (before + piece).count(_RECORD_END)
        before = (before + piece)[1 - len(_RECORD_END) :]
    return count
