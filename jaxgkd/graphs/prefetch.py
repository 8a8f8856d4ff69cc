"""Batches are made by a thread while the one before is worked on, and sent to the device where that is another place.

On a CPU they stay numpy arrays: a compiled function takes them as they are, putting every array of a batch on the
"device" first costs more than a millisecond a batch.
"""

import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from jaxgkd.graphs.batching import Batch, Step

# How often a waiting thread looks whether it is still wanted, in seconds.
_PATIENCE = 0.05


class _Failed:
    """What went wrong in the thread."""

    def __init__(self, error: BaseException):
        self.error = error


_END = object()


class Prefetch(Iterator[Step]):
    """An iterator over the same steps, their batches on the device, or in numpy where that is a CPU.

    The thread stops at the end, at the first error (which is raised here), on ``close``, at the end of a ``with``
    block, and when nothing refers to the iterator any more.
    """

    def __init__(self, steps: Iterable[Step], *, size: int = 2, device: Any = None):
        """Start the thread.

        Args:
          steps: what ``Batches.stream`` gives.
          size: batches kept ready.
          device: a device or sharding that the arrays are put on in any case; by default JAX's default device, unless
            that is a CPU.
        """
        if size < 1:
            raise ValueError(f"{size} batches cannot be kept ready")
        self._ready: queue.Queue[Any] = queue.Queue(size)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_work,
            args=(iter(steps), self._ready, self._stop, _sender(device)),
            name="jaxgkd-prefetch",
            daemon=True,
        )
        self._thread.start()
        weakref.finalize(self, self._stop.set)

    def __next__(self) -> Step:
        if self._stop.is_set():
            raise StopIteration
        item = self._ready.get()
        if isinstance(item, _Failed):
            self.close()
            raise item.error
        if item is _END:
            self.close()
            raise StopIteration
        return item

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and wait for it; what is ready is thrown away. Closing twice does nothing."""
        self._stop.set()
        self._thread.join()


def prefetch(steps: Iterable[Step], *, size: int = 2, device: Any = None) -> Prefetch:
    """The same steps, made ahead of time in a thread; see `Prefetch`.

    Example:
      >>> import numpy as np
      >>> from jaxgkd.graphs import Batches, ManyGraphs
      >>> dot = {"nodes": np.ones((1, 1)), "senders": np.zeros(0, int), "receivers": np.zeros(0, int)}
      >>> batches = Batches(ManyGraphs.from_list([dot] * 5), batch_size=2)
      >>> with prefetch(batches.stream(epochs=1)) as steps:
      ...     print(sum(int(step.batch.graph_mask.sum()) for step in steps))
      5
    """
    return Prefetch(steps, size=size, device=device)


def _sender(device: Any) -> Callable[[Batch], Batch]:
    """What brings a batch to the device, or leaves it in memory where that is all it takes."""
    if device is None and jax.default_backend() == "cpu":
        return lambda batch: batch
    return lambda batch: jax.device_put(batch, device)


def _work(steps: Iterator[Step], ready: queue.Queue, stop: threading.Event, send: Callable[[Batch], Batch]) -> None:
    try:
        while not stop.is_set():
            step = next(steps, None)
            if step is None:
                _put(ready, _END, stop)
                return
            _put(ready, step._replace(batch=send(step.batch)), stop)
    except BaseException as error:
        _put(ready, _Failed(error), stop)


def _put(ready: queue.Queue, item: Any, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            ready.put(item, timeout=_PATIENCE)
            return
        except queue.Full:
            continue
