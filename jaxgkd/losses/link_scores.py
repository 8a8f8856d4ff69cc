"""How likely a link is: a score for a source and a target, by what their relation does to vectors."""

from collections.abc import Callable
from math import prod
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgkd.losses._arguments import Scalar, at_least_float32, check_floating, check_rank_at_least, shape_of
from jaxgkd.losses._vectors import length, safe_sqrt

ScoreKind = Literal["dot", "distmult", "rotate", "transe_l1", "transe_l2"]
"""What a relation does: nothing, scale, rotate, or move (with distances as sums of differences, or as lengths)."""


def link_scores(
    kind: ScoreKind,
    sources: Float[Array, "*#edges d"],
    targets: Float[Array, "*#edges d"],
    relation: Float[Array, "*#edges w"] | None = None,
    *,
    margin: Scalar = 12.0,
) -> Float[Array, "..."]:
    r"""Score of the link from a source to a target, higher for a likelier one.

    ============= =====================================================================================
    ``dot``       :math:`\langle s, t \rangle`
    ``distmult``  :math:`\langle s \circ r, t \rangle`, the same in both directions
    ``rotate``    :math:`\gamma - \sum_k |s_k e^{i r_k} - t_k|` over the d/2 complex numbers of a vector
    ``transe_l1`` :math:`\gamma - \|s + r - t\|_1`
    ``transe_l2`` :math:`\gamma - \|s + r - t\|_2`
    ============= =====================================================================================

    A complex vector has its real parts in the first half and its imaginary parts in the second.

    Axes before the last broadcast as those of NumPy do: a batch [b, d] with [b, d] gives [b]; [b, 1, d] with [b, k, d]
    gives [b, k], every edge against candidates of its own; [b, 1, d] with [k, d] gives [b, k], all edges against the
    same candidates. The relation is applied on the side where that makes the fewer vectors, so that the first two kinds
    are matrix products where candidates are shared. Distances are sums over differences, which are not kept for the
    backward pass but computed anew: never is more than one array [b, k, d] held.

    Args:
      kind: which of the above.
      sources: vectors the links start from, [..., d]; targets: those they end in, [..., d].
      relation: [..., d], for ``rotate`` the angles in radians, [..., d/2]; a single vector [d] is that of all edges.
        None for ``dot``.
      margin: γ, the score of a link without any distance; a traced value is allowed. Products have none.

    Returns:
      The scores, [...] broadcast over all arguments, in float32 at least.

    Raises:
      ValueError: if there is no such kind, widths or leading axes do not agree, a relation is missing or too many, or
        ``rotate`` gets an odd width.

    Example:
      >>> import jax.numpy as jnp
      >>> sources, targets = jnp.array([[[1.0, 0.0]]]), jnp.array([[0.0, 1.0], [1.0, 0.0]])
      >>> link_scores("dot", sources, targets).tolist()
      [[0.0, 1.0]]
      >>> link_scores("transe_l1", sources, targets, jnp.array([-1.0, 1.0]), margin=4.0).tolist()
      [[4.0, 2.0]]

    Source:
      Yang et al., `Embedding Entities and Relations <https://arxiv.org/abs/1412.6575>`_, 2015 (DistMult); Sun et al.,
      `RotatE <https://arxiv.org/abs/1902.10197>`_, 2019; Bordes et al., `Translating Embeddings for Modeling
      Multi-relational Data <https://papers.nips.cc/paper/5071>`_, 2013 (TransE).
    """
    if kind not in get_args(ScoreKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(ScoreKind))}, but it is '{kind}'")
    check_rank_at_least(1, sources=sources, targets=targets)
    check_floating(sources=sources, targets=targets)
    if sources.shape[-1] != targets.shape[-1]:
        raise ValueError(f"sources {shape_of(sources)} and targets {shape_of(targets)} must have one width")
    _check_relation(kind, sources.shape[-1], relation)
    _check_broadcast(sources, targets, *(() if relation is None else (relation,)))

    sources, targets = at_least_float32(sources), at_least_float32(targets)
    if relation is None:
        return _products(sources, targets)
    relation = at_least_float32(relation)
    forward, backward = _MOVES[kind]
    if _size(sources, relation) <= _size(targets, relation):
        sources = forward(sources, relation)
    else:
        targets = backward(targets, relation)
    return _products(sources, targets) if kind == "distmult" else margin - _DISTANCES[kind](sources, targets)


