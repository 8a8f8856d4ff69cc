"""A static cache of keys and values: a prompt is run once, and what comes after it attends to what it left behind.

One layout serves every causal family, and generation and scoring alike. Prompts are moved to the first columns before
they are run, so that positions count real tokens whichever side the padding was on. New tokens never change the cached
ones: ``extend`` attends to a cache and gives back the new keys and values, and ``store`` puts them into free columns.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.language.batches import check_batch
from jaxgkd.language.causal_attention import causal_bias
from jaxgkd.language.decoder_network import (
    Context,
    DecoderConfig,
    batch_context,
    embed,
    final_norm,
    run_layers,
)
from jaxgkd.language.rope import rotation
from jaxgkd.language.stacked_model import Weights


class Cache(NamedTuple):
    """Keys and values of b rows of s columns.

    Attributes:
      key: [layers, b, key heads, s, e], rotated.
      value: [layers, b, key heads, s, e].
      position: [b, s].
      seen: [b, s]; True where a column holds a real token.
    """

    key: Array
    value: Array
    position: Array
    seen: Array


def check_prompts(
    input_ids: Array, attention_mask: Array, *, vocabulary_size: int, max_tokens: int, new_tokens: int
) -> None:
    """Refuse prompts that cannot be continued.

    Args:
      input_ids: [b, t], concrete.
      attention_mask: [b, t], concrete.
      vocabulary_size: ids run from 0 to this, exclusive.
      max_tokens: the longest text the model reads.
      new_tokens: how many tokens are to follow a prompt.

    Raises:
      DataError: the arrays are no [b, t] pair, hold an id outside the vocabulary, or a prompt is empty.
      ConfigError: there is no room for the new tokens.
    """
    check_batch(input_ids, attention_mask, vocabulary_size=vocabulary_size, max_tokens=max_tokens)
    lengths = (np.asarray(attention_mask) > 0).sum(axis=1)
    if lengths.min() == 0:
        raise DataError(
            f"prompt number {int(lengths.argmin())} is empty", mend="leave it out, or begin it with a start token"
        )
    if lengths.max() + new_tokens > max_tokens:
        raise ConfigError(
            f"a prompt of {lengths.max()} tokens and {new_tokens} more do not fit into the model's {max_tokens}",
            mend=f"truncate the prompts to {max(0, max_tokens - new_tokens)} tokens",
        )


def to_the_front(input_ids: Array, attention_mask: Array) -> tuple[Array, Array]:
    """Ids and mask [b, t] with the real tokens of each row in its first columns, in their order."""
    padding = attention_mask <= 0
    order = jnp.argsort(padding, axis=1, stable=True)
    return jnp.take_along_axis(input_ids, order, axis=1), jnp.take_along_axis(~padding, order, axis=1)


def prefill(config: DecoderConfig, weights: Weights, input_ids: Array, seen: Array, room: int) -> tuple[Array, Cache]:
    """Run prompts and keep their keys and values.

    Args:
      config: the model's shape.
      weights: the model's weights.
      input_ids: [b, t], real tokens first.
      seen: [b, t]; True at real tokens.
      room: free columns to leave behind the prompts.

    Returns:
      The last hidden state [b, d] of each prompt's last token; the cache, of t + room columns.
    """
    b, t = input_ids.shape
    position = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32), (b, t))
    states, (key, value) = run_layers(
        config,
        weights["layers"],
        embed(config, weights, input_ids, position),
        batch_context(config, position, seen),
        read=lambda states, key, value: (key, value),
    )
    last = jnp.take_along_axis(states, seen.sum(axis=1)[:, None, None] - 1, axis=1)[:, 0]
    columns, heads = ((0, 0), (0, room)), ((0, 0), (0, 0), (0, 0), (0, room), (0, 0))
    cache = Cache(jnp.pad(key, heads), jnp.pad(value, heads), jnp.pad(position, columns), jnp.pad(seen, columns))
    return final_norm(config, weights, last), cache


def extend(
    config: DecoderConfig, weights: Weights, cache: Cache, input_ids: Array, position: Array, seen: Array
) -> tuple[Array, tuple[Array, Array]]:
    """Run tokens that come after a cache, which stays as it is.

    Args:
      config: the model's shape.
      weights: the model's weights.
      cache: of b rows.
      input_ids: [b, t].
      position: [b, t].
      seen: [b, t], or [b, t, t] with the queries first; which of the new tokens may be seen.

    Returns:
      The last hidden states [b, t, d]; new keys and values [layers, b, key heads, t, e].
    """
    kinds = config.window_kinds
    context = Context(
        turn=None if config.rope is None else rotation(config.rope, position),
        biases=jnp.stack([causal_bias(position, position, seen, window) for window in kinds]),
        cached_biases=jnp.stack([causal_bias(position, cache.position, cache.seen, window) for window in kinds]),
    )
    states, new = run_layers(
        config,
        weights["layers"],
        embed(config, weights, input_ids, position),
        context,
        read=lambda states, key, value: (key, value),
        cached=(cache.key, cache.value),
    )
    return final_norm(config, weights, states), new


def store(cache: Cache, new: tuple[Array, Array], position: Array, column: Array | int) -> Cache:
    """The cache with the keys and values [layers, b, key heads, t, e] of t tokens from ``column`` on."""
    key, value = new
    start = (0, 0, 0, column, 0)
    return Cache(
        lax.dynamic_update_slice(cache.key, key, start),
        lax.dynamic_update_slice(cache.value, value, start),
        lax.dynamic_update_slice(cache.position, position, (0, column)),
        lax.dynamic_update_slice(cache.seen, jnp.ones_like(position, bool), (0, column)),
    )
