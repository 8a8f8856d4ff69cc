"""Losses between the states that a student and its teacher have of molecules: of whole molecules, and of their atoms.

The student sees bonds, the teacher coordinates, and both have a vector for every molecule (that of a virtual token, or
a readout) and for every atom. A molecule's loss depends on that molecule alone, whatever else is in its batch.

Source: Zhang et al., `Coordinating Cross-modal Distillation for Molecular Property Prediction
<https://arxiv.org/abs/2211.16712>`_, 2022.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgkd.losses._arguments import (
    at_least_float32,
    check_floating,
    check_integer,
    check_rank,
    check_rank_at_least,
    check_same_shape,
    check_shape,
    check_where,
    shape_of,
    silence,
    teacher_side,
)
from jaxgkd.losses.features import hidden_cosine, hidden_mse

Distance = Literal["mse", "l1", "cosine"]
Coordinate = Literal["none", "mean", "size"]


def molecule_alignment(
    student: Float[Array, "*layers g d"],
    teacher: Float[Array, "*layers g d"],
    *,
    distance: Distance = "mse",
    where: Bool[Array, " g"] | None = None,
    stop_teacher_gradient: bool = True,
) -> Float[Array, "*layers g"]:
    r"""How far the student's states of whole molecules are from the teacher's, layer by layer.

    .. math::
      L_l = d(g^S_l, g^T_l)

    with the mean squared difference ("mse") or the mean absolute difference ("l1") over the d dimensions, or one minus
    the cosine ("cosine") as d. The paper sums over all layers, which does better than the last alone.

    Args:
      student: the student's states, projected to the teacher's width where theirs differ, [g, d] of one layer or
        [layers, g, d] of several.
      teacher: the teacher's states, of the same shape.
      distance: d, see above.
      where: the molecules that count, [g], the same in every layer; the others get 0 and send no gradient.
      stop_teacher_gradient: treat the teacher's states as constants.

    Returns:
      The distance of each molecule, [g] or [layers, g].

    Raises:
      ValueError: if the shapes differ, ``where`` is not boolean [g], or there is no such distance.

    Example:
      >>> import jax.numpy as jnp
      >>> student, teacher = jnp.array([[1.0, 3.0], [0.0, 0.0]]), jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> molecule_alignment(student, teacher).tolist()
      [4.5, 1.0]
      >>> molecule_alignment(student, teacher, distance="l1", where=jnp.array([True, False])).tolist()
      [1.5, 0.0]
    """
    check_rank_at_least(2, student=student, teacher=teacher)
    check_same_shape(student=student, teacher=teacher)
    check_floating(student=student, teacher=teacher)
    check_where(where, student.shape[-2:-1])

    counted = None if where is None else jnp.broadcast_to(where, student.shape[:-1])
    return _distance(distance)(student, teacher, where=counted, stop_teacher_gradient=stop_teacher_gradient)


def atom_alignment(
    student: Float[Array, "*atoms d"],
    teacher: Float[Array, "*atoms d"],
    n_node: Int[Array, " g"],
    *,
    coordinate: Coordinate = "none",
    distance: Distance = "mse",
    where: Bool[Array, " g"] | None = None,
    stop_teacher_gradient: bool = True,
) -> Float[Array, " g"]:
    r"""How far the student's states of a molecule's atoms are from the teacher's, in one layer.

    .. math::
      L = N^{-k} \sum_{i=1}^N d(h^S_i, h^T_i)

    over the N atoms of a molecule, with the distances d of `molecule_alignment`. Summed ("none", k = 0), a molecule's
    gradient grows with its size; "mean" (k = 1) takes that out, and "size" (k = 2) is the paper's size coordination,
    one more 1/N for states that have seen all other atoms of their molecule.

    Args:
      student: the student's states of atoms, projected to the teacher's width where theirs differ: [n, d] with the
        molecules one after another, or [g, L, d] with each in a row that is padded at its end.
      teacher: the teacher's states of the same atoms, in the same shape.
      n_node: atoms of each molecule, [g], at most L; what lies after the last atom of a row, or of all molecules, is
        padding and sends no gradient, whatever it holds.
      coordinate: k, see above.
      distance: d, see `molecule_alignment`.
      where: the molecules that count, [g]; the others get 0 and their atoms send no gradient.
      stop_teacher_gradient: treat the teacher's states as constants.

    Returns:
      The loss of each molecule, [g]; 0 where it has no atoms.

    Raises:
      ValueError: if the shapes differ, are neither of the two, ``n_node`` does not hold integers, ``where`` is not
        boolean [g], or there is no such distance or coordination.

    Example:
      >>> import jax.numpy as jnp
      >>> student, teacher = jnp.array([[1.0], [2.0], [3.0], [9.0]]), jnp.zeros((4, 1))
      >>> n_node = jnp.array([1, 2])
      >>> atom_alignment(student, teacher, n_node).tolist()
      [1.0, 13.0]
      >>> atom_alignment(student, teacher, n_node, coordinate="size", distance="l1").tolist()
      [1.0, 1.25]
      >>> rows = jnp.array([[[1.0], [0.0]], [[2.0], [3.0]]])
      >>> atom_alignment(rows, jnp.zeros((2, 2, 1)), n_node).tolist()
      [1.0, 13.0]
    """
    check_same_shape(student=student, teacher=teacher)
    if student.ndim not in (2, 3):
        raise ValueError(f"student must have shape [n, d] or [g, L, d], but its shape is {shape_of(student)}")
    check_floating(student=student, teacher=teacher)
    check_rank(1, n_node=n_node)
    check_integer(n_node=n_node)
    if student.ndim == 3:
        check_shape(student.shape[:1], n_node=n_node)
    check_where(where, n_node.shape)
    if coordinate not in _POWERS:
        raise ValueError(f"coordinate must be one of {', '.join(_POWERS)}, but it is {coordinate!r}")

    n_graph = n_node.shape[0]
    if student.ndim == 3:
        molecule = jnp.broadcast_to(jnp.arange(n_graph)[:, None], student.shape[:2])
        real = jnp.arange(student.shape[1]) < n_node[:, None]
    else:
        # An atom belongs to the first molecule that ends after it; after the end of all there is none.
        molecule = jnp.searchsorted(jnp.cumsum(n_node), jnp.arange(student.shape[0]), side="right")
        real = molecule < n_graph
    if where is not None:
        real &= jnp.take(where, molecule, mode="fill", fill_value=False)
    distances = _distance(distance)(student, teacher, where=real, stop_teacher_gradient=stop_teacher_gradient)
    if student.ndim == 3:
        sums = jnp.sum(distances, axis=1)
    else:
        sums = jax.ops.segment_sum(distances, molecule, num_segments=n_graph, indices_are_sorted=True)
    return sums / jnp.maximum(n_node, 1).astype(sums.dtype) ** _POWERS[coordinate]


def _hidden_l1(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None, stop_teacher_gradient: bool
) -> jax.Array:
    """Mean absolute difference of two hidden vectors, [..., d] → [...]; masked as the losses of ``features`` are."""
    student = silence(at_least_float32(student), where)
    teacher = teacher_side(silence(at_least_float32(teacher), where), stop_teacher_gradient)
    return silence(jnp.mean(jnp.abs(student - teacher), axis=-1), where)


_DISTANCES: Mapping[str, Callable[..., jax.Array]] = {"mse": hidden_mse, "l1": _hidden_l1, "cosine": hidden_cosine}
_POWERS = {"none": 0, "mean": 1, "size": 2}


def _distance(name: str) -> Callable[..., jax.Array]:
    if name not in _DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(_DISTANCES)}, but it is {name!r}")
    return _DISTANCES[name]
