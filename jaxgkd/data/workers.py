"""Work in all cores: items go to processes in chunks, results come back in order, both in constant memory."""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import get_context
from types import ModuleType
from typing import TypeVar

from jaxgkd.cores import available_cores
from jaxgkd.errors import ConfigError

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")


def map_chunks(
    work: Callable[[Chunk], Result], chunks: Iterable[Chunk], *, workers: int | None = None, few: int = 12
) -> Iterator[Result]:
    """``work`` of every chunk, in order.

    The processes are started afresh (not forked), so that threads of JAX are no danger to them, and without running the
    caller's script again. At most two chunks a process wait at any time; ``chunks`` is read as far as that needs. With
    one worker, and where there are but a few chunks, the work is done here: starting processes takes longer.

    Args:
      work: a function that can be imported (one defined in the script that runs cannot).
      chunks: what it is applied to.
      workers: processes, by default one a core.
      few: chunks that are not worth a process.

    Raises:
      ConfigError: ``workers`` is below 1, or a process died.
    """
    workers = available_cores() if workers is None else workers
    if workers < 1:
        raise ConfigError(f"{workers} processes cannot work", field="workers", mend="use 1 or more")
    chunks = iter(chunks)
    first = list(islice(chunks, few + 1))
    if workers == 1 or len(first) <= few:
        yield from map(work, first)
        yield from map(work, chunks)
        return
    # No with statement: a caller who stops early is not to wait for what is left.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        waiting = deque()
        for chunk in chain(first, chunks):
            with script_left_out():
                waiting.append(pool.submit(work, chunk))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        what = "a process that was working on a part of the data died"
        mend = "make room in memory, or find the part with one worker"
        raise ConfigError(what, field="workers", mend=mend) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def script_left_out() -> Iterator[None]:
    """Processes that start inside do not import the script that runs, which may have no guard against starting more."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
