from functools import partial
from inspect import signature
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd import losses

# Compiled as one program each: operation by operation the same tests take five times as long.
STATIC = ("axis_name", "block_size", "kernel", "bandwidth", "indices_are_sorted", "stop_teacher_gradient")


def compiled(loss):
    return jax.jit(loss, static_argnames=[name for name in STATIC if name in signature(loss).parameters])


relational_distance = compiled(losses.relational_distance)
relational_angle = compiled(losses.relational_angle)
similarity_preserving = compiled(losses.similarity_preserving)
local_structure = compiled(losses.local_structure)

N = 7
WHERE = jnp.array([True, True, False, True, True, True, True])
KEPT = np.flatnonzero(WHERE)
SENDERS = jnp.array([1, 2, 3, 0, 4, 5, 6, 0, 6])
RECEIVERS = jnp.array([0, 0, 0, 1, 3, 3, 3, 5, 5])


def huber(x):
    return x**2 / 2 if abs(x) <= 1 else abs(x) - 0.5


def distance(x, i, j):
    return np.linalg.norm(np.float64(x[i]) - np.float64(x[j]))


def cosine(x, i, j, k):
    one, other = np.float64(x[i]) - np.float64(x[j]), np.float64(x[k]) - np.float64(x[j])
    return one @ other / (np.linalg.norm(one) * np.linalg.norm(other))


def distance_oracle(student, teacher, items):
    mean = [np.mean([distance(x, *pair) for pair in permutations(items, 2)]) for x in (student, teacher)]
    values = np.zeros(len(student))
    for i, j in permutations(items, 2):
        values[i] += huber(distance(student, i, j) / mean[0] - distance(teacher, i, j) / mean[1]) / (len(items) - 1)
    return values


def angle_oracle(student, teacher, items):
    n = len(items)
    values = np.zeros(len(student))
    for i, j, k in permutations(items, 3):
        values[j] += huber(cosine(student, i, j, k) - cosine(teacher, i, j, k)) / ((n - 1) * (n - 2))
    return values


def similarity_oracle(student, teacher, items):
    values = np.zeros(len(student))
    for i in items:
        rows = [np.array([np.float64(x[i]) @ np.float64(x[j]) for j in items]) for x in (student, teacher)]
        rows = [row / np.linalg.norm(row) for row in rows]
        values[i] = np.sum((rows[0] - rows[1]) ** 2) / len(items)
    return values


KERNELS = {
    "rbf": lambda x, y: np.exp(-np.sum((x - y) ** 2) / (2 * 1.5**2)),
    "linear": lambda x, y: x @ y,
    "polynomial": lambda x, y: (x @ y) ** 2,
    "euclidean": lambda x, y: -np.sum((x - y) ** 2),
}


def local_oracle(student, teacher, items, kernel):
    values = np.zeros(len(student))
    for i in items:
        neighbours = [int(j) for j, receiver in zip(SENDERS, RECEIVERS, strict=True) if receiver == i and j in items]
        if neighbours:
            alike = [
                np.array([kernel(np.float64(x[i]), np.float64(x[j])) for j in neighbours]) for x in (student, teacher)
            ]
            log_q, log_p = (a - max(a) - np.log(np.sum(np.exp(a - max(a)))) for a in alike)
            values[i] = np.sum(np.exp(log_p) * (log_p - log_q))
    return values


@pytest.fixture
def student(normal):
    return jnp.array(normal(0, N, 3))


@pytest.fixture
def teacher(normal):
    return jnp.array(normal(1, N, 5)) * jnp.array([3.0, 1.0, 1.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("loss", "oracle"),
    [
        (relational_distance, distance_oracle),
        (relational_angle, angle_oracle),
        (similarity_preserving, similarity_oracle),
    ],
)
def test_losses_of_all_items_are_their_equations(loss, oracle, student, teacher, check_gradients):
    np.testing.assert_allclose(loss(student, teacher), oracle(student, teacher, range(N)), rtol=2e-5)
    expected = oracle(student, teacher, KEPT)
    np.testing.assert_allclose(loss(student, teacher, where=WHERE), expected, rtol=2e-5)
    check_gradients(lambda *arrays: loss(*arrays, where=WHERE, stop_teacher_gradient=False), student, teacher)


@pytest.mark.parametrize("loss", [relational_angle, similarity_preserving])
def test_blocks_are_the_dense_form(loss, student, teacher):
    def results(block_size):
        def weighted(*arrays):
            values = loss(*arrays, where=WHERE, block_size=block_size, stop_teacher_gradient=False)
            return jnp.sum(jnp.arange(N) * values), values

        return jax.value_and_grad(weighted, (0, 1), has_aux=True)(student, teacher)

    dense, *in_blocks = jax.jit(lambda: [results(block_size) for block_size in (None, 1, 3, 20)])()
    for blocks in in_blocks:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), blocks, dense)


def test_blocks_never_hold_all_rows():
    n, block_size = 4096, 64
    vectors = jax.ShapeDtypeStruct((n, 16), jnp.float32)
    gradient = jax.grad(lambda *arrays: jnp.mean(similarity_preserving(*arrays, block_size=block_size)))
    assert jax.jit(gradient).lower(vectors, vectors).compile().memory_analysis().temp_size_in_bytes < 4 * n * n / 4


def test_all_pairs_given_one_by_one_are_all_pairs(student, teacher, check_gradients):
    pairs = jnp.array([*permutations(range(N), 2), (0, 0), (3, 3)])
    values = relational_distance(student, teacher, pairs=pairs, where=WHERE)
    assert values.shape == (N * (N - 1) + 2,)
    assert not np.any(values[-2:])
    sums = jax.ops.segment_sum(values, pairs[:, 0], N) / (len(KEPT) - 1)
    np.testing.assert_allclose(sums, relational_distance(student, teacher, where=WHERE), rtol=2e-5)
    settings = dict(pairs=pairs[::3], where=WHERE, stop_teacher_gradient=False)
    check_gradients(lambda *arrays: relational_distance(*arrays, **settings), student, teacher)


def test_a_sample_of_pairs_has_its_own_mean(student, teacher):
    pairs = np.array([[0, 1], [4, 6], [3, 5], [2, 5]])
    mean = [np.mean([distance(x, *pair) for pair in pairs]) for x in (student, teacher)]
    expected = [huber(distance(student, *pair) / mean[0] - distance(teacher, *pair) / mean[1]) for pair in pairs]
    np.testing.assert_allclose(relational_distance(student, teacher, pairs=jnp.array(pairs)), expected, rtol=2e-5)


def test_pairs_on_a_mapped_axis_share_one_mean(student, teacher):
    """Two devices with the same items and different pairs."""
    pairs = jnp.array([[[0, 1], [4, 6]], [[3, 5], [2, 5]]])

    def values(pairs):
        return relational_distance(student, teacher, pairs=pairs, axis_name="devices")

    expected = relational_distance(student, teacher, pairs=pairs.reshape(4, 2))
    np.testing.assert_allclose(jax.vmap(values, axis_name="devices")(pairs).reshape(4), expected, rtol=1e-5)


def test_all_triples_given_one_by_one_are_all_triples(student, teacher, check_gradients):
    triples = jnp.array([*permutations(range(N), 3), (0, 1, 0), (2, 2, 3), (4, 5, 5)])
    values = relational_angle(student, teacher, triples=triples, where=WHERE)
    assert not np.any(values[-3:])
    for value, triple in zip(values[:20], triples.tolist(), strict=False):
        expected = huber(cosine(student, *triple) - cosine(teacher, *triple)) if set(triple) <= set(KEPT) else 0.0
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-7)
    sums = jax.ops.segment_sum(values, triples[:, 1], N) / ((len(KEPT) - 1) * (len(KEPT) - 2))
    np.testing.assert_allclose(sums, relational_angle(student, teacher, where=WHERE), rtol=2e-5)
    settings = dict(triples=triples[::5], where=WHERE, stop_teacher_gradient=False)
    check_gradients(lambda *arrays: relational_angle(*arrays, **settings), student, teacher)


