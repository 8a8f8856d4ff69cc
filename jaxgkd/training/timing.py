"""How long a compiled function takes."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def median_milliseconds(forward: Callable[[], Any], passes: int = 10) -> float:
    """Milliseconds of a call, the median of some after a first one, which compiles; waits for what it returns."""
    times = []
    for _ in range(passes + 1):
        begun = time.perf_counter()
        jax.block_until_ready(forward())
        times.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(times[1:]))
