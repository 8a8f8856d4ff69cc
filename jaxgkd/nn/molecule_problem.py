"""Molecules as problems that ``training.fit_batches`` can train: a network alone, or one that a teacher accompanies.

The distilled student's loss is that of Coordinating Cross-modal Distillation, Zhang et al., arXiv 2211.16712:

    total = task + Σ_l w_l d(g_S^l, g_T^l) + w_local Σ_l N^(-p) Σ_i d(h_S,i^l, h_T,i^l)

with the states g of molecules and h of their N atoms after every layer l, the teacher's computed beforehand. p = 2 is
the paper's coordination by size, p = 1 the plain mean, p = 0 the sum.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jaxgkd import losses
from jaxgkd.graphs import Batch, RowBatch
from jaxgkd.nn.gine import MoleculeStates
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.training.batch_loop import BatchProblem

Distance = Literal["mse", "l1", "cosine"]
TaskKind = Literal["classification", "regression"]
Make = Callable[[Array], nnx.Module]

# Share of training over which the learning rate rises to its peak; from there it falls along a cosine.
_WARM_UP = 0.05


class BatchParts(NamedTuple):
    """What a loss needs of a batch, rows or flat.

    Fields:
      nodes: of the batch; globals: likewise.
      n_node: [g] atoms of each molecule, what is padding where ``graph_mask`` [g] is False.
    """

    nodes: Any
    globals: Any
    n_node: Array
    graph_mask: Array


def batch_parts(batch: RowBatch | Batch) -> BatchParts:
    """Nodes, globals, sizes and mask of a batch of either kind."""
    if isinstance(batch, RowBatch):
        return BatchParts(batch.nodes, batch.globals, jnp.sum(batch.node_mask, axis=1), batch.graph_mask)
    return BatchParts(batch.graph.nodes, batch.graph.globals, jnp.asarray(batch.graph.n_node), batch.graph_mask)


class DistilledMolecules(nnx.Module):
    """A student and, where wanted, linear maps from its states to the teacher's; the maps are thrown away later."""

    def __init__(self, student: nnx.Module, width: int, d_teacher: int, n_layers: int, *, rngs: nnx.Rngs):
        """One map a layer.

        Args:
          student: called on (batch, …) it returns `MoleculeStates`.
          width: of its states; d_teacher: of the teacher's.
          n_layers: layers compared, 0 for none of the maps.
          rngs: of the initial weights.
        """
        self.student = student
        self.maps = nnx.List([nnx.Linear(width, d_teacher, rngs=rngs) for _ in range(n_layers)])

    def __call__(self, batch: RowBatch | Batch, **options: Any) -> MoleculeStates:
        """What the student says, its states mapped."""
        states = self.student(batch, **options)  # type: ignore[operator]
        if not self.maps:
            return states
        # The first state is the embedding, which no map belongs to.
        mapped = lambda layers: (layers[0], *(f(x) for f, x in zip(self.maps, layers[1:], strict=True)))  # noqa: E731
        return MoleculeStates(mapped(states.atoms), mapped(states.molecules), states.outputs)


def task_loss(outputs: Array, labels: Array, where: Array, kind: TaskKind) -> Array:
    """Mean absolute error of scaled labels, or the cross-entropy of two classes, over the labels that are there.

    Args:
      outputs: [g, t]; labels: [g, t].
      where: [g, t] bool.
      kind: of all tasks.
    """
    labels = jnp.where(where, labels, 0.0)
    error = jnp.abs(outputs - labels) if kind == "regression" else optax.sigmoid_binary_cross_entropy(outputs, labels)
    return jnp.sum(jnp.where(where, error, 0.0)) / jnp.maximum(jnp.sum(where), 1)


def default_optimizer(settings: dict[str, Array], progress: Array) -> optax.GradientTransformation:
    """AdamW whose rate rises linearly over the first steps and falls along a cosine; gradients clipped to norm 1."""
    rising = progress / _WARM_UP
    falling = 0.5 * (1.0 + jnp.cos(jnp.pi * (progress - _WARM_UP) / (1.0 - _WARM_UP)))
    rate = settings["learning_rate"] * jnp.where(progress < _WARM_UP, rising, falling)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=settings["weight_decay"]))


def molecule_problem(
    make: Make, kind: TaskKind, *, distance: Distance | None = None, with_dropout: bool = True
) -> BatchProblem:
    """A `BatchProblem` over batches of molecules.

    Batches hold in their globals ``labels`` [g, t] and ``label_mask`` [g, t]. Every run's settings hold
    ``learning_rate``, ``weight_decay`` and ``dropout``. With a ``distance`` the teacher's states are in the batches, as
    nodes ``teacher`` [..., layers, d] and globals ``teacher`` [g, layers, d] with ``placed`` [g] where it saw the
    molecule, and settings hold ``global`` [layers], ``local`` and ``power``, see above.

    Args:
      make: gives a model from a key; called on a batch it returns `MoleculeStates`.
      kind: of all tasks.
      distance: d, see above; None learns the labels alone.
      with_dropout: False saves the random bits where no run drops anything.
    """
    graphdef = graphdef_of(make)

    def init(key):
        return nnx.split(make(key), nnx.Param, ...)[1:]

    def loss(params, key, settings, batch, shared):
        del shared
        options = {"dropout_key": key, "dropout_rate": settings["dropout"]} if with_dropout else {}
        states = nnx.merge(graphdef, *params)(batch, **options)
        parts = batch_parts(batch)
        task = task_loss(states.outputs, parts.globals["labels"], parts.globals["label_mask"], kind)
        if distance is None:
            return task, {"loss/task": task}
        of_molecules, of_atoms = alignments(states, parts, distance, settings["power"])
        global_term = jnp.sum(settings["global"] * of_molecules)
        local_term = settings["local"] * jnp.sum(of_atoms)
        logs = {"loss/task": task, "loss/global": jnp.sum(of_molecules), "loss/local": jnp.sum(of_atoms)}
        return task + global_term + local_term, logs

    def outputs(params, batch):
        found = nnx.merge(graphdef, *params)(batch).outputs
        return found if kind == "regression" else jax.nn.sigmoid(found)

    return BatchProblem(init, loss, outputs, default_optimizer)


def alignments(states: MoleculeStates, parts: BatchParts, distance: Distance, power: Array) -> tuple[Array, Array]:
    """Mean over the molecules of a batch of the global and of the local term of every layer, unweighted.

    Args:
      states: the student's, embedding first.
      parts: with the teacher's states.
      distance: between two states.
      power: p; may be traced.

    Returns:
      [layers] and [layers].
    """
    where = parts.globals["placed"] & parts.graph_mask
    count = jnp.maximum(jnp.sum(where), 1)
    scale = jnp.maximum(parts.n_node, 1).astype(jnp.float32) ** -power
    of_molecules, of_atoms = [], []
    for layer, (atoms, molecules) in enumerate(zip(states.atoms[1:], states.molecules[1:], strict=True)):
        teacher = parts.globals["teacher"][:, layer].astype(molecules.dtype)
        of_molecules.append(jnp.sum(losses.molecule_alignment(molecules, teacher, distance=distance, where=where)))
        teacher = parts.nodes["teacher"][..., layer, :].astype(atoms.dtype)
        summed = losses.atom_alignment(atoms, teacher, parts.n_node, distance=distance, where=where)
        of_atoms.append(jnp.sum(summed * scale))
    return jnp.stack(of_molecules) / count, jnp.stack(of_atoms) / count
