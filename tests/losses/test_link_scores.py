from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.losses import link_scores
from jaxgkd.losses.link_scores import ScoreKind

KINDS = get_args(ScoreKind)
B, K, D = 5, 4, 6
jitted = jax.jit(link_scores, static_argnums=0)


def width(kind):
    return D // 2 if kind == "rotate" else D


def oracle(kind, source, target, relation, margin):
    """The score of one link in float64, with NumPy's own complex numbers."""
    source, target, relation = (None if x is None else np.asarray(x, np.float64) for x in (source, target, relation))
    if kind == "dot":
        return source @ target
    if kind == "distmult":
        return np.sum(source * relation * target)
    if kind == "rotate":
        source, target = (x[: D // 2] + 1j * x[D // 2 :] for x in (source, target))
        return margin - np.abs(source * np.exp(1j * relation) - target).sum()
    return margin - np.linalg.norm(source + relation - target, ord={"transe_l1": 1, "transe_l2": 2}[kind])


def expected(kind, sources, targets, relation, margin=12.0):
    vectors = [sources, targets, *([] if relation is None else [relation])]
    shape = np.broadcast_shapes(*(x.shape[:-1] for x in vectors))
    vectors = [np.broadcast_to(x, (*shape, x.shape[-1])) for x in vectors]
    if relation is None:
        vectors.append(np.broadcast_to(np.float32(np.nan), (*shape, 1)))
    values = [oracle(kind, *(x[i] for x in vectors), margin) for i in np.ndindex(shape)]
    return np.array(values).reshape(shape)


# Shapes of sources and targets, and of the relation but for its width.
SHAPES = {
    "an edge": ((D,), (D,), ()),
    "a batch": ((B, D), (B, D), (B,)),
    "one relation": ((B, D), (B, D), ()),
    "candidates of their own": ((B, 1, D), (B, K, D), (B, 1)),
    "shared candidates": ((B, 1, D), (K, D), (B, 1)),
    "sources that are candidates": ((K, D), (B, 1, D), (B, 1)),
    "shared candidates of one relation": ((B, 1, D), (1, K, D), (1, 1)),
    "as many relations as candidates": ((D,), (D,), (B, K)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_their_equations_for_all_shapes(kind, normal):
    for sources, targets, relation in SHAPES.values():
        relation = None if kind == "dot" else normal(2, *relation, width(kind))
        arrays = normal(0, *sources), normal(1, *targets), relation
        got = jitted(kind, *arrays, margin=3.0)
        wanted = expected(kind, *arrays, margin=3.0)
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["candidates of their own", "sources that are candidates"])
def test_gradients(kind, shape, normal, check_gradients):
    sources, targets, relation = SHAPES[shape]
    arrays = [normal(0, *sources), normal(1, *targets)]
    if kind != "dot":
        arrays.append(normal(2, *relation, width(kind)))
    check_gradients(lambda *arrays: link_scores(kind, *arrays), *arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_no_distance_has_a_finite_gradient(kind, normal):
    sources = jnp.asarray(normal(0, B, D))
    relation = None if kind == "dot" else jnp.zeros(width(kind))
    value = lambda x: jnp.sum(link_scores(kind, x, sources, relation))  # noqa: E731
    values, gradient = jax.jit(jax.value_and_grad(value))(sources)
    assert np.isfinite(values) and np.all(np.isfinite(gradient))
    if kind not in ("dot", "distmult"):
        np.testing.assert_allclose(values, 12.0 * B)


@pytest.mark.parametrize("kind", ["rotate", "transe_l2"])
def test_distances_hold_a_vector_for_every_pair_once(kind):
    b, k, d = 128, 512, 64
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((b, 1, d), (k, d), (d // 2 if kind == "rotate" else d,))]
    value = lambda *arrays: jnp.sum(jnp.tanh(link_scores(kind, *arrays)))  # noqa: E731
    memory = jax.jit(jax.grad(value, (0, 1, 2))).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1.1 * 4 * b * k * d


def test_half_precision_is_summed_in_single(normal):
    arrays = [jnp.asarray(normal(i, B, D)).astype(jnp.bfloat16) for i in range(3)]
    values = jitted("distmult", *arrays)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, jitted("distmult", *(x.astype(jnp.float32) for x in arrays)))


def test_bad_arguments(untyped):
    x = jnp.ones((B, D))
    for arguments, message in (
        (("cosine", x, x), "one of dot, distmult"),
        (("dot", x, jnp.ones((B, 4))), "one width"),
        (("dot", x, x, x), "no relation"),
        (("distmult", x, x), "a relation"),
        (("rotate", x, x, x), r"width 3 for 'rotate'.*\[5, 6\]"),
        (("rotate", x[:, :5], x[:, :5], x), "odd"),
        (("distmult", x, x[:3], x), r"broadcast.*\[3, 6\]"),
        (("dot", x.astype(int), x), "floating"),
        (("dot", jnp.float32(1), x), "rank 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            link_scores(*arguments)
