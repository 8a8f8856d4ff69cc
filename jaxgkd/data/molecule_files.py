"""Reads tables of SMILES and SD files record by record, so that files of any length stream, and pairs the two up."""

import csv
import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from jaxgkd.data.tables import LONGEST_CELL, check_header, reading
from jaxgkd.errors import DataError, shown

# Columns by these names, whatever their case, identify rows or divide them: never a label unless asked for.
_ID_COLUMNS = ("id", "idx", "index", "name", "mol_id", "molecule_id", "title")
_NEVER_LABELS = (*_ID_COLUMNS, "split", "")
# Behind a carriage return that no line feed follows.
_LONE_RETURN = re.compile(r"(?<=\r)(?!\n|$)")
_SDF_SUFFIXES = (".sdf", ".sd", ".sdf.gz", ".sd.gz")


class Record(NamedTuple):
    """One molecule as its file gives it.

    Attributes:
      row: its row in the table (the header is row 1), or its record in the SD file, counted from 1.
      smiles: the cell of the table, or None without a table.
      block: the mol block of the SD file, or None.
      labels: the cells of the label columns.
    """

    row: int
    smiles: str | None
    block: str | None
    labels: tuple[str, ...]


class SdfRecord(NamedTuple):
    """One record of an SD file: number from 1, title line, mol block and data fields."""

    number: int
    title: str
    block: str
    properties: dict[str, str]


def is_sdf(path: Path) -> bool:
    """Whether the name says that a file is an SD file."""
    return path.name.lower().endswith(_SDF_SUFFIXES)


class LineStream:
    """The lines of a file, gzipped or not.

    Attributes:
      share: of the file that has been read, from 0 to 1.
    """

    def __init__(self, path: Path):
        """Args: path: of the file."""
        self.path, self.share = path, 0.0

    def __iter__(self) -> Iterator[bytes]:
        """Lines with their ends. Raises DataError for whatever cannot be read."""
        with reading(self.path), open(self.path, "rb") as raw:
            size = max(self.path.stat().st_size, 1)
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if zipped else raw as lines:
                for count, line in enumerate(lines):
                    if count % 1024 == 0:
                        self.share = raw.tell() / size
                    yield line
        self.share = 1.0


def read_sdf(lines: LineStream) -> Iterator[SdfRecord]:
    """The records of an SD file. Raises DataError where the file holds none."""
    number, record = 0, []
    for line in lines:
        if not line.startswith(b"$$$$"):
            record.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            continue
        number += 1
        yield _sdf_record(number, record)
        record = []
    if any(line.strip() for line in record):
        number += 1
        yield _sdf_record(number, record)
    if not number:
        raise DataError("holds no record", file=lines.path, mend="give an SD file with molecules")


