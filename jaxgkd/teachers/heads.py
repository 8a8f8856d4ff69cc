"""From a language model's hop features to class probabilities that never saw the label of the node they describe.

A head fitted to the training labels describes training nodes too well: they become nearly separable, and a student
that imitates them learns the labels a second time instead of what the teacher knows. So K heads are fitted, each
without one fold of the training nodes. A training node is described by the head that did not see it, every other node
by the mean of all K. All folds of all seeds train side by side in one compiled program.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jraph import GraphsTuple

from jaxgkd.data.splits import stratified_folds
from jaxgkd.graphs import Layout
from jaxgkd.nn.encoders import Student, make_student
from jaxgkd.nn.node_problem import graphdef_of, node_problem
from jaxgkd.training.loop import fit

#: Kinds of head: a GNN over the features, or one that sees each node's features alone.
HEADS = ("gcn", "sage", "mlp")


@dataclass(frozen=True)
class HeadSettings:
    """How heads are fitted.

    Fields:
      kind: a student kind; ``gcn`` adds the graph to what the language model knows, ``mlp`` does not.
      folds: K; 1 fits a single head that describes the nodes it was fitted to (the published protocol).
      width, n_layers, epochs, learning_rate, weight_decay, dropout: of one head.
    """

    kind: str = "gcn"
    folds: int = 5
    width: int = 128
    n_layers: int = 2
    epochs: int = 100
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    dropout: float = 0.5


@dataclass(frozen=True)
class HeadOutput:
    """What the heads say.

    Fields:
      log_probs: [seeds, n, classes] float32.
      parameters: number of weights of one head; n_heads: heads a seed.
      predict: ``(graph, layout) -> [n, classes]`` probabilities of the first seed's heads, for timing.
    """

    log_probs: np.ndarray
    parameters: int
    n_heads: int
    predict: Callable[[GraphsTuple, Layout], Array]


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

    def make(key: Array) -> Student:
        return make_student(settings.kind, graph.nodes.shape[1], settings.width, settings.n_layers, n_classes, key)  # type: ignore[union-attr]

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
        on_progress=on_progress,
    )
    graphdef = graphdef_of(make)

    @jax.jit
    def probabilities(params, rest, graph, layout):
        one = lambda params, rest: jax.nn.softmax(nnx.merge(graphdef, params, rest)(graph, layout).logits)  # noqa: E731
        return jax.vmap(one)(params, rest)

    everyone = np.asarray(probabilities(result.params, result.rest, graph, layout))
    everyone = everyone.reshape(len(seeds), settings.folds, *everyone.shape[1:])
    described = everyone.mean(axis=1)
    if settings.folds > 1:
        for i in range(len(seeds)):
            rows = np.flatnonzero(folds[i] >= 0)
            described[i, rows] = everyone[i, folds[i, rows], rows]
    first = jax.tree.map(lambda leaf: leaf[: settings.folds], (result.params, result.rest))
    return HeadOutput(
        log_probs=np.log(np.maximum(described, 1e-9)).astype(np.float32),
        parameters=sum(int(np.prod(leaf.shape[1:])) for leaf in jax.tree.leaves(result.params)),
        n_heads=settings.folds,
        predict=lambda graph, layout: probabilities(*first, graph, layout).mean(axis=0),
    )


def _folds(labels: np.ndarray, train: np.ndarray, k: int, seed: int) -> np.ndarray:
    if k == 1:
        return np.full(len(labels), -1, np.int32)
    return stratified_folds(np.where(train, labels, -1), k, seed)
