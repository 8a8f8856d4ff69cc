"""Losses between relations: how items lie to each other in the student and in the teacher, whatever their widths."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax
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
    check_same_examples,
    check_same_shape,
    check_where,
    example_index,
    gather,
    shape_of,
    silence,
    teacher_side,
    total,
)
from jaxgkd.losses._vectors import length, map_row_blocks, safe_divide, safe_sqrt, unit

Kernel = Literal["rbf", "linear", "polynomial", "euclidean"]
"""How alike two neighbours x and y are: e^(-‖x - y‖² / 2σ²), ⟨x, y⟩, ⟨x, y⟩², or -‖x - y‖²."""


def relational_distance(
    student: Float[Array, "n d_student"],
    teacher: Float[Array, "n d_teacher"],
    *,
    pairs: Int[Array, "p 2"] | None = None,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
    stop_teacher_gradient: bool = True,
) -> Float[Array, "k"]:
    r"""Difference of the distances between items, each side in units of its own mean distance.

    .. math::
      L_i = \frac{1}{n - 1} \sum_{j \ne i} \mathrm{huber}\bigl(\psi^S_{ij} - \psi^T_{ij}\bigr), \qquad
      \psi_{ij} = \frac{\|h_i - h_j\|}{\mu}

    with μ the mean of ‖h_i - h_j‖ over all pairs of two items and ``huber(x)`` = x²/2 up to 1, ``|x| - 1/2`` beyond.
    The mean of the values is the mean over pairs. All pairs take O(n²) memory; a sample of ``pairs`` takes O(p · d).

    Args:
      student: one vector per item, [n, d_student].
      teacher: one vector per item, [n, d_teacher].
      pairs: items (i, j) to compare, [p, 2]; then one value comes back per pair, and μ is over these. A pair of an item
        with itself is padding: it gets 0 and is not counted.
      where: the items that count, [n]; the others, and pairs with one of them, get 0 and send no gradient.
      axis_name: the mapped axis that items are spread over. Each device returns the values of its own items against
        those of all, or of its own pairs with μ over all devices' pairs.
      stop_teacher_gradient: treat the teacher's vectors as constants.

    Returns:
      A value per item, [n], or with ``pairs`` per pair, [p].

    Raises:
      ValueError: if the numbers of items differ, ``pairs`` is not integer [p, 2] or ``where`` not boolean [n].

    Example:
      >>> import jax.numpy as jnp
      >>> student, teacher = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([[0.0], [1.0], [2.0]])
      >>> relational_distance(student, 8.0 * student).tolist()
      [0.0, 0.0, 0.0]
      >>> relational_distance(student, teacher, pairs=jnp.array([[0, 1], [0, 2], [0, 0]])).tolist()
      [0.0138..., 0.0138..., 0.0]

    Source:
      Park, Kim, Lu and Cho, `Relational Knowledge Distillation <https://arxiv.org/abs/1904.05068>`_, 2019.
    """
    student, teacher = _relational_inputs(student, teacher, where, stop_teacher_gradient)
    n = student.shape[0]
    counted = jnp.ones(n, bool) if where is None else where
    if pairs is None:
        index, row = example_index(n, axis_name), counted[:, None]
        columns = gather(counted, axis_name)
        valid = row & columns[None, :] & (index[:, None] != gather(index, axis_name)[None, :])
        student_distance = _all_distances(student, gather(student, axis_name), columns)
        teacher_distance = _all_distances(teacher, gather(teacher, axis_name), columns)
    else:
        _check_tuples(pairs, "pairs", 2)
        i, j = pairs[:, 0], pairs[:, 1]
        valid = counted[i] & counted[j] & (i != j)
        student_distance = length(student[i] - student[j])
        teacher_distance = length(teacher[i] - teacher[j])

    n_pair = total(jnp.sum(valid), axis_name)

    def in_units_of_mean(distance: jax.Array) -> jax.Array:
        distance = silence(distance, valid)
        mean = total(jnp.sum(distance), axis_name) / jnp.maximum(n_pair, 1)
        return safe_divide(distance, mean)

    difference = optax.losses.huber_loss(in_units_of_mean(student_distance), in_units_of_mean(teacher_distance))
    difference = silence(difference, valid)
    return difference if pairs is not None else _mean_over_valid(difference, valid, axis=1)


def relational_angle(
    student: Float[Array, "n d_student"],
    teacher: Float[Array, "n d_teacher"],
    *,
    triples: Int[Array, "t 3"] | None = None,
    where: Bool[Array, "n"] | None = None,
    block_size: int | None = None,
    axis_name: AxisName | None = None,
    stop_teacher_gradient: bool = True,
) -> Float[Array, "k"]:
    r"""Difference of the angles that items form with each other.

    .. math::
      L_j = \frac{1}{(n - 1)(n - 2)} \sum_{i \ne j} \sum_{k \ne i, j}
        \mathrm{huber}\bigl(\psi^S_{ijk} - \psi^T_{ijk}\bigr), \qquad
      \psi_{ijk} = \Bigl\langle \frac{h_i - h_j}{\|h_i - h_j\|}, \frac{h_k - h_j}{\|h_k - h_j\|} \Bigr\rangle

    the cosine of the angle at the vertex j, with ``huber(x)`` = x²/2 up to 1, ``|x| - 1/2`` beyond. The mean of the
    values is the mean over triples. All triples take O(n³ · d) time and O(n² · block_size) memory; a sample of
    ``triples`` takes O(t · d) of both. Two items at the same place form no angle: their cosine is 0 and sends no
    gradient.

    Args:
      student: one vector per item, [n, d_student].
      teacher: one vector per item, [n, d_teacher].
      triples: items (i, j, k) with the vertex j in the middle, [t, 3]; then one value comes back per triple. A triple
        that names an item twice is padding and gets 0.
      where: the items that count, [n]; the others, and triples with one of them, get 0 and send no gradient.
      block_size: vertices worked on together where all triples are compared; None takes all n and O(n³) memory.
      axis_name: the mapped axis that items are spread over; each device then returns the values of its own vertices
        against the items of all devices. Triples name items of their own device, whether or not it is given.
      stop_teacher_gradient: treat the teacher's vectors as constants.

    Returns:
      A value per vertex, [n], or with ``triples`` per triple, [t].

    Raises:
      ValueError: if the numbers of items differ, ``triples`` is not integer [t, 3] or ``where`` not boolean [n].

    Example:
      >>> import jax.numpy as jnp
      >>> student = jnp.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
      >>> teacher = jnp.array([[1.0], [0.0], [2.0]])
      >>> relational_angle(student, teacher, triples=jnp.array([[0, 1, 2], [0, 0, 0]])).tolist()
      [0.5, 0.0]

    Source:
      Park, Kim, Lu and Cho, `Relational Knowledge Distillation <https://arxiv.org/abs/1904.05068>`_, 2019.
    """
    student, teacher = _relational_inputs(student, teacher, where, stop_teacher_gradient)
    check_block_size(block_size)
    n = student.shape[0]
    counted = jnp.ones(n, bool) if where is None else where
    if triples is not None:
        _check_tuples(triples, "triples", 3)
        i, j, k = triples[:, 0], triples[:, 1], triples[:, 2]
        valid = counted[i] & counted[j] & counted[k] & (i != j) & (j != k) & (i != k)

        def cosine(hidden: jax.Array) -> jax.Array:
            return jnp.sum(unit(hidden[i] - hidden[j]) * unit(hidden[k] - hidden[j]), axis=-1)

        return silence(optax.losses.huber_loss(cosine(student), cosine(teacher)), valid)

    index = example_index(n, axis_name)
    all_index, all_counted = gather(index, axis_name), gather(counted, axis_name)
    all_student, all_teacher = gather(student, axis_name), gather(teacher, axis_name)

    def cosines(vertices: jax.Array, items: jax.Array) -> jax.Array:
        directions = unit(items[None, :, :] - vertices[:, None, :])
        return directions @ directions.mT

    def at_vertices(vertex: jax.Array, counts: jax.Array, student: jax.Array, teacher: jax.Array) -> jax.Array:
        end = all_counted[None, :] & (all_index[None, :] != vertex[:, None])
        apart = all_index[None, :, None] != all_index[None, None, :]
        valid = counts[:, None, None] & end[:, :, None] & end[:, None, :] & apart
        difference = optax.losses.huber_loss(cosines(student, all_student), cosines(teacher, all_teacher))
        return _mean_over_valid(difference, valid, axis=(1, 2))

    rows = (index, counted, student, teacher)
    # Checkpointed, so that the backward pass forms the angles of a block again instead of keeping those of all blocks.
    return at_vertices(*rows) if block_size is None else map_row_blocks(jax.checkpoint(at_vertices), rows, block_size)


def similarity_preserving(
    student: Float[Array, "n d_student"],
    teacher: Float[Array, "n d_teacher"],
    *,
    where: Bool[Array, "n"] | None = None,
    block_size: int | None = None,
    axis_name: AxisName | None = None,
    stop_teacher_gradient: bool = True,
) -> Float[Array, "n"]:
    r"""Difference of the rows of the two similarity matrices, each row scaled to length 1.

    .. math::
      L_i = \frac{1}{n} \sum_j \Bigl( \frac{g^S_{ij}}{\|g^S_i\|} - \frac{g^T_{ij}}{\|g^T_i\|} \Bigr)^2, \qquad
      g_{ij} = \langle h_i, h_j \rangle

    The mean of the values is the published ‖G^S - G^T‖² / n².

    Args:
      student: one vector per item, [n, d_student]; more axes are flattened into the last by the caller.
      teacher: one vector per item, [n, d_teacher].
      where: the items that count, [n]; the others get 0, send no gradient and are in no one's row.
      block_size: rows worked on together, O(n · block_size) memory forward and backward; None holds all n × n.
      axis_name: the mapped axis that items are spread over; rows then run over the items of all devices, and each
        device returns the values of its own rows.
      stop_teacher_gradient: treat the teacher's vectors as constants.

    Returns:
      A value per item, [n].

    Raises:
      ValueError: if the numbers of items differ, ``where`` is not boolean [n] or ``block_size`` not above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> student, teacher = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([[1.0, 0.0], [1.0, 0.0]])
      >>> similarity_preserving(student, 4.0 * student).tolist()
      [0.0, 0.0]
      >>> similarity_preserving(student, teacher).tolist()
      [0.2928..., 0.2928...]

    Source:
      Tung and Mori, `Similarity-Preserving Knowledge Distillation <https://arxiv.org/abs/1907.09682>`_, 2019.
    """
    student, teacher = _relational_inputs(student, teacher, where, stop_teacher_gradient)
    check_block_size(block_size)
    n = student.shape[0]
    counted = jnp.ones(n, bool) if where is None else where
    all_student, all_teacher = gather(student, axis_name), gather(teacher, axis_name)
    n_item = jnp.maximum(total(jnp.sum(counted), axis_name), 1)

    def rows(student: jax.Array, teacher: jax.Array) -> jax.Array:
        difference = unit(student @ all_student.T) - unit(teacher @ all_teacher.T)
        return jnp.sum(jnp.square(difference), axis=1) / n_item

    if block_size is None:
        return silence(rows(student, teacher), where)
    return silence(map_row_blocks(jax.checkpoint(rows), (student, teacher), block_size), where)


def local_structure(
    student: Float[Array, "n d_student"],
    teacher: Float[Array, "n d_teacher"],
    senders: Int[Array, "e"],
    receivers: Int[Array, "e"],
    *,
    kernel: Kernel = "rbf",
    bandwidth: Scalar = 1.0,
    where: Bool[Array, "n"] | None = None,
    indices_are_sorted: bool = False,
    stop_teacher_gradient: bool = True,
) -> Float[Array, "n"]:
    r"""Divergence of how alike each node is to its neighbours, as a distribution over them.

    .. math::
      L_i = \sum_{j \to i} p^T_{ij} (\log p^T_{ij} - \log p^S_{ij}), \qquad
      p_{ij} = \frac{e^{\mathrm{sim}(h_i, h_j)}}{\sum_{k \to i} e^{\mathrm{sim}(h_i, h_k)}}

    with the kernel sim one of

    * ``rbf``: exp(-‖x - y‖² / 2σ²), with σ the bandwidth;
    * ``linear``: ⟨x, y⟩;
    * ``polynomial``: ⟨x, y⟩²;
    * ``euclidean``: -‖x - y‖².

    All but ``rbf`` grow with the length of the vectors, which may differ between the two sides: scale them to a common
    one before. A node with fewer than two neighbours gets 0.

    Args:
      student: one vector per node, [n, d_student].
      teacher: one vector per node, [n, d_teacher].
      senders: the neighbour j of each edge, [e].
      receivers: the node i of each edge, whose neighbours are compared, [e].
      kernel: how alike two nodes are.
      bandwidth: σ > 0 of the ``rbf`` kernel, in units of the vectors.
      where: the nodes that count, [n]; the others get 0 and send no gradient, and edges from or to them do not exist.
      indices_are_sorted: promise that ``receivers`` never decreases.
      stop_teacher_gradient: treat the teacher's vectors as constants.

    Returns:
      The divergence of each node in nats, [n].

    Raises:
      ValueError: if the numbers of nodes differ, ``senders`` and ``receivers`` are not integers of one shape [e], the
        kernel is unknown, or ``where`` is not boolean [n].

    Example:
      >>> import jax.numpy as jnp
      >>> student, teacher = jnp.array([[1.0], [1.0], [1.0]]), jnp.array([[1.0], [0.0], [2.0]])
      >>> senders, receivers = jnp.array([1, 2, 0]), jnp.array([0, 0, 1])
      >>> local_structure(student, teacher, senders, receivers, kernel="linear").tolist()
      [0.3278..., 0.0, 0.0]

    Source:
      Yang, Qiu, Song, Tao and Wang, `Distilling Knowledge from Graph Convolutional Networks
      <https://arxiv.org/abs/2003.10477>`_, 2020.
    """
    student, teacher = _relational_inputs(student, teacher, where, stop_teacher_gradient)
    check_rank(1, senders=senders, receivers=receivers)
    check_same_shape(senders=senders, receivers=receivers)
    check_integer(senders=senders, receivers=receivers)
    check_positive(bandwidth=bandwidth)
    n = student.shape[0]
    counted = jnp.ones(n, bool) if where is None else where
    exists = counted[senders] & counted[receivers]

    def per_node(edge_values: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(silence(edge_values, exists), receivers, n, indices_are_sorted)

    def log_share(hidden: jax.Array) -> jax.Array:
        alike = _similarity(hidden[receivers], hidden[senders], kernel, bandwidth)
        alike = jnp.where(exists, alike, -jnp.inf)
        largest = jax.ops.segment_max(jax.lax.stop_gradient(alike), receivers, n, indices_are_sorted)
        shifted = silence(alike - largest[receivers], exists)
        sums = per_node(jnp.exp(shifted))
        return shifted - jnp.log(jnp.where(sums > 0, sums, 1.0))[receivers]

    student_log_share, teacher_log_share = log_share(student), log_share(teacher)
    return per_node(jnp.exp(teacher_log_share) * (teacher_log_share - student_log_share))


def _relational_inputs(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None, stop_teacher_gradient: bool
) -> tuple[jax.Array, jax.Array]:
    """Both sides checked, widened and with masked items silenced."""
    check_rank(2, student=student, teacher=teacher)
    check_same_examples(1, student=student, teacher=teacher)
    check_floating(student=student, teacher=teacher)
    check_where(where, student.shape[:1])
    teacher = teacher_side(silence(at_least_float32(teacher), where), stop_teacher_gradient)
    return silence(at_least_float32(student), where), teacher


def _check_tuples(tuples: jax.Array, name: str, size: int) -> None:
    check_integer(**{name: tuples})
    if tuples.ndim != 2 or tuples.shape[1] != size:
        raise ValueError(f"{name} must have shape [any, {size}], but its shape is {shape_of(tuples)}")


def _all_distances(rows: jax.Array, columns: jax.Array, counted: jax.Array) -> jax.Array:
    """‖x_i - y_j‖ of [n, d] and [m, d], [n, m], through one matrix product; ``counted`` [m] says which y are there."""
    # Distances do not change when both sides move, and the products lose fewer digits close to the origin.
    centre = jax.lax.stop_gradient(_mean_over_valid(columns, counted[:, None], axis=0))
    rows, columns = rows - centre, columns - centre
    squares = jnp.sum(jnp.square(rows), axis=1)[:, None] + jnp.sum(jnp.square(columns), axis=1)[None, :]
    return safe_sqrt(jnp.maximum(squares - 2.0 * rows @ columns.T, 0.0))


def _mean_over_valid(values: jax.Array, valid: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """Mean of the valid values, 0 where there are none."""
    return jnp.sum(silence(values, valid), axis=axis) / jnp.maximum(jnp.sum(valid, axis=axis), 1)


def _similarity(x: jax.Array, y: jax.Array, kernel: Kernel, bandwidth: Scalar) -> jax.Array:
    """The kernel of rows of x and y [e, d], [e]."""
    if kernel == "rbf":
        return jnp.exp(-jnp.sum(jnp.square(x - y), axis=1) / (2.0 * bandwidth**2))
    if kernel == "linear":
        return jnp.sum(x * y, axis=1)
    if kernel == "polynomial":
        return jnp.square(jnp.sum(x * y, axis=1))
    if kernel == "euclidean":
        return -jnp.sum(jnp.square(x - y), axis=1)
    raise ValueError(f"kernel must be 'rbf', 'linear', 'polynomial' or 'euclidean', but it is {kernel!r}")
