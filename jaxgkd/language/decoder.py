"""Causal language models as a module: what every model here can be asked, and logits.

The network is that of ``decoder_network``; how a training step uses the module is said in ``stacked_model``.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxgkd.language.batches import in_blocks
from jaxgkd.language.decoder_network import (
    DecoderConfig,
    batch_context,
    embed,
    final_norm,
    head_logits,
    run_layers,
    token_positions,
)
from jaxgkd.language.stacked_model import Network, StackedModel, Weights


def embed_batch(config: DecoderConfig, weights: Weights, input_ids: Array, attention_mask: Array) -> Array:
    """Hidden state 0, [b, t, d], of ids and mask [b, t]."""
    return embed(config, weights, input_ids, token_positions(config, attention_mask))


def read_between(
    config: DecoderConfig,
    weights: Weights,
    states: Array,
    attention_mask: Array,
    bounds: tuple[int, int],
    read: Callable[[Array], Array],
) -> Array:
    """Read something off the hidden states from number bounds[0], which is given, to bounds[1].

    Args:
      config: the network's shape.
      weights: the model's weights.
      states: [b, t, d], hidden state number bounds[0].
      attention_mask: [b, t].
      bounds: first and last hidden state wanted.
      read: function of states [b, t, d].

    Returns:
      [b, bounds[1] - bounds[0] + 1, ...].
    """
    first, last = bounds
    readings = [read(states)[None]]
    if last > first:
        context = batch_context(config, token_positions(config, attention_mask), attention_mask)
        top, below = run_layers(
            config, weights["layers"], states, context, read=lambda states, key, value: read(states), bounds=bounds
        )
        if last == config.n_layers:
            readings += [below[:-1], read(final_norm(config, weights, top))[None]]
        else:
            readings.append(below)
    return jnp.moveaxis(jnp.concatenate(readings), 0, 1)


def last_states(config: DecoderConfig, weights: Weights, input_ids: Array, attention_mask: Array) -> Array:
    """The last hidden state [b, t, d], after the final norm, of ids and mask [b, t]."""
    positions = token_positions(config, attention_mask)
    states = embed(config, weights, input_ids, positions)
    context = batch_context(config, positions, attention_mask)
    states, _ = run_layers(config, weights["layers"], states, context, read=lambda states, key, value: None)
    return final_norm(config, weights, states)


@partial(jax.jit, static_argnames="config")
def _logits(config: DecoderConfig, weights: Weights, input_ids: Array, attention_mask: Array) -> Array:
    def run(batch: tuple[Array, Array]) -> Array:
        return head_logits(config, weights, last_states(config, weights, *batch))

    return in_blocks(run, (input_ids, attention_mask), input_ids.shape[1])


class Decoder(StackedModel):
    """A causal language model with its weights.

    Padding may stand on either side. With rotary positions, which only look at differences, it moves all tokens of a
    text alike; with learned ones see ``DecoderConfig.counts_real_tokens``.

    Attributes:
      config: the shape, a ``DecoderConfig``.
      embeddings: ``nnx.Dict``: ``token`` [vocabulary, d], ``position`` [positions, d] where positions are learned.
      layers: ``nnx.Dict`` of parameters with a leading layer axis: kernels [layers, in, out] and biases [layers, out]
        of the projections, ``_scale`` and ``_bias`` of the norms.
      final_norm: ``nnx.Dict``: ``scale`` and, in layer normalisation, ``bias`` [d].
      head: ``nnx.Dict``: ``kernel`` [vocabulary, d], unless the token table is the head or there is none.
      config_json: the config.json the model was made from; None where it was put together from weights alone.
    """

    network = Network(embed_batch, read_between)
    groups = ("embeddings", "layers", "final_norm", "head")
    config: DecoderConfig

    def logits(self, input_ids: Array, attention_mask: Array) -> Array:
        """What each token says about the next one.

        Args:
          input_ids: [b, t] token ids.
          attention_mask: [b, t]; above 0 at real tokens.

        Returns:
          [b, t, vocabulary], float32; what stands at padding means nothing.

        Raises:
          DataError: the arrays are no [b, t] pair or hold an id outside the vocabulary.
          ConfigError: t is above ``max_tokens``, or the checkpoint was saved without its output head.
        """
        self._check(input_ids, attention_mask)
        return _logits(self.config, self.weights(), input_ids, attention_mask)
