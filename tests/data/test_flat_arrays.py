import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxgkd.data.flat_arrays import GrowingArray, array_folder, content_hash, open_array, read_meta
from jaxgkd.errors import DataError


@settings(deadline=None, max_examples=25)
@given(
    parts=st.lists(hnp.arrays(np.int16, st.tuples(st.integers(0, 40), st.just(3))), max_size=5),
)
def test_a_growing_array_is_its_parts_one_after_another(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("grown") / "a.npy"
    array = GrowingArray(path, np.int16, (3,))
    for part in parts:
        array.append(part)
    digest = array.close()
    expected = np.concatenate([np.zeros((0, 3), np.int16), *parts])
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), expected)
    np.testing.assert_array_equal(np.load(path, mmap_mode="r", allow_pickle=False), expected)
    again = GrowingArray(path, np.int16, (3,))
    again.append(expected)
    assert again.close() == digest


def test_the_header_holds_the_largest_numbers_of_rows(tmp_path):
    array = GrowingArray(tmp_path / "a.npy", np.uint8)
    array.append(np.array([7], np.uint8))
    array._n_row = 10**15
    array.close()
    with open(tmp_path / "a.npy", "rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        assert np.lib.format.read_array_header_1_0(file)[0] == (10**15,)
        assert file.read() == b"\x07"


def test_rows_of_another_shape_are_refused(tmp_path):
    array = GrowingArray(tmp_path / "a.npy", np.int32, (2,))
    with pytest.raises(ValueError, match="cannot be followed"):
        array.append(np.zeros((4, 3), np.int32))
    array.close()


def write_two(writer):
    for part in ([1, 2], [3]):
        writer.append(numbers=np.array(part, np.int64), none=np.zeros((0, 2), np.float32))
    return {"note": "made"}


def test_a_folder_is_written_once(tmp_path):
    folder = array_folder(tmp_path / "deep" / "set", write_two)
    assert open_array(folder, "numbers").tolist() == [1, 2, 3]
    assert open_array(folder, "none").shape == (0, 2)
    assert not open_array(folder, "numbers").flags.writeable
    assert read_meta(folder)["note"] == "made"

    def never(writer):
        raise AssertionError

    assert array_folder(folder, never) == folder


@pytest.mark.parametrize("damage", ["cut", "gone", "meta", "no meta", "flipped", "kind", "note"])
def test_a_damaged_folder_is_written_again(tmp_path, damage):
    folder = array_folder(tmp_path / "set", write_two)
    if damage == "cut":
        content = (folder / "numbers.npy").read_bytes()
        (folder / "numbers.npy").write_bytes(content[:-3])
    elif damage == "gone":
        (folder / "numbers.npy").unlink()
    elif damage == "flipped":
        content = (folder / "numbers.npy").read_bytes()
        (folder / "numbers.npy").write_bytes(content[:-3] + b"\x01" + content[-2:])
    elif damage == "kind":
        content = (folder / "numbers.npy").read_bytes()
        (folder / "numbers.npy").write_bytes(content.replace(b"<i8", b"<u8"))
    elif damage == "note":
        content = (folder / "meta.json").read_text()
        (folder / "meta.json").write_text(content.replace("made", "mode"))
    elif damage == "meta":
        (folder / "meta.json").write_text("{")
    else:
        (folder / "meta.json").unlink()
    assert read_meta(folder) is None
    file = "meta.json" if damage in ("meta", "no meta", "note") else "numbers.npy"
    with pytest.warns(UserWarning, match=f"set/{file} is damaged or missing"):
        assert open_array(array_folder(folder, write_two), "numbers").tolist() == [1, 2, 3]


def test_nothing_is_left_of_what_fails(tmp_path):
    def fail(writer):
        write_two(writer)
        raise DataError("stop")

    with pytest.raises(DataError, match="stop"):
        array_folder(tmp_path / "set", fail)
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_that_do_the_same_work_stays(tmp_path):
    def late(writer):
        array_folder(tmp_path / "set", write_two)
        writer.append(numbers=np.array([9]))
        return {}

    folder = array_folder(tmp_path / "set", late)
    assert open_array(folder, "numbers").tolist() == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_no_room(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written to"):
        array_folder(tmp_path / "file" / "set", write_two)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_no_right_to_write(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be written to"):
        array_folder(tmp_path / "set", write_two)


def test_the_hash_is_of_the_content(tmp_path):
    one = read_meta(array_folder(tmp_path / "one", write_two))
    same = read_meta(array_folder(tmp_path / "two", write_two))

    def other(writer):
        writer.append(numbers=np.array([1, 2, 4]), none=np.zeros((0, 2), np.float32))
        return {"note": "made"}

    different = read_meta(array_folder(tmp_path / "three", other))
    assert content_hash(one, ("note",)) == content_hash(same, ("note",)) != content_hash(different, ("note",))
    assert content_hash(one, ("note",)) != content_hash(json.loads(json.dumps(one)) | {"note": "x"}, ("note",))
