"""What a long step shows while it runs: a bar with the time left on a terminal, one line at the end elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: ``(title, epoch, score) -> None``
Listener = Callable[[str, int, float], None]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell ``listener`` of every bar's moves inside, in this thread and in those that copy its context."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


@contextmanager
def progress_bar(console: Console, title: str, total: int) -> Iterator[Callable[[int, float], None]]:
    """A bar over ``total`` epochs; yields the callback that moves it, ``(epoch, score) -> None``."""
    started = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed}/{task.total} epochs, validation {task.fields[score]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total, score="–")

        def moved(epoch: int, score: float) -> None:
            progress.update(task, completed=epoch, score=f"{score:.4f}")
            for listener in _listeners.get():
                listener(title, epoch, score)

        yield moved
    console.print(f"{title}: {time.perf_counter() - started:.1f} s")
