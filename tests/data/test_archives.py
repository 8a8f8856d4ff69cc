import contextlib
import io
import tarfile
import zipfile

import pytest

from jaxgkd.data.archives import Limits, read_gzip, read_members
from jaxgkd.errors import DataError

LIMITS = Limits(size=1 << 20, files=5)


def tar(path, entries):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.linkname = content
                archive.addfile(entry)
    return path


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            if not isinstance(content, bytes):
                entry.external_attr, content = 0o120777 << 16, b"/etc/passwd"
            archive.writestr(entry, content)
    return path


def names(path, limits=LIMITS):
    return {name: file.read() for name, file in read_members(path, lambda name: name.endswith(".csv"), limits)}


@pytest.mark.parametrize(("make", "ending"), [(tar, ".tgz"), (zipped, ".zip")])
class TestBothKinds:
    def test_wanted_members_are_read(self, make, ending, tmp_path):
        path = make(tmp_path / f"a{ending}", [("x/a.csv", b"1\n2"), ("x/b.txt", b"no"), ("c.csv", b"")])
        assert names(path) == {"x/a.csv": b"1\n2", "c.csv": b""}
        lines = [list(file) for _, file in read_members(path, lambda name: name == "x/a.csv", LIMITS)]
        assert lines == [[b"1\n", b"2"]]

    @pytest.mark.parametrize("name", ["../a.csv", "/etc/a.csv", "x/../../a.csv", "..\\a.csv", "C:/a.csv"])
    def test_names_that_lead_out_are_refused(self, name, make, ending, tmp_path):
        with pytest.raises(DataError, match="which leads out of its folder"):
            names(make(tmp_path / f"a{ending}", [("ok.csv", b"1"), (name, b"1")]))

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
    def test_links_and_devices_are_refused(self, kind, make, ending, tmp_path):
        with pytest.raises(DataError, match="a link or a device"):
            names(make(tmp_path / f"a{ending}", [("a.csv", (kind, "/etc/passwd"))]))

    def test_bombs_are_refused(self, make, ending, tmp_path):
        path = make(tmp_path / f"a{ending}", [("a.csv", bytes(8 << 20))])
        with pytest.raises(DataError, match="unpacks to more than 1,048,576 bytes"):
            names(path)
        with pytest.raises(DataError, match="unpacks to more than"):
            names(path, Limits(size=1 << 40, ratio=2))
        many = [(f"{i}.csv", b"") for i in range(6)]
        with pytest.raises(DataError, match="more than 5 files"):
            names(make(tmp_path / f"b{ending}", many))

    def test_damage_is_one_sentence(self, make, ending, tmp_path):
        content = make(tmp_path / f"a{ending}", [("a.csv", bytes(range(256)) * 40)]).read_bytes()
        for damaged in (b"", b"text", content[:40], content[: len(content) // 2]):
            (tmp_path / f"b{ending}").write_bytes(damaged)
            with pytest.raises(DataError, match=f"b\\{ending}: is not a whole"):
                names(tmp_path / f"b{ending}")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_any_changed_byte_of_a_zip_is_one_sentence_or_nothing(compression, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.csv", bytes(range(64)) * 4)
    damaged_everywhere(path)


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_any_changed_byte_of_a_tar_is_one_sentence_or_nothing(layout, tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=layout) as archive:
        entry = tarfile.TarInfo("long/" + "é" * 70)
        entry.size = 256
        archive.addfile(entry, io.BytesIO(bytes(range(64)) * 4))
    path.write_bytes(path.read_bytes()[:4096])
    damaged_everywhere(path, step=3)
    whole = path.read_bytes()
    for size in range(0, len(whole), 64):
        path.write_bytes(whole[:size])
        reads_or_says_why(path)


def damaged_everywhere(path, step=1):
    whole = path.read_bytes()
    for place in range(0, len(whole), step):
        for mask in (0xFF, 0x01, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
            reads_or_says_why(path)


def reads_or_says_why(path):
    with contextlib.suppress(DataError):
        for _, file in read_members(path, lambda name: True, LIMITS):
            file.read()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match="twice"):
        names(zipped(tmp_path / "a.zip", [("a.csv", b"1"), ("./a.csv", b"2")]))


def test_gzip_is_bounded(tmp_path):
    import gzip

    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"a\nb\n"))
    assert list(read_gzip(path, LIMITS)) == [b"a\n", b"b\n"]
    path.write_bytes(gzip.compress(bytes(4 << 20)))
    with pytest.raises(DataError, match="unpacks to more"):
        list(read_gzip(path, LIMITS))
