"""The upper layers of a text encoder and a linear layer, trained together from the states of the layers below.

What is learned (classes of one kind, or several tasks with missing labels) its callers say: they fit a linear layer to
the untouched encoder's features first, and give the loss and the validation score.
"""

from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

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
from jaxgkd.training.underway import generator, generator_state, underway

#: Gradients are scaled down to this norm.
MAX_NORM = 1.0

#: (outputs [b, o], targets [b, ...], label smoothing) to the loss of every text [b].
TextLosses = Callable[[Array, Array, Array | float], Array]


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
class TunedText:
    """A tuned `TextClassifier`.

    Fields:
      graphdef, params: its structure and its weights at the best epoch, as `nnx.merge` takes them.
      best_epoch: 0 where no epoch was better than the start.
      scores: validation score and loss after epochs 0, 1, …; train_losses: of epochs 1, 2, …
    """

    graphdef: Any
    params: Any
    best_epoch: int
    scores: list[tuple[float, float]]
    train_losses: list[float]

    def read_out(self, states: TokenStates, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [m, d] and outputs [m, o] of sequences ``rows`` [m], whose numbers must be sorted."""
        return _read_out(self.graphdef, self.params, states, rows)


def untouched_features(upper: Encoder, states: TokenStates) -> np.ndarray:
    """[rows, d], the mean over tokens of the last layer before any tuning, for every distinct prompt."""
    graphdef, params = nnx.split(TextClassifier(upper, 1), nnx.Param)
    return _read_out(graphdef, params, states, np.arange(len(states.tokens.lengths)))[0]


def tune_upper(
    states: TokenStates,
    upper: Encoder,
    start: tuple[Array, Array],
    targets: np.ndarray,
    losses: TextLosses,
    seen: np.ndarray,
    valid: np.ndarray,
    score: Callable[[np.ndarray], tuple[float, float]],
    settings: TuneSettings,
    *,
    seed: tuple[int, ...],
    on_progress: Callable[[int, float], None],
) -> TunedText:
    """Tune one encoder on the items it may see, and keep the epoch that validates best.

    Args:
      states: below the tuned layers, of every item's text.
      upper: the tuned layers as they are before; not changed.
      start: kernel [d, o] and bias [o] of the linear layer.
      targets: [n, ...] what the outputs are to be.
      losses: of a batch; a function of a module, as it is compiled once.
      seen, valid: [m] and [v] items to tune on and items that choose the epoch.
      score: from the outputs of the ``valid`` items [v, o] to a score, higher is better, and a loss.
      settings: of the tuning.
      seed: of the order of the items.
      on_progress: called with the epochs done and the validation score.

    Raises:
      ConfigError: the training diverged.
    """
    model = TextClassifier(upper, start[1].shape[0])
    model.head_kernel, model.head_bias = nnx.Param(start[0]), nnx.Param(start[1])
    graphdef, params = nnx.split(model, nnx.Param)
    valid_rows, valid_place = np.unique(states.tokens.rows[valid], return_inverse=True)

    def scored(params: Any) -> tuple[float, float]:
        return score(_read_out(graphdef, params, states, valid_rows)[1][valid_place])

    schedule = _Schedule(
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        label_smoothing=settings.label_smoothing,
        steps=settings.epochs * -(-len(seen) // settings.batch_size),
    )
    given = (astuple(settings), losses.__qualname__, targets, seen, valid, states.tokens.ids)
    with underway(given, seed, params) as training:
        moments = _optimizer(schedule).init(params)
        random = np.random.default_rng(seed)
        best, best_epoch, scores, mean_losses = params, 0, [scored(params)], []
        found: list[Any] = []
        if kept := training.kept():
            params, moments, best = kept.like("state", (params, moments, best))
            host = kept.arrays("host")
            best_epoch, random, found = int(host["best_epoch"]), generator(host["random"]), list(host["found"])
            scores, mean_losses = [tuple(each) for each in host["scores"].tolist()], host["mean_losses"].tolist()
        # Where the generator was before it gave the order of the present epoch.
        before = generator_state(random)

        def parts() -> dict[str, Any]:
            host = {"best_epoch": np.asarray(best_epoch), "random": before, "found": np.array(found, np.float32)}
            host |= {"scores": np.array(scores), "mean_losses": np.array(mean_losses, float)}
            return {"state": (params, moments, best), "host": host}

        for epoch in range(len(scores), settings.epochs + 1):
            batches = _training_batches(states, seen, targets, settings.batch_size, random)
            for batch in islice(batches, len(found), None):
                params, moments, loss = _step(graphdef, losses, params, moments, schedule, batch)
                found.append(loss)
                training.reached(epoch * len(seen) + len(found), parts)
            mean_losses.append(float(np.mean(np.array(found, np.float32))))
            if not np.isfinite(mean_losses[-1]):
                raise ConfigError(
                    f"the loss is not finite in epoch {epoch} of the tuning", field="learning_rate", mend="lower it"
                )
            scores.append(scored(params))
            if scores[-1][0] > scores[best_epoch][0]:
                best, best_epoch = params, epoch
            on_progress(epoch, scores[-1][0])
            found, before = [], generator_state(random)
        training.finished((settings.epochs + 1) * len(seen) + 1, parts)
    return TunedText(graphdef, best, best_epoch, scores, mean_losses)


def _training_batches(
    states: TokenStates, nodes: np.ndarray, targets: np.ndarray, batch_size: int, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Every item once: (states [b, t, d], mask [b, t], targets [b, ...], weights [b]), like lengths side by side.

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
        there = np.pad(targets[chosen], (over, *[(0, 0)] * (targets.ndim - 1)))
        yield *states.batch(states.tokens.rows[chosen], (batch_size, top)), there, weights


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


@partial(jax.jit, static_argnames=("graphdef", "losses"))
def _step(graphdef, losses, params, moments, schedule, batch):
    states, mask, targets, weights = batch

    def mean_loss(params: Any) -> Array:
        _, outputs = nnx.merge(graphdef, params)(states, mask)
        return (losses(outputs, targets, schedule.label_smoothing) * weights).sum() / weights.sum()

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
