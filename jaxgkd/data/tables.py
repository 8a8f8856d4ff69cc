"""Reads a table, CSV, gzipped CSV or Parquet, into columns of text, and can name the row of whatever is wrong with it.

All three formats give the same text for the same content, so what is read further on does not depend on the format.
"""

import csv
import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxgkd.errors import DataError, shown

# Characters of a cell: the csv module refuses more than 131,072 unless told otherwise, which whole articles can exceed.
LONGEST_CELL = 2**31 - 1
_SUFFIXES = (".csv", ".csv.gz", ".parquet")


def is_text(text: str) -> bool:
    """Whether ``text`` can be written to a file; half of a surrogate pair, which JSON can spell, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Table:
    """A table as text, whatever file it came from.

    Attributes:
      path: the file it was read from.
      columns: for every column its cells as text, "" where empty. Line breaks inside a cell are kept.
      rows: for every record its row in a spreadsheet, the header being row 1. A record counts as one row even where a
        quoted cell holds line breaks, and blank lines count as rows though they are no records. In a Parquet file
        record i (from 0) is row i + 2.
      other_kinds: Parquet columns that hold neither text nor numbers, and what they hold.
    """

    path: Path
    columns: dict[str, list[str]]
    rows: list[int]
    other_kinds: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str, mend: str | None = None) -> list[str]:
        """The cells of column ``name``. Raises DataError, with the columns there are, when it is missing."""
        if name in self.other_kinds:
            raise DataError(
                f"holds {shown(self.other_kinds[name])} values",
                file=self.path,
                field=shown(name),
                mend="write it as text or numbers",
            )
        if name not in self.columns:
            found = ", ".join(f"'{column}'" for column in list(self.columns)[:20])
            raise DataError(
                f"there is no column '{shown(name)}', the columns are {shown(found, 300)}",
                file=self.path,
                row=1,
                mend=mend or f"add a column '{shown(name)}' (columns are separated by commas)",
            )
        return self.columns[name]


def find_table(folder: Path, stem: str) -> Path:
    """The one file ``stem``.csv, .csv.gz or .parquet in ``folder``. Raises DataError when there is none or several."""
    try:
        found = [folder / f"{stem}{suffix}" for suffix in _SUFFIXES if (folder / f"{stem}{suffix}").exists()]
    except OSError as error:
        raise DataError(
            f"cannot be looked into ({error.strerror})", file=folder, mend="allow reading the folder"
        ) from error
    if not found:
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise DataError(what, file=folder, mend=f"give the folder that holds {stem}.csv")
        names = ", ".join(stem + suffix for suffix in _SUFFIXES)
        raise DataError(f"there is none of {names}", file=folder, mend=f"put {stem}.csv there or give another folder")
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise DataError(f"{names} are both there", file=folder, mend="keep only one of them")
    return found[0]


def read_table(path: Path) -> Table:
    """Reads ``path`` by its suffix. Raises DataError naming the row for anything that is not a regular UTF-8 table."""
    return _read_parquet(path) if path.name.endswith(".parquet") else _read_csv(path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the operating system says about ``path`` into a DataError; refuses what is no file or folder."""
    try:
        # A pipe that nobody writes to would be waited for, and a device may have no end.
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise DataError("is a pipe or a device, not a file", file=path, mend="copy its content into a file")
        yield
    except PermissionError as error:
        raise DataError("may not be read", file=path, mend="give yourself permission to read it") from error
    except FileNotFoundError as error:
        raise DataError("does not exist", file=path, mend="check the path") from error
    except IsADirectoryError as error:
        raise DataError("is a folder, not a file", file=path, mend="put the table itself there") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            "is not a whole gzip file (damaged or cut short)", file=path, mend="copy or compress it again"
        ) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", file=path, mend="check the disk") from error


