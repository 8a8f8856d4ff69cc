import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxgkd.nn.drawing_network import DrawingNetwork, _largest, neighbourhoods, squares

SIZE = 24


@pytest.fixture(scope="module")
def network():
    """Graph definition and state of a network."""
    return nnx.split(DrawingNetwork(SIZE, 12, 1, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def look(network):
    """The network as a compiled function of its state and of drawings."""
    return jax.jit(lambda state, drawings: nnx.merge(network[0], state)(drawings))


@pytest.fixture(scope="module")
def slope(look):
    """A loss of states and outputs and its gradient, as a compiled function of a state and of drawings."""

    def loss(state, drawings):
        states, outputs = look(state, drawings)
        return jnp.sum(outputs**2) + jnp.sum(states**2)

    return jax.jit(jax.value_and_grad(loss))


def drawn(n, size=SIZE, seed=0):
    """Noise in a few places on white paper."""
    random = np.random.default_rng(seed)
    return (random.integers(0, 256, (n, size, size)) * (random.random((n, size, size)) < 0.2)).astype(np.uint8)


@pytest.mark.parametrize("size", [8, 33])
def test_shapes(size):
    model = DrawingNetwork(size, 12, 3, rngs=nnx.Rngs(0))
    states, outputs = jax.eval_shape(model, jax.ShapeDtypeStruct((5, size, size), jnp.uint8))
    assert states.shape == (5, model.n_state) == (5, 24) and outputs.shape == (5, 3)
    assert states.dtype == outputs.dtype == jnp.float32


def test_squares_are_cut_out_of_the_drawing():
    ink = drawn(2, 10).astype(np.float32)
    got = np.asarray(squares(jnp.asarray(ink)))
    assert got.shape == (2, 3, 3, 64)
    padded = np.pad(ink, ((0, 0), (4, 4), (4, 4)))
    for i in range(3):
        for j in range(3):
            expected = padded[:, 4 * i : 4 * i + 8, 4 * j : 4 * j + 8]
            # Quarter by quarter, so that the order within is another.
            np.testing.assert_array_equal(np.sort(got[:, i, j]), np.sort(expected.reshape(2, -1)))
    np.testing.assert_array_equal(got[:, 1, 1, :4], ink[:, 0, :4])


@pytest.mark.parametrize("size", [6, 7])
def test_a_product_over_neighbourhoods_is_a_convolution(size):
    random = np.random.default_rng(0)
    state = random.normal(size=(2, size, size, 3)).astype(np.float32)
    kernel = random.normal(size=(3, 3, 3, 4)).astype(np.float32)
    expected = jax.lax.conv_general_dilated(
        state, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    got = neighbourhoods(jnp.asarray(state)) @ kernel.reshape(27, 4)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_largest_number_of_each_channel_gets_the_gradient():
    places = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)), jnp.float32).at[1, 2].set(9).at[1, 4].set(9)
    largest, gradient = jax.value_and_grad(lambda x: _largest(x).sum())(places)
    np.testing.assert_allclose(largest, places.max(axis=1).sum(), rtol=1e-6)
    np.testing.assert_array_equal(gradient.sum(axis=1), np.ones((2, 3)))
    np.testing.assert_array_equal(gradient[1, 2], np.ones(3))


def test_a_gradient_reaches_every_parameter_and_is_the_slope(network, slope):
    drawings, state = drawn(6), network[1]
    _, gradient = slope(state, drawings)
    gradient = jax.tree.map(np.asarray, gradient)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    length = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient)))

    def along(step):
        moved = jax.tree.map(lambda p, g: np.asarray(p) + np.float32(step / length) * g, state, gradient)
        return float(slope(moved, drawings)[0])

    assert (along(1e-3) - along(-1e-3)) / 2e-3 == pytest.approx(length, rel=0.02)


def test_blank_paper_has_a_finite_gradient(network, slope):
    _, gradient = slope(network[1], np.zeros((6, SIZE, SIZE), np.uint8))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_drawing_does_not_see_the_others(network, look):
    drawings = drawn(6)
    states, outputs = look(network[1], jnp.asarray(drawings))
    # Blank drawings fill up batches.
    drawings[2:4] = 0
    other_states, other_outputs = look(network[1], jnp.asarray(drawings))
    same = np.array([0, 1, 4, 5])
    np.testing.assert_allclose(other_states[same], states[same], atol=1e-5)
    np.testing.assert_allclose(other_outputs[same], outputs[same], atol=1e-5)
    assert float(jnp.abs(other_outputs - outputs)[2:4].min()) > 1e-3


def test_dropout_falls_on_the_way_to_the_head_only(network, look):
    graphdef, state = network
    drawings = jnp.asarray(drawn(6))
    dropping = jax.jit(
        lambda rate: nnx.merge(graphdef, state)(drawings, dropout_key=jax.random.key(1), dropout_rate=rate)
    )
    states, outputs = look(state, drawings)
    dropped_states, dropped = dropping(0.5)
    np.testing.assert_allclose(dropped_states, states, atol=1e-6)
    assert float(jnp.abs(dropped - outputs).max()) > 1e-3
    np.testing.assert_allclose(dropping(0.0)[1], outputs, atol=1e-5)


def crosses_and_boxes(n, seed):
    """Crosses (1) and empty boxes (0) of 9 pixels at any place."""
    random = np.random.default_rng(seed)
    drawings, kinds = np.zeros((n, SIZE, SIZE), np.uint8), random.integers(0, 2, n)
    steps = np.arange(9)
    for drawing, kind, (i, j) in zip(drawings, kinds, random.integers(0, SIZE - 9, (n, 2)), strict=True):
        if kind:
            drawing[i + steps, j + steps] = drawing[i + steps, j + 8 - steps] = 255
        else:
            drawing[i : i + 9, [j, j + 8]] = drawing[[i, i + 8], j : j + 9] = 255
    return jnp.asarray(drawings), jnp.asarray(kinds, jnp.float32)


def test_it_learns_what_is_drawn_wherever_it_stands(network, look):
    _, state = network
    optimizer = optax.adam(3e-3)

    def loss(state, drawings, kinds):
        logits = look(state, drawings)[1][:, 0]
        return optax.sigmoid_binary_cross_entropy(logits, kinds).mean()

    @jax.jit
    def step(state, moments, drawings, kinds):
        gradient = jax.grad(loss)(state, drawings, kinds)
        updates, moments = optimizer.update(gradient, moments, state)
        return optax.apply_updates(state, updates), moments

    moments = optimizer.init(state)
    for seed in range(40):
        state, moments = step(state, moments, *crosses_and_boxes(32, seed))
    drawings, kinds = crosses_and_boxes(200, 1000)
    said = look(state, drawings)[1][:, 0] > 0
    assert float((said == (kinds > 0)).mean()) > 0.95


def test_drawings_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="too small"):
        DrawingNetwork(7, 12, 1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="24"):
        DrawingNetwork(SIZE, 12, 1, rngs=nnx.Rngs(0))(jnp.zeros((2, 32, 32), jnp.uint8))
