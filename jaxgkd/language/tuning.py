"""Train a causal language model on prompts and responses, all of it or adapters beside it, in one compiled program.

What is trained and what is frozen are two arguments of the step: weights and nothing, or adapters and weights. The
frozen part is read and never written, so a base that several sets of adapters share is the same to the last bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.language.decoder import Decoder
from jaxgkd.language.decoder_network import DecoderConfig
from jaxgkd.language.instruction import InstructionBatch, embedding_noise, instruction_batch, response_losses
from jaxgkd.language.lora import Adapters, LoraConfig, adapted_weights, initial_adapters

Tree = Any
Pair = tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray]


@dataclass(frozen=True)
class TuningSettings:
    """How a model is tuned.

    Attributes:
      epochs: passes over the pairs.
      batch_size: pairs a step.
      accumulate: steps whose gradients are averaged into one update.
      learning_rate: of AdamW, after a linear rise over ``warmup`` and before a cosine's fall to 0.
      warmup: share of the updates.
      weight_decay: of AdamW.
      clip: largest norm of a gradient.
      noise: NEFTune's alpha, 0 for none; 5 to 15 in the paper.
      rematerialise: trade time for memory, see ``instruction.training_states``.
      multiple: batches are padded to a multiple of so many tokens.
    """

    epochs: int = 3
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 2e-4
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip: float = 1.0
    noise: float = 0.0
    rematerialise: bool = False
    multiple: int = 32

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulate", "multiple"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{getattr(self, name)} is too few", field=name, mend="choose 1 or more")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{getattr(self, name)} trains nothing", field=name, mend="choose a number above 0")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"{self.warmup} is no share", field="warmup", mend="choose from 0 to 1")
        for name in ("noise", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{getattr(self, name)} is below 0", field=name, mend="choose 0 or more")


class TuningState(NamedTuple):
    """What a step changes: the trained arrays and the optimiser's own."""

    trained: Tree
    optimiser: Tree


@lru_cache(maxsize=16)
def optimiser_of(settings: TuningSettings, updates: int) -> optax.GradientTransformation:
    """AdamW with a warm-up and a cosine schedule over ``updates`` updates, clipped and accumulated as settings say.

    The same one for the same arguments, so that no step is compiled twice.
    """
    warmup = max(1, round(settings.warmup * updates))
    curve = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warmup, max(updates, warmup) + 1)
    optimiser = optax.chain(
        optax.clip_by_global_norm(settings.clip),
        # Counted from 1: neither the first update nor the last is one of size 0.
        optax.adamw(lambda count: curve(count + 1), weight_decay=settings.weight_decay),
    )
    if settings.accumulate == 1:
        return optimiser
    return optax.MultiSteps(optimiser, settings.accumulate).gradient_transformation()


@partial(jax.jit, static_argnames=("config", "lora", "settings", "optimiser"), donate_argnames="state")
def tuning_step(
    state: TuningState,
    frozen: Tree,
    batch: InstructionBatch,
    key: Array,
    *,
    config: DecoderConfig,
    lora: LoraConfig | None,
    settings: TuningSettings,
    optimiser: optax.GradientTransformation,
) -> tuple[TuningState, Array]:
    """One step.

    Args:
      state: see ``TuningState``; its arrays are given up.
      frozen: the base's weights where adapters are trained, else an empty dict.
      batch: the pairs; rows without a response do not count.
      key: for dropout and noise.
      config: the network's shape.
      lora: what the adapters are like; None where the weights themselves are trained.
      settings: how to tune.
      optimiser: see ``optimiser_of``.

    Returns:
      The next state; the mean loss of the pairs, in nats a token.
    """
    dropout_key, noise_key = jax.random.split(key)

    def mean_loss(trained: Tree) -> Array:
        weights = trained if lora is None else adapted_weights(frozen, trained, lora, dropout_key=dropout_key)
        noise = None
        if settings.noise:
            noise = embedding_noise(noise_key, jnp.asarray(batch.attention_mask), config.width, settings.noise)
        losses = response_losses(config, weights, batch, noise=noise, rematerialise=settings.rematerialise)
        counted = batch.response_mask.any(axis=1)
        return jnp.where(counted, losses, 0).sum() / jnp.maximum(counted.sum(), 1)

    loss, gradient = jax.value_and_grad(mean_loss)(state.trained)
    updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.trained)
    return TuningState(optax.apply_updates(state.trained, updates), optimiser_state), loss


