import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxgkd import losses

# Compiled as one program each: operation by operation the same tests take five times as long.
STATIC = ("temperature", "stop_teacher_gradient")
soft_target_kl = jax.jit(losses.soft_target_kl, static_argnames=STATIC)
decoupled_kl = jax.jit(losses.decoupled_kl, static_argnames=STATIC)

LABELS = jnp.array([[0, 3, 1], [2, -1, 3]])
WHERE = jnp.array([[True, True, False], [True, True, True]])


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def kl(p, q):
    return np.sum(p * np.log(p / q), axis=-1)


def soft_target_oracle(student, teacher, temperature):
    student, teacher = (softmax(np.asarray(logits, np.float64) / temperature) for logits in (student, teacher))
    return temperature**2 * kl(teacher, student)


def decoupled_oracle(student, teacher, label, alpha, beta, temperature):
    """One example, class by class."""
    p, q = (softmax(np.asarray(logits, np.float64) / temperature) for logits in (teacher, student))
    binary = kl(np.array([p[label], 1 - p[label]]), np.array([q[label], 1 - q[label]]))
    p, q = np.delete(p, label), np.delete(q, label)
    return temperature**2 * (alpha * binary + beta * kl(p / p.sum(), q / q.sum()))


@pytest.fixture
def student(normal):
    return jnp.array(normal(0, 2, 3, 4))


@pytest.fixture
def teacher(normal):
    return jnp.array(3.0 * normal(1, 2, 3, 4))


@pytest.mark.parametrize("temperature", [1.0, 4, 0.5])
def test_soft_target_kl_is_its_equation(student, teacher, temperature):
    expected = soft_target_oracle(student, teacher, temperature)
    values = soft_target_kl(student, teacher, temperature=temperature)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=2e-6)
    one = soft_target_kl(student[0, 0], teacher[0, 0], temperature=temperature)
    assert one.shape == ()
    np.testing.assert_allclose(one, expected[0, 0], rtol=1e-5)
    masked = soft_target_kl(student, teacher, temperature=temperature, where=WHERE)
    np.testing.assert_allclose(masked, np.where(WHERE, expected, 0.0), rtol=1e-5, atol=2e-6)


def test_soft_target_kl_gradients(student, teacher, check_gradients):
    def loss(student, teacher, temperature):
        return losses.soft_target_kl(
            student, teacher, temperature=temperature, where=WHERE, stop_teacher_gradient=False
        )

    check_gradients(loss, student, teacher, 2.0)


def test_soft_target_kl_leaves_out_classes_that_the_teacher_rules_out(student, teacher):
    ruled_out = teacher.at[..., 2].set(-jnp.inf)
    expected = kl(softmax(np.asarray(ruled_out, np.float64))[..., [0, 1, 3]], softmax(student)[..., [0, 1, 3]])
    np.testing.assert_allclose(soft_target_kl(student, ruled_out), expected, rtol=1e-5)
    for other in (student, student.at[..., 2].set(-jnp.inf)):
        gradients = jax.grad(lambda *logits: soft_target_kl(*logits, stop_teacher_gradient=False).sum(), (0, 1))(
            other, ruled_out
        )
        assert np.all(np.isfinite(gradients))


@settings(max_examples=15, deadline=None)
@given(arrays(np.float32, (2, 3, 4), elements=st.floats(-50, 50, width=32)))
def test_soft_target_kl_is_never_negative_and_blind_to_a_shift(logits):
    student, teacher = jnp.array(logits)
    values = soft_target_kl(student, teacher)
    assert np.all(values >= -1e-5)
    np.testing.assert_allclose(soft_target_kl(student + 3.0, teacher - 2.0), values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("alpha", "beta", "temperature"), [(1.0, 8.0, 1.0), (0.5, 2.0, 4), (0.0, 1.0, 2.0)])
