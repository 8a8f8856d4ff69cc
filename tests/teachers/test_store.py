import json
import os
import subprocess
import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.errors import ConfigError, StoreError
from jaxgkd.teachers import Manifest, Store, StoreWriter, default_root, item_ids_hash, store_files, store_path
from jaxgkd.teachers import store as store_module

ITEMS = [f"paper-{i}" for i in range(11)]
# Items 3 and 7 share a row; the others are stored backwards.
ROWS = np.array([9, 8, 7, 6, 5, 4, 3, 6, 2, 1, 0])
HIDDEN = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float32)
LOG_PROBS = np.log(np.random.default_rng(1).dirichlet(np.ones(4), size=10)).astype(np.float32)
PARTS = ((0, 4), (4, 8), (8, 10))


def manifest(**changes):
    hashes = {name: f"{name} of this test" for name in ("weights_hash", "tokenizer_hash", "prompt_hash", "data_sha256")}
    return replace(
        Manifest(
            teacher_id="a teacher",
            **hashes,
            item_ids_hash=item_ids_hash(ITEMS),
            n_items=11,
            n_rows=10,
            pooling="mean",
            layers=(0, 2),
            width=3,
            max_tokens=16,
            dtype="float32",
            extras={"log_probs": (4,)},
        ),
        **changes,
    )


def write_missing(folder, what=None, parts=PARTS):
    with StoreWriter(folder, what or manifest(), ITEMS, ROWS) as writer:
        for start, stop in parts:
            if any(a <= start and stop <= b for a, b in writer.missing()):
                writer.write(start, HIDDEN[start:stop], log_probs=LOG_PROBS[start:stop], seconds=0.5)
        return writer.finish({"n_tokens": 7, "seconds": writer.seconds})


def array_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.npy")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_missing(tmp_path_factory.mktemp("finished") / "store").folder


def test_reading_follows_the_items_not_the_rows(finished):
    store = Store.open(finished)
    assert len(store) == 11 and store.item_ids == tuple(ITEMS) and store.manifest == manifest()
    assert store.report == {"n_tokens": 7, "seconds": 1.5}
    np.testing.assert_array_equal(store.as_array(), HIDDEN[ROWS])
    np.testing.assert_array_equal(store.read([3, 7, 0, 0]), HIDDEN[[6, 6, 9, 9]])
    np.testing.assert_array_equal(store.read(np.array([10, 1]), "log_probs"), LOG_PROBS[[0, 8]])
    assert store.as_array().dtype == np.float32 and store.read([]).shape == (0, 2, 3)
    with pytest.raises(StoreError, match="has no array 'logits'"):
        store.read([0], "logits")