def tune_model(
    model: Decoder,
    pairs: Sequence[Pair],
    settings: TuningSettings,
    *,
    key: Array,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Decoder:
    """Train all weights of a model.

    Args:
      model: where training begins; it stays as it is.
      pairs: token ids of each prompt and its response.
      settings: how to tune.
      key: for the order of the pairs, and noise.
      on_epoch: told the number of each epoch, from 1, and its mean loss.

    Returns:
      The tuned model.

    Raises:
      DataError: there are no pairs, one is empty, too long for the model or holds an id outside its vocabulary.
      ConfigError: the weights are not float32: in bfloat16 most updates are too small to change them.
    """
    if any(leaf.dtype != jnp.float32 for leaf in jax.tree.leaves(model.weights())):
        raise ConfigError(
            "weights in half precision swallow small updates", mend="load the model in float32, or train adapters"
        )
    # The step gives up its state's arrays, and these belong to the model.
    weights = jax.tree.map(jnp.copy, model.weights())
    tuned = type(model)(model.config, _train(model, weights, {}, pairs, settings, None, key, on_epoch))
    tuned.config_json = model.config_json
    return tuned


def tune_adapters(
    model: Decoder,
    pairs: Sequence[Pair],
    settings: TuningSettings,
    lora: LoraConfig,
    *,
    key: Array,
    adapters: Adapters | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Adapters:
    """Train adapters beside a frozen model; for the other arguments and errors see ``tune_model``.

    Args:
      model: the base, which is only read.
      pairs: token ids of each prompt and its response.
      settings: how to tune.
      lora: what the adapters are like.
      key: for the adapters' beginning, the order of the pairs, dropout and noise.
      adapters: where training begins; None for new ones.
      on_epoch: told the number of each epoch, from 1, and its mean loss.

    Returns:
      The trained adapters.
    """
    begin_key, key = jax.random.split(key)
    begin = initial_adapters(model, lora, key=begin_key) if adapters is None else jax.tree.map(jnp.copy, adapters)
    return _train(model, begin, model.weights(), pairs, settings, lora, key, on_epoch)


def _train(
    model: Decoder,
    trained: Tree,
    frozen: Tree,
    pairs: Sequence[Pair],
    settings: TuningSettings,
    lora: LoraConfig | None,
    key: Array,
    on_epoch: Callable[[int, float], None] | None,
) -> Tree:
    _check_ids(pairs, model.vocabulary_size)
    steps = -(-len(pairs) // settings.batch_size)
    optimiser = optimiser_of(settings, max(1, settings.epochs * steps // settings.accumulate))
    state = TuningState(trained, optimiser.init(trained))
    response_tokens = max(len(response) for _, response in pairs)
    order_key, key = jax.random.split(key)
    order = np.random.default_rng(np.asarray(jax.random.key_data(order_key)))
    for epoch in range(settings.epochs):
        shuffled, losses = order.permutation(len(pairs)), []
        for step in range(steps):
            chosen = shuffled[step * settings.batch_size : (step + 1) * settings.batch_size]
            batch = instruction_batch(
                [pairs[number] for number in chosen],
                max_tokens=model.max_tokens,
                multiple=settings.multiple,
                rows=settings.batch_size,
                response_tokens=response_tokens,
            )
            step_key = jax.random.fold_in(key, epoch * steps + step)
            state, loss = tuning_step(
                state, frozen, batch, step_key, config=model.config, lora=lora, settings=settings, optimiser=optimiser
            )
            losses.append(loss * len(chosen))
        if on_epoch is not None:
            on_epoch(epoch + 1, float(sum(losses)) / len(pairs))
    return state.trained


def _check_ids(pairs: Sequence[Pair], vocabulary_size: int) -> None:
    if not pairs:
        raise DataError("there are no pairs of prompt and response to learn from", mend="give at least one")
    for number, pair in enumerate(pairs):
        ids = np.concatenate([np.asarray(part, np.int64) for part in pair])
        if ids.size and not 0 <= ids.min() <= ids.max() < vocabulary_size:
            raise DataError(
                f"pair number {number} holds a token id outside the model's vocabulary of {vocabulary_size}",
                mend="use the tokenizer that belongs to the model",
            )
