"""The runs of a training in parts, each in a thread of its own: what a CPU does best.

The cores of a CPU share out a large product well, the small operations between products badly, and a product on two
cores takes more than half the time it takes on one. A second part fills the gaps. Which runs go together depends on
their number alone, not on the cores there are, so that the same training gives the same numbers on other machines of
the kind.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgkd.cores import available_cores

Tree = Any
# More runs than these in a part leave the caches.
MOST_TOGETHER = 5
_FEWEST = 4


def rows_of_parts(n_run: int, most: int = MOST_TOGETHER) -> np.ndarray:
    """Which runs go together, [parts, together], in order; the last one is repeated so that parts have one shape.

    Args:
      n_run: runs; most: of a part.
    """
    if most == 1:
        return np.arange(n_run)[:, None]
    if n_run < _FEWEST and n_run <= most:
        return np.arange(n_run)[None]
    fewest = 2 * -(-n_run // (2 * most))
    n_part = min(range(fewest, fewest + 6, 2), key=lambda parts: parts * -(-n_run // parts))
    together = -(-n_run // n_part)
    return np.minimum(np.arange(n_part * together), n_run - 1).reshape(n_part, together)


def take(tree: Tree, rows: np.ndarray, *, axis: int = 0) -> Tree:
    """Some runs of a pytree of arrays with the runs as that axis."""
    return jax.tree.map(lambda leaf: leaf[(slice(None),) * axis + (rows,)], tree)


def join(parts: Sequence[Tree], n_run: int, *, axis: int = 0) -> Tree:
    """All runs of all parts, without those that fill up the last one."""
    whole = lambda *leaves: jax.lax.slice_in_dim(jnp.concatenate(leaves, axis), 0, n_run, axis=axis)  # noqa: E731
    return jax.tree.map(whole, *parts)


def side_by_side(function: Callable[..., Tree], arguments: Sequence[tuple]) -> list[Tree]:
    """A compiled function of each of several arguments, in as many threads as there are cores, and waits for it."""
    compute = lambda each: jax.block_until_ready(function(*each))  # noqa: E731
    if len(arguments) == 1:
        return [compute(arguments[0])]
    with ThreadPoolExecutor(min(len(arguments), available_cores())) as pool:
        return list(pool.map(compute, arguments))
