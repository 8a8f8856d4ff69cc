"""The weights of a student by name, and back: what a run keeps, a program reads and another library can find.

Names are the paths of the module, such as ``convolutions.0.linear.kernel``; running statistics are among them. What a
student learned beside its teacher, such as maps to the teacher's states, lies outside of it and is left out.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.errors import CheckpointError
from jaxgkd.nn.untrained import shapes_of

_STUDENT = "student."


def student_weights(*states: Any) -> dict[str, np.ndarray]:
    """Name → array of all variables of a student; of a model that holds one as ``student``, of that part alone.

    Args:
      *states: states of one model, as `nnx.split` gives them; leaves may have members as first axis.
    """
    named = {
        ".".join(map(str, path)): np.asarray(variable[...])
        for state in states
        for path, variable in nnx.to_flat_state(state)
    }
    of_student = {name.removeprefix(_STUDENT): leaf for name, leaf in named.items() if name.startswith(_STUDENT)}
    return of_student or named


def states_of(make: Callable[[Array], nnx.Module], weights: Mapping[str, Any]) -> tuple[Any, Any]:
    """Parameters and other state of a student, as ``nnx.split(model, nnx.Param, ...)`` gives them after the definition.

    Args:
      make: a student from a key.
      weights: as `student_weights` gives them; of several members, or traced.

    Raises:
      CheckpointError: a weight is missing, left over, or of another shape.
    """
    flat = [nnx.to_flat_state(state) for state in shapes_of(make)]
    wanted = {".".join(map(str, path)): variable for one in flat for path, variable in one}
    mend = "use the version of jaxgkd that trained the student"
    if odd := sorted(wanted.keys() ^ weights.keys()):
        raise CheckpointError(f"the kept weights and the student do not share {odd[0]}", mend=mend)
    for name, variable in wanted.items():
        kept, needed = tuple(weights[name].shape), tuple(variable.shape)
        if kept not in (needed, (*kept[:1], *needed)):
            raise CheckpointError(f"{name} was kept as {kept}, the student needs {needed}", mend=mend)
    filled = [
        nnx.from_flat_state([(path, variable.replace(weights[".".join(map(str, path))])) for path, variable in one])
        for one in flat
    ]
    return filled[0], filled[1]
