"""How a run is watched: flags of ``jaxgkd run`` that change neither what is computed nor what is kept of it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax

from jaxgkd.training.progress import listening
from jaxgkd.training.run_dir import check_writable
from jaxgkd.training.trackers import TensorBoard, Tracker, WeightsAndBiases


@dataclass(frozen=True)
class Observation:
    """How a run is watched."""

    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where curves, results and figures also go, beside metrics.jsonl: TensorBoard, Weights & Biases. Progress is there
    at once, the curves of the seeds when the run is finished."""
    log_dir: Path = Path("runs/logs")
    """Folder for what these two write; look at it with `tensorboard --logdir runs/logs`."""
    profile: Path | None = None
    """Folder for a trace of what the processor or accelerator does during the whole run. `xprof --logdir FOLDER` shows
    it (pip install xprof), or ui.perfetto.dev the file perfetto_trace.json.gz in it. It grows fast: try --smoke."""


@contextmanager
def observing(how: Observation, name: str) -> Iterator[list[Tracker]]:
    """Watch the run that happens inside.

    Args:
      how: flags.
      name: of the run.

    Yields:
      Who is to be told with `tell` when the run is finished. A tracker that fails while the run is underway is left out
      with a warning: hours of training are worth more than a curve.

    Raises:
      ConfigError: a tracker cannot start, or a folder cannot be written to.
    """
    if how.log:
        check_writable(how.log_dir, "--log-dir")
    trackers: list[Tracker] = []
    try:
        for kind in dict.fromkeys(how.log):
            trackers.append(
                TensorBoard(how.log_dir / name) if kind == "tensorboard" else WeightsAndBiases(how.log_dir, name)
            )
        with listening(lambda *heard: _each(trackers, "progress", *heard)):
            yield trackers
    finally:
        _each(trackers, "abandoned")


def tell(trackers: list[Tracker], folder: Path) -> None:
    """Tell all trackers that the run in ``folder`` is finished."""
    _each(trackers, "finished", folder)
    trackers.clear()


@contextmanager
def profiled(folder: Path | None) -> Iterator[None]:
    """A trace of everything JAX does inside, for XProf and for Perfetto; nothing without a folder.

    Raises:
      ConfigError: the folder cannot be made or written to.
    """
    if folder is None:
        yield
        return
    check_writable(folder, "--profile")
    options = jax.profiler.ProfileOptions()
    # Every call of a Python function would fill the trace of a run before its first training step.
    options.python_tracer_level = 0
    with jax.profiler.trace(str(folder), create_perfetto_trace=True, profiler_options=options):
        yield


def _each(trackers: list[Tracker], what: str, *arguments: object) -> None:
    for tracker in list(trackers):
        try:
            getattr(tracker, what)(*arguments)
        # Whatever a service or a full disk does must not end the run.
        except Exception as error:
            trackers.remove(tracker)
            warnings.warn(f"{type(tracker).__name__} hears no more of this run: {error}", stacklevel=2)
