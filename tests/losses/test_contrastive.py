import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd import losses

# Compiled as one program each: operation by operation the same tests take five times as long.
info_nce = jax.jit(losses.info_nce, static_argnames=("temperature", "block_size", "axis_name", "stop_teacher_gradient"))

N = 20
LABELS = jnp.array(np.random.default_rng(2).integers(-1, 4, N))
WHERE = jnp.arange(N) % 6 != 2
SETTINGS = [
    {},
    {"labels": LABELS, "temperature": 0.5},
    {"where": WHERE},
    {"labels": LABELS, "where": WHERE},
    {"labels": LABELS, "temperature": 0.002},
    {"labels": jnp.full(N, -1)},
    {"labels": jnp.full(N, 3)},
]


def oracle(anchors, targets, labels=None, temperature=0.07, where=None):
    """Anchor by anchor and negative by negative, with the maximum taken out so that no exponential overflows."""
    n = len(anchors)
    anchors, targets = (
        np.float64(x) / np.linalg.norm(np.float64(x), axis=1, keepdims=True) for x in (anchors, targets)
    )
    labels = np.arange(n) if labels is None else np.asarray(labels)
    where = np.ones(n, bool) if where is None else np.asarray(where)
    values = np.zeros(n)
    for i in np.flatnonzero(where):
        scores = [anchors[i] @ targets[i] / temperature]
        for j in np.flatnonzero(where):
            if labels[j] >= 0 and labels[j] != labels[i]:
                scores.append(anchors[i] @ targets[j] / temperature)
        values[i] = max(scores) + np.log(np.sum(np.exp(np.array(scores) - max(scores)))) - scores[0]
    return values


@pytest.fixture
def anchors(normal):
    return jnp.array(normal(0, N, 6))


@pytest.fixture
def targets(normal, anchors):
    return 2.0 * anchors + jnp.array(normal(1, N, 6))


@pytest.mark.parametrize("block_size", [None, 7])
def test_info_nce_is_its_equation(anchors, targets, block_size):
    for given_settings in SETTINGS:
        expected = oracle(anchors, targets, **given_settings)
        values = info_nce(anchors, targets, block_size=block_size, **given_settings)
        np.testing.assert_allclose(values, expected, rtol=2e-5, atol=1e-6 / given_settings.get("temperature", 0.07))


@pytest.mark.parametrize("block_size", [None, 7])
def test_gradients(anchors, targets, block_size, check_gradients):
    def loss(anchors, targets, temperature):
        settings = dict(labels=LABELS, where=WHERE, block_size=block_size, stop_teacher_gradient=False)
        return losses.info_nce(anchors, targets, temperature=temperature, **settings)

    check_gradients(loss, anchors, targets, 0.4)


@pytest.mark.parametrize(("temperature", "labelled"), [(0.07, True), (0.01, False)])
def test_blocks_are_the_dense_form(normal, temperature, labelled):
    """512 items, blocks that do not divide them, the constant shift and the maximum of each row."""
    anchors = normal(3, 512, 64)
    targets = anchors + 2.0 * normal(4, 512, 64)
    labels = jnp.arange(512) % 8 - 1 if labelled else None
    weights = jnp.array(normal(5, 512))

    def results(block_size):
        def weighted(anchors, targets):
            settings = dict(labels=labels, temperature=temperature, where=jnp.arange(512) % 11 != 3)
            values = info_nce(anchors, targets, block_size=block_size, stop_teacher_gradient=False, **settings)
            return jnp.sum(weights * values), values

        (_, values), gradients = jax.jit(jax.value_and_grad(weighted, (0, 1), has_aux=True))(anchors, targets)
        return values, *gradients

    for dense, blocks in zip(results(None), results(100), strict=True):
        np.testing.assert_allclose(blocks, dense, rtol=1e-5, atol=1e-5 * np.abs(dense).max())


def test_a_traced_temperature_is_as_good_as_a_number(anchors, targets):
    for temperature in (0.07, 0.005):
        traced = jax.jit(lambda temperature: losses.info_nce(anchors, targets, temperature=temperature, block_size=7))
        expected = oracle(anchors, targets, temperature=temperature)
        np.testing.assert_allclose(traced(temperature), expected, rtol=2e-5, atol=1e-5)


