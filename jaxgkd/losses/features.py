"""Losses between the hidden states of a student and those of its teacher."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxgkd.losses._arguments import (
    AxisName,
    at_least_float32,
    check_floating,
    check_rank_at_least,
    check_same_examples,
    check_same_shape,
    check_where,
    silence,
    teacher_side,
    total,
)
from jaxgkd.losses._vectors import safe_divide, safe_sqrt, unit


def hidden_mse(
    student_hidden: Float[Array, "*batch d"],
    teacher_hidden: Float[Array, "*batch d"],
    *,
    where: Bool[Array, "*batch"] | None = None,
    stop_teacher_gradient: bool = True,
) -> Float[Array, "*batch"]:
    r"""Mean squared difference of two hidden vectors.

    .. math::
      L = \frac{1}{d} \sum_k (h^S_k - h^T_k)^2

    Args:
      student_hidden: the student's vectors, projected to the teacher's width where theirs differ, [..., d].
      teacher_hidden: the teacher's vectors, [..., d].
      where: the examples that count, [...]; the others get 0 and send no gradient.
      stop_teacher_gradient: treat the teacher's vectors as constants.

    Returns:
      The mean squared difference of each example, [...].

    Raises:
      ValueError: if the shapes differ or ``where`` is not boolean [...].

    Example:
      >>> import jax.numpy as jnp
      >>> hidden_mse(jnp.array([[1.0, 2.0], [0.0, 1.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
      [2.0, 0.0]

    Source:
      Romero et al., `FitNets: Hints for Thin Deep Nets <https://arxiv.org/abs/1412.6550>`_, 2015.
    """
    check_rank_at_least(1, student_hidden=student_hidden, teacher_hidden=teacher_hidden)
    check_same_shape(student_hidden=student_hidden, teacher_hidden=teacher_hidden)
    check_floating(student_hidden=student_hidden, teacher_hidden=teacher_hidden)
    check_where(where, student_hidden.shape[:-1])

    student = silence(at_least_float32(student_hidden), where)
    teacher = teacher_side(silence(at_least_float32(teacher_hidden), where), stop_teacher_gradient)
    return silence(jnp.mean(jnp.square(student - teacher), axis=-1), where)


def hidden_cosine(
    student_hidden: Float[Array, "*batch d"],
    teacher_hidden: Float[Array, "*batch d"],
    *,
    where: Bool[Array, "*batch"] | None = None,
    stop_teacher_gradient: bool = True,
) -> Float[Array, "*batch"]:
    r"""Cosine distance of two hidden vectors: their directions are compared, their lengths are not.

    .. math::
      L = 1 - \frac{\langle h^S, h^T \rangle}{\|h^S\| \, \|h^T\|}

    A zero vector has no direction: its distance to anything is 1 and it sends no gradient.

    Args:
      student_hidden: the student's vectors, projected to the teacher's width where theirs differ, [..., d].
      teacher_hidden: the teacher's vectors, [..., d].
      where: the examples that count, [...]; the others get 0 and send no gradient.
      stop_teacher_gradient: treat the teacher's vectors as constants.

    Returns:
      The distance of each example, from 0 (same direction) to 2 (opposite), [...].

    Raises:
      ValueError: if the shapes differ or ``where`` is not boolean [...].

    Example:
      >>> import jax.numpy as jnp
      >>> hidden_cosine(jnp.array([[3.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 0.0], [1.0, 0.0]])).tolist()
      [0.0, 1.0]

    Source:
      Sanh, Debut, Chaumond and Wolf, `DistilBERT <https://arxiv.org/abs/1910.01108>`_, 2019.
    """
    check_rank_at_least(1, student_hidden=student_hidden, teacher_hidden=teacher_hidden)
    check_same_shape(student_hidden=student_hidden, teacher_hidden=teacher_hidden)
    check_floating(student_hidden=student_hidden, teacher_hidden=teacher_hidden)
    check_where(where, student_hidden.shape[:-1])

    student = silence(at_least_float32(student_hidden), where)
    teacher = teacher_side(silence(at_least_float32(teacher_hidden), where), stop_teacher_gradient)
    return silence(1.0 - jnp.sum(unit(student) * unit(teacher), axis=-1), where)


def linear_cka(
    student_hidden: Float[Array, "*batch n d_student"],
    teacher_hidden: Float[Array, "*batch n d_teacher"],
    *,
    where: Bool[Array, "*batch n"] | None = None,
    axis_name: AxisName | None = None,
    stop_teacher_gradient: bool = True,
) -> Float[Array, "*batch"]:
    r"""One minus the linear centred kernel alignment of two sets of hidden vectors of the same n items.

    .. math::
      L = 1 - \frac{\|X^\top Y\|_F^2}{\|X^\top X\|_F \, \|Y^\top Y\|_F}

    with X the student's and Y the teacher's vectors, each less its mean over the items. It compares how the items lie
    to each other, so the widths may differ and no projection is needed; rotating or scaling a side changes nothing.
    It is a statistic of a whole set, so there is one value per set instead of one per item.

    Args:
      student_hidden: one vector per item, [..., n, d_student].
      teacher_hidden: one vector per item, [..., n, d_teacher].
      where: the items that count, [..., n]; the others take no part and get no gradient.
      axis_name: the mapped axis that the items are spread over; means and products are then summed over it.
      stop_teacher_gradient: treat the teacher's vectors as constants.

    Returns:
      A value per set from 0 (equal up to rotation and scale) to 1, [...]. A set without items gives 0, one whose
      student or teacher vectors are all equal gives 1.

    Raises:
      ValueError: if the shapes differ in more than the width or ``where`` is not boolean [..., n].

    Example:
      >>> import jax.numpy as jnp
      >>> student = jnp.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]])
      >>> turned = 5.0 * jnp.stack([student[:, 1], -student[:, 0]], axis=1)
      >>> bool(abs(linear_cka(student, turned)) < 1e-6)
      True

    Source:
      Kornblith, Norouzi, Lee and Hinton, `Similarity of Neural Network Representations Revisited
      <https://arxiv.org/abs/1905.00414>`_, 2019.
    """
    check_rank_at_least(2, student_hidden=student_hidden, teacher_hidden=teacher_hidden)
    check_same_examples(1, student_hidden=student_hidden, teacher_hidden=teacher_hidden)
    check_floating(student_hidden=student_hidden, teacher_hidden=teacher_hidden)
    check_where(where, student_hidden.shape[:-1])

    counted = jnp.ones(student_hidden.shape[:-1], bool) if where is None else where
    student = silence(at_least_float32(student_hidden), where)
    teacher = teacher_side(silence(at_least_float32(teacher_hidden), where), stop_teacher_gradient)
    n_item = total(jnp.sum(counted, axis=-1), axis_name)

    def centred(hidden: jax.Array) -> jax.Array:
        mean = total(jnp.sum(hidden, axis=-2), axis_name) / jnp.maximum(n_item, 1)[..., None]
        return silence(hidden - mean[..., None, :], counted)

    student, teacher = centred(student), centred(teacher)
    alignment = _squared_covariance(student, teacher, n_item, axis_name)
    student_norm = safe_sqrt(_squared_covariance(student, student, n_item, axis_name))
    teacher_norm = safe_sqrt(_squared_covariance(teacher, teacher, n_item, axis_name))
    similarity = safe_divide(safe_divide(alignment, student_norm), teacher_norm)
    return silence(1.0 - similarity, n_item > 0)


def _squared_covariance(x: jax.Array, y: jax.Array, n_item: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """‖xᵀ y / n‖² of centred x [..., n, i] and y [..., n, j], [...]."""
    n, i, j = x.shape[-2], x.shape[-1], y.shape[-1]
    # ‖xᵀ y‖² = ⟨x xᵀ, y yᵀ⟩: a batch of few items with a wide teacher (d = 4,096) is far cheaper in the second form.
    if axis_name is None and n * (i + j) < i * j:
        products = (x @ x.mT) * (y @ y.mT) / jnp.square(jnp.maximum(n_item, 1))[..., None, None]
    else:
        products = jnp.square(total(x.mT @ y, axis_name) / jnp.maximum(n_item, 1)[..., None, None])
    return jnp.sum(products, axis=(-2, -1))
