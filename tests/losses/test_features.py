import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd import losses

# Compiled as one program each: operation by operation the same tests take five times as long.
STATIC = ("stop_teacher_gradient",)
hidden_mse = jax.jit(losses.hidden_mse, static_argnames=STATIC)
hidden_cosine = jax.jit(losses.hidden_cosine, static_argnames=STATIC)
linear_cka = jax.jit(losses.linear_cka, static_argnames=STATIC)

WHERE = jnp.array([[True, False, True, True, True, False, True], [True, True, True, True, False, True, True]])


def mse_oracle(student, teacher):
    return np.mean((np.float64(student) - np.float64(teacher)) ** 2, axis=-1)


def cosine_oracle(student, teacher):
    student, teacher = np.float64(student), np.float64(teacher)
    lengths = np.linalg.norm(student, axis=-1) * np.linalg.norm(teacher, axis=-1)
    return 1 - np.sum(student * teacher, axis=-1) / lengths


def cka_oracle(student, teacher):
    """One set, through the centred n × n kernels instead of the features."""
    n = len(student)
    centring = np.eye(n) - 1 / n
    k, l = (centring @ (np.float64(x) @ np.float64(x).T) @ centring for x in (student, teacher))
    return 1 - np.sum(k * l) / np.sqrt(np.sum(k * k) * np.sum(l * l))


@pytest.fixture
def student(normal):
    return jnp.array(normal(0, 2, 7, 4))


@pytest.fixture
def teacher(normal, student):
    return 2.0 * student + jnp.array(normal(1, 2, 7, 4)) + 1.0


@pytest.mark.parametrize(("loss", "oracle"), [(hidden_mse, mse_oracle), (hidden_cosine, cosine_oracle)])
def test_hidden_losses_are_their_equations(loss, oracle, student, teacher, check_gradients):
    expected = oracle(student, teacher)
    np.testing.assert_allclose(loss(student, teacher), expected, rtol=1e-5, atol=1e-6)
    one = loss(student[0, 0], teacher[0, 0])
    assert one.shape == ()
    np.testing.assert_allclose(one, expected[0, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        loss(student, teacher, where=WHERE), np.where(WHERE, expected, 0.0), rtol=1e-5, atol=1e-6
    )
    check_gradients(lambda *arrays: loss(*arrays, where=WHERE, stop_teacher_gradient=False), student, teacher)


def test_hidden_cosine_of_a_zero_vector(student):
    value, gradient = jax.value_and_grad(hidden_cosine)(jnp.zeros(4), student[0, 0])
    assert value == 1
    assert not np.any(gradient)


@pytest.mark.parametrize("width", [3, 40])
def test_linear_cka_is_its_equation(width, student, normal, check_gradients):
    """A width of 40 is more than the 7 items, where the n × n products are the cheaper form."""
    teacher = student @ normal(2, 4, width) + 0.5 * normal(3, 2, 7, width) + 10.0
    values = linear_cka(student, teacher)
    masked = linear_cka(student, teacher, where=WHERE)
    for i in range(2):
        np.testing.assert_allclose(values[i], cka_oracle(student[i], teacher[i]), rtol=2e-5)
        kept = np.asarray(WHERE[i])
        np.testing.assert_allclose(masked[i], cka_oracle(student[i][kept], teacher[i][kept]), rtol=2e-5)
    check_gradients(lambda *arrays: linear_cka(*arrays, where=WHERE, stop_teacher_gradient=False), student, teacher)


def test_linear_cka_is_blind_to_rotation_scale_and_shift(student, normal):
    rotation = np.linalg.qr(normal(4, 4, 4))[0]
    np.testing.assert_allclose(linear_cka(student, 3.0 * student @ rotation - 2.0), 0.0, atol=1e-5)


def test_linear_cka_of_equal_vectors_is_one(student):
    value, gradient = jax.value_and_grad(linear_cka)(jnp.ones((7, 4)), student[0])
    assert value == 1
    assert not np.any(gradient)


@pytest.mark.usefixtures("untyped")
def test_wrong_arguments():
    hidden = jnp.zeros((3, 5))
    for loss in (hidden_mse, hidden_cosine):
        with pytest.raises(ValueError, match=r"student_hidden \[3, 5\] and teacher_hidden \[3, 4\]"):
            loss(hidden, jnp.zeros((3, 4)))
        with pytest.raises(ValueError, match=r"student_hidden must have rank 1 or more"):
            loss(jnp.zeros(()), jnp.zeros(()))
    with pytest.raises(ValueError, match=r"equal but for the width.*\[3, 5\] and teacher_hidden \[4, 5\]"):
        linear_cka(hidden, jnp.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"student_hidden must have rank 2 or more, but its shape is \[5\]"):
        linear_cka(hidden[0], hidden[0])
    for loss in (hidden_mse, hidden_cosine, linear_cka):
        with pytest.raises(ValueError, match=r"where must have shape \[3\]"):
            loss(hidden, hidden, where=jnp.ones((3, 5), bool))
        with pytest.raises(ValueError, match="teacher_hidden must hold floating-point numbers"):
            loss(hidden, jnp.zeros((3, 5), int))
