"""Instruction tuning: a causal language model learns to answer prompts, and is judged by its answers alone.

The loss of a pair is the mean over the tokens of its response of ``-log p(token | prompt, response before it)``; the
prompt only conditions. Logits are taken at the response's positions and nowhere else, so that a short answer after a
long prompt costs no vocabulary-sized array for the prompt.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxgkd.errors import DataError
from jaxgkd.language.decoder_network import (
    DecoderConfig,
    batch_context,
    embed,
    final_norm,
    head_logits,
    run_layer,
    token_positions,
)
from jaxgkd.language.stacked_model import Weights


class InstructionBatch(NamedTuple):
    """Prompts with their responses, padded on the right.

    Attributes:
      input_ids: [b, t] int32, a prompt and its response.
      attention_mask: [b, t] int32, 1 at both.
      columns: [b, r] int32, where the response's tokens stand; at least 1.
      response_mask: [b, r] float32, 1 where there is such a token; a row of zeros is no example.
    """

    input_ids: np.ndarray | Array
    attention_mask: np.ndarray | Array
    columns: np.ndarray | Array
    response_mask: np.ndarray | Array


def instruction_batch(
    pairs: Sequence[tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray]],
    *,
    max_tokens: int,
    padding_id: int = 0,
    multiple: int = 1,
    rows: int | None = None,
    response_tokens: int | None = None,
) -> InstructionBatch:
    """Put pairs of prompt and response into one batch.

    Args:
      pairs: token ids of each prompt and of its response, with the end token if it is to be learned.
      max_tokens: no pair may be longer.
      padding_id: what fills the rest.
      multiple: the width is rounded up to a multiple of this, so that few widths are compiled.
      rows: rows of the batch, the last ones empty; None for one row a pair.
      response_tokens: r; None for the longest response.

    Returns:
      The batch.

    Raises:
      DataError: there are no pairs, a prompt or response is empty, or a pair is too long.
    """
    if not pairs:
        raise DataError("a batch needs at least one pair of prompt and response", mend="leave empty batches out")
    for number, (prompt, response) in enumerate(pairs):
        if not len(prompt) or not len(response):
            what = "response" if len(prompt) else "prompt"
            raise DataError(f"the {what} of pair number {number} is empty", mend="leave the pair out")
        if len(prompt) + len(response) > max_tokens:
            raise DataError(
                f"pair number {number} is {len(prompt) + len(response)} tokens long and {max_tokens} fit",
                mend="truncate the prompt first",
            )
    lengths = [len(prompt) + len(response) for prompt, response in pairs]
    width = min(-(-max(lengths) // multiple) * multiple, max_tokens)
    b, r = rows or len(pairs), response_tokens or max(len(response) for _, response in pairs)
    batch = InstructionBatch(
        np.full((b, width), padding_id, np.int32),
        np.zeros((b, width), np.int32),
        np.ones((b, r), np.int32),
        np.zeros((b, r), np.float32),
    )
    # An empty row keeps one token, so that attention has something to look at.
    batch.attention_mask[len(pairs) :, 0] = 1
    for row, (prompt, response) in enumerate(pairs):
        batch.input_ids[row, : lengths[row]] = np.concatenate([np.asarray(prompt), np.asarray(response)])
        batch.attention_mask[row, : lengths[row]] = 1
        batch.columns[row, : len(response)] = np.arange(len(prompt), lengths[row])
        batch.response_mask[row, : len(response)] = 1
    return batch


def embedding_noise(key: Array, attention_mask: Array, width: int, alpha: float) -> Array:
    """NEFTune's noise, [b, t, width], float32: uniform in ``±alpha / √(real tokens · width)``, 0 at padding.

    Jain et al. 2023, algorithm 1, https://arxiv.org/abs/2310.05914.
    """
    real = (attention_mask > 0).astype(jnp.float32)[:, :, None]
    size = alpha * lax.rsqrt(jnp.maximum(real.sum(axis=1, keepdims=True), 1.0) * width)
    return jax.random.uniform(key, (*attention_mask.shape, width), jnp.float32, -1.0, 1.0) * size * real


def training_states(
    config: DecoderConfig,
    weights: Weights,
    input_ids: Array,
    attention_mask: Array,
    *,
    noise: Array | None = None,
    rematerialise: bool = False,
) -> Array:
    """The last hidden state, as ``decoder.last_states`` gives it, with what training adds.

    Args:
      config: the network's shape.
      weights: its weights, with or without adapters.
      input_ids: [b, t].
      attention_mask: [b, t].
      noise: [b, t, d], added to the token vectors; see ``embedding_noise``.
      rematerialise: keep only the states between layers for the backward pass and run each layer again there: about a
        third more time, and memory for activations that a layer needs once instead of once a layer.

    Returns:
      [b, t, d].
    """
    positions = token_positions(config, attention_mask)
    states = embed(config, weights, input_ids, positions)
    if noise is not None:
        states = states + (noise * config.embedding_scale).astype(states.dtype)
    context = batch_context(config, positions, attention_mask)

    def step(states: Array, inputs: tuple) -> tuple[Array, None]:
        layer, kind, query_scale = inputs
        return run_layer(config, layer, states, context, kind=kind, query_scale=query_scale)[0], None

    kinds = jnp.asarray([config.window_kinds.index(window) for window in config.windows], jnp.int32)
    scales = jnp.asarray(config.query_scales, jnp.float32)
    # Inside a scan nothing is shared between passes that a compiler could merge again.
    body = jax.checkpoint(step, prevent_cse=False) if rematerialise else step
    states, _ = lax.scan(body, states, (dict(weights["layers"]), kinds, scales))
    return final_norm(config, weights, states)


def response_losses(
    config: DecoderConfig,
    weights: Weights,
    batch: InstructionBatch,
    *,
    noise: Array | None = None,
    rematerialise: bool = False,
) -> Array:
    """The loss of each pair: the mean negative log-likelihood, in nats, of its response's tokens.

    Args:
      config: the network's shape.
      weights: its weights, with or without adapters.
      batch: the pairs.
      noise: see ``training_states``.
      rematerialise: see ``training_states``.

    Returns:
      [b], float32; 0 for a row that is no example.
    """
    states = training_states(
        config,
        weights,
        jnp.asarray(batch.input_ids),
        jnp.asarray(batch.attention_mask),
        noise=noise,
        rematerialise=rematerialise,
    )
    # What stands before a token predicts it.
    before = jnp.take_along_axis(states, batch.columns[:, :, None] - 1, axis=1)
    targets = jnp.take_along_axis(jnp.asarray(batch.input_ids), batch.columns, axis=1)
    logits = head_logits(config, weights, before)
    chosen = jnp.take_along_axis(logits, targets[:, :, None], axis=2)[:, :, 0]
    losses = jax.nn.logsumexp(logits, axis=2) - chosen
    return (losses * batch.response_mask).sum(axis=1) / jnp.maximum(batch.response_mask.sum(axis=1), 1.0)