def test_second_derivatives_of_blocks(anchors, targets):
    """Reverse over reverse, as in gradient penalties."""

    def hessian(block_size):
        def mean(anchors):
            return jnp.mean(info_nce(anchors, targets[:6], labels=LABELS[:6], temperature=0.5, block_size=block_size))

        return jax.jit(jax.jacrev(jax.jacrev(mean)))(anchors[:6])

    np.testing.assert_allclose(hessian(4), hessian(None), rtol=1e-4, atol=1e-5)


def test_seeds_and_steps_in_one_program(normal, anchors, targets):
    """Training under scan, several seeds under vmap, both sides learned, is the same in blocks as densely."""

    def losses_of_steps(block_size):
        def loss(weights):
            settings = dict(labels=LABELS, block_size=block_size, stop_teacher_gradient=False)
            return jnp.mean(info_nce(anchors @ weights[0], targets @ weights[1], **settings))

        def step(weights, _):
            value, gradient = jax.value_and_grad(loss)(weights)
            return weights - 0.1 * gradient, value

        def train(weights):
            return jax.lax.scan(step, weights, length=4)[1]

        return jax.jit(jax.vmap(train))(normal(6, 3, 2, 6, 6))

    dense = losses_of_steps(None)
    assert np.all(dense[:, -1] < dense[:, 0])
    np.testing.assert_allclose(losses_of_steps(7), dense, rtol=1e-4)


def test_unknown_classes(anchors, targets):
    """An unknown item is no one's negative, and has all known items as its own."""
    labels = jnp.array([0, 0, 1, -1, -1])
    values = info_nce(anchors[:5], targets[:5], labels=labels)
    moved = info_nce(anchors[:5], targets[:5].at[3].set(-targets[3]), labels=labels)
    np.testing.assert_array_equal(np.flatnonzero(values != moved), [3])
    alone = info_nce(anchors[:4], targets[:4], labels=jnp.arange(4))
    np.testing.assert_allclose(values[3], alone[3], rtol=1e-5)


def test_no_negatives_gives_zero_and_no_gradient(anchors, targets):
    for block_size in (None, 7):

        def total(anchors, targets, block_size=block_size):
            settings = dict(labels=jnp.zeros(N, int), block_size=block_size, stop_teacher_gradient=False)
            return jnp.sum(info_nce(anchors, targets, **settings))

        value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(anchors, targets)
        assert value == 0
        assert not any(np.any(gradient) for gradient in gradients)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=N, max_size=N), st.sampled_from([1, 6, 64]))
def test_lengths_do_not_matter(scales, block_size):
    random = np.random.default_rng(0)
    anchors, targets = jnp.array(random.normal(size=(2, N, 6)), jnp.float32)
    expected = info_nce(anchors, targets)
    scaled = info_nce(anchors * jnp.array(scales)[:, None], targets, block_size=block_size)
    assert np.all(expected > 0)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-5)


def test_blocks_never_hold_all_scores():
    n, block_size = 8192, 128
    vectors = jax.ShapeDtypeStruct((n, 16), jnp.float32)
    labels = jax.ShapeDtypeStruct((n,), jnp.int32)

    def mean(anchors, targets, labels):
        settings = dict(labels=labels, block_size=block_size, stop_teacher_gradient=False)
        return jnp.mean(info_nce(anchors, targets, **settings))

    compiled = jax.jit(jax.grad(mean, (0, 1))).lower(vectors, vectors, labels).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * n * n / 8


@pytest.mark.usefixtures("untyped")
def test_wrong_arguments():
    vectors = jnp.zeros((3, 5))
    with pytest.raises(ValueError, match=r"anchors \[3, 5\] and targets \[3, 4\]"):
        info_nce(vectors, jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"anchors must have rank 2, but its shape is \[5\]"):
        info_nce(vectors[0], vectors[0])
    with pytest.raises(ValueError, match="anchors must hold floating-point numbers"):
        info_nce(jnp.zeros((3, 5), int), vectors)
    with pytest.raises(ValueError, match=r"labels must have shape \[3\]"):
        info_nce(vectors, vectors, labels=jnp.zeros(4, int))
    with pytest.raises(ValueError, match="labels must hold integers"):
        info_nce(vectors, vectors, labels=jnp.zeros(3))
    with pytest.raises(ValueError, match="where must be boolean"):
        info_nce(vectors, vectors, where=jnp.zeros(3))
    with pytest.raises(ValueError, match="temperature must be above 0, but it is -1"):
        info_nce(vectors, vectors, temperature=-1)
    with pytest.raises(ValueError, match="block_size must be 1 or more, but it is 0"):
        info_nce(vectors, vectors, block_size=0)
