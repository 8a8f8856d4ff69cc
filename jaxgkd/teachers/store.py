"""Where a teacher's activations are kept: a folder of chunks and a manifest, written so that a killed run resumes.

    manifest.json           what was asked of whom, every file's sha256, and the chunks finished so far
    items.json              the item ids, in the caller's order
    rows.npy                [n_items] int64, the stored row of each item (items with the same prompt share one)
    chunk-00000.npy         [m, layers, width] hidden states of a run of rows
    chunk-00000.log_probs.npy   [m, …] float32, one such file for every extra array the manifest declares

Rows are written in the order that is fastest to compute; the reader puts them back into the items' order. A file is
written beside its place, flushed to disk and renamed, and a chunk counts once the manifest names it: at whatever
moment a run is killed, the folder holds whole chunks only. Arrays are plain ``.npy`` files, never pickles. bfloat16,
which that format does not know, is kept as its 16 bits in uint16.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.errors import ConfigError, StoreError
from jaxgkd.teachers.manifest import (
    AGAIN,
    FORMAT_VERSION,
    HIDDEN,
    MANIFEST,
    Manifest,
    check_same,
    item_ids_hash,
    manifest_of,
    read_document,
    seal_of,
)
from jaxgkd.teachers.store_files import (
    damaged_file,
    disk_errors,
    from_disk,
    is_whole,
    npy_bytes,
    to_disk,
    write_durably,
)
from jaxgkd.training.file_lock import lock_file


def default_root() -> Path:
    """The user's cache folder for stores: $XDG_CACHE_HOME (or ~/.cache)/jaxgkd/stores."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "jaxgkd" / "stores"


def store_path(root: str | os.PathLike[str] | None, manifest: Manifest) -> Path:
    """The folder under ``root`` (`default_root()` if None) of this content, whether it exists or not."""
    digest = hashlib.sha256(json.dumps(manifest.identity(), sort_keys=True).encode()).hexdigest()
    return (default_root() if root is None else Path(root)) / digest[:32]


