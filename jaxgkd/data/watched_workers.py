"""Work in all cores where each item has a time limit: a process that goes on beyond it is ended and replaced."""

import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from jaxgkd.cores import available_cores
from jaxgkd.data.workers import script_left_out
from jaxgkd.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")
# Results a process that may wait for those before them.
_AHEAD = 1024
_STARTED = "started"


class _Worker:
    """A process, the number of the item it works on, and when that is to be done."""

    def __init__(self, work: Callable[[Any], Any]):
        context = get_context("spawn")
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(other_end, work), daemon=True)
        with script_left_out():
            self.process.start()
        # Only the process holds its end now, so that its death is noticed at this one.
        other_end.close()
        self.number: int | None = None
        self.until = float("inf")
        self.is_ready = False

    def give(self, number: int, item: Any, seconds: float) -> bool:
        """Whether the process took the item; one that ended while it waited takes none."""
        try:
            self.connection.send(item)
        except OSError:
            return False
        self.number, self.until, self.is_ready = number, time.monotonic() + seconds, False
        return True

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def map_watched(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    seconds: float,
    late: Result,
    died: Result,
    workers: int | None = None,
) -> Iterator[Result]:
    """``work`` of every item, in order, each within a time limit.

    Args:
      work: a function that can be imported.
      items: what it is applied to, read as far as needed.
      seconds: that an item may take.
      late: the result of an item that takes longer.
      died: the result of an item at which the process ends, as when memory runs out.
      workers: processes, by default one a core.

    Raises:
      ConfigError: a setting does not fit, or processes cannot be started.
      Exception: whatever ``work`` raises.
    """
    count = available_cores() if workers is None else workers
    if count < 1 or not seconds > 0:
        what = f"{count} processes with {seconds} seconds an item cannot work"
        raise ConfigError(what, mend="use 1 process or more and a time limit above 0")
    numbered = enumerate(items)
    item = next(numbered, None)
    results: dict[int, Any] = {}
    wanted = 0
    team: list[_Worker] = []
    try:
        while item is not None or any(worker.number is not None for worker in team) or results:
            while wanted in results:
                yield results.pop(wanted)
                wanted += 1
            for worker in list(team):
                if worker.is_ready and item is not None and item[0] < wanted + _AHEAD * count:
                    if worker.give(*item, seconds):
                        item = next(numbered, None)
                    else:
                        worker.end()
                        team.remove(worker)
            if item is not None and len(team) < count and all(not worker.is_ready for worker in team):
                team.append(_Worker(work))
            for worker in _heard_from(team):
                kind, message = _said(worker.connection, died)
                if kind == "raised":
                    raise message
                if worker.number is not None:
                    results[worker.number] = message
                elif kind == "died":
                    raise ConfigError("a process ended before it had work", mend="see what it printed")
                worker.number, worker.until, worker.is_ready = None, float("inf"), True
                if kind == "died":
                    worker.end()
                    team.remove(worker)
            for worker in [worker for worker in team if time.monotonic() > worker.until]:
                results[worker.number] = late  # type: ignore[index]
                worker.end()
                team.remove(worker)
    finally:
        for worker in team:
            worker.end()


def _heard_from(team: list[_Worker]) -> list[_Worker]:
    """Workers that have something to say, after waiting for one until the first time limit is reached."""
    talking = [worker for worker in team if not worker.is_ready]
    if not talking:
        return []
    patience = max(0.0, min(worker.until for worker in talking) - time.monotonic())
    heard = wait([worker.connection for worker in talking], None if patience == float("inf") else patience)
    return [worker for worker in talking if worker.connection in heard]


def _said(connection: Connection, died: Any) -> tuple[str, Any]:
    try:
        return connection.recv()
    except (EOFError, OSError):
        return "died", died


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """What a process does: says that it is there, then answers every item until nobody listens."""
    connection.send((_STARTED, None))
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            answer = ("done", work(item))
        except Exception as error:
            answer = ("raised", error)
        connection.send(answer)
