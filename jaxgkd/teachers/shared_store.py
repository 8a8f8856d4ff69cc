"""A store that several processes write together, each the rows of its own share (see `jaxgkd.processes`).

Every process but the leader keeps a document of its own beside the manifest, ``share-1.json`` and so on, of the chunks
it has finished; the leader takes them over into the manifest, at the end or when a run that was killed goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxgkd import processes
from jaxgkd.errors import StoreError
from jaxgkd.teachers.manifest import check_same, read_document
from jaxgkd.teachers.store import Store, StoreWriter


class SharedStoreWriter(StoreWriter):
    """A `StoreWriter` of every process of a run; each writes what `share_of` gives it, then all call `collect`."""

    def _begin(self) -> None:
        if processes.leading():
            super()._begin()
            self._take_over()
            processes.wait_for_all("store-begun")
        else:
            processes.wait_for_all("store-begun")
            self._document = read_document(self.folder)
            check_same(self.folder, self.manifest, self._document)
            self._document_name, self._stem = f"share-{processes.number()}.json", f"chunk-p{processes.number()}"
        # Nobody adds to the manifest before all have read what is missing.
        processes.wait_for_all("store-read")

    @property
    def seconds(self) -> float:
        """What all chunks took to compute, side by side."""
        return super().seconds / processes.count()

    def collect(self) -> None:
        """Wait until all shares are written; the leader takes them over."""
        processes.wait_for_all("shares-written")
        if processes.leading():
            self._take_over()
        processes.wait_for_all("shares-taken")

    def finish(self, report: Mapping[str, Any] | None = None) -> Store:
        """As `StoreWriter.finish`, by the leader; the others wait for it and open what it has closed."""
        store = super().finish(report) if processes.leading() else None
        processes.wait_for_all("store-finished")
        self.close()
        return store or Store.open(self.folder)

    def _owns_folder(self) -> bool:
        return processes.leading()

    def _take_over(self) -> None:
        shares = sorted(self.folder.glob("share-*.json"))
        for share in shares:
            try:
                document = read_document(self.folder, share.name)
                check_same(self.folder, self.manifest, document)
            except StoreError:
                # Damaged, or of another store: its rows are computed again.
                continue
            self._adopt(document["chunks"])
        if shares:
            self._save_document()
            for share in shares:
                share.unlink()
