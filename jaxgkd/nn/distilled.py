"""A student with all it learns from: labels, soft labels, hop features node by node, parts of the graph, relations.

The loss of LinguGKD and its neighbours, over a whole graph, for one run:

    total = w_label CE + w_soft T² KL + w_local Σ_l a_l InfoNCE_l + w_global Σ_l a_l InfoNCE_l(parts) + w_relational SP

with the sum over the terms that are switched on, fixed weights w or learned ones, and layer weights a.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd import losses
from jaxgkd.graphs import GraphsTuple, Layout, aggregate
from jaxgkd.nn.alignment import Alignment
from jaxgkd.nn.encoders import LayerStates, Student

Weighting = Literal["fixed", "softmax", "uncertainty"]
Tree = Any
# Nodes whose scores with all others are held together.
_BLOCK = 512

#: What a teacher can add to the loss, in the order their learned weights have after that of the labels.
TERMS = ("soft", "local", "global", "relational")


@dataclass(frozen=True)
class Objective:
    """Which terms there are and how they are weighted. Strengths are settings of a run, so that a search can vary them.

    Fields:
      terms: a subset of `TERMS`.
      layer_weighting: of the layers inside ``local`` and ``global``: a learned softmax as published, by uncertainty
        (Kendall et al., arXiv 1705.07115), or all alike.
      term_weighting: of the terms: their strengths as given, or learned.
      aligned_nodes: nodes drawn every epoch for ``local`` and ``relational``, which compare all pairs of them; 0 takes
        all nodes.
    """

    terms: tuple[str, ...] = ("soft", "local", "global")
    layer_weighting: Weighting = "softmax"
    term_weighting: Weighting = "fixed"
    aligned_nodes: int = 256


class DistilledStudent(nnx.Module):
    """A `Student` and the `Alignment` that is thrown away once it has learned."""

    def __init__(self, student: Student, alignment: Alignment):
        self.student = student
        self.alignment = alignment

    def __call__(
        self,
        graph: GraphsTuple,
        layout: Layout | Sequence[Layout],
        *,
        degree: Array | None = None,
        dropout_key: Array | None = None,
        dropout_rate: ArrayLike = 0.0,
        where: Array | None = None,
    ) -> LayerStates:
        """States and logits of the student alone; arguments as for `Student`."""
        return self.student(
            graph, layout, degree=degree, dropout_key=dropout_key, dropout_rate=dropout_rate, where=where
        )


def distillation_loss(objective: Objective):
    """The ``total_loss`` of `jaxgkd.nn.node_problem.node_problem` for a `DistilledStudent`.

    What runs share holds ``teacher_states`` [n, hops, d] and ``part_layout``, from nodes to parts of the graph. Every
    run's data holds ``teacher_log_probs`` [n, classes], ``taught`` [n] bool (nodes the teacher speaks about in
    training), ``taught_nodes`` [n] integers (those nodes first), ``aligned_classes`` [n] integers (−1: unknown),
    ``part_features`` [parts, hops, d] (`part_means` of the teacher's states, for the global term) and, in its settings,
    ``temperature``, ``align_temperature`` and a strength for ``label`` and for every term.
    """

    def total_loss(
        model: nnx.Module, states: LayerStates, label_term: Array, key: Array, run: Tree, shared: Tree
    ) -> tuple[Array, dict[str, Array]]:
        assert isinstance(model, DistilledStudent)
        settings, taught = run["settings"], run["taught"]
        terms = {"label": label_term}
        logs = {}
        if "soft" in objective.terms:
            kl = losses.soft_target_kl(
                states.logits, run["teacher_log_probs"], temperature=settings["temperature"], where=taught
            )
            terms["soft"] = _mean(kl, taught)
        drawn = _draw(key, taught, run["taught_nodes"], objective.aligned_nodes)
        counted = taught[drawn]
        # Nodes and parts go through the projections together: half as many small matrix products.
        wanted = {"local": lambda: shared["teacher_states"][drawn], "global": lambda: run["part_features"]}
        features = {name: rows() for name, rows in wanted.items() if name in objective.terms}
        together = _projected(model.alignment, jnp.concatenate(list(features.values()))) if features else []
        if "local" in objective.terms:
            projected = [rows[: drawn.shape[0]] for rows in together]
            per_layer = [
                _mean(
                    losses.info_nce(
                        student[drawn],
                        teacher,
                        labels=run["aligned_classes"][drawn],
                        temperature=settings["align_temperature"],
                        where=counted,
                        stop_teacher_gradient=False,
                        # Where all nodes are aligned, their scores with each other need not be there at once.
                        block_size=_BLOCK if drawn.shape[0] > 2 * _BLOCK else None,
                    ),
                    counted,
                )
                for student, teacher in zip(states.hidden, projected, strict=True)
            ]
            terms["local"], shares = _over_layers(objective, jnp.stack(per_layer), model.alignment)
            logs |= {f"layer_weight/{i}": share for i, share in enumerate(shares)}
        if "global" in objective.terms:
            n_parts = run["part_features"].shape[0]
            terms["global"] = _global_term(
                objective, model, states, run, shared, [rows[-n_parts:] for rows in together]
            )
        if "relational" in objective.terms:
            relational = losses.similarity_preserving(
                states.hidden[-1][drawn], shared["teacher_states"][drawn, -1], where=counted
            )
            terms["relational"] = _mean(relational, counted)
        total = _combine(objective, terms, settings, model.alignment)
        return total, logs | {f"loss/{name}": value for name, value in terms.items() if name != "label"}

    return total_loss


def part_means(values: Array, taught: Array, part_layout: Layout) -> tuple[Array, Array]:
    """Mean of the taught nodes in every part of the graph.

    Args:
      values: [n, d].
      taught: [n] bool.
      part_layout: from nodes to parts.

    Returns:
      means [parts, d], zero where a part has no taught node, and [parts] bool, whether it has one.
    """
    weights = taught.astype(jnp.float32)
    size = aggregate(weights[:, None], part_layout)
    summed = aggregate(values, part_layout, edge_weights=weights[part_layout.senders])
    return summed / jnp.maximum(size, 1.0), size[:, 0] > 0


def _projected(alignment: Alignment, features: Array) -> list[Array]:
    """``alignment(features)`` with LayerNorm's scale and shift moved into the product that follows it.

    Between the features and the first weights there is then nothing to learn, so that no gradient as large as the
    features is made: one product and two sums over them less for every hop.
    """
    centred = features - jnp.mean(features, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    rows = []
    for hop, project in enumerate(alignment.by_hop):
        norm, first = project.norm, project.first
        assert norm.scale is not None and norm.bias is not None and first.bias is not None
        normalised = centred[:, hop] * jax.lax.rsqrt(variance[:, hop] + norm.epsilon)
        bias = norm.bias[...] @ first.kernel[...] + first.bias[...]
        hidden = normalised @ (norm.scale[...][:, None] * first.kernel[...]) + bias
        rows.append(alignment.shared(project.second(project.activation(hidden))))
    return rows


def _global_term(
    objective: Objective,
    model: DistilledStudent,
    states: LayerStates,
    run: Tree,
    shared: Tree,
    projected: list[Array],
) -> Array:
    """Parts of the graph instead of nodes: the mean state of a part against the mean feature of the same part."""
    means, there = part_means(jnp.concatenate(states.hidden, axis=1), run["taught"], shared["part_layout"])
    per_layer = []
    for student, teacher in zip(jnp.split(means, len(projected), axis=1), projected, strict=True):
        loss = losses.info_nce(
            student,
            teacher,
            temperature=run["settings"]["align_temperature"],
            where=there,
            stop_teacher_gradient=False,
        )
        per_layer.append(_mean(loss, there))
    return _over_layers(objective, jnp.stack(per_layer), model.alignment)[0]


def _draw(key: Array, taught: Array, taught_nodes: Array, aligned_nodes: int) -> Array:
    """Rows of the nodes that are compared this epoch, drawn from those that are taught.

    With replacement, which needs no sorting: of a few hundred among thousands hardly any comes twice, and one that does
    is not set against itself, because it shares its own class.
    """
    n = taught.shape[0]
    if aligned_nodes == 0 or aligned_nodes >= n:
        return jnp.arange(n)
    place = jax.random.uniform(key, (aligned_nodes,)) * jnp.sum(taught)
    return taught_nodes[place.astype(jnp.int32)]


def _over_layers(objective: Objective, per_layer: Array, alignment: Alignment) -> tuple[Array, Array]:
    """The weighted sum over layers, and each layer's share of the weight."""
    weights = alignment.layer_weights[...]
    match objective.layer_weighting:
        case "softmax":
            return losses.layer_adaptive(per_layer, weights), jax.nn.softmax(weights)
        case "uncertainty":
            # Ones start as log variances of 0: all layers alike.
            return losses.uncertainty_weighted(per_layer, weights - 1.0), jax.nn.softmax(1.0 - weights)
        case "fixed":
            return jnp.mean(per_layer), jnp.full(per_layer.shape, 1.0 / per_layer.shape[0])


def _combine(objective: Objective, terms: dict[str, Array], settings: dict[str, Array], alignment: Alignment) -> Array:
    names = [name for name in ("label", *TERMS) if name in terms]
    values = jnp.stack([terms[name] * settings[name] for name in names])
    weights = alignment.term_weights[...]
    match objective.term_weighting:
        case "softmax":
            return losses.layer_adaptive(values, weights)
        case "uncertainty":
            return losses.uncertainty_weighted(values, weights - 1.0)
        case "fixed":
            return jnp.sum(values)


def _mean(values: Array, where: Array) -> Array:
    return jnp.sum(values) / jnp.maximum(jnp.sum(where), 1)
