"""How a run is carried out: what changes its cost and what happens when something goes wrong, but no sound result.

A run's settings say what is computed and are kept with it; these say on what, and may differ when it goes on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

import jax
from jax.sharding import Mesh

from jaxgkd import processes
from jaxgkd.errors import ConfigError
from jaxgkd.training.devices import make_mesh


@dataclass(frozen=True)
class Execution:
    """How a run is carried out."""

    devices: int = 1
    """Devices the run is spread over, 0 for all: runs, rows of batches and texts are divided among them."""
    model_devices: int = 1
    """Of these, how many share the weights of the language model, where one device has no room for them."""
    checkpoint_every: float = 60.0
    """Seconds between two checkpoints of a training that is underway; --resume goes on from the last one."""
    on_nan: Literal["stop", "skip"] = "stop"
    """A step of a student that gives numbers that are not finite stops the run, its state kept; or it is left out and
    counted in metrics.jsonl, up to ten epochs in a row or less than all batches of one."""

    def __post_init__(self):
        """Refuse what cannot be.

        Raises:
          ConfigError: a value is out of range.
        """
        for field, least in (("devices", 0), ("model_devices", 1)):
            if getattr(self, field) < least:
                what, flag = f"the value is {getattr(self, field)}", f"--{field.replace('_', '-')}"
                raise ConfigError(what, field=flag, mend=f"give {least} or more")
        if not self.checkpoint_every >= 0:
            what = f"the value is {self.checkpoint_every}"
            raise ConfigError(what, field="--checkpoint-every", mend="give 0 or more seconds")

    @property
    def mesh(self) -> Mesh | None:
        """Of the devices of all processes, None for a single one.

        Raises:
          ConfigError: there are fewer devices.
        """
        if processes.count() > 1:
            # Whatever shares the weights of a language model lies within a process.
            return make_mesh(0 if self.devices == 1 else self.devices)
        return None if self.devices == 1 else make_mesh(self.devices, self.model_devices)

    @property
    def language_mesh(self) -> Mesh | None:
        """Of the devices that run a language model, those of this process, None for a single one.

        Raises:
          ConfigError: there are fewer devices.
        """
        if processes.count() > 1:
            return make_mesh(0, self.model_devices, of=jax.local_devices())
        return self.mesh


_execution: ContextVar[Execution] = ContextVar("execution", default=Execution())  # noqa: B039


def execution() -> Execution:
    """How trainings are carried out here."""
    return _execution.get()


@contextmanager
def executing(how: Execution) -> Iterator[None]:
    """Trainings inside, in this thread and in those that copy its context, are carried out like this."""
    token = _execution.set(how)
    try:
        yield
    finally:
        _execution.reset(token)
