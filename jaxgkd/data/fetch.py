"""``jaxgkd data fetch``: downloads a public data set, compares it with what is known of it, and writes it as a folder.

Where no checksum is published the one of the first download is remembered in the user's cache, and a later download of
the same address is compared with it: nobody then knows whether the first was right, and that is said.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from jaxgkd.data.download import Downloaded, RemoteFile, download
from jaxgkd.data.folders import save_text_graph
from jaxgkd.data.published import PUBLISHED, Published, published
from jaxgkd.data.registry import fetched_folder, subfolder
from jaxgkd.errors import ConfigError, DataError
from jaxgkd.training.compilation import cache_folder
from jaxgkd.whole_file import write_whole, write_whole_folder

__all__ = ["fetch", "published"]

_REMEMBERED = "checksums.json"


def fetch(
    name: str,
    *,
    to: str | PathLike[str] | None = None,
    base: str | None = None,
    timeout: float = 60.0,
    pause: float = 2.0,
    fetch_abide_pcp: Callable[..., Any] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Path:
    """Download a public data set and write it as a folder that ``--data NAME`` finds.

    Args:
      name: see ``published``.
      to: folder in which a folder NAME is made; by default the user's cache, where ``registry.load`` looks.
      base: address in whose place the files are looked for, under their own names; their homes by default.
      timeout, pause: see ``download``.
      fetch_abide_pcp: see ``write_abide``.
      on_line: called with lines for people: licence, citation, what is downloaded and checked.

    Returns:
      The folder.

    Raises:
      ConfigError: there is no such set, it is there already, or the folder cannot be written to.
      DataError: the download failed, or is not what it should be.
    """
    say = on_line or (lambda line: None)
    what = _named(name)
    folder = (Path(to).expanduser() if to is not None else fetched_folder() / subfolder(what.recipes[0])) / name
    if folder.exists():
        found = f"use it with --data {name if to is None else folder}, or delete it to fetch it again"
        raise ConfigError("is there already", file=folder, mend=found)
    say(f"{what.name}: {what.about}")
    say(f"licence: {what.licence}")
    say(f"to cite: {what.citation}")
    downloads = cache_folder() / "downloads" / name
    remotes = [_moved(file, base) for file in what.files]
    files = [_download(remote, downloads, timeout, pause, say) for remote in remotes]
    paths = [file.path for file in files]

    def write(scratch: Path) -> None:
        _write(what, paths, scratch, downloads, fetch_abide_pcp)
        sources = [
            {"url": remote.url, "sha256": file.sha256, "bytes": file.size}
            for remote, file in zip(remotes, files, strict=True)
        ]
        about = {"name": name, "licence": what.licence, "citation": what.citation, "files": sources}
        (scratch / "source.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    try:
        write_whole_folder(folder, write)
    except DataError:
        # What is not the data set is not kept for the next try, nor is its checksum remembered.
        _delete(paths)
        raise
    new = {remote.url: file.sha256 for remote, file in zip(remotes, files, strict=True) if remote.checksum is None}
    if new.keys() - _remembered().keys():
        _remember(new | _remembered())
    _delete(paths)
    return folder


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _named(name: str) -> Published:
    found = next((each for each in PUBLISHED if each.name == name), None)
    if found is None:
        listed = ", ".join(each.name for each in PUBLISHED)
        raise ConfigError(f"there is no public data set '{name}'", field="NAME", mend=f"use one of {listed}")
    return found


def _moved(file: RemoteFile, base: str | None) -> RemoteFile:
    return file if base is None else replace(file, url=f"{base.rstrip('/')}/{file.name}")


def _download(file: RemoteFile, folder: Path, timeout: float, pause: float, say: Callable[[str], None]) -> Downloaded:
    say(f"downloading {file.url}, about {file.size / 1e6:,.1f} MB")
    found = download(file, folder, timeout=timeout, pause=pause, on_line=say)
    if file.checksum is not None:
        say(f"{file.name}: {found.size:,} bytes, {file.checksum.partition(':')[0]} as in {file.source}")
        return found
    before = _remembered().get(file.url)
    if before is None:
        say(f"{file.name}: {found.size:,} bytes, unverified, since no checksum is published")
        say(f"{file.name}: sha256 {found.sha256}, remembered to compare later downloads with")
    elif before != found.sha256:
        found.path.unlink(missing_ok=True)
        mend = f"look at what changed; to take it, remove its line from {_remembered_path()}"
        raise DataError(
            f"the sha256 is {found.sha256}, at the first download it was {before}", file=file.url, mend=mend
        )
    else:
        say(f"{file.name}: {found.size:,} bytes, the same as at the first download; no checksum is published")
    return found


def _write(
    what: Published,
    paths: list[Path],
    scratch: Path,
    downloads: Path,
    fetch_abide_pcp: Callable[..., Any] | None,
) -> None:
    if what.layout == "abide":
        from jaxgkd.data.fetched_brains import write_abide

        write_abide(scratch, downloads, fetch_abide_pcp)
    elif what.layout in ("table", "gdb", "pcqm4m-v2"):
        from jaxgkd.data import fetched_molecules

        if what.layout == "table":
            fetched_molecules.write_table(paths[0], scratch, what.name, what.labels)
        elif what.layout == "gdb":
            fetched_molecules.write_gdb(paths[0], scratch, what.name)
        else:
            fetched_molecules.write_pcqm4m(paths[0], paths[1], scratch, what.name)
    else:
        from jaxgkd.data import fetched_graphs

        read = {
            "cora": fetched_graphs.read_cora,
            "citeseer": fetched_graphs.read_citeseer,
            "pubmed": fetched_graphs.read_pubmed,
            "ogbn-arxiv": fetched_graphs.read_ogbn_arxiv,
        }
        graph = save_text_graph(read[what.layout](*paths), scratch / "graph")
        for file in graph.iterdir():
            file.rename(scratch / file.name)
        graph.rmdir()


def _remembered_path() -> Path:
    return fetched_folder() / _REMEMBERED


def _remembered() -> dict[str, str]:
    path = _remembered_path()
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_bytes())
        if isinstance(known, dict) and all(isinstance(value, str) for value in known.values()):
            return known
    except (OSError, ValueError, RecursionError):
        pass
    raise DataError("holds no checksums", file=path, mend="mend or delete it")


def _remember(known: dict[str, str]) -> None:
    path = _remembered_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made ({error.strerror})", file=path.parent, mend="free space there") from error
    write_whole(path, (json.dumps(known, indent=2, sort_keys=True) + "\n").encode())
