import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.nn.molecule_bags import AtomMLP, bags_of
from jaxgkd.nn.molecule_problem import task_loss as molecule_task_loss
from jaxgkd.nn.taught_molecules import Taught, TaughtStudent, label_loss, state_loss, task_loss, taught_problem

RANDOM = np.random.default_rng(0)
N, T = 12, 3
FIELDS, START = RANDOM.integers(0, (4, 3), (3 * N, 2)), np.arange(0, 3 * N + 1, 3)
LABELS = np.where(RANDOM.random((N, T)) < 0.3, np.nan, RANDOM.integers(0, 2, (N, T))).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_missing_labels_are_masked_task_by_task(kind):
    outputs = RANDOM.normal(size=(N, T))
    terms, count = 0.0, 0
    for i in range(N):
        for task in range(T):
            if np.isnan(LABELS[i, task]):
                continue
            count += 1
            if kind == "regression":
                terms += (outputs[i, task] - LABELS[i, task]) ** 2
            else:
                p = sigmoid(outputs[i, task])
                terms -= np.log(p if LABELS[i, task] else 1 - p)
    got = task_loss(jnp.asarray(outputs, jnp.float32), jnp.asarray(LABELS), kind)
    np.testing.assert_allclose(got, terms / count, rtol=1e-5)
    assert float(task_loss(jnp.zeros((2, 1)), jnp.full((2, 1), jnp.nan), kind)) == 0.0


def test_a_teachers_word_counts_for_all_tasks_of_the_molecules_it_speaks_of():
    student, teacher = RANDOM.normal(size=(2, N, T)).astype(np.float32)
    where = np.arange(N) < 5
    p, q = sigmoid(teacher[:5].astype(float)), sigmoid(student[:5].astype(float))
    divergence = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    arrays = jnp.asarray(student), jnp.asarray(teacher), jnp.asarray(where)
    np.testing.assert_allclose(label_loss(*arrays, "classification", 1.0), divergence, rtol=1e-4)
    squared = np.square(student[:5] - teacher[:5]).mean()
    np.testing.assert_allclose(label_loss(*arrays, "regression", 1.0), squared, rtol=1e-5)
    np.testing.assert_allclose(state_loss(*arrays), squared, rtol=1e-5)
    gradient = jax.grad(lambda x: label_loss(x, *arrays[1:], "classification", 1.0))(arrays[0])
    assert not np.asarray(gradient)[5:].any() and np.asarray(gradient)[:5].all()
    to_teacher = jax.grad(lambda x: label_loss(arrays[0], x, arrays[2], "regression", 1.0))(arrays[1])
    assert not np.asarray(to_teacher).any()


@pytest.fixture(scope="module")
def setting():
    def make(key):
        rngs = nnx.Rngs(params=key)
        return TaughtStudent(AtomMLP((4, 3), 4, 2, T, rngs=rngs), 4, (5,), rngs=rngs)

    shared = {
        "molecules": bags_of(FIELDS, START),
        "targets": jnp.asarray(LABELS),
        "taught": Taught(
            jnp.asarray(RANDOM.normal(size=(1, N, T)), jnp.float32),
            (jnp.asarray(RANDOM.normal(size=(N, 5)), jnp.float32),),
            jnp.ones((1, N), bool),
        ),
        "valid_rows": jnp.array([0, 1, 2, 0]),
        "valid_targets": jnp.asarray(np.concatenate([LABELS[:3], np.full((1, T), np.nan)])),
    }
    problem = taught_problem(make, "classification", "auroc")
    params, rest = problem.init(jax.random.key(0), {})
    return problem, params, rest, shared


def run_of(labels, states, **more):
    one = {"learning_rate": 0.01, "weight_decay": 0.0, "dropout": 0.0, "temperature": 1.0}
    return {"settings": {**one, "labels": jnp.array([labels]), "states": jnp.array([states])}, **more}


def test_the_terms_add_up_with_the_weights_of_the_teacher(setting):
    problem, params, rest, shared = setting
    total = lambda labels, states: float(  # noqa: E731
        problem.loss(params, rest, jax.random.key(1), 0.0, run_of(labels, states), shared)[0]
    )
    alone, with_labels, with_states = total(0.0, 0.0), total(1.0, 0.0), total(0.0, 1.0)
    assert with_labels > alone and with_states > alone
    both = alone + 2.0 * (with_labels - alone) + 3.0 * (with_states - alone)
    np.testing.assert_allclose(total(2.0, 3.0), both, rtol=1e-5)


def test_the_student_alone_does_not_hear_the_teacher(setting):
    problem, params, rest, shared = setting
    gradient = jax.grad(lambda p, s: problem.loss(p, rest, jax.random.key(1), 0.0, run_of(0.0, 0.0), s)[0])
    one = gradient(params, shared)
    louder = jax.tree.map(lambda leaf: ~leaf if leaf.dtype == bool else 9 * leaf, shared["taught"])
    other = gradient(params, shared | {"taught": louder})
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_run_learns_from_the_labels_it_may_see(setting):
    problem, params, rest, shared = setting
    seen = np.arange(N) < 6
    loss = lambda run, shared: float(problem.loss(params, rest, jax.random.key(1), 0.0, run, shared)[0])  # noqa: E731
    hidden = shared | {"targets": jnp.where(jnp.asarray(seen)[:, None], shared["targets"], jnp.nan)}
    assert loss(run_of(0.0, 0.0, seen=jnp.asarray(seen)), shared) == loss(run_of(0.0, 0.0), hidden)
    assert loss(run_of(0.0, 0.0), hidden) != loss(run_of(0.0, 0.0), shared)


def test_padding_does_not_validate(setting):
    problem, params, rest, shared = setting
    cut = shared | {"valid_rows": shared["valid_rows"][:3], "valid_targets": shared["valid_targets"][:3]}
    one, other = (problem.evaluate(params, rest, {}, each) for each in (shared, cut))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_a_teacher_that_says_nothing_sends_no_gradient(kind):
    outputs, where = jnp.array([[1.0], [2.0], [jnp.inf]]), jnp.array([True, True, False])
    teacher = jnp.array([[0.5], [1.0], [jnp.nan]])
    gradient = jax.grad(label_loss)(outputs, teacher, where, kind, 1.0)
    assert np.isfinite(gradient).all() and gradient[2, 0] == 0
    labels = jnp.array([[1.0], [0.0], [jnp.nan]])
    for missing in (task_loss, molecule_task_loss):
        masked = {} if missing is task_loss else {"where": where[:, None]}
        assert np.isfinite(jax.grad(missing)(outputs[:2].repeat(2, 0)[:3], labels, *masked.values(), kind)).all()
