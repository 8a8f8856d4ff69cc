"""A file or folder belongs to one writing process at a time."""

import fcntl
import os
from pathlib import Path

from jaxgkd.errors import JaxgkdError


def lock_file(path: Path, owned: Path, error: type[JaxgkdError]) -> int:
    """Take ``owned`` for this process; the system lets go of it when the process ends, however it ends.

    Args:
      path: of the lock, which is made if needed and holds the number of the process.
      owned: what is locked, for people.
      error: raised, with the number of the other process, where one has it.

    Returns:
      A descriptor; closing it gives the lock back.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise error(f"is being written by process {pid}", file=owned, mend="wait until it has finished") from None
    except OSError:
        os.close(descriptor)
        raise
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor
