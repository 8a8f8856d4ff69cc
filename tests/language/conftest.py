"""What tests of several files of this folder need."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def quick_compiler() -> Iterator[None]:
    """Programs are compiled with few optimisations, which takes half the time and is enough for small arrays."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