def read_csv_rows(lines: LineStream) -> Iterator[tuple[int, list[str]]]:
    """The rows of a comma-separated table with their numbers, the header first. Raises DataError naming the row."""
    row, width = 0, 0
    reader = csv.reader(_decoded(lines, lambda: row + 1), strict=True)
    while True:
        before = csv.field_size_limit(LONGEST_CELL)
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            mend = 'close every quote, and write a quote inside a quoted cell twice ("")'
            raise DataError("is not well-formed CSV", file=lines.path, row=row + 1, mend=mend) from error
        finally:
            csv.field_size_limit(before)
        row += 1
        if not cells:
            continue
        if not width:
            cells = [cell.strip() for cell in cells]
            check_header(cells, lines.path)
            if len(cells) == 1 and any(mark in cells[0] for mark in ";\t|"):
                raise DataError("is not separated by commas", file=lines.path, row=row, mend="save it as CSV")
            width = len(cells)
        elif len(cells) != width:
            what = f"has {len(cells)} {'cell' if len(cells) == 1 else 'cells'} where the header has {width}"
            mend = "add or remove cells, and quote those that hold a comma"
            raise DataError(what, file=lines.path, row=row, mend=mend)
        yield row, cells
    if not width:
        raise DataError("is empty", file=lines.path, mend="write a header and at least one row")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read, as positions.

    Attributes:
      smiles: of the SMILES, or None where an SD file gives the structures.
      identity: of what titles in an SD file are compared with, or None.
      labels: of the labels; label_names: what they are called.
    """

    smiles: int | None
    identity: int | None
    labels: tuple[int, ...]
    label_names: tuple[str, ...]


def choose_columns(
    header: Sequence[str],
    path: Path,
    *,
    labels: Sequence[str] | None,
    smiles_column: str | None,
    id_column: str | None,
    smiles_needed: bool,
) -> Columns:
    """Finds the columns of a table.

    Args:
      header: names of the columns.
      path: for errors.
      labels: names of label columns; None takes the one there is, ``("all",)`` all that are not SMILES or names.
      smiles_column: by default the one called ``smiles``, in any case.
      id_column: by default the first called like an identifier.
      smiles_needed: whether a table without SMILES is refused.

    Raises:
      DataError: a column is not there, or the choice is not clear.
    """

    def position(name: str, mend: str) -> int:
        if name in header:
            return header.index(name)
        found = ", ".join(f"'{column}'" for column in header[:20])
        what = f"there is no column '{shown(name)}', the columns are {shown(found, 300)}"
        raise DataError(what, file=path, row=1, mend=mend)

    if smiles_column is not None:
        smiles = position(smiles_column, "choose another SMILES column")
    else:
        called_so = [i for i, name in enumerate(header) if name.lower() == "smiles"]
        if len(called_so) > 1:
            mend = "rename all but the one to read"
            raise DataError("there are several columns of SMILES", file=path, row=1, mend=mend)
        if not called_so and smiles_needed:
            position("smiles", "call the column of SMILES so")
        smiles = called_so[0] if called_so else None
    if id_column is not None:
        identity = position(id_column, "choose another id column")
    else:
        identity = next((i for i, name in enumerate(header) if name.lower() in _ID_COLUMNS), None)
    possible = [i for i, name in enumerate(header) if name.lower() not in _NEVER_LABELS and i not in (smiles, identity)]
    if labels is None:
        if len(possible) > 1:
            names = ", ".join(f"'{header[i]}'" for i in possible[:20])
            mend = "choose with --label, or take --label all"
            raise DataError(f"there are several columns that may be labels: {names}", file=path, row=1, mend=mend)
        chosen = possible
    elif tuple(labels) == ("all",) and "all" not in header:
        chosen = possible
    else:
        chosen = [position(name, "choose another --label") for name in labels]
        if len(set(chosen)) < len(chosen):
            raise DataError("a label column is named twice", file=path, mend="name every --label once")
    return Columns(smiles, identity, tuple(chosen), tuple(header[i] for i in chosen))


def table_records(rows: Iterator[tuple[int, list[str]]], columns: Columns) -> Iterator[Record]:
    """The records of a table without an SD file."""
    assert columns.smiles is not None
    for row, cells in rows:
        yield Record(row, cells[columns.smiles], None, tuple(cells[i] for i in columns.labels))


def paired_records(
    rows: Iterator[tuple[int, list[str]]], columns: Columns, sdf: Iterator[SdfRecord], table: Path, sdf_path: Path
) -> Iterator[Record]:
    """The records of a table with the structures of an SD file beside it.

    Where the table has a column of identifiers and the first record's title is one of them, records are found by their
    titles, in the order of the SD file, rows without a record last; else record i belongs to row i, and
    rows beyond the last record have no structure but their SMILES.

    Raises:
      DataError: titles or identifiers repeat, a title is not in the table, or the SD file has more records than rows.
    """
    first = next(sdf)

    def record(row: int, cells: list[str], block: str | None) -> Record:
        smiles = None if columns.smiles is None else cells[columns.smiles]
        return Record(row, smiles, block, tuple(cells[i] for i in columns.labels))

    if columns.identity is None or not first.title:
        yield from _by_position(rows, first, sdf, record, sdf_path)
        return
    by_id: dict[str, tuple[int, list[str]]] = {}
    for row, cells in rows:
        name = cells[columns.identity].strip()
        if name in by_id:
            what = f"'{shown(name)}' was there before, in row {by_id[name][0]}"
            raise DataError(what, file=table, row=row, field=None, mend="give every row another identifier")
        by_id[name] = row, cells
    if first.title not in by_id:
        if columns.smiles is None:
            what = f"the title '{shown(first.title)}' is not in {table.name}, and there are no SMILES to compare with"
            raise DataError(what, file=sdf_path, row=first.number, mend="give the records the table's identifiers")
        yield from _by_position(
            iter(by_id.values()), first, _without_titles_of(by_id, sdf, table, sdf_path), record, sdf_path
        )
        return
    used = set()
    for entry in chain((first,), sdf):
        if entry.title not in by_id or entry.title in used:
            what = (
                f"the title '{shown(entry.title)}' was there before"
                if entry.title in used
                else f"the title '{shown(entry.title)}' is not in {table.name}"
            )
            raise DataError(what, file=sdf_path, row=entry.number, mend="give one record for a row of the table")
        used.add(entry.title)
        yield record(*by_id[entry.title], entry.block)
    for name, (row, cells) in by_id.items():
        if name not in used:
            yield record(row, cells, None)


def _without_titles_of(
    by_id: Mapping[str, object], sdf: Iterator[SdfRecord], table: Path, sdf_path: Path
) -> Iterator[SdfRecord]:
    """The records of a file that goes by position; raises DataError where one has a title that says otherwise."""
    for entry in sdf:
        if entry.title in by_id:
            what = f"the title '{shown(entry.title)}' is in {table.name}, that of the first record is not"
            mend = "give all records the table's identifiers, or none"
            raise DataError(what, file=sdf_path, row=entry.number, mend=mend)
        yield entry


def sdf_records(sdf: Iterator[SdfRecord], labels: Sequence[str], path: Path) -> Iterator[Record]:
    """The records of an SD file alone, with data fields as labels; raises DataError where none has such a field."""
    missing, some = set(labels), set()
    for entry in sdf:
        missing -= entry.properties.keys()
        some |= entry.properties.keys() if len(some) < 20 else set()
        cells = tuple(entry.properties.get(name, "") for name in labels)
        yield Record(entry.number, None, entry.block, cells)
    if missing:
        found = ", ".join(f"'{name}'" for name in sorted(some)[:20]) or "none"
        what = f"no record has a data field '{shown(min(missing))}', the fields are {shown(found, 300)}"
        raise DataError(what, file=path, mend="choose another --label")


def _by_position(rows, first, sdf, record, sdf_path) -> Iterator[Record]:
    entries = chain((first,), sdf)
    n_row = 0
    for row, cells in rows:
        n_row += 1
        entry = next(entries, None)
        yield record(row, cells, None if entry is None else entry.block)
    entry = next(entries, None)
    if entry is not None:
        what = f"has more records than the table has rows ({n_row})"
        raise DataError(what, file=sdf_path, row=entry.number, mend="give a record for every row, in their order")


def _sdf_record(number: int, lines: list[str]) -> SdfRecord:
    end = next((i for i, line in enumerate(lines) if line.startswith("M  END")), None)
    # A record without the line that ends its mol block is left to the parser of mol blocks, which says what is wrong.
    end = len(lines) if end is None else end + 1
    properties: dict[str, str] = {}
    name, values = None, []
    for line in [*lines[end:], ""]:
        if line.startswith(">") and "<" in line:
            if name is not None:
                properties[name] = "\n".join(values)
            name, values = line[line.index("<") + 1 :].rsplit(">", 1)[0], []
        elif name is not None and line:
            values.append(line)
        elif name is not None:
            properties[name] = "\n".join(values)
            name = None
    return SdfRecord(number, lines[0].strip() if lines else "", "\n".join(lines[:end]) + "\n", properties)


def _decoded(lines: LineStream, row) -> Iterator[str]:
    for number, line in enumerate(lines):
        try:
            text = line.decode("utf-8-sig" if not number else "utf-8")
        except UnicodeDecodeError as error:
            what = "is not a text file" if b"\0" in line else "is not UTF-8 text"
            raise DataError(what, file=lines.path, row=row(), mend="save it as CSV with UTF-8 encoding") from error
        if "\0" in text:
            raise DataError("is not a text file", file=lines.path, row=row(), mend="save it as CSV with UTF-8 encoding")
        # Tables of old spreadsheets end their rows with this alone.
        yield from _LONE_RETURN.split(text)
