import json
import os
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest

from jaxgkd.errors import CheckpointError, ConfigError, DataError
from jaxgkd.training.file_lock import lock_file
from jaxgkd.training.run_dir import RunDirectory, environment, read_json, with_files
from jaxgkd.training.stage import once
from jaxgkd.whole_file import write_whole

CONFIG = {"data": "scipy-docs", "seeds": (0, 1), "width": 128}


def test_a_new_folder_holds_the_settings_and_where_it_ran(tmp_path):
    run = RunDirectory(tmp_path / "runs" / "one", CONFIG, resume=False)
    assert read_json(run.path / "config.json") == {"data": "scipy-docs", "seeds": [0, 1], "width": 128}
    recorded = read_json(run.path / "environment.json")
    assert recorded == environment()
    assert recorded["versions"].keys() >= {"jax", "flax", "numpy"}
    assert not run.finished
    run.write_json("summary.json", {})
    assert run.finished


def test_an_empty_folder_is_taken_and_a_used_one_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    RunDirectory(tmp_path / "empty", CONFIG, resume=False)
    with pytest.raises(ConfigError, match=r"empty: the folder is not empty; .* --resume"):
        RunDirectory(tmp_path / "empty", CONFIG, resume=False)


def test_resume_starts_where_nothing_is_and_continues_what_is_there(tmp_path):
    first = RunDirectory(tmp_path / "run", CONFIG, resume=True)
    first.write_text("note.txt", "here")
    again = RunDirectory(tmp_path / "run", CONFIG, resume=True)
    assert (again.path / "note.txt").read_text() == "here"


def test_a_run_that_another_process_works_on_is_left_alone(tmp_path):
    held = lock_file(tmp_path / ".lock", tmp_path, ConfigError)
    half_written = tmp_path / "checkpoints" / ".teacher.0123abcd"
    half_written.mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"is being written by process {os.getpid()}; wait until it has finished"):
        RunDirectory(tmp_path, {"a": 1}, resume=True)
    assert half_written.exists() and not (tmp_path / "config.json").exists()
    os.close(held)
    RunDirectory(tmp_path, {"a": 1}, resume=True)
    assert not half_written.exists()


@pytest.mark.parametrize("name", ["thesis.tex", "config.json", "environment.json", "checkpoints/.git/HEAD"])
def test_a_folder_that_is_no_runs_is_neither_taken_nor_touched(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("[1]")
    (tmp_path / "data.csv").write_text("a")
    for resume in (False, True):
        with pytest.raises(ConfigError, match="the folder is not empty, and no run's; choose another --out"):
            RunDirectory(tmp_path, CONFIG, resume=resume)
    assert file.read_text() == "[1]"
    assert not (tmp_path / ".lock").exists()


def test_resume_with_other_settings_names_the_setting(tmp_path):
    RunDirectory(tmp_path, CONFIG, resume=False)
    with pytest.raises(ConfigError, match=r"config\.json, field 'width': the run there was started with 128, not 64"):
        RunDirectory(tmp_path, CONFIG | {"width": 64}, resume=True)
    # A setting that did not exist when the run began does not end it.
    RunDirectory(tmp_path, CONFIG | {"new": 1}, resume=True)


@pytest.mark.parametrize("content", ["", "{", "null", "[1]", "3", b"\xff\xfe{"])
def test_settings_that_are_damaged_are_named(content, tmp_path):
    RunDirectory(tmp_path, CONFIG, resume=False)
    (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"config\.json: "):
        RunDirectory(tmp_path, CONFIG, resume=True)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"summary\.json: the file is missing"):
        read_json(tmp_path / "summary.json")


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=r"cannot be made \(.+\); choose another --out"):
            RunDirectory(path, CONFIG, resume=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="cannot be written to"):
        RunDirectory(tmp_path / "run", CONFIG, resume=False)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_whole(tmp_path / "file" / "note.txt", b"")


