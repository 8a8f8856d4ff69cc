import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgkd import processes
from jaxgkd.errors import ConfigError
from jaxgkd.processes import Processes
from jaxgkd.teachers.store import Store
from jaxgkd.training.checkpoint import load_tree

ROOT = Path(__file__).parents[1]
SMALL = {
    "epochs": 10,
    "width": 8,
    "hops": 1,
    "seeds": 3,
    "folds": 2,
    "max_tokens": 24,
    "parts": 8,
    "aligned_nodes": 16,
    "heads": "gcn",
    "split": "public",
    "checkpoint_every": 0,
}


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"processes": 0}, "field '--processes': the value is 0"),
        ({"coordinator": "a:1", "processes": 2, "process_id": 2}, "field '--process-id': there is no process 2 of 2"),
        ({"processes": 2}, "field '--coordinator': several processes do not know"),
        ({"coordinator": "a", "processes": 2}, "'a' has no host and port"),
        ({"coordinator": ":80", "processes": 2}, "':80' has no host and port"),
        ({"coordinator": "a:99999", "processes": 2}, "'a:99999' has no host and port"),
    ],
)
def test_what_cannot_be_is_refused(flags, what):
    with pytest.raises(ConfigError, match=what):
        Processes(**flags)


def test_one_process_decides_and_waits_for_nobody():
    processes.join(Processes())
    assert processes.leading() and processes.count() == 1 and processes.number() == 0
    assert processes.decided(7, "this") == 7 and processes.anywhere(False, True) == [False, True]
    with processes.leader_first("this"):
        processes.wait_for_all("this")
    assert processes.leave(2) == 2


def started(arguments, cache, number=None, port=None, flags=()):
    """A run on two devices; of a number, one of two processes with two devices each."""
    words = [sys.executable, "-m", "jaxgkd.cli", "run", "lingugkd"]
    for name, value in (SMALL | arguments).items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    if number is not None:
        words += ["--coordinator", f"localhost:{port}", "--processes", "2", "--process-id", str(number)]
    two_devices = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    # Stores lie in the cache of each; what one has compiled the next need not.
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(arguments["data"].parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    paths = {"XLA_FLAGS": two_devices, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **compiled, **paths}
    return subprocess.Popen(
        [*words, *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cache,
        errors="replace",
    )


def two(arguments, cache, *flags):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [started(arguments, cache, number, port, flags) for number in range(2)]


def ends(children):
    outputs = [child.communicate(timeout=200) for child in children]
    for child, (_, err) in zip(children, outputs, strict=True):
        assert child.returncode == 0, err[-3000:]
    return [out for out, _ in outputs]


@pytest.fixture(scope="module")
def data(text_graph_folder, tmp_path_factory):
    return text_graph_folder(tmp_path_factory.mktemp("data") / "topics", n_per_class=100, split=True)


@pytest.fixture(scope="module")
def alone(data, bert_folder, tmp_path_factory):
    """What one process makes of a run, and its cache."""
    folder = tmp_path_factory.mktemp("alone")
    (out,) = ends([started({"data": data, "teacher": bert_folder, "out": folder / "run"}, folder)])
    assert "report:" in out
    return folder


def assert_same_run(one, other):
    """Figures and weights agree up to the last digits, stores and splits bit by bit."""
    summaries = [json.loads((folder / "run" / "summary.json").read_text()) for folder in (one, other)]
    for name, expected in summaries[0]["results"].items():
        np.testing.assert_allclose(summaries[1]["results"][name]["test"], expected["test"], atol=1e-6, err_msg=name)
    for name in ("student_alone", "student_distilled"):
        trees = [load_tree(folder / "run" / "checkpoints" / name) for folder in (one, other)]
        for tree in trees:
            tree.pop("seconds")
        # Adam divides by gradients, and where these are nearly 0 their last bits decide.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=2e-3), *trees)
    stores = [Store.open(next((folder / "jaxgkd" / "stores").iterdir())) for folder in (one, other)]
    np.testing.assert_array_equal(stores[0].as_array(), stores[1].as_array())
    for path in (one / "run" / "splits").iterdir():
        assert path.read_bytes() == (other / "run" / "splits" / path.name).read_bytes()
    files = [{path.relative_to(each) for path in (each / "run").rglob("*.json*")} for each in (one, other)]
    assert files[0] == files[1]


@pytest.mark.thorough
def test_two_processes_make_the_run_that_one_makes(alone, data, bert_folder, tmp_path):
    # What the leader alone does, such as a trace, must not wait for the others.
    arguments = {"data": data, "teacher": bert_folder, "out": tmp_path / "run", "profile": tmp_path / "trace"}
    leader, other = ends(two(arguments, tmp_path))
    assert list((tmp_path / "trace").rglob("*.gz"))
    # What remains of the other is said by the library that connects processors.
    assert "report:" in leader and all(line.startswith(("[Gloo]", " peer")) for line in other.splitlines())
    assert_same_run(alone, tmp_path)
    # Each has written chunks of its own, and nothing is left of what it wrote beside.
    chunks = {path.name for path in (tmp_path / "jaxgkd" / "stores").glob("*/*")}
    assert {"chunk-00000.npy", "chunk-p1-00000.npy"} <= chunks
    assert not any(name.startswith("share") for name in chunks)


@pytest.fixture(scope="module")
def undisturbed(data, bert_folder, tmp_path_factory):
    """What two processes make of a longer run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ends(two({"data": data, "teacher": bert_folder, "out": folder / "run", "epochs": 200}, folder))
    return folder


@pytest.mark.thorough
def test_two_processes_that_were_ended_go_on(undisturbed, data, bert_folder, tmp_path):
    arguments = {"data": data, "teacher": bert_folder, "epochs": 200}
    killed = tmp_path / "killed"
    killed.mkdir()
    arguments["out"] = killed / "run"
    kept, flags = set(), ()
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        children = two(arguments, killed, *flags)
        # In the middle of the first student's training, and further than the last time.
        until = time.monotonic() + 300
        while not (now := set((killed / "run" / "checkpoints").glob("student_alone.underway/*/0*"))) - kept:
            assert time.monotonic() < until and all(child.poll() is None for child in children)
            time.sleep(0.02)
        kept, flags = kept | now, ("--resume",)
        for child in children:
            child.send_signal(number)
        for child in children:
            child.communicate(timeout=200)
            assert child.returncode == code
    assert not (killed / "run" / "summary.json").exists()
    ends(two(arguments, killed, "--resume"))
    trees = [load_tree(folder / "run" / "checkpoints" / "student_alone") for folder in (undisturbed, killed)]
    for tree in trees:
        tree.pop("seconds")
    jax.tree.map(np.testing.assert_array_equal, *trees)
