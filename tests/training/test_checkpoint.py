import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxgkd.errors import CheckpointError
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name, load_tree, save_tree


def tree():
    random = np.random.default_rng(0)
    return {
        "hidden": random.normal(size=(30, 20)).astype(np.float32),
        "row": {"counts": np.arange(5), "loss": np.asarray(0.1), "right": np.array([True, False])},
        "['layers'][0].kernel": random.normal(size=(3, 2)).astype(ml_dtypes.bfloat16),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "one"
    save_tree(path, tree())
    return path


def same_bits(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, np.ndarray)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def test_a_tree_comes_back_to_the_bit(written):
    same_bits(load_tree(written), tree())
    assert os.listdir(written.parent) == ["one"]


def test_device_arrays_are_written_as_they_are(tmp_path):
    save_tree(tmp_path / "a" / "b", {"w": jnp.arange(3.0)})
    same_bits(load_tree(tmp_path / "a" / "b"), {"w": np.arange(3, dtype=np.float32)})


def files_of(path):
    return sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, cut, os.unlink])
def test_damage_to_any_file_is_found(damage, written, tmp_path):
    for name in files_of(written):
        if (written / name).stat().st_size == 0 and damage is not os.unlink:
            continue
        copy = shutil.copytree(written, tmp_path / "copy")
        damage(copy / name)
        with pytest.raises(CheckpointError, match=r"copy: .*; delete this folder and run again with --resume\."):
            load_tree(copy)
        shutil.rmtree(copy)


@pytest.mark.parametrize("content", ["", "{", "null", "[1]", "\0"])
def test_a_list_of_checksums_that_is_none_is_found(content, written, tmp_path):
    copy = shutil.copytree(written, tmp_path / "copy")
    (copy / "checksums.json").write_text(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tree(copy)


def test_the_error_names_the_file_that_is_damaged(written, tmp_path):
    copy = shutil.copytree(written, tmp_path / "copy")
    name = max(files_of(copy), key=lambda name: (copy / name).stat().st_size)
    assert name.as_posix() in json.loads((copy / "checksums.json").read_text())
    flip(copy / name)
    with pytest.raises(CheckpointError, match=f"damaged in {name.as_posix()}"):
        load_tree(copy)


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_tree(tmp_path / "none")


def test_what_is_there_is_not_overwritten(written):
    with pytest.raises(CheckpointError, match="something already"):
        save_tree(written, {"w": np.zeros(1)})
    same_bits(load_tree(written), tree())


def test_a_write_that_is_stopped_leaves_nothing(tmp_path, monkeypatch):
    rename = os.rename

    def stop(source, target):
        if str(target) == str(tmp_path / "one"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        save_tree(tmp_path / "one", {"w": np.zeros(3)})
    assert os.listdir(tmp_path) == []


def test_a_disk_that_refuses_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_tree(tmp_path / "file" / "one", {"w": np.zeros(3)})


def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_written(tmp_path):
    script = Path(__file__).with_name("on_a_full_disk.py")
    environment = {**os.environ, "PYTHONPATH": str(script.parents[2])}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    for line, name in zip(lines, ("file", "tree", "store", "kept", "answers.jsonl"), strict=True):
        assert (line.startswith(f"{tmp_path}/{name}") and "File too large" in line) or "No space left" in line


def test_leaves_go_to_names_and_back():
    nested = {"layers": [{"w": jnp.ones((2, 3))}, {"w": jnp.zeros(3)}], "bias": (jnp.arange(2),)}
    leaves = leaves_by_name(nested)
    assert set(leaves) == {"['layers'][0]['w']", "['layers'][1]['w']", "['bias'][0]"}
    shuffled = dict(reversed(leaves.items()))
    back = from_leaves(shuffled, jax.eval_shape(lambda: nested))
    same_bits(back, jax.tree.map(np.asarray, nested))


def test_leaves_of_another_model_are_refused():
    like = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(1)}
    leaves = leaves_by_name(like)
    with pytest.raises(CheckpointError, match=r"do not share \['b'\]"):
        from_leaves({"['a']": leaves["['a']"]}, like)
    with pytest.raises(CheckpointError, match=r"do not share \['c'\]"):
        from_leaves(leaves | {"['c']": np.zeros(1)}, like)
    with pytest.raises(CheckpointError, match=r"\['a'\] has shape \(3, 2\), the model needs \(2, 3\)"):
        from_leaves(leaves | {"['a']": np.zeros((3, 2))}, like)