def test_a_stage_is_computed_once_and_read_back_to_the_bit(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"scores": np.random.default_rng(len(calls)).normal(size=(3, 4)), "best": {"epoch": np.arange(3)}}

    first = RunDirectory(tmp_path, CONFIG, resume=False).stage("student_alone", compute)
    again = RunDirectory(tmp_path, CONFIG, resume=True).stage("student_alone", compute)
    assert calls == [1]
    for stage in (first, again):
        assert stage["scores"].dtype == np.float64
        assert stage["scores"].tobytes() == np.random.default_rng(1).normal(size=(3, 4)).tobytes()
        assert stage["best"]["epoch"].tolist() == [0, 1, 2]


def test_a_stage_that_fails_is_computed_again(tmp_path):
    run = RunDirectory(tmp_path, CONFIG, resume=False)
    with pytest.raises(RuntimeError):
        run.stage("teacher", lambda: (_ for _ in ()).throw(RuntimeError))
    assert os.listdir(run.path / "checkpoints") == []
    assert run.stage("teacher", lambda: {"w": np.ones(2)})["w"].tolist() == [1, 1]
    (run.path / "checkpoints" / "teacher" / "checksums.json").unlink()
    with pytest.raises(CheckpointError, match="delete this folder and run again with --resume"):
        run.stage("teacher", lambda: {"w": np.ones(2)})


def test_lines_and_arrays_are_written_to_be_read_elsewhere(tmp_path):
    run = RunDirectory(tmp_path, CONFIG, resume=False)
    run.write_lines("metrics.jsonl", [{"epoch": 1}, {"epoch": 2}])
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"epoch": 1},
        {"epoch": 2},
    ]
    run.write_arrays("predictions.npz", {"labels": np.arange(3), "pred/teacher": np.ones((2, 3))})
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"labels", "pred/teacher"}
        np.testing.assert_array_equal(arrays["labels"], np.arange(3))
    with pytest.raises(ValueError, match="allow_pickle"):
        run.write_arrays("objects.npz", {"a": np.array([object()])})
    assert not (tmp_path / "objects.npz").exists()


def test_a_write_that_is_stopped_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_whole(tmp_path / "summary.json", b"old")

    def stop(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    for name in ("summary.json", "other.json"):
        with pytest.raises(KeyboardInterrupt):
            write_whole(tmp_path / name, b"new")
    assert os.listdir(tmp_path) == ["summary.json"]
    assert (tmp_path / "summary.json").read_bytes() == b"old"


def test_a_process_that_is_killed_before_the_rename_leaves_no_file(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from jaxgkd.whole_file import write_whole\n"
        "os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_whole(Path(sys.argv[1]), b'half')"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "summary.json")], capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "summary.json").exists()
    write_whole(tmp_path / "summary.json", b"whole")
    assert (tmp_path / "summary.json").read_bytes() == b"whole"


def test_files_have_the_permissions_that_the_user_gives_new_files(tmp_path):
    (tmp_path / "usual").write_text("")
    write_whole(tmp_path / "ours", b"")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_files_that_settings_name_are_known_by_what_is_in_them(tmp_path):
    path = tmp_path / "splits.json"
    path.write_text("[]")
    settings = {"splits_file": path, "descriptions": None, "unlabelled": "nci", "seeds": 5}
    before = with_files(settings, "splits_file", "descriptions", "unlabelled")
    assert json.loads(json.dumps(before)) == before
    assert (before["splits_file"], before["unlabelled"], before["descriptions"]) == (str(path), "nci", None)
    assert list(before["files_sha256"]) == ["splits_file"]
    path.write_text("[1]")
    assert with_files(settings, "splits_file") != before


def test_of_two_runs_that_compute_the_same_both_go_on(tmp_path, monkeypatch):
    rename, folder = os.rename, tmp_path / "kept"

    def late(source, target):
        if target == folder:
            shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    np.testing.assert_array_equal(once(folder, lambda: {"a": np.arange(3)})["a"], np.arange(3))
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
