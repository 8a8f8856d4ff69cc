"""The folder of one run: refused when in use, resumed when asked, every file in it whole or absent."""

import hashlib
import io
import json
import os
import platform
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from jaxgkd import processes
from jaxgkd.errors import ConfigError, DataError
from jaxgkd.training.file_lock import Owned, own_folder
from jaxgkd.training.stage import once
from jaxgkd.whole_file import write_whole

# How checkpoints are called until they are whole.
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}")
PACKAGES = ("jaxgkd", "jax", "jaxlib", "flax", "optax", "jraph", "orbax-checkpoint", "transformers", "numpy", "scipy")


class RunDirectory:
    """One run's folder: ``config.json``, ``environment.json``, ``checkpoints/`` and what the run adds to them.

    Attributes:
      latest: the folder that this process has opened last, for messages.
    """

    latest: ClassVar[Path | None] = None

    def __init__(self, path: Path, config: Mapping[str, Any], *, resume: bool):
        """Make or reopen the folder, which is this process's own until the object goes.

        Args:
          path: the folder; made when it is not there.
          config: the settings of the run, as JSON values.
          resume: continue what is there, instead of refusing a folder that is not empty.

        Raises:
          ConfigError: the folder is not empty and ``resume`` is off, it belongs to a run with other settings, another
            process works there, or it cannot be written to.
        """
        check_folder(path, resume=resume)
        self.path = RunDirectory.latest = path
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            self._owned = _own(path)
            # What a killed process was writing and never finished.
            for left in (path / "checkpoints").glob(".*") if processes.leading() else ():
                if _UNFINISHED.fullmatch(left.name):
                    shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise ConfigError(
                f"the folder cannot be made ({error.strerror})", file=path, mend="choose another --out"
            ) from error
        if not os.access(path, os.W_OK):
            raise ConfigError("the folder cannot be written to", file=path, mend="choose another --out")
        _check_shared(path)
        if (path / "config.json").exists():
            check_same(path, config)
        else:
            self.write_json("config.json", config)
        if not (path / "environment.json").exists():
            self.write_json("environment.json", environment())
        processes.wait_for_all("run-directory")

    @property
    def finished(self) -> bool:
        """Whether the run reached its end: ``summary.json`` is the last thing that is written."""
        return bool(processes.decided((self.path / "summary.json").exists(), "finished"))

    def stage(self, name: str, compute: Callable[[], Any]) -> Any:
        """The nested dicts of arrays that ``compute`` returns, computed at most once in the life of the folder.

        Args:
          name: of the folder under ``checkpoints/``.
          compute: called when the stage is not there yet.
        """
        return once(self.path / "checkpoints" / name, compute)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def write_lines(self, name: str, values: Iterable[Any]) -> None:
        """Write one JSON value a line, whole or not at all."""
        self.write_text(name, "".join(json.dumps(value) + "\n" for value in values))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        write_whole(self.path / name, text.encode())

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write named arrays as a compressed NPZ without pickles, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)  # type: ignore[arg-type]
        write_whole(self.path / name, buffer.getvalue())


def check_same(path: Path, wanted: Mapping[str, Any]) -> None:
    """Raises ConfigError, with the name of the setting, where a run was started with others.

    Args:
      path: its folder; wanted: settings, as JSON values. One that the run does not know of is passed over.
    """
    found = read_json(path / "config.json")
    if not isinstance(found, Mapping):
        raise DataError("holds no settings", file=path / "config.json", mend="choose another --out")
    for field, value in json.loads(json.dumps(wanted)).items():
        if field in found and found[field] != value:
            before = found[field]
            if isinstance(before, Mapping) and isinstance(value, Mapping):
                field = next(f"{field}.{each}" for each in (*before, *value) if before.get(each) != value.get(each))
                before, value = (each.get(field.partition(".")[2]) for each in (before, value))
            raise ConfigError(
                f"the run there was started with {before!r}, not {value!r}",
                file=path / "config.json",
                field=field,
                mend="resume it with the settings it was started with, or choose another --out",
            )