def test_decoupled_kl_is_its_equation(student, teacher, alpha, beta, temperature):
    settings = dict(alpha=alpha, beta=beta, temperature=temperature)
    values = decoupled_kl(student, teacher, LABELS, where=WHERE, **settings)
    for i in np.ndindex(2, 3):
        if WHERE[i] and LABELS[i] >= 0:
            expected = decoupled_oracle(student[i], teacher[i], int(LABELS[i]), alpha, beta, temperature)
            np.testing.assert_allclose(values[i], expected, rtol=1e-5)
        else:
            assert values[i] == 0
    one = decoupled_kl(student[0, 0], teacher[0, 0], LABELS[0, 0], **settings)
    assert one.shape == ()
    np.testing.assert_allclose(one, values[0, 0], rtol=1e-5)


def test_decoupled_kl_with_the_teachers_doubt_as_beta_is_soft_target_kl(student, teacher):
    labels = jnp.abs(LABELS)
    doubt = 1 - jnp.take_along_axis(jax.nn.softmax(teacher), labels[..., None], -1)[..., 0]
    parts = [decoupled_kl(student, teacher, labels, alpha=a, beta=b) for a, b in ((1.0, 0.0), (0.0, 1.0))]
    np.testing.assert_allclose(parts[0] + doubt * parts[1], soft_target_kl(student, teacher), rtol=1e-5)


def test_decoupled_kl_gradients(student, teacher, check_gradients):
    def loss(student, teacher):
        return decoupled_kl(student, teacher, LABELS, temperature=2.0, where=WHERE, stop_teacher_gradient=False)

    check_gradients(loss, student, teacher)


def test_decoupled_kl_keeps_the_other_classes_of_a_certain_teacher():
    """1 - p is 0 in float32 here, yet how the other classes relate is still taught."""
    student, teacher = jnp.array([0.0, 0.0, 0.0]), jnp.array([40.0, 2.0, 0.0])
    expected = decoupled_oracle(student[1:], teacher[1:], 0, 1.0, 0.0, 1.0)
    value = decoupled_kl(student, teacher, jnp.array(0), alpha=0.0, beta=1.0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.all(np.isfinite(jax.grad(decoupled_kl)(student, teacher, jnp.array(0))))


def test_decoupled_kl_of_two_classes_is_the_first_term(student, teacher):
    values = decoupled_kl(student[..., :2], teacher[..., :2], jnp.abs(LABELS) % 2)
    np.testing.assert_allclose(values, soft_target_kl(student[..., :2], teacher[..., :2]), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("untyped")
def test_wrong_arguments():
    logits, labels = jnp.zeros((3, 5)), jnp.zeros(3, int)
    for loss in (soft_target_kl, lambda *logits, **settings: decoupled_kl(*logits, labels, **settings)):
        with pytest.raises(ValueError, match=r"student_logits \[3, 5\] and teacher_logits \[3, 4\]"):
            loss(logits, jnp.zeros((3, 4)))
        with pytest.raises(ValueError, match=r"where must have shape \[3\].* its shape is \[5\]"):
            loss(logits, logits, where=jnp.ones(5, bool))
        with pytest.raises(ValueError, match="where must be boolean, but its dtype is int32"):
            loss(logits, logits, where=jnp.ones(3, int))
        with pytest.raises(ValueError, match="temperature must be above 0, but it is 0"):
            loss(logits, logits, temperature=0.0)
        with pytest.raises(ValueError, match="student_logits must hold floating-point numbers, but its dtype is int32"):
            loss(jnp.zeros((3, 5), int), jnp.zeros((3, 5), int))
        with pytest.raises(ValueError, match=r"student_logits must have rank 1 or more, but its shape is \[\]"):
            loss(jnp.zeros(()), jnp.zeros(()))
    with pytest.raises(ValueError, match=r"labels must have shape \[3\]"):
        decoupled_kl(logits, logits, jnp.zeros(4, int))
    with pytest.raises(ValueError, match="labels must hold integers, but its dtype is float32"):
        decoupled_kl(logits, logits, jnp.zeros(3))
    with pytest.raises(ValueError, match="two classes or more, but the logits have 1"):
        decoupled_kl(logits[:, :1], logits[:, :1], labels)
