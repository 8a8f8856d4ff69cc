import gzip
import json
import warnings

import jax.numpy as jnp
import pytest
from rich.console import Console

from jaxgkd.errors import ConfigError
from jaxgkd.training.observation import Observation, observing, profiled, tell
from jaxgkd.training.progress import progress_bar


class Heard:
    """A tracker that keeps what it hears, and fails where it is told to."""

    def __init__(self, fails: str = ""):
        self.heard: list[tuple] = []
        self.fails = fails

    def __getattr__(self, name):
        def hear(*arguments):
            if name == self.fails:
                raise RuntimeError("the service is down")
            self.heard.append((name, *arguments))

        return hear


@pytest.fixture
def trackers(monkeypatch):
    """What `--log` starts, in its order."""
    made = []

    def start(*arguments):
        made.append(Heard())
        return made[-1]

    for name in ("TensorBoard", "WeightsAndBiases"):
        monkeypatch.setattr(f"jaxgkd.training.observation.{name}", start)
    return made


def train() -> None:
    with progress_bar(Console(quiet=True), "student", 20) as tick:
        tick(10, 0.5)


def test_trackers_hear_of_progress_and_of_the_end(trackers, tmp_path):
    with observing(Observation(log=("tensorboard", "wandb", "wandb"), log_dir=tmp_path), "run") as found:
        train()
        tell(found, tmp_path)
    train()
    assert len(trackers) == 2
    for tracker in trackers:
        assert tracker.heard == [("progress", "student", 10, 0.5), ("finished", tmp_path)]


def test_a_run_that_fails_is_abandoned(trackers, tmp_path):
    with pytest.raises(KeyError), observing(Observation(log=("wandb",), log_dir=tmp_path), "run"):
        raise KeyError
    assert trackers[0].heard == [("abandoned",)]


def test_a_tracker_that_fails_does_not_end_the_run(trackers, tmp_path):
    with observing(Observation(log=("tensorboard", "wandb"), log_dir=tmp_path), "run") as found:
        trackers[0].fails = "progress"
        with pytest.warns(UserWarning, match="hears no more of this run: the service is down"):
            train()
        train()
        tell(found, tmp_path)
    assert trackers[0].heard == []
    assert [name for name, *_ in trackers[1].heard] == ["progress", "progress", "finished"]


def test_nothing_is_watched_unless_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with observing(Observation(), "run") as found:
        train()
        tell(found, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["log_dir", "profile"])
def test_a_folder_that_cannot_be_made_is_refused_first(tmp_path, how):
    (tmp_path / "file").write_text("")
    flags = Observation(**({"log": ("tensorboard",)} if how == "log_dir" else {}), **{how: tmp_path / "file" / "logs"})
    with (
        pytest.raises(ConfigError, match=f"choose another --{how.replace('_', '-')}"),
        observing(flags, "run"),
        profiled(flags.profile),
    ):
        pass


def test_profile_is_written_for_both_viewers(tmp_path):
    with warnings.catch_warnings(), profiled(tmp_path / "trace"):
        jnp.dot(jnp.ones((32, 32)), jnp.ones((32, 32))).block_until_ready()
    (trace,) = (tmp_path / "trace").rglob("perfetto_trace.json.gz")
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    (planes,) = (tmp_path / "trace").rglob("*.xplane.pb")
    assert planes.stat().st_size > 0
