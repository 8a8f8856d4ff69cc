"""Downloads one file over HTTP: whole or not at all, continued where it was broken off, and compared with a checksum.

pooch was considered: it checks hashes and keeps a cache, but neither continues a download nor bounds its size.
"""

import hashlib
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from jaxgkd import __version__
from jaxgkd.errors import ConfigError, DataError, shown
from jaxgkd.whole_file import write_whole

_PIECE = 1 << 18
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class RemoteFile:
    """A file at its home.

    Fields:
      url: http or https.
      size: about how many bytes; a download that exceeds twice this and a megabyte is broken off.
      checksum: "sha256:…" or "md5:…", or None where none is published.
      source: who published the checksum.
    """

    url: str
    size: int
    checksum: str | None = None
    source: str | None = None

    @property
    def name(self) -> str:
        """The last part of its address."""
        return urllib.parse.urlsplit(self.url).path.rsplit("/", 1)[-1]

    @property
    def most(self) -> int:
        """Bytes that are taken at most."""
        return 2 * self.size + (1 << 20)


@dataclass(frozen=True)
class Downloaded:
    """A file on the disk: its path, its SHA-256 in hexadecimal and its size in bytes."""

    path: Path
    sha256: str
    size: int


def download(
    file: RemoteFile,
    folder: Path,
    *,
    timeout: float = 60.0,
    tries: int = 4,
    pause: float = 2.0,
    on_line: Callable[[str], None] | None = None,
) -> Downloaded:
    """Download a file into a folder, or take what lies there from before.

    What arrives is kept beside its place as ``NAME.part`` and continued by the next call, if the server says that it is
    still the same file. It moves to its place only when its length and its checksum are right.

    Args:
      file: what is downloaded; folder: made if needed.
      timeout: seconds without a byte after which a try has failed.
      tries: how often a server that is busy or breaks off is asked.
      pause: seconds before the second try, doubled for every further one.
      on_line: called with lines for people.

    Raises:
      DataError: the server refuses, keeps breaking off, sends another file than the checksum says or more than is
        expected, or redirects where it should not.
      ConfigError: the folder cannot be written to.
    """
    target = folder / file.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made ({error.strerror})", file=folder, mend="choose another folder") from error
    if target.is_file():
        return _checked(target, file, target)
    part = folder / f"{file.name}.part"
    for number in range(1, tries + 1):
        try:
            _fetch(file, part, timeout)
            break
        except _Broken as broken:
            if number == tries or not broken.again:
                kept = part.stat().st_size if part.is_file() else 0
                mend = "run the same command again, which goes on from there" if kept else "try again later"
                what = f"{broken}{f', {kept:,} bytes are kept' if kept else ''}"
                raise DataError(what, file=file.url, mend=mend if broken.again else "check the address") from broken
            if on_line is not None:
                on_line(f"{file.url}: {broken}, try {number + 1} of {tries}")
            time.sleep(pause * 2 ** (number - 1))
    found = _checked(part, file, target)
    os.replace(part, target)
    _validator(part).unlink(missing_ok=True)
    return Downloaded(target, found.sha256, found.size)


