"""From a language model's hop features to class probabilities that never saw the label of the node they describe.

A head fitted to the training labels describes training nodes too well: they become nearly separable, and a student
that imitates them learns the labels a second time instead of what the teacher knows. So K heads are fitted, each
without one fold of the training nodes. A training node is described by the head that did not see it, every other node
by the mean of all K. All folds of all seeds train side by side in one compiled program.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jraph import GraphsTuple

from jaxgkd.data.splits import stratified_folds
from jaxgkd.graphs import Layout
from jaxgkd.nn.encoders import Student, make_student
from jaxgkd.nn.node_problem import node_problem
from jaxgkd.nn.untrained import graphdef_of, shapes_of
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name
from jaxgkd.training.loop import fit


@dataclass(frozen=True)
class HeadSettings:
    """How heads are fitted.

    Fields:
      kind: a student kind; ``gcn`` adds the graph to what the language model knows, ``mlp`` does not.
      folds: K; 1 fits a single head that describes the nodes it was fitted to (the published protocol).
      width, n_layers, epochs, patience, learning_rate, weight_decay, dropout: of one head.
    """

    kind: str = "gcn"
    folds: int = 5
    width: int = 64
    n_layers: int = 2
    epochs: int = 100
    patience: int = 30
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    dropout: float = 0.6


@dataclass(frozen=True)
class HeadOutput:
    """What the heads say.

    Fields:
      log_probs: [seeds, n, classes] float32.
      first_heads: weights and other state of the first seed's heads by name, each with the folds first.
      settings: what they were fitted with.
    """

    log_probs: np.ndarray
    first_heads: dict[str, np.ndarray]
    settings: HeadSettings

    @property
    def parameters(self) -> int:
        """Weights of all the heads that speak for one seed."""
        return sum(values.size for values in self.first_heads.values())

    def predictor(self, graph: GraphsTuple, layout: Layout) -> Callable[[], Array]:
        """A compiled function that gives the first seed's mean probabilities [n, classes], for timing."""
        make = _maker(self.settings, graph.nodes.shape[1], self.log_probs.shape[-1])  # type: ignore[union-attr]
        folds = self.settings.folds
        several = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((folds, *leaf.shape), leaf.dtype), shapes_of(make))
        state = jax.tree.map(jnp.asarray, from_leaves(self.first_heads, several))
        return lambda: _mean_probabilities(graphdef_of(make), *state, graph, layout)


@dataclass(frozen=True)
class HeadEnsemble:
    """Heads of several kinds that speak with one voice: the mean of their probabilities.

    Fields:
      members: at least one, fitted to the same splits.
      answers: [seeds, n, classes] log probabilities of a language model that was tuned to name the class itself, which
        counts as one member more; None where there is none.
    """

    members: tuple[HeadOutput, ...]
    answers: np.ndarray | None = None

    @property
    def log_probs(self) -> np.ndarray:
        """[seeds, n, classes] float32."""
        voices = [member.log_probs for member in self.members] + ([] if self.answers is None else [self.answers])
        return np.log(np.mean([np.exp(voice) for voice in voices], axis=0)).astype(np.float32)

    @property
    def parameters(self) -> int:
        """Weights of all the heads that speak for one seed."""
        return sum(member.parameters for member in self.members)

    def predictor(self, graph: GraphsTuple, layout: Layout) -> Callable[[], Array]:
        """A function that gives the mean of the first seed's heads' probabilities [n, classes], for timing."""
        predictors = [member.predictor(graph, layout) for member in self.members]
        return lambda: sum(predict() for predict in predictors) / len(predictors)  # type: ignore[return-value]


