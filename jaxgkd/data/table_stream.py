"""A table read some rows at a time, CSV (also gzipped) or Parquet, in memory that does not grow with the file.

Cells are the same text, and rows are counted the same way, as `jaxgkd.data.tables.read_table` has them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from jaxgkd.data.molecule_files import LineStream, read_csv_rows
from jaxgkd.data.tables import Table, as_text, check_header, reading
from jaxgkd.errors import DataError, shown


def read_header(path: Path) -> Table:
    """The columns of a table without its rows. Raises DataError where it cannot be read."""
    if path.name.endswith(".parquet"):
        with _parquet(path) as file:
            names = file.schema_arrow.names
            check_header(names, path)
    else:
        _, names = next(read_csv_rows(LineStream(path)))
    return Table(path, {name: [] for name in names}, [])


def stream_table(path: Path, columns: Sequence[str], *, at_a_time: int = 2**15) -> Iterator[Table]:
    """The rows of a table, so many at a time.

    Args:
      path: the file, .csv, .csv.gz or .parquet.
      columns: those that are read; others are left on disk.
      at_a_time: rows of a chunk.

    Raises:
      DataError: a column is missing, or a row is damaged; it is named.
    """
    header = read_header(path)
    for name in columns:
        header.column(name)
    yield from (_parquet_chunks if path.name.endswith(".parquet") else _csv_chunks)(path, list(columns), at_a_time)


def _csv_chunks(path: Path, columns: list[str], at_a_time: int) -> Iterator[Table]:
    records = read_csv_rows(LineStream(path))
    _, names = next(records)
    places = [names.index(name) for name in columns]
    while chunk := list(islice(records, at_a_time)):
        cells = {name: [record[place] for _, record in chunk] for name, place in zip(columns, places, strict=True)}
        yield Table(path, cells, [row for row, _ in chunk])


def _parquet_chunks(path: Path, columns: list[str], at_a_time: int) -> Iterator[Table]:
    row = 2
    with _parquet(path) as file:
        for batch in file.iter_batches(batch_size=at_a_time, columns=columns):
            rows = list(range(row, row + batch.num_rows))
            row += batch.num_rows
            yield Table(path, {name: _cells(batch, name, path) for name in columns}, rows)


def _cells(batch: Any, name: str, path: Path) -> list[str]:
    column = batch.column(name)
    cells = as_text(column)
    if cells is None:
        what = f"holds {shown(str(column.type))} values"
        raise DataError(what, file=path, field=shown(name), mend="write it as text or numbers")
    return cells


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    with reading(path), path.open("rb") as raw:
        try:
            with pyarrow.parquet.ParquetFile(raw) as file:
                yield file
        except (pyarrow.ArrowException, ValueError) as error:
            raise DataError("is not a readable Parquet file", file=path, mend="write the table again") from error
