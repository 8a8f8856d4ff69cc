"""Let a causal language model continue prompts, greedily or by sampling, as one compiled program per shape.

The prompts are run once and leave a cache of static size; each further token is one step of a loop that ends when
every row has met a stop token.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxgkd.errors import ConfigError
from jaxgkd.language.cache import Cache, check_prompts, extend, prefill, store, to_the_front
from jaxgkd.language.decoder import Decoder
from jaxgkd.language.decoder_network import DecoderConfig, head_logits
from jaxgkd.language.stacked_model import Weights


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
      temperature: the logits are divided by this; above 0.
      top_k: draw among this many most probable tokens only; None for all.
      top_p: draw among the fewest tokens that together have this probability only; None for all. Holtzman et al. 2020,
        https://arxiv.org/abs/1904.09751.

    Raises:
      ConfigError: a value is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ConfigError(
                f"{self.temperature} is no temperature",
                field="temperature",
                mend="give a number above 0, or leave sampling out to decode greedily",
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"{self.top_k} tokens are none", field="top_k", mend="give at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"{self.top_p} is no share", field="top_p", mend="give a number above 0, at most 1")


class Generation(NamedTuple):
    """Continuations of b prompts, both [b, n] int32.

    Attributes:
      tokens: the new ids, a stop token included; what follows it repeats it.
      mask: 1 up to and including the stop token, 0 behind it.
    """

    tokens: Array
    mask: Array


def generate(
    model: Decoder,
    input_ids: Array,
    attention_mask: Array,
    *,
    max_new_tokens: int,
    stop_tokens: tuple[int, ...] = (),
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Generation:
    """Continue each prompt by up to ``max_new_tokens`` tokens.

    Without ``sampling`` each token is the most probable one; it is the one that running the whole text anew for every
    token would give. On which side the prompts are padded does not matter.

    Args:
      model: a causal language model.
      input_ids: [b, t] token ids.
      attention_mask: [b, t]; above 0 at real tokens.
      max_new_tokens: n.
      stop_tokens: a row ends with the first of these.
      sampling: how to draw tokens; None to take the most probable one.
      seed: of the drawing.

    Returns:
      The new tokens and their mask.

    Raises:
      DataError: the arrays are no [b, t] pair, hold an id outside the vocabulary, or a prompt is empty.
      ConfigError: prompt and new tokens do not fit into the model, a stop token is outside the vocabulary, or the
        checkpoint was saved without its output head.
    """
    if max_new_tokens < 1:
        raise ConfigError(f"{max_new_tokens} tokens are none", field="max_new_tokens", mend="ask for at least 1")
    for token in stop_tokens:
        if not 0 <= token < model.vocabulary_size:
            raise ConfigError(
                f"token {token} is outside the model's vocabulary of {model.vocabulary_size}",
                field="stop_tokens",
                mend="use the tokenizer that belongs to the model",
            )
    check_prompts(
        input_ids,
        attention_mask,
        vocabulary_size=model.vocabulary_size,
        max_tokens=model.max_tokens,
        new_tokens=max_new_tokens,
    )
    return _generate(
        model.config,
        model.weights(),
        jnp.asarray(input_ids),
        jnp.asarray(attention_mask),
        jax.random.key(seed),
        max_new_tokens=max_new_tokens,
        stop_tokens=tuple(int(token) for token in stop_tokens),
        sampling=sampling,
    )


def pick(logits: Array, sampling: Sampling | None, key: Array) -> Array:
    """The next token [b] by logits [b, vocabulary]: the most probable one, or a drawn one."""
    if sampling is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits / sampling.temperature
    if sampling.top_k is not None:
        lowest = lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits >= lowest, logits, -jnp.inf)
    if sampling.top_p is not None:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probability = jax.nn.softmax(ordered, axis=-1)
        # A token is kept if those before it do not have the share yet; the first one always is.
        kept = jnp.cumsum(probability, axis=-1) - probability < sampling.top_p
        lowest = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits >= lowest, logits, -jnp.inf)
    return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)


class _Progress(NamedTuple):
    """What the loop carries: ``reached`` tokens are there, ``token`` [b] is the last of them."""

    reached: Array
    token: Array
    ended: Array
    tokens: Array
    mask: Array
    cache: Cache


@partial(jax.jit, static_argnames=("config", "max_new_tokens", "stop_tokens", "sampling"))
def _generate(
    config: DecoderConfig,
    weights: Weights,
    input_ids: Array,
    attention_mask: Array,
    key: Array,
    *,
    max_new_tokens: int,
    stop_tokens: tuple[int, ...],
    sampling: Sampling | None,
) -> Generation:
    b, t = input_ids.shape
    ids, seen = to_the_front(input_ids, attention_mask)
    lengths = seen.sum(axis=1).astype(jnp.int32)
    stops = jnp.asarray(stop_tokens, jnp.int32)

    def append(progress: _Progress, states: Array) -> _Progress:
        drawn = pick(head_logits(config, weights, states), sampling, jax.random.fold_in(key, progress.reached))
        token = jnp.where(progress.ended, progress.token, drawn)
        start = (0, progress.reached)
        return _Progress(
            progress.reached + 1,
            token,
            progress.ended | jnp.isin(token, stops),
            lax.dynamic_update_slice(progress.tokens, token[:, None], start),
            lax.dynamic_update_slice(progress.mask, (~progress.ended).astype(jnp.int32)[:, None], start),
            progress.cache,
        )

    def more(progress: _Progress) -> Array:
        return (progress.reached < max_new_tokens) & ~progress.ended.all()

    def step(progress: _Progress) -> _Progress:
        position = (lengths + progress.reached - 1)[:, None]
        alone = jnp.ones((b, 1), bool)
        states, new = extend(config, weights, progress.cache, progress.token[:, None], position, alone)
        cache = store(progress.cache, new, position, t + progress.reached - 1)
        return append(progress._replace(cache=cache), states[:, 0])

    states, cache = prefill(config, weights, ids, seen, max_new_tokens - 1)
    nothing = jnp.zeros((b, max_new_tokens), jnp.int32)
    begun = _Progress(jnp.int32(0), jnp.zeros(b, jnp.int32), jnp.zeros(b, bool), nothing, nothing, cache)
    progress = lax.while_loop(more, step, append(begun, states))
    # Where all rows ended early, the columns that were never reached repeat the last token too.
    reached = jnp.arange(max_new_tokens) < progress.reached
    return Generation(jnp.where(reached, progress.tokens, progress.token[:, None]), progress.mask)