def test_the_folder_is_what_the_documentation_says(finished):
    names = {path.name for path in finished.iterdir() if path.name != ".lock"}
    chunks = {f"chunk-0000{i}{extra}.npy" for i in range(3) for extra in ("", ".log_probs")}
    assert names == {"manifest.json", "items.json", "rows.npy", *chunks}
    assert np.load(finished / "chunk-00001.npy").shape == (4, 2, 3)
    written = json.loads((finished / "manifest.json").read_text())
    assert written["data_sha256"] == "data_sha256 of this test" and written["created_by"].startswith("jaxgkd ")
    assert [(chunk["start"], chunk["stop"]) for chunk in written["chunks"]] == list(PARTS)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@settings(deadline=None, max_examples=30)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_dtypes_round_as_jax_does(tmp_path_factory, dtype, bits):
    values = np.array(bits, dtype=np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        # XLA on a CPU may flush subnormals, so the oracle is the type's own numpy conversion.
        rounded = values.astype(jnp.dtype(dtype)).astype(np.float32)
    values, rounded = values[np.isfinite(rounded)], rounded[np.isfinite(rounded)]
    ids = [str(i) for i in range(len(values))]
    what = manifest(dtype=dtype, layers=(0,), width=1, extras={}, n_items=len(ids), n_rows=len(ids))
    with StoreWriter(tmp_path_factory.mktemp("dtype"), replace(what, item_ids_hash=item_ids_hash(ids)), ids) as writer:
        if ids:
            writer.write(0, values[:, None, None])
        np.testing.assert_array_equal(writer.finish().as_array()[:, 0, 0], rounded)


def test_device_arrays_in_bfloat16_are_kept_bit_by_bit(tmp_path):
    values = jnp.arange(60, dtype=jnp.bfloat16).reshape(10, 2, 3) / 7
    with StoreWriter(tmp_path, manifest(dtype="bfloat16", extras={}), ITEMS, ROWS) as writer:
        writer.write(0, np.asarray(values))
        np.testing.assert_array_equal(writer.finish().as_array(), np.asarray(values, np.float32)[ROWS])


@pytest.mark.parametrize(
    "dtype, value", [("float16", 7e4), ("bfloat16", 3.4e38), ("float32", np.nan), ("bfloat16", np.nan)]
)
def test_what_does_not_fit_the_dtype_is_refused_by_item(tmp_path, dtype, value):
    hidden = HIDDEN.copy()
    hidden[8, 1, 2] = value
    with StoreWriter(tmp_path, manifest(dtype=dtype, extras={}), ITEMS, ROWS) as writer:
        with pytest.raises(StoreError, match=f"'hidden' of item 'paper-1' is not finite as {dtype}"):
            writer.write(0, hidden)
        assert writer.missing() == [(0, 10)]


@pytest.mark.parametrize(
    "name", ["chunk-00001.npy", "chunk-00002.log_probs.npy", "rows.npy", "items.json", "manifest.json"]
)
def test_one_flipped_bit_anywhere_is_found_and_named_and_mended(finished, tmp_path, name):
    size = (finished / name).stat().st_size
    for k, position in enumerate(np.linspace(0, size - 1, 12).astype(int)):
        folder = tmp_path / str(k)
        copy_store(finished, folder)
        damaged = bytearray((folder / name).read_bytes())
        damaged[position] ^= 1 << (k % 8)
        (folder / name).write_bytes(damaged)
        with pytest.raises(StoreError, match=name):
            Store.open(folder)
        if name == "manifest.json":
            with pytest.raises(StoreError, match=r"manifest\.json: .*delete the folder"):
                write_missing(folder)
        else:
            np.testing.assert_array_equal(write_missing(folder).as_array(), HIDDEN[ROWS])
            assert array_bytes(folder) == array_bytes(finished)


def copy_store(source, folder):
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


def test_a_truncated_or_missing_file_is_found(finished, tmp_path):
    copy_store(finished, tmp_path / "cut")
    for name in ("chunk-00000.npy", "manifest.json"):
        whole = (finished / name).read_bytes()
        for size in (0, 1, len(whole) // 2, len(whole) - 1):
            (tmp_path / "cut" / name).write_bytes(whole[:size])
            with pytest.raises(StoreError, match=name):
                Store.open(tmp_path / "cut")
        (tmp_path / "cut" / name).write_bytes(whole)
    (tmp_path / "cut" / "chunk-00002.npy").unlink()
    with pytest.raises(StoreError, match=r"chunk-00002\.npy: is damaged or missing \(rows 8 to 9\)"):
        Store.open(tmp_path / "cut")
    with pytest.raises(StoreError, match="there is no store"):
        Store.open(tmp_path / "nowhere")


def test_a_manifest_of_another_format_says_so(finished, tmp_path):
    copy_store(finished, tmp_path / "new")
    document = json.loads((finished / "manifest.json").read_text())
    (tmp_path / "new" / "manifest.json").write_text(json.dumps({**document, "format": 2}))
    with pytest.raises(StoreError, match="field 'format': has format 2, this version reads 1"):
        Store.open(tmp_path / "new")
    (tmp_path / "new" / "manifest.json").write_text("[1, 2]")
    with pytest.raises(StoreError, match="is no store's manifest"):
        Store.open(tmp_path / "new")


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the library may catch it."""


@pytest.mark.parametrize("after", [False, True])
def test_a_run_stopped_at_any_file_goes_on_to_the_same_bytes(finished, tmp_path, monkeypatch, after):
    real_replace = os.replace
    stopped = 0
    for k in range(40):
        folder, calls = tmp_path / str(k), iter(range(10**6))

        def replace_until(source, target, k=k, calls=calls):
            number = next(calls)
            if number == k and not after:
                raise Killed
            real_replace(source, target)
            if number == k:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(store_files.os, "replace", replace_until)
            try:
                write_missing(folder)
            except Killed:
                stopped += 1
            else:
                break
        if k and (folder / "manifest.json").exists() and not (after and stopped == 13):
            with pytest.raises(StoreError, match=r"is not finished, \d+ of 10 rows"):
                Store.open(folder)
        np.testing.assert_array_equal(write_missing(folder).as_array(), HIDDEN[ROWS])
        assert array_bytes(folder) == array_bytes(finished)
        assert not list(folder.glob("*.part"))
    # Three files to begin with, three a chunk and the report: every one of them was the place of a stop.
    assert stopped == 3 + 3 * 3 + 1


def test_finished_chunks_are_not_written_again(finished, tmp_path):
    with StoreWriter(tmp_path, manifest(), ITEMS, ROWS) as writer:
        writer.write(4, HIDDEN[4:8], log_probs=LOG_PROBS[4:8])
        assert writer.missing() == [(0, 4), (8, 10)]
        with pytest.raises(ConfigError, match="rows 7 to 9 are not missing"):
            writer.write(7, HIDDEN[7:], log_probs=LOG_PROBS[7:])
        with pytest.raises(ConfigError, match="rows from 0 on are missing"):
            writer.finish()
    before = (tmp_path / "chunk-00000.npy").stat().st_mtime_ns
    store = write_missing(tmp_path)
    assert (tmp_path / "chunk-00000.npy").stat().st_mtime_ns == before
    np.testing.assert_array_equal(store.as_array("log_probs"), LOG_PROBS[ROWS])


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("data_sha256", "f" * 64, r"made from other data \(data_sha256 …* instead of ffffffffffff…\)"),
        ("weights_hash", "other", "made with other weights"),
        ("tokenizer_hash", "other", "made with another tokenizer"),
        ("prompt_hash", "other", "made from other prompts"),
        ("pooling", "cls", r"made with other settings \(mean instead of cls\)"),
        ("layers", (0, 3), r"made with other settings \(\[0, 2\] instead of \[0, 3\]\)"),
        ("max_tokens", 17, "made with other settings"),
        ("dtype", "float16", "made with other settings"),
        ("extras", {}, "made with other settings"),
    ],
)
def test_another_manifest_is_refused_by_field_and_harms_nothing(finished, field, value, message):
    before = array_bytes(finished)
    with pytest.raises(StoreError, match=f"field '{field}': {message}".replace("…*", ".*")) as raised:
        StoreWriter(finished, manifest(**{field: value}), ITEMS, ROWS)
    assert str(raised.value).endswith("choose another folder, or delete this one.")
    assert array_bytes(finished) == before and len(Store.open(finished)) == 11


def test_other_items_or_another_layout_are_refused(finished):
    others = [*ITEMS[:-1], "another"]
    with pytest.raises(StoreError, match="made for other items"):
        StoreWriter(finished, manifest(item_ids_hash=item_ids_hash(others)), others, ROWS)
    with pytest.raises(StoreError, match="lays its rows out differently"):
        StoreWriter(finished, manifest(), ITEMS, ROWS[::-1])
    with pytest.raises(ConfigError, match="item_ids"):
        StoreWriter(finished, manifest(), others, ROWS)
    with pytest.raises(ConfigError, match="'rows'"):
        StoreWriter(finished, manifest(), ITEMS, np.arange(11))


def test_what_was_not_declared_is_refused(tmp_path):
    with StoreWriter(tmp_path, manifest(), ITEMS, ROWS) as writer:
        with pytest.raises(ConfigError, match=r"arrays \['hidden'\] are not"):
            writer.write(0, HIDDEN)
        with pytest.raises(ConfigError, match=r"'log_probs': shape \(10, 3\) is not \(10, 4\)"):
            writer.write(0, HIDDEN, log_probs=LOG_PROBS[:, :3])
    with pytest.raises(ConfigError, match="'int8' is not one of float32, float16, bfloat16"):
        manifest(dtype="int8")
    with pytest.raises(ConfigError, match=r"'\.\./x' cannot name an array"):
        manifest(extras={"../x": ()})


def test_one_writer_at_a_time_and_a_dead_one_is_replaced(tmp_path):
    with StoreWriter(tmp_path, manifest(), ITEMS, ROWS):
        with pytest.raises(StoreError, match=f"is being written by process {os.getpid()}; wait"):
            StoreWriter(tmp_path, manifest(), ITEMS, ROWS)
        script = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        other = subprocess.run([sys.executable, "-c", script, tmp_path / ".lock"], capture_output=True, text=True)
        assert "BlockingIOError" in other.stderr
    (tmp_path / ".lock").write_text("999999999999")
    assert len(write_missing(tmp_path)) == 11


def test_a_writer_that_fails_to_open_lets_go_of_the_lock(finished):
    with pytest.raises(StoreError):
        StoreWriter(finished, manifest(max_tokens=9), ITEMS, ROWS)
    assert len(write_missing(finished)) == 11


def test_stores_are_found_by_content(tmp_path, monkeypatch):
    path = store_path(tmp_path, manifest())
    assert path.parent == tmp_path and len(path.name) == 32
    # Names and what follows from the rest do not move a store; everything else does.
    assert store_path(tmp_path, manifest(teacher_id="x", created_by="y", n_rows=3)) == path
    others = [{"data_sha256": "x"}, {"layers": (2, 0)}, {"dtype": "float16"}, {"extras": {}}, {"pooling": "last"}]
    assert len({store_path(tmp_path, manifest(**other)) for other in others} | {path}) == len(others) + 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store_path(None, manifest()) == tmp_path / "cache" / "jaxgkd" / "stores" / path.name
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "jaxgkd" / "stores"


@pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="needs a file system that refuses new folders, as /proc does"
)
def test_a_folder_that_cannot_be_written_is_one_sentence():
    with pytest.raises(StoreError, match=r"/proc/\S+: cannot be used \(.*\); choose another folder") as raised:
        StoreWriter("/proc/jaxgkd/store", manifest(), ITEMS, ROWS)
    assert raised.value.__cause__ is None and "\n" not in str(raised.value)


def test_no_right_to_write_and_a_full_disk_are_one_sentence(tmp_path, monkeypatch):
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(StoreError, match="Permission denied"):
            StoreWriter(tmp_path / "closed" / "store", manifest(), ITEMS, ROWS)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with StoreWriter(tmp_path / "full", manifest(), ITEMS, ROWS) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(store_files.os, "fsync", full)
            with pytest.raises(StoreError, match="No space left on device"):
                writer.write(0, HIDDEN, log_probs=LOG_PROBS)
        assert writer.missing() == [(0, 10)]
    np.testing.assert_array_equal(write_missing(tmp_path / "full").as_array(), HIDDEN[ROWS])


def test_a_store_that_points_out_of_its_folder_is_not_followed(finished, tmp_path):
    copy_store(finished, tmp_path / "store")
    outside = tmp_path / "chunk-00000.npy"
    outside.write_bytes((finished / "chunk-00000.npy").read_bytes())
    document = json.loads((finished / "manifest.json").read_text())
    del document["seal"]
    document["chunks"][0]["files"]["hidden"]["file"] = "../chunk-00000.npy"
    sealed = {**document, "seal": store_module.seal_of(document)}
    (tmp_path / "store" / "manifest.json").write_text(json.dumps(sealed))
    with pytest.raises(StoreError, match="is damaged or missing"):
        Store.open(tmp_path / "store")
