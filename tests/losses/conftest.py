"""Tools that the tests of several losses share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import config


@pytest.fixture
def untyped():
    """Switch the runtime type checker off, so that a function's own check of its arguments is what speaks."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def normal():
    """Standard normal float32 arrays, the same ones in every run: ``normal(seed, *shape)``."""

    def draw(seed, *shape):
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    return draw


@pytest.fixture
def check_gradients():
    """Compare reverse-mode gradients with central differences along three directions in all arguments, in float64.

    One program does it all, since compiling is what such a test spends its time on.
    """

    def check(loss, *arrays, step=1e-5):
        random = np.random.default_rng(99)
        with jax.enable_x64(True):
            arrays = [jnp.asarray(np.asarray(array, np.float64)) for array in arrays]
            directions = [random.normal(size=(3, *array.shape)) for array in arrays]
            weights = random.normal(size=jax.eval_shape(loss, *arrays).shape)

            def weighted(*arrays):
                return jnp.sum(weights * loss(*arrays))

            @jax.jit
            def program(arrays, directions):
                gradients = jax.grad(weighted, argnums=tuple(range(len(arrays))))(*arrays)
                exact = sum(jnp.vecdot(d.reshape(3, -1), g.ravel()) for d, g in zip(directions, gradients, strict=True))
                moves = [jnp.concatenate([step * d, -step * d]) for d in directions]
                moved = jax.vmap(lambda *moves: weighted(*map(jnp.add, arrays, moves)))(*moves)
                return exact, (moved[:3] - moved[3:]) / (2 * step)

            exact, measured = program(arrays, directions)
        assert np.all(np.abs(exact) > 1e-4), "a direction that tells nothing"
        np.testing.assert_allclose(exact, measured, rtol=1e-6, atol=1e-8)

    return check
