import hashlib
import os
import urllib.request

import pytest

from jaxgkd.data.download import RemoteFile, _Broken, _Redirects, download
from jaxgkd.errors import DataError
from tests.data.file_server import FileServer

CONTENT = os.urandom(300_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture
def get(tmp_path):
    """Downloads ``a.bin`` from a server that misbehaves as planned; gives what `download` gives, and the server."""

    def get(*plan, checksum=MD5, size=300_000, tries=4, content=CONTENT, timeout=5.0):
        with FileServer({"a.bin": content}, {"a.bin": plan}) as server:
            lines: list[str] = []
            file = RemoteFile(f"{server.url}/a.bin", size, checksum, "a list")
            options = {"timeout": timeout, "tries": tries, "pause": 0.01, "on_line": lines.append}
            try:
                return download(file, tmp_path, **options), server, lines
            finally:
                get.server = server

    return get


def test_a_file_is_downloaded_once_and_compared(get, tmp_path):
    found, _, lines = get()
    assert found.path == tmp_path / "a.bin"
    assert found.path.read_bytes() == CONTENT
    assert (found.sha256, found.size, lines) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), [])
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    _, server, _ = get("500", tries=1)
    assert server.asked == []


def test_what_breaks_off_is_continued_where_it_stopped(get):
    found, server, lines = get("cut", "503", "cut")
    assert found.path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=150000-", "bytes=150000-", "bytes=225000-"]
    assert "broke off at 150,000 of 300,000 bytes, try 2 of 4" in lines[0]
    assert "answers 503" in lines[1]


def test_a_later_call_goes_on_and_a_changed_file_begins_anew(get, tmp_path):
    with pytest.raises(DataError, match=r"broke off .*150,000 bytes are kept; run the same command again"):
        get("cut", tries=1)
    assert not (tmp_path / "a.bin").exists()
    other = CONTENT[::-1]
    found, server, _ = get(content=other, checksum=None)
    assert server.ranges == ["bytes=150000-"]
    assert found.path.read_bytes() == other


def test_all_of_it_was_there_already(get, tmp_path):
    with pytest.raises(DataError, match="broke off"):
        get("cut", tries=1)
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    found, server, _ = get()
    assert found.path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize(
    ("plan", "options", "said", "asked"),
    [
        (["404"], {}, r"a\.bin: answers 404 .*check the address", 1),
        (["500"] * 9, {}, "answers 500 .*try again later", 4),
        (["slow"] * 9, {"timeout": 0.2, "tries": 2}, r"sent nothing for 0\.2 s", 2),
        ([], {"checksum": "md5:" + "0" * 32}, "the md5 is [0-9a-f]{32}, where a list has 0000", 1),
        ([], {"size": 10, "content": bytes(3 << 20)}, "is 3,145,728 bytes, where about 10 are expected", 1),
        (["endless"], {"size": 10}, "sends more than 1,048,596 bytes", 1),
        (["to file:///etc/passwd"], {}, r"Redirection to url .file:///etc/passwd. is not allowed", 1),
        (["to http://localhost:1/a.bin"], {"checksum": None}, "and no checksum is known", 1),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_refused_leaves_nothing_that_counts(plan, options, said, asked, get, tmp_path):
    with pytest.raises(DataError, match=said):
        get(*plan, **options)
    assert len(get.server.asked) == asked
    assert not (tmp_path / "a.bin").exists()


def test_redirects_are_followed_where_the_checksum_vouches_for_the_file(tmp_path):
    with FileServer({"b.bin": CONTENT}) as other, FileServer({}, {"a.bin": [f"to {other.url}/b.bin"]}) as server:
        found = download(RemoteFile(f"{server.url}/a.bin", len(CONTENT), MD5, "a list"), tmp_path)
    assert found.path.read_bytes() == CONTENT


def test_nobody_is_there(tmp_path):
    with FileServer({}) as server:
        pass
    with pytest.raises(DataError, match="cannot be reached"):
        download(RemoteFile(f"{server.url}/a.bin", 1), tmp_path, tries=1)
    with pytest.raises(DataError, match="no http or https address"):
        download(RemoteFile("ftp://127.0.0.1/a.bin", 1), tmp_path, tries=1)


def test_a_redirect_does_not_leave_https():
    request = urllib.request.Request("https://a.org/x")
    with pytest.raises(_Broken, match="which is not safe"):
        _Redirects(vouched=True).redirect_request(request, None, 302, "", {}, "http://a.org/x")
