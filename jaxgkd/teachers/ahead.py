"""Batches of token sequences through a model, in order, with the next ones under way.

An accelerator is kept a few batches ahead. A CPU computes a batch in each of a few threads: its cores share out a large
product well and the small operations between products badly, and a second batch fills the gaps. What a batch gives
does not depend on what runs beside it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from jaxgkd.cores import available_cores
from jaxgkd.teachers.token_batches import Batch, TokenRows
from jaxgkd.training.devices import to_host

_AHEAD = 2
# Activations of a batch of a large model take hundreds of megabytes, and each thread holds one.
_MOST_THREADS = 4

States = Callable[[np.ndarray, np.ndarray], jax.Array]


def computed(
    states: States, tokens: TokenRows, batches: Iterable[Batch], *, on_mesh: bool
) -> Iterator[tuple[int, int, np.ndarray]]:
    """The first row, the end and the states [end - first, ...] of every batch, in order.

    Args:
      states: of ids and mask [b, t], both int32; called in several threads on a CPU.
      tokens: the sequences; batches: of them, see `plan_batches`.
      on_mesh: whether ``states`` runs on several devices, which must be asked in the same order by all processes.
    """
    if jax.default_backend() == "cpu" and not on_mesh:
        return _in_threads(states, tokens, batches)
    return _queued(states, tokens, batches)


def _queued(states: States, tokens: TokenRows, batches: Iterable[Batch]) -> Iterator[tuple[int, int, np.ndarray]]:
    queue: deque[tuple[int, int, jax.Array]] = deque()
    for first, end, shape in batches:
        values = states(*tokens.batch(first, end, shape))
        if values.is_fully_addressable:
            values.copy_to_host_async()
        queue.append((first, end, values))
        if len(queue) > _AHEAD:
            first, end, values = queue.popleft()
            yield first, end, to_host(values)[: end - first]
    for first, end, values in queue:
        yield first, end, to_host(values)[: end - first]


def _in_threads(states: States, tokens: TokenRows, batches: Iterable[Batch]) -> Iterator[tuple[int, int, np.ndarray]]:
    def compute(first: int, end: int, shape: tuple[int, int]) -> np.ndarray:
        return to_host(states(*tokens.batch(first, end, shape)))[: end - first]

    threads = min(available_cores(), _MOST_THREADS)
    queue: deque[tuple[int, int, Future[np.ndarray]]] = deque()
    # Not a with statement, which would wait for all that was asked when one batch fails.
    pool = ThreadPoolExecutor(threads)
    try:
        for first, end, shape in batches:
            queue.append((first, end, pool.submit(compute, first, end, shape)))
            if len(queue) > threads + _AHEAD:
                first, end, values = queue.popleft()
                yield first, end, values.result()
        for first, end, values in queue:
            yield first, end, values.result()
    finally:
        pool.shutdown(cancel_futures=True)
