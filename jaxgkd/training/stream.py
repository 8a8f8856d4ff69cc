"""Training over a stream of batches with few trips to the host: some batches of one shape go through in one call.

A step of a small model takes less time than it takes to call it, so calls are made for several batches at once.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

Tree = Any


def stacked(batches: Iterable[Tree], size: int) -> Iterator[Tree]:
    """Batches of one shape stacked by ``size``, in the order in which they become complete.

    Batches that are left over at the end come one by one, as stacks of one, so that every shape is compiled for two
    lengths at most.

    Args:
      batches: pytrees of numpy arrays [...]; those of one structure and shape go together.
      size: batches of a stack.

    Yields:
      pytrees of arrays [size, ...] or [1, ...].

    Raises:
      ValueError: ``size`` is below 1.
    """
    if size < 1:
        raise ValueError(f"stacks hold at least 1 batch, not {size}")
    waiting: dict[Any, list[Tree]] = {}
    for batch in batches:
        leaves, structure = jax.tree.flatten(batch)
        shape = (structure, *(np.shape(leaf) for leaf in leaves))
        group = waiting.setdefault(shape, [])
        group.append(batch)
        if len(group) == size:
            yield jax.tree.map(lambda *leaves: np.stack(leaves), *waiting.pop(shape))
    for group in waiting.values():
        for batch in group:
            yield jax.tree.map(lambda leaf: np.asarray(leaf)[None], batch)


def over_stacks(step: Callable[[Tree, Tree], tuple[Tree, Tree]]) -> Callable[[Tree, Tree], tuple[Tree, Tree]]:
    """One compiled call for a stack of batches, which takes the state's buffers over.

    Args:
      step: ``(state, batch) -> (state, logs)``.

    Returns:
      ``(state, stack [k, ...]) -> (state, logs [k, ...])``.
    """
    return jax.jit(lambda state, stack: jax.lax.scan(step, state, stack), donate_argnums=0)