def fit_heads(
    graph: GraphsTuple,
    layout: Layout,
    labels: np.ndarray,
    train: np.ndarray,
    valid: np.ndarray,
    n_classes: int,
    settings: HeadSettings,
    seeds: list[int],
    *,
    train_layouts: Layout | None = None,
    train_nodes: np.ndarray | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> HeadOutput:
    """Fit K heads per seed and let each describe the nodes it did not see.

    Args:
      graph: its nodes are the features [n, f].
      layout: of its edges.
      labels: [seeds, n] class of every node, anything where it is in neither part.
      train, valid: [seeds, n] bool; validation nodes choose each head's epoch.
      n_classes: number of classes.
      settings: of the heads.
      seeds: one per row of the arrays above.
      train_layouts: a layout with [seeds, …] leaves that training sees instead (inductive splits).
      train_nodes: [seeds, n] bool, the nodes of that graph.
      on_progress: see `jaxgkd.training.loop.fit`.
    """
    folds = np.stack([_folds(labels[i], train[i], settings.folds, seed) for i, seed in enumerate(seeds)])
    per_fold = lambda values: np.repeat(values, settings.folds, axis=0)  # noqa: E731
    fold_number = np.tile(np.arange(settings.folds), len(seeds))
    seen = per_fold(train)
    if settings.folds > 1:
        seen = seen & (per_fold(folds) != fold_number[:, None])
    n_runs = len(seeds) * settings.folds
    value = lambda number: jnp.full(n_runs, number, jnp.float32)  # noqa: E731
    run_data = {
        "train": jnp.asarray(seen),
        "valid": jnp.asarray(per_fold(valid)),
        "labels": jnp.asarray(per_fold(labels), jnp.int32),
        "class_weights": jnp.ones((n_runs, n_classes)),
        "settings": {
            "learning_rate": value(settings.learning_rate),
            "weight_decay": value(settings.weight_decay),
            "dropout": value(settings.dropout),
        },
    }
    if train_layouts is not None:
        assert train_nodes is not None
        run_data["train_layout"] = jax.tree.map(lambda leaf: jnp.repeat(leaf, settings.folds, axis=0), train_layouts)
        run_data["valid_layout"] = run_data["train_layout"]
        run_data["train_nodes"] = jnp.asarray(per_fold(train_nodes))

    make = _maker(settings, graph.nodes.shape[1], n_classes)  # type: ignore[union-attr]
    keys = jnp.stack(
        [jax.random.fold_in(jax.random.key(seed), 1000 + k) for seed in seeds for k in range(settings.folds)]
    )
    result = fit(
        node_problem(make),
        keys,
        run_data,
        {"graph": graph, "layout": layout},
        epochs=settings.epochs,
        evaluate_every=2,
        patience=settings.patience,
        on_progress=on_progress,
    )
    model = graphdef_of(make), result.params, result.rest
    everyone = np.asarray(_probabilities(*model, graph, layout))
    if train_layouts is not None and train_nodes is not None:
        # Nodes of the training graph are described as that graph shows them: no word of the nodes that are held out.
        inside = np.asarray(_probabilities(*model, graph, run_data["train_layout"], layout_axis=0))
        everyone = np.where(per_fold(train_nodes)[:, :, None], inside, everyone)
    everyone = everyone.reshape(len(seeds), settings.folds, *everyone.shape[1:])
    described = everyone.mean(axis=1)
    if settings.folds > 1:
        for i in range(len(seeds)):
            rows = np.flatnonzero(folds[i] >= 0)
            described[i, rows] = everyone[i, folds[i, rows], rows]
    first = jax.tree.map(lambda leaf: leaf[: settings.folds], (result.params, result.rest))
    return HeadOutput(np.log(np.maximum(described, 1e-9)).astype(np.float32), leaves_by_name(first), settings)


def _maker(settings: HeadSettings, d_in: int, n_classes: int) -> Callable[[Array], Student]:
    return lambda key: make_student(settings.kind, d_in, settings.width, settings.n_layers, n_classes, key)


@partial(jax.jit, static_argnames=("graphdef", "layout_axis"))
def _probabilities(graphdef, params, rest, graph, layout, layout_axis: int | None = None) -> Array:
    """[heads, n, classes] from states with the heads first; one layout for all heads, or one each."""
    one = lambda params, rest, layout: jax.nn.softmax(nnx.merge(graphdef, params, rest)(graph, layout).logits)  # noqa: E731
    return jax.vmap(one, in_axes=(0, 0, layout_axis))(params, rest, layout)


@partial(jax.jit, static_argnames="graphdef")
def _mean_probabilities(graphdef, params, rest, graph, layout) -> Array:
    """[n, classes], the mean over the heads."""
    return _probabilities(graphdef, params, rest, graph, layout).mean(axis=0)


def _folds(labels: np.ndarray, train: np.ndarray, k: int, seed: int) -> np.ndarray:
    if k == 1:
        return np.full(len(labels), -1, np.int32)
    return stratified_folds(np.where(train, labels, -1), k, seed)
