"""Memory that is freed stays with the process, so that the next step need not ask for it again.

A compiled program takes its scratch memory anew for every call. Where that comes from the C library of Linux, buffers
of some megabytes go back to the system as soon as they are freed, and the next call gets fresh pages, each of which
the system fills with zeros at the first touch. On a CPU that is up to half the time of a small step.
"""

import ctypes
import resource
import sys

# From <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_LARGEST = 2**31 - 1
_AT_ONCE = 64 * 2**20


def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed; for programs that do little else than train, before they begin.

    The process then holds what it needed at its peak until it ends, at most 2 GiB of it unused at the top.

    Returns:
      whether the C library knows how: glibc does, those of macOS, Windows and musl do not.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # One heap for all threads: what those of threads hold at their top goes back to the system whatever else is set.
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _AT_ONCE), (_ARENA_MAX, 1))
    return all(mallopt(name, value) == 1 for name, value in settings)


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in MiB."""
    # Linux counts kilobytes here, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
