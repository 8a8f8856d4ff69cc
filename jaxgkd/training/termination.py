"""SIGTERM, which schedulers and spot machines send before they kill: save what is underway, then leave.

A training or an extraction that can only be left at certain points says so with `deferred` and asks `leave_if_asked`
there. Anywhere else, or at a second signal, the process leaves at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: What a shell reports of a process that SIGTERM ended, 128 + 15.
EXIT_CODE = 143

_asked = threading.Event()
_lock = threading.Lock()
_deferring = 0


class Terminated(BaseException):
    """The process was asked to leave. Like KeyboardInterrupt no Exception, so that nobody takes it for a failure."""


def heed_sigterm() -> None:
    """From now on SIGTERM raises `Terminated`, as soon as nothing underway would be lost; for the main thread."""
    signal.signal(signal.SIGTERM, _on_signal)


def _on_signal(number: int, frame: object) -> None:
    del number, frame
    at_once = _asked.is_set() or not _deferring
    _asked.set()
    if at_once:
        raise Terminated


@contextmanager
def deferred() -> Iterator[None]:
    """While this lasts, in any thread, a first signal waits until `leave_if_asked` is called."""
    global _deferring
    with _lock:
        _deferring += 1
    try:
        yield
    finally:
        with _lock:
            _deferring -= 1


def asked_to_leave() -> bool:
    """Whether a signal has come."""
    return _asked.is_set()


def leave_if_asked() -> None:
    """Raise `Terminated` if a signal has come."""
    if _asked.is_set():
        raise Terminated
