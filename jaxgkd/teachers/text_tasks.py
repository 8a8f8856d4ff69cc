"""One text encoder whose upper layers are tuned to several tasks at once, with labels missing here and there.

As for classes (`text_classifier`) a linear layer on the untouched encoder's mean state comes first, logistic for tasks
of two classes and least squares for numbers, each task with the penalty that validates best; then it and the upper
layers are trained together.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxgkd.data.molecules import TaskKind
from jaxgkd.language import Encoder
from jaxgkd.teachers.text_classifier import PENALTIES, PROBE_RATE, PROBE_STEPS
from jaxgkd.teachers.text_tuning import TunedText, TuneSettings, tune_upper
from jaxgkd.teachers.token_states import TokenStates


def fit_tasks(
    states: TokenStates,
    upper: Encoder,
    features: np.ndarray,
    targets: np.ndarray,
    seen: np.ndarray,
    valid: np.ndarray,
    kind: TaskKind,
    score: Callable[[np.ndarray], float],
    settings: TuneSettings,
    *,
    seed: tuple[int, ...],
    on_progress: Callable[[int, float], None],
) -> TunedText:
    """Tune one encoder on the labels it may see.

    Args:
      states: below the tuned layers, of every item's text.
      upper: the tuned layers as they are before; not changed.
      features: what `untouched_features` gives for the two.
      targets: [n, t] 0 or 1, or scaled numbers; NaN where missing.
      seen, valid: [n] bool, items to tune on and items that choose the epoch.
      kind: of all tasks.
      score: from the outputs of the validation items [v, t], in order, to what selects; higher is better.
      settings: of the tuning; label smoothing draws classes towards one half.
      seed: of the order of the items.
      on_progress: called with the epochs done and the validation score.

    Raises:
      ConfigError: the training diverged.
    """
    targets = targets.astype(np.float32)
    losses = smoothed_binary if kind == "classification" else squared

    def scored(outputs: np.ndarray) -> tuple[float, float]:
        of_items = np.asarray(losses(jnp.asarray(outputs), jnp.asarray(targets[valid]), 0.0))
        # Without a positive, or a label, the metric cannot tell the epochs apart; the loss then does.
        value, loss = score(outputs), float(of_items.mean())
        return (value if np.isfinite(value) else -loss), loss

    return tune_upper(
        states,
        upper,
        _probe(features[states.tokens.rows], targets, seen, valid, kind),
        targets,
        losses,
        np.flatnonzero(seen & ~np.isnan(targets).all(axis=1)),
        np.flatnonzero(valid),
        scored,
        settings,
        seed=seed,
        on_progress=on_progress,
    )


def smoothed_binary(logits: Array, targets: Array, smoothing: Array | float) -> Array:
    """[b, t] logits and 0 or 1, NaN where missing → [b], the mean over the tasks that have a label."""
    soft = jnp.nan_to_num(targets) * (1.0 - smoothing) + 0.5 * smoothing
    return _mean_of_known(optax.sigmoid_binary_cross_entropy(logits, soft), targets)


def squared(outputs: Array, targets: Array, smoothing: Array | float) -> Array:
    """[b, t] outputs and numbers, NaN where missing → [b], the mean over the tasks that have a label."""
    del smoothing
    return _mean_of_known(jnp.square(outputs - jnp.nan_to_num(targets)), targets)


def _mean_of_known(values: Array, targets: Array) -> Array:
    known = ~jnp.isnan(targets)
    return jnp.sum(jnp.where(known, values, 0.0), axis=1) / jnp.maximum(jnp.sum(known, axis=1), 1)


@partial(jax.jit, static_argnames="kind")
def _probe(features: Array, targets: Array, seen: Array, valid: Array, kind: TaskKind) -> tuple[Array, Array]:
    """Kernel [d, t] and bias [t] of a linear layer on the seen ones of [n, d] features, each task by itself."""
    known = ~jnp.isnan(targets)
    targets = jnp.nan_to_num(targets)
    here, there = known & seen[:, None], known & valid[:, None]
    weights = seen / jnp.sum(seen)
    mean = weights @ features
    scale = jnp.sqrt(weights @ jnp.square(features - mean)) + 1e-6
    inputs = (features - mean) / scale
    error = optax.sigmoid_binary_cross_entropy if kind == "classification" else optax.squared_error

    def errors(params: tuple[Array, Array], where: Array) -> Array:
        """[t]"""
        found = jnp.where(where, error(inputs @ params[0] + params[1], targets), 0.0)
        return jnp.sum(found, axis=0) / jnp.maximum(jnp.sum(where, axis=0), 1)

    optimizer = optax.adam(PROBE_RATE)
    start = (jnp.zeros((features.shape[1], targets.shape[1])), jnp.zeros(targets.shape[1]))

    def fitted(penalty: float) -> tuple[Array, Array]:
        strength = 0.5 * penalty / jnp.maximum(jnp.sum(here, axis=0), 1)

        def loss(params: tuple[Array, Array]) -> Array:
            return jnp.sum(errors(params, here) + strength * jnp.sum(jnp.square(params[0]), axis=0))

        def step(carry, _):
            params, moments = carry
            updates, moments = optimizer.update(jax.grad(loss)(params), moments)
            return (optax.apply_updates(params, updates), moments), None

        (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=PROBE_STEPS)
        return cast(tuple[Array, Array], params)

    heads = [fitted(penalty) for penalty in PENALTIES]
    best = jnp.argmin(jnp.stack([errors(head, there) for head in heads]), axis=0)
    pick = lambda leaves: jnp.take_along_axis(jnp.stack(leaves), best[(None,) * leaves[0].ndim], axis=0)[0]  # noqa: E731
    kernel, bias = (pick(leaves) for leaves in zip(*heads, strict=True))
    kernel = kernel / scale[:, None]
    return kernel, bias - mean @ kernel