class _Broken(Exception):
    """A try that did not bring the whole file; ``again`` says whether another one may."""

    def __init__(self, what: str, *, again: bool = True):
        super().__init__(what)
        self.again = again


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not away from https, not to other kinds of addresses, and without a checksum not to other
    hosts: a file that nothing vouches for is taken from its home alone."""

    max_redirections = 5

    def __init__(self, vouched: bool):
        self.vouched = vouched

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request to follow, or an error."""
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme != "https"):
            raise _Broken(f"redirects to {shown(newurl, 120)}, which is not safe", again=False)
        if not self.vouched and (new.hostname, new.port) != (old.hostname, old.port):
            what = f"redirects to {shown(newurl, 120)}, and no checksum is known to tell whether that is the same file"
            raise _Broken(what, again=False)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(file: RemoteFile, part: Path, timeout: float) -> None:
    """Append what is missing to ``part``, or begin it anew."""
    if not urllib.parse.urlsplit(file.url).scheme.startswith("http"):
        raise _Broken("is no http or https address", again=False)
    headers = {"User-Agent": f"jaxgkd/{__version__}", "Accept-Encoding": "identity"}
    have, validator = _kept(part)
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    opener = urllib.request.build_opener(_Redirects(file.checksum is not None))
    try:
        with opener.open(urllib.request.Request(file.url, headers=headers), timeout=timeout) as response:
            start = _start(response, have)
            total = _total(response, start)
            if total is not None and total > file.most:
                what = f"is {total:,} bytes, where about {file.size:,} are expected"
                raise _Broken(what, again=False)
            _remember(part, response)
            with part.open("ab" if start else "wb") as out:
                size = start
                while piece := response.read(_PIECE):
                    size += len(piece)
                    if size > file.most:
                        out.truncate(0)
                        raise _Broken(f"sends more than {file.most:,} bytes", again=False)
                    out.write(piece)
                out.flush()
                os.fsync(out.fileno())
            if total is not None and size < total:
                raise _Broken(f"broke off at {size:,} of {total:,} bytes")
    except urllib.error.HTTPError as error:
        if error.code == 416:
            if have and error.headers.get("Content-Range") == f"bytes */{have}":
                return  # all of it is here already
            part.unlink(missing_ok=True)
            raise _Broken("has changed since the download began") from error
        reason = shown(str(error.reason), 80)
        raise _Broken(f"answers {error.code} ({reason})", again=error.code in _TRANSIENT) from error
    except TimeoutError as error:
        raise _Broken(f"sent nothing for {timeout:g} s") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _Broken(f"sent nothing for {timeout:g} s") from error
        raise _Broken(f"cannot be reached ({shown(str(error.reason), 120)})") from error
    except (HTTPException, ConnectionError, ssl.SSLError) as error:
        raise _Broken(f"broke off ({shown(str(error) or type(error).__name__, 120)})") from error
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise ConfigError(what, file=part, mend="free space there or choose another folder") from error


def _start(response: HTTPResponse, have: int) -> int:
    """Where in the file the answer begins: ``have`` where the server goes on, else 0."""
    if response.status != 206:
        return 0
    match = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        raise _Broken("continues at another place than was asked for", again=False)
    return have


def _total(response: HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdecimal() else None


def _validator(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _kept(part: Path) -> tuple[int, str | None]:
    """Bytes of an earlier try, and by what the server can tell that its file is still the same."""
    try:
        content = json.loads(_validator(part).read_bytes())
        return part.stat().st_size, str(content["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None


def _remember(part: Path, response: HTTPResponse) -> None:
    etag = response.headers.get("ETag", "")
    # A weak tag says that a file means the same, not that it has the same bytes.
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    if validator:
        write_whole(_validator(part), json.dumps({"validator": validator}).encode())
    else:
        _validator(part).unlink(missing_ok=True)


def _checked(path: Path, file: RemoteFile, target: Path) -> Downloaded:
    """What lies at ``path``, after its checksum was compared; a file that is not the right one is deleted."""
    kind, _, wanted = (file.checksum or "").partition(":")
    sha256, own = hashlib.sha256(), hashlib.new(kind) if kind else None
    try:
        with path.open("rb") as content:
            while piece := content.read(1 << 20):
                sha256.update(piece)
                if own is not None:
                    own.update(piece)
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=path, mend="delete it") from error
    if own is not None and own.hexdigest() != wanted:
        for odd in (path, _validator(path)):
            with suppress(OSError):
                odd.unlink()
        what = f"the {kind} is {own.hexdigest()}, where {file.source} has {wanted}"
        mend = "try again; if it stays so, the file at its home has changed, get it by hand and look at it"
        raise DataError(what, file=file.url if path != target else path, mend=mend)
    return Downloaded(path, sha256.hexdigest(), size)
