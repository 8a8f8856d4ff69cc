"""Losses between the class scores of a student and those of its teacher."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgkd.losses._arguments import (
    Scalar,
    at_least_float32,
    check_floating,
    check_integer,
    check_positive,
    check_rank_at_least,
    check_same_shape,
    check_shape,
    check_where,
    silence,
    teacher_side,
)


def soft_target_kl(
    student_logits: Float[Array, "*batch c"],
    teacher_logits: Float[Array, "*batch c"],
    *,
    temperature: Scalar = 1.0,
    where: Bool[Array, "*batch"] | None = None,
    stop_teacher_gradient: bool = True,
) -> Float[Array, "*batch"]:
    r"""Kullback-Leibler divergence from the student's softened class probabilities to the teacher's.

    .. math::
      L = T^2 \sum_k p^T_k (\log p^T_k - \log p^S_k), \qquad p = \mathrm{softmax}(\mathrm{logits} / T)

    The factor T² keeps the gradient's size when the temperature changes, so that the weight against a label loss need
    not be tuned again. A class that the teacher rules out with a logit of -inf takes no part.

    Args:
      student_logits: unnormalised log-probabilities, [..., c].
      teacher_logits: the same from the teacher, [..., c].
      temperature: T > 0; higher values bring out how the teacher ranks the classes that it thinks wrong.
      where: the examples that count, [...]; the others get 0 and send no gradient.
      stop_teacher_gradient: treat the teacher's logits as constants.

    Returns:
      The divergence of each example in nats times T², [...].

    Raises:
      ValueError: if the shapes differ, ``where`` is not boolean [...], or the temperature is not above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> student = jnp.array([[0.0, 0.0], [2.0, -1.0]])
      >>> teacher = jnp.array([[2.0, -1.0], [2.0, -1.0]])
      >>> print(soft_target_kl(student, teacher))
      [0.5022... 0.        ]

    Source:
      Hinton, Vinyals and Dean, `Distilling the Knowledge in a Neural Network <https://arxiv.org/abs/1503.02531>`_,
      2015.
    """
    check_rank_at_least(1, student_logits=student_logits, teacher_logits=teacher_logits)
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    check_floating(student_logits=student_logits, teacher_logits=teacher_logits)
    check_where(where, student_logits.shape[:-1])
    check_positive(temperature=temperature)

    student = silence(at_least_float32(student_logits), where)
    teacher = teacher_side(silence(at_least_float32(teacher_logits), where), stop_teacher_gradient)
    student_log_probs = jax.nn.log_softmax(student / temperature)
    teacher_log_probs = jax.nn.log_softmax(teacher / temperature)
    return silence(temperature**2 * _kl(teacher_log_probs, student_log_probs), where)


def decoupled_kl(
    student_logits: Float[Array, "*batch c"],
    teacher_logits: Float[Array, "*batch c"],
    labels: Int[Array, "*batch"],
    *,
    alpha: Scalar = 1.0,
    beta: Scalar = 8.0,
    temperature: Scalar = 1.0,
    where: Bool[Array, "*batch"] | None = None,
    stop_teacher_gradient: bool = True,
) -> Float[Array, "*batch"]:
    r"""Soft-target divergence taken apart into "is it the labelled class?" and "which of the others?".

    With y the labelled class, b = (p_y, 1 - p_y) and q the softmax over the classes other than y,

    .. math::
      L = T^2 \bigl( \alpha \, \mathrm{KL}(b^T \| b^S) + \beta \, \mathrm{KL}(q^T \| q^S) \bigr)

    :func:`soft_target_kl` is the case α = 1, β = 1 - p_y of the teacher: there a confident teacher mutes the second
    term, which is the one that tells how the wrong classes relate. Here it keeps the weight β whatever the confidence.
    With two classes the second term is 0.

    Args:
      student_logits: unnormalised log-probabilities, [..., c], of two classes or more.
      teacher_logits: the same from the teacher, [..., c].
      labels: the class of each example, [...]. Where it is negative (unknown) the parts cannot be told apart and the
        example is masked; the teacher's own most likely class can be given instead.
      alpha: weight of the labelled class against all others.
      beta: weight of the divergence among the others; the authors choose it per teacher, from below 1 to 10.
      temperature: T > 0.
      where: the examples that count, [...]; the others get 0 and send no gradient.
      stop_teacher_gradient: treat the teacher's logits as constants.

    Returns:
      The weighted divergence of each example in nats times T², [...].

    Raises:
      ValueError: if the shapes do not agree, there is only one class, or the temperature is not above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> student, teacher = jnp.array([[1.0, 0.0, 0.0]]), jnp.array([[3.0, 1.0, 0.0]])
      >>> print(decoupled_kl(student, teacher, jnp.array([0]), alpha=1.0, beta=2.0))
      [0.387...]

    Source:
      Zhao, Cui, Song, Qiu and Liang, `Decoupled Knowledge Distillation <https://arxiv.org/abs/2203.08679>`_, 2022.
    """
    check_rank_at_least(1, student_logits=student_logits, teacher_logits=teacher_logits)
    check_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    check_floating(student_logits=student_logits, teacher_logits=teacher_logits)
    check_integer(labels=labels)
    check_shape(student_logits.shape[:-1], labels=labels)
    check_where(where, student_logits.shape[:-1])
    check_positive(temperature=temperature)
    n_class = student_logits.shape[-1]
    if n_class < 2:
        raise ValueError(f"decoupled_kl needs two classes or more, but the logits have {n_class}")

    where = labels >= 0 if where is None else where & (labels >= 0)
    student = silence(at_least_float32(student_logits), where)
    teacher = teacher_side(silence(at_least_float32(teacher_logits), where), stop_teacher_gradient)
    labelled = labels[..., None] == jnp.arange(n_class)

    def parts(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_probs = jax.nn.log_softmax(logits / temperature)
        others = jnp.where(labelled, -jnp.inf, log_probs)
        # log(1 - p_y) as a sum over the other classes: 1 - p_y itself rounds to 0 for a confident teacher.
        log_other = jax.nn.logsumexp(jnp.where(labelled, 0.0, log_probs), axis=-1, where=~labelled)
        log_labelled = jnp.sum(jnp.where(labelled, log_probs, 0.0), axis=-1)
        return jnp.stack([log_labelled, log_other], axis=-1), others - log_other[..., None]

    (student_binary, student_others), (teacher_binary, teacher_others) = parts(student), parts(teacher)
    loss = alpha * _kl(teacher_binary, student_binary) + beta * _kl(teacher_others, student_others)
    return silence(temperature**2 * loss, where)


def _kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p ‖ q) over the last axis from log-probabilities; terms with p = 0 are left out, as p log p tends to 0."""
    possible = log_p > -jnp.inf
    gap = jnp.where(possible, log_p, 0.0) - jnp.where(possible, log_q, 0.0)
    return jnp.sum(jnp.where(possible, jnp.exp(log_p), 0.0) * gap, axis=-1)
