"""Damages folders of files in the ways disks, downloads, editors and other programs do, as a Hypothesis strategy."""

import csv
import io
import json
import os
import signal
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

Files = dict[str, bytes]
#: How a file of a folder is left: its bytes, None where it is missing, or a function that puts something in its place.
Change = bytes | None | Callable[[Path], None]

# Between other bytes, each of these has broken a reader somewhere.
SNIPPETS = (
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\x1a",
    b"\xe2\x80\xa8",
    b"1e999",
    b"-1e-999",
    b"nan",
    b"NaN",
    b"-Infinity",
    b"-1",
    b"0x10",
    b"1_000",
    b"9" * 30,
    b"9" * 5000,
    b"[" * 3000,
    b'{"a":' * 3000,
    b"(" * 3000,
    b'"\\ud800"',
    b"x" * 140_000,
    b"\xd9\xa3\xd9\xa4",
    b"\xc2\xb2",
    b"=1+1",
    b"../../x",
    b"$$$$\n",
    b"M  END\n",
    b"> <y>\n",
    b"#",
)
CELLS = (
    "",
    " ",
    "-1",
    "0",
    "1",
    "1.5",
    "1e999",
    "nan",
    "9" * 30,
    "\u0663",
    "\u00b2",
    "a",
    "n1",
    "train",
    "\x85",
    "\ud7ff",
)
_KEYS = st.sampled_from(["text", "label", "split", "classes", "value", "node_type", "train", "test", "shape", "dtype"])
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, -(2**64), 10**400, 1e300, float("nan"), float("inf"), "\ud800", "9" * 5000]),
    st.floats(),
    st.text(max_size=8),
)
JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS | st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


class Hangs(BaseException):
    """A reader did not come back; no ``except Exception`` takes it."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Ends what runs inside after ``seconds``, where Python runs at all."""

    def stop(*_):
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def files_of(folder: Path) -> Files:
    """The files below a folder by their names there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_files(folder: Path, files: Mapping[str, bytes], changes: Mapping[str, Change] = {}) -> Path:
    """Write a folder with some files changed."""
    for name, content in (dict(files) | dict(changes)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        elif content is not None:
            path.write_bytes(content)
    return folder


@st.composite
def changes(draw: st.DrawFn, files: Files) -> dict[str, Change]:
    """One file of a folder, seldom two, left damaged."""
    names = draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=2, unique=True))
    return {name: draw(_damaged(name, files[name])) for name in names}


def _damaged(name: str, content: bytes) -> st.SearchStrategy[Change]:
    ways = [_bytes(content), _bytes(content), _replaced(), _in_place()]
    if name.endswith((".json", ".jsonl")):
        ways += [_other_json(content), _other_json(content), JSON.map(_dumped)]
    if name.endswith(".csv"):
        ways += [_other_cell(content), _other_cell(content)]
    if name.endswith(".npz"):
        ways += [_other_arrays(content), _other_arrays(content)]
    if name.endswith(".npy"):
        ways += [_ARRAYS.map(_npy)]
    if name.endswith(".safetensors"):
        ways += [_other_header(content), _other_header(content)]
    return st.one_of(ways)


def _replaced() -> st.SearchStrategy[bytes]:
    return st.binary(max_size=200) | st.sampled_from([b"", b"\n", b"\x80\x04.", b"PK\x05\x06" + bytes(18), b"\x1f\x8b"])


def _in_place() -> st.SearchStrategy[Change]:
    return st.sampled_from(
        [
            None,
            lambda path: path.mkdir(),
            lambda path: path.symlink_to(path.name),
            lambda path: path.symlink_to("nowhere"),
            lambda path: path.symlink_to("."),
            lambda path: os.mkfifo(path),
            lambda path: path.symlink_to("/dev/null"),
        ]
    )


@st.composite
def _bytes(draw: st.DrawFn, content: bytes) -> bytes:
    n = len(content)
    at = draw(st.integers(0, n))
    match draw(st.sampled_from(["cut", "flip", "flip", "insert", "insert", "drop", "twice", "utf-16", "latin", "end"])):
        case "cut":
            return content[:at]
        case "flip":
            damaged = bytearray(content)
            for place in draw(st.lists(st.integers(0, max(n - 1, 0)), min_size=1, max_size=6)) if n else []:
                damaged[place] ^= 1 << draw(st.integers(0, 7))
            return bytes(damaged)
        case "insert":
            return content[:at] + draw(st.sampled_from(SNIPPETS) | st.binary(max_size=8)) + content[at:]
        case "drop":
            return content[:at] + content[at + draw(st.integers(1, 40)) :]
        case "twice":
            return content[:at] + content[max(at - draw(st.integers(1, 60)), 0) :]
        case "utf-16":
            return content.decode("latin-1").encode("utf-16")
        case "latin":
            return content[:at] + "é".encode("latin-1") + content[at:]
    return content + draw(st.sampled_from(SNIPPETS))


def _dumped(value: object) -> bytes:
    return json.dumps(value).encode()


@st.composite
def _other_json(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON, or a line of JSON lines, with the value at some place replaced, left out or under another name."""
    lines = content.splitlines()
    try:
        document, number = json.loads(content), None
    except ValueError:
        number = draw(st.integers(0, len(lines) - 1))
        document = json.loads(lines[number])
    top = holder = {"": document}
    key = ""
    while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 3)):
        holder = holder[key]
        key = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else list(range(len(holder)))))
    if isinstance(holder, dict) and holder is not top and draw(st.integers(0, 4)) == 0:
        del holder[key]
    else:
        holder[key] = draw(JSON)
    changed = _dumped(top[""])
    if number is None:
        return changed
    return b"\n".join([*lines[:number], changed, *lines[number + 1 :]]) + b"\n"


