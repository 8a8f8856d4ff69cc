"""A file or folder belongs to one writing process at a time."""

import fcntl
import os
import weakref
from pathlib import Path

from jaxgkd.errors import JaxgkdError


class Owned:
    """A folder of which this process is the writer, for as long as the object is kept."""

    def __init__(self, descriptor: int):
        """``descriptor`` of the lock, closed with the object."""
        weakref.finalize(self, os.close, descriptor)


_owned: weakref.WeakValueDictionary[Path, Owned] = weakref.WeakValueDictionary()


def own_folder(folder: Path, error: type[JaxgkdError]) -> Owned | None:
    """Become the writer of a folder, or share what this process has of it already.

    Args:
      folder: that there is; its lock is the file ``.lock`` in it.
      error: raised where another process has it.

    Returns:
      What is to be kept while the folder is written to; None on a file system without locks.
    """
    place = folder.resolve()
    owned = _owned.get(place)
    if owned is None:
        try:
            owned = _owned[place] = Owned(lock_file(place / ".lock", folder, error))
        except OSError:
            return None
    return owned


def lock_file(path: Path, owned: Path, error: type[JaxgkdError]) -> int:
    """Take ``owned`` for this process; the system lets go of it when the process ends, however it ends.

    Args:
      path: of the lock, which is made if needed and holds the number of the process.
      owned: what is locked, for people.
      error: raised, with the number of the other process, where one has it.

    Returns:
      A descriptor; closing it gives the lock back.
    """
    while True:
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
        if _is_at(descriptor, path):
            break
        # Its owner deleted it between opening and locking: whoever comes next would lock another file.
        os.close(descriptor)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), found)