def _own(path: Path) -> Owned | None:
    """The leader's lock; all processes refuse together what is another run's.

    Raises:
      ConfigError: another run is working there.
    """
    owned, refused = None, None
    if processes.leading():
        try:
            owned = own_folder(path, ConfigError)
        except ConfigError as error:
            refused = error
    if processes.anywhere(refused is not None)[0]:
        raise refused or ConfigError("another run is working there", file=path, mend="wait until it has finished")
    return owned


def _check_shared(path: Path) -> None:
    """Whether all processes see the same folder.

    Raises:
      ConfigError: they do not.
    """
    if processes.count() == 1:
        return
    mark = path / ".shared"
    drawn = processes.decided(secrets.randbits(31), "folder")
    write_whole(mark, str(drawn).encode())
    processes.wait_for_all("marked")
    seen = mark.exists() and mark.read_text() == str(drawn)
    if processes.anywhere(not seen)[0]:
        what = "process 0 writes there, and not all others see it"
        raise ConfigError(what, file=path, mend="choose an --out on a file system that all processes share")
    if processes.leading():
        mark.unlink()


def check_folder(path: Path, *, resume: bool) -> bool:
    """Whether there is something to continue in a run's folder; finds out what would be refused, and makes nothing.

    Several processes call this together.

    Args:
      path: the folder of a run.
      resume: a folder that is not empty may be continued.

    Raises:
      ConfigError: the folder is not empty and ``resume`` is off, or it could not be made or written to.
    """
    try:
        # Of several processes the others come after the leader has asked, and may have begun to write.
        used = bool(processes.decided(path.is_dir() and any(path.iterdir()), "folder-used"))
    except OSError as error:
        what = f"the folder cannot be read ({error.strerror})"
        raise ConfigError(what, file=path, mend="choose another --out") from error
    if used and not processes.decided(processes.leading() and _is_run(path), "is-run"):
        raise ConfigError("the folder is not empty, and no run's", file=path, mend="choose another --out")
    if used and not resume:
        raise ConfigError(
            "the folder is not empty", file=path, mend="choose another --out, or add --resume to continue it"
        )
    check_writable(path)
    return used


def _is_run(path: Path) -> bool:
    """Whether a folder is that of a run, which may have been killed before it had written anything."""
    if (path / "environment.json").is_file():
        try:
            return "versions" in read_json(path / "environment.json")
        except (DataError, TypeError):
            return False
    checkpoints = path / "checkpoints"
    begun = {each.name for each in path.iterdir()} <= {"checkpoints", ".lock", "config.json"}
    left = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return begun and all(_UNFINISHED.fullmatch(each.name) for each in left)


def with_files(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Settings as JSON has them, and what is in the files that some of them name: a run that goes on reads the same.

    Args:
      settings: of a run; names: of those that can be the path of a file, which are written as text.
    """
    paths = {name: Path(settings[name]) for name in names if settings[name] is not None}
    found = {}
    for name, path in paths.items():
        if path.is_file():
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return {**settings, **{name: str(settings[name]) for name in paths}, "files_sha256": found}


def check_writable(path: Path, flag: str = "--out") -> None:
    """Whether a folder can be made and written to; makes nothing.

    Args:
      path: the folder; flag: that another one is to be given with.

    Raises:
      ConfigError: it cannot.
    """
    above = path.absolute()
    while not (above.exists() or above.is_symlink()):
        above = above.parent
    try:
        # Rights alone do not tell: some file systems refuse whoever asks.
        with tempfile.TemporaryFile(dir=above):
            return
    except OSError as error:
        what = "written to" if path.is_dir() else "made"
        what = f"the folder cannot be {what} ({error.strerror})"
        raise ConfigError(what, file=path, mend=f"choose another {flag}") from error


def read_json(path: Path) -> Any:
    """Read a JSON file; a DataError names it when it is missing or damaged."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "the file is missing"
        raise DataError(what, file=path, mend="restore the file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"not readable as JSON ({error})", file=path, mend="restore the file") from error


def environment() -> dict[str, Any]:
    """Versions, platform and devices, for ``environment.json``; no variable of the environment is recorded."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "versions": versions,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
