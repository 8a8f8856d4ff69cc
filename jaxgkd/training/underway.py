"""Trainings that are underway: kept every so often, so that a process that was killed goes on near where it was.

A training is a function of what it is given, its random keys among it, cut into stretches between which the host has
all of its state. `keeping` names a folder for the trainings inside it; each finds its own state there by a hash of
what it was given, so that no training ever goes on from another one's state, and one that was given something else
starts anew. How often states are kept changes no value: a stretch is computed alike whether or not it is the first.

    <folder>/<hash of what was given>/<position>/    see `jaxgkd.training.checkpoint`; the newest two are there
"""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgkd import processes
from jaxgkd.errors import CheckpointError
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name, load_orbax, load_tree, save_tree
from jaxgkd.training.file_lock import lock_file
from jaxgkd.training.termination import Terminated, asked_to_leave, deferred

Tree = Any
# Of every training; the older one is for the case that the newest is damaged.
_KEPT = 2
# Several processes ask each other whether to keep a state after so many steps, and wait for each other when they do.
_STEPS_BETWEEN_QUESTIONS = 8
# The end of a training that took less is not worth keeping: doing it again costs little.
_SHORT_SECONDS = 5.0


class Keeper:
    """Keeps the trainings of one stage; for several threads.

    Writing goes on in a thread of its own beside the training, one state at a time.
    """

    def __init__(self, folder: Path, every: float):
        """Begin the clock.

        Args:
          folder: where; made when there is something to keep.
          every: seconds between two states.
        """
        self.folder, self.every = folder, every
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self._writer = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def due(self) -> bool:
        """Whether a state is to be kept now: for one caller each time, and none while the last one is written."""
        with self._lock:
            writing = self._written is not None and not self._written.done()
            if time.monotonic() - self._last < self.every or (writing and self.every):
                return False
            self._last = time.monotonic()
            return True

    def write(self, folder: Path, parts: dict[str, dict[str, np.ndarray]]) -> None:
        """Write a state beside the training; waits for the one before, whose errors are raised here.

        Several processes write it at once, in the training: what they exchange for that must not cross what it does.

        Raises:
          CheckpointError: the disk does not take it.
        """
        if processes.count() > 1:
            _write(folder, parts)
            return
        with self._lock:
            self._wait()
            load_orbax()
            self._written = self._writer.submit(_write, folder, parts)

    def wait(self) -> None:
        """Until the last state is written."""
        with self._lock:
            self._wait()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def _wait(self) -> None:
        if self._written is not None:
            written, self._written = self._written, None
            written.result()


_keeper: ContextVar[Keeper | None] = ContextVar("keeper", default=None)


@contextmanager
def keeping(folder: Path, every: float) -> Iterator[None]:
    """Trainings inside are kept under ``folder``, about every so many seconds; those that are there go on.

    What is kept stays: whoever has what the trainings were for calls `discard`. Where another run keeps its trainings
    there, this one keeps none. Of several processes the leader writes.

    Raises:
      CheckpointError: the folder cannot be made.
    """
    lock = _lock(folder) if processes.leading() else None
    keeper = Keeper(folder, every) if processes.decided(lock is not None, "keeping") else None
    token = _keeper.set(keeper)
    try:
        yield
    finally:
        _keeper.reset(token)
        try:
            if keeper is not None:
                keeper.close()
                if processes.leading():
                    _remove_if_unused(folder)
        finally:
            if lock is not None:
                os.close(lock)


def _remove_if_unused(folder: Path) -> None:
    if folder.is_dir() and not any(each.is_dir() for each in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)


def discard(folder: Path) -> None:
    """Delete what is kept there, unless another process is keeping it."""
    if folder.is_dir() and (lock := _lock(folder)) is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder for this process, None where another one has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return lock_file(folder / ".lock", folder, _Locked)
    except _Locked:
        return None
    except OSError as error:
        mend = "free space there or choose another folder"
        raise CheckpointError(f"the folder cannot be made ({error.strerror})", file=folder, mend=mend) from error


class _Locked(CheckpointError):
    pass


class Kept:
    """What was kept of a training, in the parts it was handed over in.

    Attributes:
      position: how far the training was.
    """

    def __init__(self, position: int, parts: dict[str, dict[str, np.ndarray]]):
        self.position, self._parts = position, parts

    def like(self, part: str, start: Tree) -> Tree:
        """A part as a pytree of the structure and shapes of ``start``, on devices where ``start`` is."""
        return _from_host(self._parts[part], start)

    def arrays(self, part: str) -> dict[str, np.ndarray]:
        """A part that was a dict of arrays, whatever the names."""
        return {name[2:-2]: values for name, values in self._parts.get(part, {}).items()}