@st.composite
def _other_cell(draw: st.DrawFn, content: bytes) -> bytes:
    rows = list(csv.reader(io.StringIO(content.decode())))
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        at = draw(st.integers(0, max(len(row) - 1, 0)))
        cell = draw(st.sampled_from(CELLS) | st.text(max_size=6).filter(lambda text: text.isprintable()))
        row[at : at + 1] = [cell]
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


_ARRAYS = st.one_of(
    st.sampled_from([np.zeros(0), np.zeros((0, 0)), np.array(1), np.array(np.nan), np.array("x"), np.array([b"x"])]),
    st.builds(
        lambda shape, dtype, fill: np.full(shape, fill).astype(dtype),
        st.lists(st.sampled_from([0, 1, 2, 3, 4, 20]), min_size=0, max_size=4).map(tuple),
        st.sampled_from(["f4", "f8", "f2", "i8", "u8", "i1", "u1", "?", "c8", "U3", "S2", ">f4"]),
        st.sampled_from([0, 1, 2, 100]),
    ),
    st.sampled_from(
        [np.full((4, 3), np.nan), np.full((4, 3, 3), np.inf), np.full((4, 3), 1e300), np.full(4, -(2**62))]
    ),
    # Objects need a pickle, structures and dates have no numbers.
    st.sampled_from([np.array([1, "a"], object), np.zeros(2, "i4,f4"), np.zeros(2, "M8[s]"), np.zeros(2, "m8[s]")]),
)


def _npy(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    """A file of an array, whose header may claim another shape."""
    out = io.BytesIO()
    if shape is None:
        np.save(out, array, allow_pickle=True)
        return out.getvalue()
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + array.tobytes()


@st.composite
def _other_arrays(draw: st.DrawFn, content: bytes) -> bytes:
    """An archive with an entry replaced, left out, cut short inside the archive or claiming to be huge."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = draw(st.sampled_from(sorted(entries)))
    match draw(st.sampled_from(["other", "other", "other", "gone", "inside", "claim"])):
        case "other":
            entries[name] = _npy(draw(_ARRAYS))
        case "gone":
            del entries[name]
        case "inside":
            entries[name] = draw(_bytes(entries[name]))
        case "claim":
            shape = draw(st.sampled_from([(2**40,), (2**62,), (2**20, 2**30), (4, 2**45, 3), (-1,), (2**70,)]))
            entries[name] = _npy(np.zeros(3, draw(st.sampled_from(["f4", "f8", "i8"]))), shape)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
        for each, data in entries.items():
            archive.writestr(each, data)
    return out.getvalue()


@st.composite
def _other_header(draw: st.DrawFn, content: bytes) -> bytes:
    """A safetensors file whose header says something else."""
    (length,) = struct.unpack("<Q", content[:8])
    header = draw(_other_json(content[8 : 8 + length]))
    claimed = draw(st.sampled_from([len(header)] * 4 + [0, 2**63, 2**40]))
    return struct.pack("<Q", claimed) + header + content[8 + length :]