def _check_relation(kind: str, width: int, relation: jax.Array | None) -> None:
    if (relation is None) != (kind == "dot"):
        raise ValueError(f"'{kind}' takes {'no' if kind == 'dot' else 'a'} relation")
    if kind == "rotate" and width % 2:
        raise ValueError(f"'rotate' reads vectors as complex halves, but their width {width} is odd")
    if relation is None:
        return
    check_rank_at_least(1, relation=relation)
    check_floating(relation=relation)
    wanted = width // 2 if kind == "rotate" else width
    if relation.shape[-1] != wanted:
        raise ValueError(f"relation must have width {wanted} for '{kind}', but its shape is {shape_of(relation)}")


def _check_broadcast(*arrays: jax.Array) -> None:
    try:
        jnp.broadcast_shapes(*(array.shape[:-1] for array in arrays))
    except ValueError:
        listed = " and ".join(map(shape_of, arrays))
        raise ValueError(f"axes before the last must broadcast, but the shapes are {listed}") from None


def _size(vectors: jax.Array, relation: jax.Array) -> int:
    """How many vectors there are with the relation applied to them."""
    return prod(jnp.broadcast_shapes(vectors.shape[:-1], relation.shape[:-1]))


def _products(left: jax.Array, right: jax.Array) -> jax.Array:
    """Dot products over the last axis, the others broadcast, as one contraction in which no axis is repeated."""
    rank = max(left.ndim, right.ndim)
    left, right = (x.reshape((1,) * (rank - x.ndim) + x.shape) for x in (left, right))
    axes = range(rank - 1)
    left_only = [axis for axis in axes if right.shape[axis] == 1 != left.shape[axis]]
    right_only = [axis for axis in axes if left.shape[axis] == 1 != right.shape[axis]]
    left, right = jnp.squeeze(left, right_only), jnp.squeeze(right, left_only)
    in_left = [axis for axis in axes if axis not in right_only]
    in_right = [axis for axis in axes if axis not in left_only]
    return jnp.einsum(left, [*in_left, rank], right, [*in_right, rank], list(axes))


def _rotated(vectors: jax.Array, angles: jax.Array) -> jax.Array:
    real, imaginary = jnp.split(vectors, 2, axis=-1)
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([real * cosine - imaginary * sine, real * sine + imaginary * cosine], axis=-1)


_Pairwise = Callable[[jax.Array, jax.Array], jax.Array]

# What a relation does to a source, and what done to the target instead leaves the score as it is.
_MOVES: dict[str, tuple[_Pairwise, _Pairwise]] = {
    "distmult": (jnp.multiply, jnp.multiply),
    "rotate": (_rotated, lambda vectors, angles: _rotated(vectors, -angles)),
    "transe_l1": (jnp.add, jnp.subtract),
    "transe_l2": (jnp.add, jnp.subtract),
}


def _sum_of_moduli(left: jax.Array, right: jax.Array) -> jax.Array:
    real, imaginary = jnp.split(jnp.square(left - right), 2, axis=-1)
    return jnp.sum(safe_sqrt(real + imaginary), axis=-1)


_DISTANCES: dict[str, _Pairwise] = {
    "rotate": jax.checkpoint(_sum_of_moduli),
    "transe_l1": jax.checkpoint(lambda left, right: jnp.sum(jnp.abs(left - right), axis=-1)),
    "transe_l2": jax.checkpoint(lambda left, right: length(left - right)),
}
