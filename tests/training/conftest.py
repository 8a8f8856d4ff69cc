import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """These tests compile whole training programs and run them for milliseconds."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
