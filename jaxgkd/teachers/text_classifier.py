"""One text encoder whose upper layers are tuned to classes, starting from the states of the layers below.

A logistic regression on the mean state of the untouched encoder is fitted first, then it and the upper layers are
trained with cross-entropy. Starting from a fitted head keeps its first, random gradients from distorting the layers
(Kumar et al. 2022, https://arxiv.org/abs/2202.10054), and is what a handful of labels needs. The weights after the
epoch with the best validation accuracy are kept, epoch 0 being the fitted head on the untouched encoder.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.errors import ConfigError
from jaxgkd.language import Encoder, pool
from jaxgkd.teachers.token_states import TokenStates

#: Of the logistic regression that training starts from: full-batch steps of Adam, and their size.
PROBE_STEPS, PROBE_RATE = 300, 0.02
#: Of the squares of its weights on standardised features, as multiples of 1 / labels; validation chooses.
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
#: Gradients are scaled down to this norm.
MAX_NORM = 1.0


@dataclass(frozen=True)
class TuneSettings:
    """How an encoder is tuned.

    Fields:
      tuned_layers: the uppermost ones; the others and the embeddings stay as they are.
      max_tokens: of a prompt; longer ones are cut.
      folds: K; 1 tunes a single encoder that describes the nodes whose labels it saw (the published protocol).
      epochs: passes over a fold's training nodes.
      batch_size: texts a step.
      learning_rate: of AdamW, reached after the share ``warmup`` of all steps, from where it falls linearly to 0.
      weight_decay: of kernels; biases and normalisation have none.
      label_smoothing: share of a target's mass that is spread over all classes.
    """

    tuned_layers: int = 2
    max_tokens: int = 128
    folds: int = 2
    epochs: int = 3
    batch_size: int = 16
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self):
        """Raises ConfigError for a value that cannot be used; the message names the field."""
        for name in ("tuned_layers", "max_tokens", "folds", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{getattr(self, name)} is below 1", field=name, mend="give 1 or more")
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"{self.learning_rate} is no step size", field="learning_rate", mend="give about 1e-4")
        if not 0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"{self.weight_decay} is below 0 or endless", field="weight_decay", mend="give 0 or more")
        for name in ("warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{getattr(self, name)} is no share", field=name, mend="give 0 or more, below 1")


class TextClassifier(nnx.Module):
    """The upper layers of an encoder, the mean over tokens and a linear layer; all its variables are trained."""

    def __init__(self, upper: Encoder, n_classes: int):
        self.upper = upper
        self.head_kernel = nnx.Param(jnp.zeros((upper.width, n_classes)))
        self.head_bias = nnx.Param(jnp.zeros(n_classes))

    def __call__(self, states: Array, mask: Array) -> tuple[Array, Array]:
        """Lower-layer states [b, t, d] and mask [b, t] to features [b, d] and logits [b, classes]."""
        features = pool(self.upper.states_from(states, mask, 0)[-1], mask, "mean")
        return features, features @ self.head_kernel[...] + self.head_bias[...]


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A tuned `TextClassifier`.

    Fields:
      graphdef, params: its structure and its weights at the best epoch, as `nnx.merge` takes them.
      report: ``best_epoch``, ``valid_accuracy`` and ``valid_loss`` (after epochs 0, 1, …), ``train_loss`` (of epochs
        1, 2, …).
    """

    graphdef: Any
    params: Any
    report: dict[str, Any]

    def read_out(self, states: TokenStates, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [m, d] and logits [m, classes] of sequences ``rows`` [m], whose numbers must be sorted."""
        return _read_out(self.graphdef, self.params, states, rows)


def untouched_features(upper: Encoder, states: TokenStates) -> np.ndarray:
    """[rows, d], the mean over tokens of the last layer before any tuning, for every distinct prompt."""
    graphdef, params = nnx.split(TextClassifier(upper, 1), nnx.Param)
    return _read_out(graphdef, params, states, np.arange(len(states.tokens.lengths)))[0]


def fit_classifier(
    states: TokenStates,
    upper: Encoder,
    features: np.ndarray,
    labels: np.ndarray,
    seen: np.ndarray,
    valid: np.ndarray,
    n_classes: int,
    settings: TuneSettings,
    *,
    seed: tuple[int, ...],
    on_progress: Callable[[int, float], None],
) -> FittedClassifier:
    """Tune one encoder on the nodes it may see.

    Args:
      states: below the tuned layers, of every node's prompt.
      upper: the tuned layers as they are before; not changed.
      features: what `untouched_features` gives for the two.
      labels: [n] class of the nodes in one of the two masks.
      seen, valid: [n] bool, nodes to tune on and nodes that choose the epoch.
      n_classes: number of classes.
      settings: of the tuning.
      seed: of the order of the nodes.
      on_progress: called with the epochs done and the validation accuracy.

    Raises:
      ConfigError: the training diverged.
    """
    rows = states.tokens.rows
    nodes, valid_nodes = np.flatnonzero(seen), np.flatnonzero(valid)
    valid_rows, valid_place = np.unique(rows[valid_nodes], return_inverse=True)

    model = TextClassifier(upper, n_classes)
    kernel, bias = _probe(features[rows], labels, seen, valid, n_classes)
    model.head_kernel, model.head_bias = nnx.Param(kernel), nnx.Param(bias)
    graphdef, params = nnx.split(model, nnx.Param)

    def score(params: Any) -> tuple[float, float]:
        """Accuracy and cross-entropy on the validation nodes."""
        logits, truth = _read_out(graphdef, params, states, valid_rows)[1][valid_place], labels[valid_nodes]
        log_probs = np.asarray(jax.nn.log_softmax(logits))
        errors = -log_probs[np.arange(len(truth)), truth]
        return float((logits.argmax(axis=1) == truth).mean()), float(errors.mean())

    schedule = _Schedule(
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        label_smoothing=settings.label_smoothing,
        steps=settings.epochs * -(-len(nodes) // settings.batch_size),
    )
    moments = _optimizer(schedule).init(params)
    random = np.random.default_rng(seed)
    best, best_epoch, scores, mean_losses = params, 0, [score(params)], []
    for epoch in range(1, settings.epochs + 1):
        losses = []
        for batch in _training_batches(states, nodes, labels, settings.batch_size, random):
            params, moments, loss = _step(graphdef, params, moments, schedule, batch)
            losses.append(loss)
        mean_losses.append(float(np.mean(losses)))
        if not np.isfinite(mean_losses[-1]):
            raise ConfigError(
                f"the loss is not finite in epoch {epoch} of the tuning", field="learning_rate", mend="lower it"
            )
        scores.append(score(params))
        if scores[-1][0] > scores[best_epoch][0]:
            best, best_epoch = params, epoch
        on_progress(epoch, scores[-1][0])
    accuracies, losses = map(list, zip(*scores, strict=True))
    report = {
        "best_epoch": best_epoch,
        "valid_accuracy": accuracies,
        "valid_loss": losses,
        "train_loss": mean_losses,
    }
    return FittedClassifier(graphdef, best, report)


def _training_batches(
    states: TokenStates, nodes: np.ndarray, labels: np.ndarray, batch_size: int, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Every node once: (states [b, t, d], mask [b, t], labels [b], weights [b]), texts of like length side by side.

    Nodes are shuffled within the lengths that share a shape, cut into batches, and the batches shuffled: so few tokens
    are padding, and only one batch is not full.
    """
    lengths = states.tokens.lengths[states.tokens.rows]
    tops = np.array([top for _, top in states.shapes])
    nodes = random.permutation(nodes)
    nodes = nodes[np.argsort(np.searchsorted(tops, lengths[nodes]), kind="stable")]
    for i in random.permutation(-(-len(nodes) // batch_size)).tolist():
        chosen = nodes[i * batch_size : (i + 1) * batch_size]
        top = int(tops[np.searchsorted(tops, lengths[chosen].max())])
        over = (0, batch_size - len(chosen))
        weights = np.pad(np.ones(len(chosen), np.float32), over)
        yield *states.batch(states.tokens.rows[chosen], (batch_size, top)), np.pad(labels[chosen], over), weights


class _Schedule(NamedTuple):
    """Settings of the optimizer as traced values: folds of unlike size and other settings share a program."""

    learning_rate: Array | float
    weight_decay: Array | float
    warmup: Array | float
    label_smoothing: Array | float
    steps: Array | int


def _optimizer(schedule: _Schedule) -> optax.GradientTransformation:
    def rate(step: ArrayLike) -> Array:
        warm = jnp.maximum(schedule.warmup * schedule.steps, 1.0)
        falling = (schedule.steps - step) / jnp.maximum(schedule.steps - warm, 1.0)
        return schedule.learning_rate * jnp.minimum((step + 1) / warm, falling)

    def decays(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in jax.tree_util.keystr(path), params)

    return optax.chain(
        optax.clip_by_global_norm(MAX_NORM), optax.adamw(rate, weight_decay=schedule.weight_decay, mask=decays)
    )


@partial(jax.jit, static_argnames="graphdef")
def _step(graphdef, params, moments, schedule, batch):
    states, mask, labels, weights = batch

    def mean_loss(params: Any) -> Array:
        _, logits = nnx.merge(graphdef, params)(states, mask)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1]), schedule.label_smoothing)
        return (optax.softmax_cross_entropy(logits, targets) * weights).sum() / weights.sum()

    loss, gradients = jax.value_and_grad(mean_loss)(params)
    updates, moments = _optimizer(schedule).update(gradients, moments, params)
    return optax.apply_updates(params, updates), moments, loss


