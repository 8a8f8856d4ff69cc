"""Contrastive alignment: each student vector must find its own teacher vector among those of other items."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgkd.losses._arguments import (
    AxisName,
    Scalar,
    at_least_float32,
    check_block_size,
    check_floating,
    check_integer,
    check_positive,
    check_rank,
    check_same_shape,
    check_shape,
    check_where,
    example_index,
    gather,
    silence,
    teacher_side,
)
from jaxgkd.losses._vectors import map_row_blocks, unit

# With the constant shift 1/τ the smallest term is e^(-2/τ): 4e-13 at τ = 0.07. At 2/τ = 50 it is 2e-22, which leaves
# float32 sixteen decades for products with small vector entries; colder than that each row's own maximum is found.
_LARGEST_SPAN = 50.0


def info_nce(
    anchors: Float[Array, "n d"],
    targets: Float[Array, "n d"],
    *,
    labels: Int[Array, "n"] | None = None,
    temperature: Scalar = 0.07,
    where: Bool[Array, "n"] | None = None,
    block_size: int | None = None,
    axis_name: AxisName | None = None,
    stop_teacher_gradient: bool = True,
) -> Float[Array, "n"]:
    r"""Negative log-probability of telling an item's own target from the targets of other items.

    .. math::
      L_i = -\log \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_{j : y_j \ne y_i} e^{s_{ij}}}, \qquad
      s_{ij} = \frac{\langle a_i, t_j \rangle}{\tau \, \|a_i\| \, \|t_j\|}

    Both sides are scaled to length 1 here, so s is a cosine over τ; a zero vector stays zero (all its cosines are 0)
    and sends no gradient. Without labels every other item is a negative. With labels the other items of the anchor's
    class are left out: they are neither positive nor negative. An item without negatives gets 0.

    A negative label means that the class is unknown. Such an item is nobody's negative, since it may share the class
    of any anchor and the others are negatives enough. As an anchor it is set against all items of known class: some
    share its own, as in the loss without labels, but with no negatives it would not be trained at all. To leave
    unknown items out altogether pass ``where=labels >= 0``; to set them against all give each a class of its own.

    With ``block_size`` the scores are never held at once: memory is O(n · block_size) forward and backward, for one
    matrix product for the value, one more for the gradient of the anchors and two more for that of the targets.
    Differentiate this form in reverse mode only. Under ``vmap`` the blocks of all seeds are held together. Products
    are as exact as ``jax.default_matmul_precision`` says, which on an accelerator is less than float32 by default.

    Args:
      anchors: the student's vectors, [n, d].
      targets: the teacher's vectors, projected to the same width, [n, d].
      labels: the class of each item, [n]; negative where it is unknown.
      temperature: τ > 0. A traced value is allowed, and is differentiated, so that it can be learned.
      where: the items that count, [n]; the others get 0, send no gradient and are no one's negatives.
      block_size: the most anchors whose scores against all targets are held together; None holds all n × n.
      axis_name: the mapped axis that items are spread over; the targets of all devices are then candidates, and each
        device returns the values of its own anchors.
      stop_teacher_gradient: treat the targets as constants; give False where a projection of the teacher is learned.

    Returns:
      The loss of each anchor in nats, [n]. Average over the items that count.

    Raises:
      ValueError: if shapes do not agree, labels are not integers, ``where`` is not boolean, or the temperature or the
        block size is not above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> anchors = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
      >>> targets = jnp.array([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
      >>> print(info_nce(anchors, targets, temperature=0.5))
      [0.7586... 0.2395... 1.0986...]
      >>> print(info_nce(anchors, targets, labels=jnp.array([0, 1, 0]), temperature=0.5))
      [0.1269... 0.2395... 0.6931...]

    Source:
      van den Oord, Li and Vinyals, `Representation Learning with Contrastive Predictive Coding
      <https://arxiv.org/abs/1807.03748>`_, 2018; with classes left out, Hu et al., `Large Language Model Meets Graph
      Neural Network in Knowledge Distillation <https://arxiv.org/abs/2402.05894>`_, 2024.
    """
    check_rank(2, anchors=anchors, targets=targets)
    check_same_shape(anchors=anchors, targets=targets)
    check_floating(anchors=anchors, targets=targets)
    check_integer(labels=labels)
    check_shape(anchors.shape[:1], labels=labels)
    check_where(where, anchors.shape[:1])
    check_positive(temperature=temperature)
    check_block_size(block_size)

    anchors = unit(silence(at_least_float32(anchors), where))
    targets = teacher_side(unit(silence(at_least_float32(targets), where)), stop_teacher_gradient)
    anchors = anchors / temperature
    # Without labels each item is a class of its own, which leaves every pair but the positive one as a negative.
    classes = example_index(anchors.shape[0], axis_name) if labels is None else labels
    candidate = classes >= 0 if where is None else where & (classes >= 0)

    positives = jnp.sum(anchors * targets, axis=1)
    others = gather(targets, axis_name), gather(classes, axis_name), gather(candidate, axis_name)
    if block_size is None:
        negatives = _log_sum_negatives(anchors, classes, *others)
    else:
        warm = isinstance(temperature, int | float) and 2.0 / temperature <= _LARGEST_SPAN
        shift = 1.0 / temperature if warm else None
        negatives = _blockwise_log_sum_negatives(
            anchors, classes, *others, shift, block_size, not stop_teacher_gradient
        )
    # -log(e^p / (e^p + e^n)) = log(1 + e^(n - p)), which keeps its digits where the loss is close to 0.
    return silence(jax.nn.softplus(negatives - positives), where)


def _is_negative(anchor_classes: jax.Array, target_classes: jax.Array, candidate: jax.Array) -> jax.Array:
    """Which targets are set against which anchors, [n, m]."""
    return (anchor_classes[:, None] != target_classes[None, :]) & candidate[None, :]


def _log_sum_negatives(
    anchors: jax.Array, anchor_classes: jax.Array, targets: jax.Array, target_classes: jax.Array, candidate: jax.Array
) -> jax.Array:
    """log Σ_j e^{⟨a_i, t_j⟩} over the negatives of each anchor, [n]; -inf, with gradient 0, where there are none."""
    negative = _is_negative(anchor_classes, target_classes, candidate)
    some = jnp.any(negative, axis=1)
    scores = jnp.where(negative | ~some[:, None], anchors @ targets.T, -jnp.inf)
    return jnp.where(some, jax.nn.logsumexp(scores, axis=1), -jnp.inf)


def _blockwise_value(
    anchors: jax.Array,
    anchor_classes: jax.Array,
    targets: jax.Array,
    target_classes: jax.Array,
    candidate: jax.Array,
    shift: float | None,
    block_size: int,
    target_gradient: bool,
) -> jax.Array:
    """The same as :func:`_log_sum_negatives` by blocks of anchors.

    A block of rows sees every column, so that nothing is carried from one block to the next.

    Args:
      anchors: [n, d].
      anchor_classes: [n].
      targets: [m, d].
      target_classes: [m].
      candidate: the targets that may be negatives, [m].
      shift: a bound of every score to subtract before the exponential, or None to find the maximum of each row.
      block_size: the most rows, or in the backward pass columns, whose scores are held together.
      target_gradient: whether the gradient of the targets is wanted.
    """

    def rows(block: jax.Array, block_classes: jax.Array) -> jax.Array:
        weights, block_shift = _weights(block, block_classes, targets, target_classes, candidate, shift)
        return jnp.log(jnp.sum(weights, axis=1)) + block_shift

    return map_row_blocks(rows, (anchors, anchor_classes), block_size)


def _weights(
    anchors: jax.Array,
    anchor_classes: jax.Array,
    targets: jax.Array,
    target_classes: jax.Array,
    candidate: jax.Array,
    shift: float | None,
) -> tuple[jax.Array, jax.Array]:
    """e^{score - shift} where the target is a negative and else 0, [n, m], and the shift, [n]."""
    scores = anchors @ targets.T
    negative = _is_negative(anchor_classes, target_classes, candidate)
    if shift is None:
        row_shift = jnp.max(jnp.where(negative, scores, -jnp.inf), axis=1)
        row_shift = jax.lax.stop_gradient(jnp.where(jnp.isfinite(row_shift), row_shift, 0.0))
    else:
        row_shift = jnp.full(anchors.shape[:1], shift, anchors.dtype)
    return jnp.exp(jnp.where(negative, scores - row_shift[:, None], -jnp.inf)), row_shift


def _blockwise_forward(
    anchors: jax.Array,
    anchor_classes: jax.Array,
    targets: jax.Array,
    target_classes: jax.Array,
    candidate: jax.Array,
    shift: float | None,
    block_size: int,
    target_gradient: bool,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The value, and the mean negative of each anchor while its weights are at hand.

    ∂ log Σ_j e^{⟨a_i, t_j⟩} / ∂ a_i = Σ_j p_ij t_j depends on what comes down the chain by a factor only, so the
    backward pass need not see the scores again for the anchors.
    """

    def rows(block: jax.Array, block_classes: jax.Array) -> tuple[jax.Array, jax.Array]:
        weights, block_shift = _weights(block, block_classes, targets, target_classes, candidate, shift)
        sums = jnp.sum(weights, axis=1)
        mean_negative = (weights @ targets) / jnp.where(sums > 0, sums, 1.0)[:, None]
        return jnp.log(sums) + block_shift, mean_negative

    log_sums, mean_negatives = map_row_blocks(rows, (anchors, anchor_classes), block_size)
    return log_sums, (anchors, anchor_classes, targets, target_classes, candidate, log_sums, mean_negatives)


def _blockwise_backward(
    shift: float | None,
    block_size: int,
    target_gradient: bool,
    residuals: tuple[jax.Array, ...],
    cotangent: jax.Array,
) -> tuple[jax.Array | None, ...]:
    """The gradients: for the anchors from what was kept, for the targets with scores computed anew, by columns."""
    anchors, anchor_classes, targets, target_classes, candidate, log_sums, mean_negatives = residuals
    anchor_gradient = cotangent[:, None] * mean_negatives
    if not target_gradient:
        return anchor_gradient, None, None, None, None

    finite_log_sums = jnp.where(jnp.isfinite(log_sums), log_sums, 0.0)
    pulled = cotangent[:, None] * anchors

    def columns(block: jax.Array, block_classes: jax.Array, block_candidate: jax.Array) -> jax.Array:
        negative = _is_negative(anchor_classes, block_classes, block_candidate).T
        scores = block @ anchors.T - finite_log_sums[None, :]
        return jnp.exp(jnp.where(negative, scores, -jnp.inf)) @ pulled

    columns_of = (targets, target_classes, candidate)
    return anchor_gradient, None, map_row_blocks(columns, columns_of, block_size), None, None


_blockwise_log_sum_negatives = jax.custom_vjp(_blockwise_value, nondiff_argnums=(5, 6, 7))
_blockwise_log_sum_negatives.defvjp(_blockwise_forward, _blockwise_backward)
