"""Reads single files out of ZIP and TAR archives from the network, without ever unpacking one.

Nothing is written under a name that an archive gives: callers ask for the members they know and get their bytes. An
archive is refused as a whole when it holds what no data set needs: absolute names or such with ``..``, links, devices,
the same name twice, or more than the limits allow.
"""

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast

from jaxgkd.data.tables import reading
from jaxgkd.errors import DataError, shown

_PIECE = 1 << 20
_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
# What damaged bytes make the library raise. A ZIP under a password or of an unknown kind is a RuntimeError, names in it
# that are no text a ValueError, fields that are cut short an IndexError.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
    IndexError,
)


class Readable(Protocol):
    """A file that is read from its beginning to its end, by pieces or by lines."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, or all."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """Lines with their ends."""
        ...


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Fields:
      size: bytes of all members together, unpacked.
      files: number of members.
      ratio: unpacked bytes for a byte of the archive; text rarely exceeds 20, a bomb has a thousand.
    """

    size: int
    files: int = 100_000
    ratio: float = 200.0


def is_archive(path: Path) -> bool:
    """Whether a name says that a file is a ZIP or TAR archive."""
    return path.name.lower().endswith(_ENDINGS)


def read_members(path: Path, wanted: Callable[[str], bool], limits: Limits) -> Iterator[tuple[str, Readable]]:
    """The members whose names are ``wanted``, one after another, each as a file that is open until the next.

    Args:
      path: a ``.zip``, ``.tar``, ``.tar.gz`` or ``.tgz`` file.
      wanted: called with the name of every file in it.
      limits: of the whole archive, wanted or not.

    Raises:
      DataError: it is damaged, holds a member that is refused, or exceeds a limit.
    """
    budget = _Budget(path, limits)
    yield from (_zip_members if path.name.lower().endswith(".zip") else _tar_members)(path, wanted, budget)


def read_gzip(path: Path, limits: Limits) -> Readable:
    """A gzipped file, opened; reading more than the limits allow raises a DataError."""
    with reading(path):
        return _Bounded(cast(Readable, gzip.open(path)), _Budget(path, limits), path.name)


class _Budget:
    """What may still be unpacked of an archive."""

    def __init__(self, path: Path, limits: Limits):
        self.path, self.limits = path, limits
        with reading(path):
            packed = path.stat().st_size
        self.most = min(limits.size, int(limits.ratio * packed) + _PIECE)
        self.unpacked = 0
        self.names: set[str] = set()

    def enter(self, name: str) -> None:
        """Count a member. Raises DataError for a name that leads elsewhere or comes twice."""
        pure = PurePosixPath(name.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or "\0" in name or (len(name) > 1 and name[1] == ":"):
            raise self.refused(f"holds '{shown(name)}', which leads out of its folder")
        if str(pure) in self.names:
            raise self.refused(f"holds '{shown(name)}' twice")
        self.names.add(str(pure))
        if len(self.names) > self.limits.files:
            raise self.refused(f"holds more than {self.limits.files:,} files")

    def spend(self, size: int) -> None:
        """Count unpacked bytes."""
        self.unpacked += size
        if self.unpacked > self.most:
            raise self.refused(f"unpacks to more than {self.most:,} bytes")

    def refused(self, what: str) -> DataError:
        return DataError(what, file=self.path, mend="delete it; it is not what was asked for")


class _Bounded:
    """A file whose unpacked bytes are counted while they are read: what a header claims is not believed."""

    def __init__(self, file: Readable, budget: _Budget, name: str):
        self._file, self._budget, self._name = file, budget, name

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, or all."""
        parts = []
        while size:
            with _whole(self._budget.path, self._name):
                part = self._file.read(min(size, _PIECE) if size > 0 else _PIECE)
            if not part:
                break
            self._budget.spend(len(part))
            parts.append(part)
            size = max(size - len(part), 0) if size > 0 else size
        return b"".join(parts)

    def __iter__(self) -> Iterator[bytes]:
        """Lines with their ends."""
        rest = b""
        while part := self.read(_PIECE):
            *lines, rest = (rest + part).split(b"\n")
            yield from (line + b"\n" for line in lines)
        if rest:
            yield rest


def _zip_members(path: Path, wanted: Callable[[str], bool], budget: _Budget) -> Iterator[tuple[str, Readable]]:
    with _whole(path, "it"), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        for entry in entries:
            budget.enter(entry.filename)
            kind = entry.external_attr >> 28
            if kind not in (0, 4, 8):  # made elsewhere than on Unix, a folder, a file
                raise budget.refused(f"holds '{shown(entry.filename)}', a link or a device")
        for entry in entries:
            if entry.is_dir() or not wanted(entry.filename):
                # What a header claims of members that nobody reads costs nothing, and is not added up.
                continue
            with archive.open(entry) as file:
                yield entry.filename, _Bounded(cast(Readable, file), budget, entry.filename)


def _tar_members(path: Path, wanted: Callable[[str], bool], budget: _Budget) -> Iterator[tuple[str, Readable]]:
    # As a stream, so that every unpacked byte is counted, those of members that are passed over too.
    packed = path.name.lower().endswith(("gz", "tgz"))
    with _whole(path, "it"), open(path, "rb") as raw, gzip.open(raw) if packed else raw as unpacked:
        counted: Any = _Bounded(cast(Readable, unpacked), budget, path.name)
        with tarfile.open(fileobj=counted, mode="r|") as archive:
            for entry in archive:
                if entry.isdir():
                    continue
                budget.enter(entry.name)
                if not entry.isreg():
                    raise budget.refused(f"holds '{shown(entry.name)}', a link or a device")
                if wanted(entry.name) and (file := archive.extractfile(entry)) is not None:
                    # The stream counts for the archive; a budget of its own keeps a member from being counted twice.
                    yield entry.name, _Bounded(cast(Readable, file), _Budget(path, budget.limits), entry.name)


@contextmanager
def _whole(path: Path, name: str) -> Iterator[None]:
    with reading(path):
        try:
            yield
        except _DAMAGE as error:
            what = f"is not a whole archive ({shown(name)} cannot be read)"
            raise DataError(what, file=path, mend="delete it and fetch it again") from error
