"""One text encoder whose upper layers are tuned to classes, starting from the states of the layers below.

A logistic regression on the mean state of the untouched encoder is fitted first, then it and the upper layers are
trained with cross-entropy. Starting from a fitted head keeps its first, random gradients from distorting the layers
(Kumar et al. 2022, https://arxiv.org/abs/2202.10054), and is what a handful of labels needs. The weights after the
epoch with the best validation accuracy are kept, epoch 0 being the fitted head on the untouched encoder.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxgkd.language import Encoder
from jaxgkd.teachers.text_tuning import TunedText, TuneSettings, tune_upper
from jaxgkd.teachers.token_states import TokenStates

#: Of the logistic regression that training starts from: full-batch steps of Adam, and their size.
PROBE_STEPS, PROBE_RATE = 300, 0.02
#: Of the squares of its weights on standardised features, as multiples of 1 / labels; validation chooses.
PENALTIES = (1.0, 10.0, 100.0, 1000.0)


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
) -> tuple[TunedText, dict[str, Any]]:
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

    Returns:
      The tuned encoder, and a report: ``best_epoch``, ``valid_accuracy`` and ``valid_loss`` (after epochs 0, 1, …),
      ``train_loss`` (of epochs 1, 2, …).

    Raises:
      ConfigError: the training diverged.
    """
    truth = labels[valid]

    def score(logits: np.ndarray) -> tuple[float, float]:
        """Accuracy and cross-entropy on the validation nodes."""
        errors = -np.asarray(jax.nn.log_softmax(logits))[np.arange(len(truth)), truth]
        return float((logits.argmax(axis=1) == truth).mean()), float(errors.mean())

    tuned = tune_upper(
        states,
        upper,
        _probe(features[states.tokens.rows], labels, seen, valid, n_classes),
        labels,
        _smoothed_cross_entropy,
        np.flatnonzero(seen),
        np.flatnonzero(valid),
        score,
        settings,
        seed=seed,
        on_progress=on_progress,
    )
    accuracies, losses = map(list, zip(*tuned.scores, strict=True))
    report = {
        "best_epoch": tuned.best_epoch,
        "valid_accuracy": accuracies,
        "valid_loss": losses,
        "train_loss": tuned.train_losses,
    }
    return tuned, report


def _smoothed_cross_entropy(logits: Array, labels: Array, smoothing: Array | float) -> Array:
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1]), smoothing))


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