class Training:
    """One training that is underway; made by `underway`."""

    def __init__(self, keeper: Keeper | None, given: Tree):
        self._keeper, self._given = keeper, given
        self._folder: Path | None = None
        self._begun = time.monotonic()
        self._position = self._steps = 0

    def kept(self) -> Kept | None:
        """The newest state that is there, if any.

        Raises:
          CheckpointError: what is kept is damaged.
        """
        # Whatever was given is hashed only where something is kept: most trainings are over before.
        if self._keeper is None:
            return None
        self._keeper.wait()
        found = -1
        if processes.leading() and any(each.is_dir() for each in self._keeper.folder.iterdir()):
            found = max(_positions(self._own_folder()), default=-1)
        if (found := processes.decided(found, "kept")) < 0:
            return None
        self._position = found
        parts = load_tree(self._own_folder() / _name(found))
        # Before any process has read it, no other goes on and lets a newer one take its place.
        processes.wait_for_all("kept-read")
        return Kept(found, {part: _unescaped(leaves) for part, leaves in parts.items()})

    def reached(self, position: int, state: Callable[[], dict[str, Tree]]) -> None:
        """To be called after every stretch: keeps the state if it is time to, and leaves if that was asked for.

        Args:
          position: how far the training is, above 0.
          state: gives all that the training goes on from, in parts.

        Raises:
          Terminated: SIGTERM has come; the state is kept.
          CheckpointError: the disk does not take it.
        """
        self._steps += 1
        if processes.count() > 1 and self._steps % _STEPS_BETWEEN_QUESTIONS:
            return
        leaving = asked_to_leave()
        due = self._keeper is not None and processes.leading() and (leaving or self._keeper.due())
        leaving, due = processes.anywhere(leaving, due)
        if due or (leaving and self._keeper is not None):
            self._keep(position, state)
        if leaving:
            raise Terminated

    def finished(self, position: int, state: Callable[[], dict[str, Tree]]) -> None:
        """To be called at the end; other trainings of the stage may follow, while which this one need not be redone."""
        if self._keeper is not None:
            long = time.monotonic() - self._begun >= min(_SHORT_SECONDS, self._keeper.every)
            if processes.decided(long, "finished"):
                self._keep(position, state)

    def broken(self, what: str, state: Callable[[], dict[str, Tree]]) -> FloatingPointError:
        """The error of a training that cannot go on, its state kept beside those it could go on from, and named."""
        if self._keeper is None:
            return FloatingPointError(what)
        folder = self._own_folder() / "broken"
        self._keeper.wait()
        if processes.leading():
            shutil.rmtree(folder, ignore_errors=True)
        _write(folder, _parts(state()))
        return FloatingPointError(f"{what} (the state is kept in {folder})")

    def _keep(self, position: int, state: Callable[[], dict[str, Tree]]) -> None:
        assert self._keeper is not None
        if position > self._position:
            self._position = position
            self._keeper.write(self._own_folder() / _name(position), _parts(state()))

    def _own_folder(self) -> Path:
        if self._folder is None:
            assert self._keeper is not None
            self._folder = self._keeper.folder / fingerprint(self._given)
        return self._folder


@contextmanager
def underway(*given: Any) -> Iterator[Training]:
    """A training that may be kept, and is left only where it calls `Training.reached`.

    Args:
      given: pytrees of all that decides what the training gives: arrays, random keys, numbers, words, and functions
        without arguments, which give such pytrees when they are needed.
    """
    with deferred():
        if any(processes.anywhere(asked_to_leave())):
            raise Terminated
        yield Training(_keeper.get(), given)


def generator_state(random: np.random.Generator) -> np.ndarray:
    """Where a generator of random numbers is, as an array for a part of a state."""
    return np.frombuffer(json.dumps(random.bit_generator.state).encode(), np.uint8)


def generator(state: np.ndarray) -> np.random.Generator:
    """The generator that goes on from `generator_state`; of NumPy's default kind."""
    random = np.random.default_rng()
    random.bit_generator.state = json.loads(state.tobytes())
    return random


def fingerprint(given: Tree) -> str:
    """A hash of what `underway` is given, and of the names of its leaves."""
    digest = hashlib.sha256()
    given = jax.tree.map(lambda leaf: leaf() if callable(leaf) else leaf, given)
    for path, leaf in jax.tree.leaves_with_path(given):
        array = np.asarray(_raw(leaf))
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def _parts(state: dict[str, Tree]) -> dict[str, dict[str, np.ndarray]]:
    parts = {part: _to_host(tree) for part, tree in state.items()}
    # A part without a leaf is none: Orbax would not give it back.
    return {part: leaves for part, leaves in parts.items() if leaves}


def _write(folder: Path, parts: dict[str, dict[str, np.ndarray]]) -> None:
    save_tree(folder, parts)
    for position in _positions(folder.parent)[:-_KEPT] if processes.leading() else ():
        shutil.rmtree(folder.parent / _name(position), ignore_errors=True)


def _name(position: int) -> str:
    return f"{position:012d}"


def _positions(folder: Path) -> list[int]:
    """Of the states that are there, ascending; what a killed write left has another kind of name."""
    return sorted(int(each.name) for each in folder.glob("*") if each.name.isdigit()) if folder.is_dir() else []


def _raw(leaf: Any) -> Any:
    """Random keys as numbers, anything else as it is."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(tree: Tree) -> dict[str, np.ndarray]:
    # Copies: the next stretch writes over the buffers, and on a CPU they would be the same memory.
    leaves = leaves_by_name(jax.tree.map(_raw, tree))
    return dict(_escaped(name, np.array(leaf)) for name, leaf in leaves.items())


def _escaped(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Orbax takes a slash in a name for a folder, and no array without elements."""
    name = name.replace("/", "|")
    return (name, array) if array.size else (f"{name}#{jnp.dtype(array.dtype).name}", np.array(array.shape, np.int64))


def _unescaped(leaves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    back = {}
    for name, leaf in leaves.items():
        name, _, dtype = name.replace("|", "/").partition("#")
        back[name] = np.zeros(tuple(leaf.tolist()), jnp.dtype(dtype)) if dtype else leaf
    return back


def _from_host(leaves: dict[str, np.ndarray], like: Tree) -> Tree:
    def back(value: np.ndarray, old: Any) -> Any:
        if isinstance(old, jax.Array):
            array = jnp.array(value)
            return jax.random.wrap_key_data(array, impl=str(jax.random.key_impl(old))) if _is_key(old) else array
        return np.array(value) if isinstance(old, np.ndarray) else type(old)(value.item())

    raw = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf), jax.tree.map(_raw, like))
    return jax.tree.map(back, from_leaves(leaves, raw), like)