@pytest.mark.parametrize("loss", [relational_distance, relational_angle])
def test_moving_turning_and_scaling_change_nothing(loss, student, normal):
    rotation = np.linalg.qr(normal(2, 3, 3))[0]
    np.testing.assert_allclose(loss(student, 4.0 * student @ rotation + 1.0), 0.0, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_local_structure_is_its_equation(kernel, student, teacher, check_gradients):
    settings = dict(kernel=kernel, bandwidth=1.5)
    for where, items in ((None, range(N)), (WHERE, KEPT)):
        values = local_structure(student, teacher, SENDERS, RECEIVERS, where=where, **settings)
        expected = local_oracle(student, teacher, items, KERNELS[kernel])
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)
        assert np.any(expected)
    settings |= dict(where=WHERE, indices_are_sorted=True, stop_teacher_gradient=False)
    check_gradients(lambda *arrays: local_structure(*arrays, SENDERS, RECEIVERS, **settings), student, teacher)


def test_local_structure_does_not_depend_on_the_order_of_edges(student, teacher):
    order = np.random.default_rng(3).permutation(len(SENDERS))
    expected = local_structure(student, teacher, SENDERS, RECEIVERS, indices_are_sorted=True)
    values = local_structure(student, teacher, SENDERS[order], RECEIVERS[order])
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-7)


def test_local_structure_without_edges_is_zero(student, teacher):
    none = jnp.zeros(0, int)
    assert not np.any(local_structure(student, teacher, none, none))


@pytest.mark.usefixtures("untyped")
def test_wrong_arguments():
    vectors, edges = jnp.zeros((3, 5)), jnp.zeros(4, int)

    def on_edges(student, teacher, **settings):
        return local_structure(student, teacher, edges, edges, **settings)

    for loss in (relational_distance, relational_angle, similarity_preserving, on_edges):
        with pytest.raises(ValueError, match=r"equal but for the width.*student \[3, 5\] and teacher \[4, 5\]"):
            loss(vectors, jnp.zeros((4, 5)))
        with pytest.raises(ValueError, match=r"student must have rank 2, but its shape is \[5\]"):
            loss(vectors[0], vectors[0])
        with pytest.raises(ValueError, match="teacher must hold floating-point numbers"):
            loss(vectors, jnp.zeros((3, 5), int))
        with pytest.raises(ValueError, match=r"where must have shape \[3\]"):
            loss(vectors, vectors, where=jnp.ones(5, bool))
    with pytest.raises(ValueError, match=r"pairs must have shape \[any, 2\], but its shape is \[4\]"):
        relational_distance(vectors, vectors, pairs=edges)
    with pytest.raises(ValueError, match=r"triples must have shape \[any, 3\], but its shape is \[4, 2\]"):
        relational_angle(vectors, vectors, triples=jnp.zeros((4, 2), int))
    with pytest.raises(ValueError, match="triples must hold integers"):
        relational_angle(vectors, vectors, triples=jnp.zeros((4, 3)))
    for loss in (relational_angle, similarity_preserving):
        with pytest.raises(ValueError, match="block_size must be 1 or more"):
            loss(vectors, vectors, block_size=0)
    with pytest.raises(ValueError, match=r"senders \[4\] and receivers \[3\]"):
        local_structure(vectors, vectors, edges, edges[:3])
    with pytest.raises(ValueError, match=r"kernel must be 'rbf', .* but it is 'cubic'"):
        on_edges(vectors, vectors, kernel="cubic")
    with pytest.raises(ValueError, match="bandwidth must be above 0"):
        on_edges(vectors, vectors, bandwidth=0.0)
