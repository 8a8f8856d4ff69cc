"""Files that are written whole or not at all: neither a reader nor a crash ever sees half of one."""

import os
import tempfile
from pathlib import Path

from jaxgkd.errors import ConfigError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it, which is renamed into its place.

    Raises:
      ConfigError: the folder is not there or cannot be written to.
    """
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
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