@partial(jax.jit, static_argnames="graphdef")
def _outputs(graphdef, params, states, mask):
    return nnx.merge(graphdef, params)(states, mask)


def _read_out(graphdef, params, states: TokenStates, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features [m, d] and logits [m, classes] of sequences, whose numbers must be sorted."""
    parts = []
    for first, end, batch in states.batches(rows):
        parts.append([np.asarray(values)[: end - first] for values in _outputs(graphdef, params, *batch)])
    features, logits = (np.concatenate(values) for values in zip(*parts, strict=True))
    return features, logits


@partial(jax.jit, static_argnames="n_classes")
def _probe(features: Array, labels: Array, seen: Array, valid: Array, n_classes: int) -> tuple[Array, Array]:
    """Kernel [d, classes] and bias [classes] of a logistic regression on the seen ones of [n, d] features.

    The penalty is the one with the lowest cross-entropy on validation nodes, not the highest accuracy: a head that is
    certain of all it was fitted to would leave the layers below without a gradient.
    """
    weights = seen / seen.sum()
    mean = weights @ features
    scale = jnp.sqrt(weights @ jnp.square(features - mean)) + 1e-6
    inputs = (features - mean) / scale
    targets = jax.nn.one_hot(labels, n_classes)

    def errors(params: tuple[Array, Array]) -> Array:
        kernel, bias = params
        return optax.softmax_cross_entropy(inputs @ kernel + bias, targets)

    optimizer = optax.adam(PROBE_RATE)

    def fitted(penalty: Array) -> tuple[Array, Array]:
        def loss(params: tuple[Array, Array]) -> Array:
            return weights @ errors(params) + 0.5 * penalty / seen.sum() * jnp.square(params[0]).sum()

        def step(carry, _):
            params, moments = carry
            updates, moments = optimizer.update(jax.grad(loss)(params), moments)
            return (optax.apply_updates(params, updates), moments), None

        start = (jnp.zeros((features.shape[1], n_classes)), jnp.zeros(n_classes))
        (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=PROBE_STEPS)
        return cast(tuple[Array, Array], params)

    heads = jax.vmap(fitted)(jnp.asarray(PENALTIES))
    best = jnp.argmin(jax.vmap(errors)(heads) @ (valid / valid.sum()))
    kernel, bias = heads[0][best] / scale[:, None], heads[1][best]
    return kernel, bias - mean @ kernel
