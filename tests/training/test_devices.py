import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxgkd.errors import ConfigError
from jaxgkd.training.devices import EVERYWHERE, make_mesh, on_default_device, put, put_rows, put_runs, weights_sharding
from jaxgkd.training.execution import Execution, executing, execution

CASES = ["global negatives", "LM extraction", "R-GCN", "BLEG folds", "distilled GCN", "CCMD", "GALLON's GNN"]
SCRIPT = Path(__file__).with_name("on_many_devices.py")


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_all_cases(child):
    out, err = child.communicate()
    assert child.returncode == 0, err[-3000:]
    assert [line for line in out.splitlines() if line in CASES] == CASES


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The folder of what one device gives, after eight have given the same."""
    folder = tmp_path_factory.mktemp("expected")
    assert_all_cases(start(folder))
    return folder


@pytest.mark.thorough
def test_eight_devices_give_what_one_gives(expected):
    assert {path.stem for path in expected.glob("*.npz")} == set(CASES)


@pytest.mark.thorough
def test_two_processes_of_four_devices_give_what_one_device_gives(expected):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = [start(expected, process, port) for process in range(2)]
    for child in children:
        assert_all_cases(child)


def test_one_device_needs_no_mesh():
    assert make_mesh(1) is None and Execution().mesh is None
    tree = {"a": np.ones(3)}
    assert put(tree, None, EVERYWHERE) is tree and put_rows(tree, None) is tree and put_runs(tree, None) is tree
    assert on_default_device(tree, None) is tree


def test_runs_that_do_not_divide_are_filled_up():
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    runs = put_runs({"a": np.arange(6).reshape(3, 2)}, mesh)
    np.testing.assert_array_equal(runs["a"], np.arange(6).reshape(3, 2))
    keys = put_runs(jax.random.split(jax.random.key(0), 3), mesh)
    assert jax.dtypes.issubdtype(keys.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"devices": -1}, "--devices"),
        ({"model_devices": 0}, "--model-devices"),
        ({"checkpoint_every": -1.0}, "--checkpoint-every"),
        ({"checkpoint_every": float("nan")}, "--checkpoint-every"),
    ],
)
def test_what_cannot_be_is_refused(flags, what):
    with pytest.raises(ConfigError, match=f"field '{what}'"):
        Execution(**flags)


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(ConfigError, match=r"4096 devices are asked for, \d+ cpu devices are there"):
        make_mesh(4096)
    with pytest.raises(ConfigError, match="do not divide by 3"):
        make_mesh(len(jax.devices()), 3)


def test_how_trainings_are_carried_out_is_said_for_a_while():
    with executing(Execution(checkpoint_every=1.0)):
        assert execution().checkpoint_every == 1.0
    assert execution() == Execution()


def test_weights_are_divided_along_an_axis_that_allows_it():
    mesh = jax.sharding.AbstractMesh((1, 4), ("data", "model"))
    spec = lambda path, shape: tuple(weights_sharding(mesh, path, shape).spec)  # noqa: E731
    assert spec("layers/up_kernel", (4, 6, 8)) == (None, None, "model")
    assert spec("layers/down_kernel", (4, 8, 6)) == (None, "model", None)
    assert spec("layers/bias", (4, 8)) == ()
    assert spec("embeddings/token", (12, 6)) == ("model", None)
