"""Files and folders that are written whole or not at all: neither a reader nor a crash ever sees half of one."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from jaxgkd import processes
from jaxgkd.errors import ConfigError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it, which is renamed into its place; of several processes the leader.

    Raises:
      ConfigError: the folder is not there, cannot be written to, or is full; what was there before still is.
    """
    if not processes.leading():
        return
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(
            f"the file cannot be written ({error.strerror})", file=path, mend="choose a folder you may write to"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files only their owner can read; give the mode an ordinary open would have given.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        mend = "make room there, or choose another folder"
        raise ConfigError(f"the file cannot be written ({error.strerror})", file=path, mend=mend) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_whole_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Make ``folder`` out of what ``write`` writes into the folder it is given, once that is whole.

    Raises:
      ConfigError: there is something already, or the disk does not take it.
    """
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise ConfigError("there is something already", file=folder, mend="choose a new or empty folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent.absolute(), prefix=f".{folder.name}.") as scratch:
            whole = Path(scratch) / "whole"
            whole.mkdir()
            write(whole)
            os.replace(whole, folder)
    except OSError as error:
        what = f"the folder cannot be written ({error.strerror or error})"
        raise ConfigError(what, file=folder, mend="free space there or choose another folder") from error