class StoreWriter:
    """Writes a store chunk by chunk; one writer a folder at a time, and a killed one is continued by the next.

    Use it as a context manager, write every range of `missing()`, then `finish()`::

        with StoreWriter(folder, manifest, item_ids) as writer:
            for start, stop in writer.missing():
                writer.write(start, hidden[start:stop])
            store = writer.finish()
    """

    # Names of the document that is written, and of the chunks.
    _document_name, _stem = MANIFEST, "chunk"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        manifest: Manifest,
        item_ids: Sequence[str],
        rows: np.ndarray | None = None,
    ):
        """Take the folder's lock, and check or create what is in it.

        Chunks that are there are read and checked; damaged ones are forgotten, so that they are written anew.

        Args:
          folder: the store's folder, made if needed.
          manifest: what will be in it.
          item_ids: [n_items] ids whose hash the manifest names.
          rows: [n_items] the stored row of each item, by default its position.

        Raises:
          StoreError: the folder holds a store with another manifest (the message names the field), another process is
            writing it, or it cannot be written.
          ConfigError: ``item_ids`` or `rows` do not belong to the manifest.
        """
        self.folder, self.manifest = Path(folder), manifest
        rows = np.arange(manifest.n_items) if rows is None else np.asarray(rows, dtype=np.int64)
        if item_ids_hash(item_ids) != manifest.item_ids_hash or len(item_ids) != manifest.n_items:
            raise ConfigError("the ids do not have the manifest's hash", field="item_ids", mend="pass the same ids")
        if not np.array_equal(np.unique(rows), np.arange(manifest.n_rows)) or len(rows) != manifest.n_items:
            raise ConfigError(f"do not cover 0..{manifest.n_rows - 1}", field="rows", mend="give every item one row")
        self._item_ids, self._rows = list(item_ids), rows
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock: int | None = None
            if self._owns_folder():
                self._lock = lock_file(self.folder / ".lock", self.folder, StoreError)
        try:
            with disk_errors(self.folder):
                self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        for left_over in self.folder.glob("*.part"):
            left_over.unlink()
        contents = {"items.json": json.dumps(self._item_ids).encode(), "rows.npy": npy_bytes(self._rows)}
        files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        if (self.folder / MANIFEST).exists():
            self._document = read_document(self.folder)
            check_same(self.folder, self.manifest, self._document)
            if self._document["files"] != files:
                raise StoreError("lays its rows out differently", file=self.folder, mend=AGAIN)
            self._document["chunks"] = [c for c in self._document["chunks"] if not damaged_file(self.folder, c)]
        else:
            manifest = json.loads(json.dumps(asdict(self.manifest)))
            self._document = {"format": FORMAT_VERSION, **manifest, "files": files, "chunks": [], "report": None}
        for name, data in contents.items():
            if not is_whole(self.folder, name, files[name]):
                write_durably(self.folder / name, data)
        self._save_document()

    def __enter__(self) -> StoreWriter:
        """The writer itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Release the lock; what was written stays."""
        self.close()

    def close(self) -> None:
        """Release the lock. The next writer continues where this one stopped."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def missing(self) -> list[tuple[int, int]]:
        """The ranges [start, stop) of rows that no whole chunk holds yet, in order."""
        ranges, row = [], 0
        for chunk in [*self._document["chunks"], {"start": self.manifest.n_rows, "stop": self.manifest.n_rows}]:
            if chunk["start"] > row:
                ranges.append((row, chunk["start"]))
            row = chunk["stop"]
        return ranges

    @property
    def seconds(self) -> float:
        """What all chunks took to compute, those of killed runs included."""
        return sum(chunk["seconds"] for chunk in self._document["chunks"])

    def write(self, start: int, hidden: np.ndarray, *, seconds: float = 0.0, **extras: np.ndarray) -> None:
        """Write rows start, start + 1, … as one chunk; when it returns they are on the disk.

        Args:
          start: first row.
          hidden: [m, layers, width] states, in any float dtype; they are rounded to the manifest's.
          seconds: what they took to compute.
          **extras: [m, …] one array for each of the manifest's extras.

        Raises:
          StoreError: a value is not finite in the store's dtype, or the disk refuses.
          ConfigError: shapes or names differ from the manifest, or a row is there already.
        """
        given, declared = {HIDDEN: hidden, **extras}, self.manifest.arrays()
        stop = start + len(hidden)
        if not any(a <= start and stop <= b for a, b in self.missing()):
            raise ConfigError(
                f"rows {start} to {stop - 1} are not missing", field="start", mend="write what is missing"
            )
        if given.keys() != declared.keys():
            raise ConfigError(f"arrays {sorted(given)} are not {sorted(declared)}", field="extras", mend="write all")
        taken = {chunk["files"][HIDDEN]["file"] for chunk in self._document["chunks"]}
        stem = next(stem for i in count() if f"{(stem := f'{self._stem}-{i:05d}')}.npy" not in taken)
        entry: dict[str, Any] = {"start": start, "stop": stop, "seconds": round(seconds, 3), "files": {}}
        with disk_errors(self.folder):
            for name, (shape, _) in declared.items():
                if np.shape(given[name]) != (stop - start, *shape):
                    raise ConfigError(
                        f"shape {np.shape(given[name])} is not {(stop - start, *shape)}",
                        field=name,
                        mend="match the manifest",
                    )
                precision = self.manifest.dtype if name == HIDDEN else "float32"
                values = to_disk(np.asarray(given[name]), precision)
                bad = np.argwhere(~np.isfinite(from_disk(values).reshape(stop - start, -1)).all(axis=1))
                if bad.size:
                    item = self._item_ids[int(np.argmax(self._rows == start + bad[0, 0]))]
                    raise StoreError(
                        f"'{name}' of item '{item}' is not finite as {precision}",
                        file=self.folder,
                        mend='store with dtype="bfloat16" or "float32", or mend the teacher if it gives NaN',
                    )
                path = self.folder / (f"{stem}.npy" if name == HIDDEN else f"{stem}.{name}.npy")
                entry["files"][name] = {"file": path.name, "sha256": write_durably(path, npy_bytes(values))}
            self._add(entry)
            self._save_document()

    def finish(self, report: Mapping[str, Any] | None = None) -> Store:
        """Close a complete store, keep what the run has to report of itself, and open it.

        Args:
          report: plain JSON values, kept with the store.

        Raises:
          ConfigError: rows are still missing.
        """
        if missing := self.missing():
            raise ConfigError(f"rows from {missing[0][0]} on are missing", field="rows", mend="write them first")
        if self._document["report"] is None:
            self._document["report"] = dict(report or {})
            with disk_errors(self.folder):
                self._save_document()
        self.close()
        return Store.open(self.folder)

    def collect(self) -> None:
        """To be called between the last chunk and `finish`, by writers that share a store."""

    def _owns_folder(self) -> bool:
        return True

    def _adopt(self, chunks: Sequence[Mapping[str, Any]]) -> None:
        """Take over chunks that another writer has written, where they are whole and their rows missing."""
        for chunk in chunks:
            missing = any(a <= chunk["start"] and chunk["stop"] <= b for a, b in self.missing())
            if missing and not damaged_file(self.folder, chunk):
                self._add(chunk)

    def _add(self, chunk: Mapping[str, Any]) -> None:
        self._document["chunks"] = sorted([*self._document["chunks"], chunk], key=lambda chunk: chunk["start"])

    def _save_document(self) -> None:
        sealed = {**self._document, "seal": seal_of(self._document)}
        write_durably(self.folder / self._document_name, json.dumps(sealed, indent=1).encode())


class Store:
    """A finished store, memory-mapped.

    Attributes:
      folder: where it is.
      manifest: what it holds.
      item_ids: id of each item, the order that `read` counts in.
      report: what the extraction cost, as its writer put it.
    """

    def __init__(self, folder: Path, document: Mapping[str, Any]):
        """Map the files of a folder that `Store.open` has checked.

        Raises:
          StoreError: they are whole, but not what the manifest says, as another program may write them.
        """
        self.folder, self.manifest, self.report = folder, manifest_of(folder, document), document["report"]
        chunks = document["chunks"]
        try:
            self.item_ids: tuple[str, ...] = tuple(json.loads((folder / "items.json").read_text()))
            self._rows = np.load(folder / "rows.npy", allow_pickle=False)
            self._chunks = [
                {
                    name: np.load(folder / each["file"], mmap_mode="r", allow_pickle=False)
                    for name, each in chunk["files"].items()
                }
                for chunk in chunks
            ]
            fits = _rows_fit(self._rows, self.item_ids, self.manifest) and _chunks_fit(
                self._chunks, chunks, self.manifest
            )
        except (ValueError, TypeError, EOFError, RecursionError):
            fits = False
        if not fits:
            raise StoreError("holds other arrays than its manifest says", file=folder, mend=AGAIN)
        self._starts = np.array([chunk["start"] for chunk in chunks], dtype=np.int64)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Store:
        """Open a store after reading every file once against its sha256 (about a second a gigabyte).

        Raises:
          StoreError: there is no store, it is not finished, or a file is damaged; the message names the file.
        """
        folder = Path(folder)
        with disk_errors(folder):
            document = read_document(folder)
            again = "run the extraction again, which writes this file anew and keeps the others"
            for name, sha256 in document["files"].items():
                if not is_whole(folder, name, sha256):
                    raise StoreError("is damaged or missing", file=folder / name, mend=again)
            for chunk in document["chunks"]:
                if damaged := damaged_file(folder, chunk):
                    what = f"is damaged or missing (rows {chunk['start']} to {chunk['stop'] - 1})"
                    raise StoreError(what, file=folder / damaged, mend=again)
            have = sum(chunk["stop"] - chunk["start"] for chunk in document["chunks"])
            if have < document["n_rows"] or document["report"] is None:
                raise StoreError(
                    f"is not finished, {have} of {document['n_rows']} rows are there",
                    file=folder,
                    mend="run the extraction again, which goes on from there",
                )
            return cls(folder, document)

    def __len__(self) -> int:
        """Number of items."""
        return len(self._rows)

    def read(self, indices: np.ndarray | Sequence[int], name: str = HIDDEN) -> np.ndarray:
        """The hidden states [k, layers, width], or another array [k, …], of k items, in float32.

        Args:
          indices: [k] positions in ``item_ids``, in any order, repeats allowed.
          name: "hidden" or one of the manifest's extras.

        Raises:
          StoreError: the store has no such array.
        """
        if name not in self.manifest.arrays():
            raise StoreError(f"has no array '{name}'", file=self.folder, mend=f"read {list(self.manifest.arrays())}")
        rows = self._rows[np.asarray(indices, dtype=np.int64)]
        shape, _ = self.manifest.arrays()[name]
        out = np.empty((len(rows), *shape), dtype=np.float32)
        chunk_of = np.searchsorted(self._starts, rows, side="right") - 1
        for chunk in np.unique(chunk_of):
            inside = np.flatnonzero(chunk_of == chunk)
            values = self._chunks[chunk][name][rows[inside] - self._starts[chunk]]
            out[inside] = from_disk(values)
        return out

    def as_array(self, name: str = HIDDEN) -> np.ndarray:
        """`read` of all items, in the order of ``item_ids``: [n_items, layers, width] float32."""
        return self.read(np.arange(len(self)), name)


def _rows_fit(rows: np.ndarray, item_ids: tuple[str, ...], manifest: Manifest) -> bool:
    if len(item_ids) != manifest.n_items or not all(isinstance(each, str) for each in item_ids):
        return False
    if rows.dtype != np.int64 or rows.shape != (manifest.n_items,):
        return False
    return not len(rows) or (rows.min() >= 0 and rows.max() < manifest.n_rows)


def _chunks_fit(
    chunks: Sequence[Mapping[str, np.ndarray]], entries: Sequence[Mapping[str, Any]], manifest: Manifest
) -> bool:
    """Whether the chunks follow each other and have the arrays, shapes and dtypes that a manifest declares."""
    ends = [0, *(entry["stop"] for entry in entries)]
    if [entry["start"] for entry in entries] != ends[:-1] or ends[-1] != manifest.n_rows:
        return False
    declared = manifest.arrays()
    return all(
        arrays.keys() == declared.keys()
        and all(
            arrays[name].shape == (entry["stop"] - entry["start"], *shape) and arrays[name].dtype == dtype
            for name, (shape, dtype) in declared.items()
        )
        for arrays, entry in zip(chunks, entries, strict=True)
    )