def _read_csv(path: Path) -> Table:
    with reading(path):
        content = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    if not content.strip():
        raise DataError("is empty", file=path, mend="write a header and at least one row")
    if content[:2] == b"\x1f\x8b":
        raise DataError("is gzip-compressed", file=path, mend="name it .csv.gz or decompress it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig", errors="ignore")
        what = "is not a text file" if b"\0" in content else "is not UTF-8 text"
        raise DataError(what, file=path, row=_row_at_end(before), mend="save it as CSV with UTF-8 encoding") from error
    if "\0" in text:
        row = _row_at_end(text[: text.index("\0")])
        raise DataError("is not a text file", file=path, row=row, mend="save it as CSV with UTF-8 encoding")
    header, records, rows = _parse(text, path)
    names = [name.strip() for name in header]
    check_header(names, path)
    cells = zip(*records, strict=True) if records else ((),) * len(names)
    return Table(path, {name: list(column) for name, column in zip(names, cells, strict=True)}, rows)


def _parse(text: str, path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, records and their rows; every record has as many cells as the header."""
    header: list[str] | None = None
    records, rows = [], []
    row = 0
    with _long_cells_allowed():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            for row, record in enumerate(reader, start=1):
                if not record:
                    continue
                if header is None:
                    if row > 1:
                        raise DataError("the header is blank", file=path, row=1, mend="remove the blank lines above it")
                    header = record
                    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
                        mend = "save it as comma-separated CSV"
                        raise DataError("is not separated by commas", file=path, row=1, mend=mend)
                elif len(record) != len(header):
                    raise DataError(
                        f"has {len(record)} {'cell' if len(record) == 1 else 'cells'} where the header has "
                        f"{len(header)}",
                        file=path,
                        row=row,
                        mend="add or remove cells, and quote those that hold a comma or a line break",
                    )
                else:
                    records.append(record)
                    rows.append(row)
        except csv.Error as error:
            mend = 'close every quote, and write a quote inside a quoted cell twice ("")'
            raise DataError("is not well-formed CSV", file=path, row=row + 1, mend=mend) from error
    if header is None:
        raise DataError("is empty", file=path, mend="write a header and at least one row")
    return header, records, rows


@contextmanager
def _long_cells_allowed() -> Iterator[None]:
    """Cells of any length, see `LONGEST_CELL`."""
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _row_at_end(text: str) -> int:
    """The row in which ``text``, the beginning of a CSV file, stops."""
    row = 0
    with _long_cells_allowed():
        reader = csv.reader(io.StringIO(text + "x", newline=""))
        for row, _ in enumerate(reader, start=1):  # noqa: B007
            pass
    return row


def check_header(names: list[str], path: Path) -> None:
    """Raises a DataError when two columns have the same name."""
    seen = set()
    for name in names:
        if name and name in seen:
            raise DataError(f"there are two columns '{shown(name)}'", file=path, row=1, mend="rename or remove one")
        seen.add(name)


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    with reading(path):
        content = path.read_bytes()
    if not content:
        raise DataError("is empty", file=path, mend="write the table again")
    try:
        # A single file read from memory: reading by path would add columns for folders named like "fold=3".
        table = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content)).read()
        check_header(table.column_names, path)
        columns, other_kinds = {}, {}
        for i, name in enumerate(table.column_names):
            text = as_text(table.column(i))
            if text is None:
                other_kinds[name] = str(table.schema.field(i).type)
            else:
                columns[name] = text
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError("is not a readable Parquet file", file=path, mend="write the table again") from error
    return Table(path, columns, list(range(2, table.num_rows + 2)), other_kinds)


def as_text(column: Any) -> list[str] | None:
    """A pyarrow column as the text a CSV file would hold, or None where it holds neither text nor numbers."""
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_boolean(kind):
        return ["" if value is None else str(value).lower() for value in column.to_pylist()]
    if types.is_floating(kind):
        # NaN is how pandas writes a missing cell of a column of numbers.
        return ["" if value is None or value != value else repr(float(value)) for value in column.to_pylist()]
    if types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind):
        return ["" if value is None else str(value) for value in column.to_pylist()]
    return None
