"""Several processes that carry out one run together, each with its own devices, often on machines of their own.

All go through the same program, and through every compiled program in the same order, or they would wait for each other
for ever. So whatever depends on the disk, the clock or a signal is decided by one of them, the *leader*, which also
writes the files of the run; folders lie where all of them see them. JAX connects the processes and Orbax gives the
barrier; with one process everything here does nothing.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count as counter

from jaxgkd.errors import ConfigError

AUTO = "auto"
# Longer than the leader needs for what the others wait for: a language model over all texts, say.
_MOST_HOURS = 24
_SECONDS_BEHIND = 2.0

_number, _count = 0, 1
_waits = counter()


@dataclass(frozen=True)
class Processes:
    """Processes that carry out one run together; each is started with the same command and a number of its own."""

    coordinator: str | None = None
    """HOST:PORT of process 0, a free port that the others reach; auto asks the cluster (SLURM, Open MPI, GKE, Cloud
    TPU) for this and the numbers. All processes share the folder given by --out and the user's cache."""
    processes: int = 1
    """How many there are. They use all of their devices."""
    process_id: int = 0
    """Which one this is, from 0."""

    def __post_init__(self):
        """Refuse what cannot be.

        Raises:
          ConfigError: a number is out of range, or one is given without the others.
        """
        if self.processes < 1:
            raise ConfigError(f"the value is {self.processes}", field="--processes", mend="give 1 or more")
        if not 0 <= self.process_id < self.processes:
            what = f"there is no process {self.process_id} of {self.processes}"
            raise ConfigError(what, field="--process-id", mend=f"give 0 to {self.processes - 1}")
        if self.coordinator is None and self.processes > 1:
            what = "several processes do not know where to meet"
            raise ConfigError(what, field="--coordinator", mend="give HOST:PORT of process 0 to all of them, or auto")
        if self.coordinator is not None and self.coordinator != AUTO:
            host, _, port = self.coordinator.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
                mend = "give HOST:PORT, such as 10.0.0.1:9876, or auto"
                raise ConfigError(f"'{self.coordinator}' has no host and port", field="--coordinator", mend=mend)


def join(flags: Processes) -> None:
    """Connect this process with the others; before anything asks JAX for a device.

    Raises:
      ConfigError: the cluster does not say what it is asked for, or the others do not come.
    """
    global _number, _count
    if flags.coordinator is None:
        return
    import jax

    # It would take SIGTERM for itself, see `jaxgkd.training.termination`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if flags.coordinator == AUTO:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(flags.coordinator, flags.processes, flags.process_id)
    except (RuntimeError, ValueError) as error:
        what = f"the processes do not find each other ({str(error).splitlines()[0]})"
        mend = "start all of them with the same --coordinator and --processes, each with its own --process-id"
        raise ConfigError(what, field="--coordinator", mend=mend) from error
    _number, _count = jax.process_index(), jax.process_count()


def count() -> int:
    """How many processes carry out this run together."""
    return _count


def number() -> int:
    """Which of them this is, from 0."""
    return _number


def leading() -> bool:
    """Whether this process decides and writes."""
    return _number == 0


def wait_for_all(what: str) -> None:
    """Until every process has come here; ``what`` names the place where one hangs."""
    if _count > 1:
        from orbax.checkpoint import multihost

        wait = multihost.get_barrier_sync_fn()
        wait(key=f"{what}-{next(_waits)}", timeout_ms=_MOST_HOURS * 3_600_000)


def decided(value: int, what: str) -> int:
    """What the leader passes, in every process; they wait for it here."""
    if _count == 1:
        return value
    import numpy as np
    from jax.experimental import multihost_utils

    # The leader may be busy for long before it decides, and devices do not wait for each other as patiently.
    wait_for_all(what)
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def anywhere(*asked: bool) -> list[bool]:
    """Of each value, whether any of the processes, which come here at the same time, passes True."""
    if _count == 1:
        return list(asked)
    import numpy as np
    from jax.experimental import multihost_utils

    return np.any(multihost_utils.process_allgather(np.array(asked, np.int32)), axis=0).tolist()


@contextmanager
def leader_first(what: str) -> Iterator[None]:
    """The leader goes through this before the others do, which then find in the cache what it has made."""
    if not leading():
        wait_for_all(what)
    yield
    if leading():
        wait_for_all(what)


def leave(code: int) -> int:
    """The exit code of this process; after an error, one of several ends here, not to keep the others waiting."""
    if _count > 1 and code:
        if leading():
            # The others are connected through it, and are ended with it.
            time.sleep(_SECONDS_BEHIND)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
