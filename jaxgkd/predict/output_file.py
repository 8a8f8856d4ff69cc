"""The table of predictions, CSV or Parquet by its suffix: written part by part, there whole or not at all."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxgkd.errors import ConfigError

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def check_output(path: Path, *, overwrite: bool) -> None:
    """Find out what would be refused, before any work is done.

    Raises:
      ConfigError: the suffix is not known, the file is there and may not be replaced, or its folder is not there or
        cannot be written to.
    """
    if not path.name.endswith(SUFFIXES):
        what = f"'{path.name}' ends in none of {', '.join(SUFFIXES)}"
        raise ConfigError(what, field="--out", mend="name the file by what it should be")
    if path.is_dir():
        raise ConfigError("is a folder", file=path, field="--out", mend="give the name of a file")
    if path.exists() and not overwrite:
        raise ConfigError("the file is there already", file=path, mend="choose another --out, or add --overwrite")
    os.close(_temporary(path, remove=True)[0])


class OutputFile:
    """A table that appears when its ``with`` block ends well, and of which nothing is left when it does not."""

    def __init__(self, path: Path, units: Mapping[str, str] | None = None):
        """``path`` as `check_output` wants it; ``units`` of columns, which Parquet keeps beside their type."""
        self.path, self._units = path, units or {}
        self._writer: Any = None

    def __enter__(self) -> "OutputFile":
        handle, self._name = _temporary(self.path)
        self._file: Any = os.fdopen(handle, "wb")
        # Of a compressed file the compressor, else the file itself.
        self._stream: Any = self._file
        return self

    def write(self, columns: Mapping[str, Any]) -> None:
        """Append rows: name → values, the same names every time; None is a missing value."""
        import pyarrow

        arrays = {name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()}
        if self._writer is None:
            self._schema = pyarrow.schema(
                [
                    # A first part without any value says nothing of the kind of later ones.
                    pyarrow.field(
                        name,
                        pyarrow.string() if pyarrow.types.is_null(array.type) else array.type,
                        metadata={"unit": self._units[name]} if name in self._units else None,
                    )
                    for name, array in arrays.items()
                ]
            )
            self._writer = self._open()
        parts = [array.cast(field.type) for array, field in zip(arrays.values(), self._schema, strict=True)]
        try:
            self._writer.write(pyarrow.record_batch(parts, schema=self._schema))
        except OSError as error:
            raise self._unwritten(error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
            if self._stream is not self._file:
                self._stream.close()
            if kind is None:
                if not self._file.closed:
                    self._file.flush()
                    os.fsync(self._file.fileno())
                os.replace(self._name, self.path)
        except OSError as failure:
            if kind is None:
                raise self._unwritten(failure) from failure
        finally:
            # What a full disk does not take is still in the file's buffer.
            with suppress(OSError):
                self._file.close()
            Path(self._name).unlink(missing_ok=True)

    def _open(self) -> Any:
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet

        if self.path.name.endswith(".parquet"):
            return pyarrow.parquet.ParquetWriter(self._file, self._schema)
        if self.path.name.endswith(".gz"):
            self._stream = pyarrow.CompressedOutputStream(self._file, "gzip")
        return pyarrow.csv.CSVWriter(self._stream, self._schema)

    def _unwritten(self, error: OSError) -> ConfigError:
        what = f"the file cannot be written ({error.strerror or error})"
        return ConfigError(what, file=self.path, mend="free space there, or choose another --out")


def _temporary(path: Path, *, remove: bool = False) -> tuple[int, str]:
    """A new file beside ``path`` with the rights that an ordinary one would get."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        what = f"the file cannot be written ({error.strerror})"
        raise ConfigError(what, file=path, mend="choose a folder that is there and that you may write to") from error
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(name, 0o666 & ~umask)
    if remove:
        os.unlink(name)
    return handle, name
