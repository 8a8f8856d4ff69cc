"""The causal transformer: Llama, Mistral, Qwen, Gemma, GPT-2 and BioGPT are one network with different parts left out.

Each layer normalises, attends and adds, then normalises, feeds forward and adds. The weights of all layers are stacked
along a first axis and the layers run under one ``lax.scan``; what differs between layers (their windows, the scale of
their scores) is scanned along with them. Everything here is a pure function of (configuration, weights, batch), and
``run_layers`` is the same whether earlier tokens stand in the batch or in a cache (see ``cache``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxgkd.errors import ConfigError
from jaxgkd.language.activations import ACTIVATIONS
from jaxgkd.language.attention import matmul_precision
from jaxgkd.language.causal_attention import Stretch, causal_bias, grouped_attention
from jaxgkd.language.encoder import layer_norm
from jaxgkd.language.projection import project
from jaxgkd.language.rope import Rope, rotate, rotation
from jaxgkd.language.stacked_model import Weights


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a causal transformer and the choices its arithmetic depends on.

    Attributes:
      vocabulary_size: rows of the token table.
      width: d, the size of a hidden state.
      n_layers: transformer layers.
      n_heads: heads of queries.
      n_key_heads: heads of keys and values; divides ``n_heads``.
      head_width: e, the size of a head.
      inner_width: size inside the feed-forward block.
      max_tokens: the longest text, in tokens.
      activation: a name in ``activations.ACTIVATIONS``.
      norm: what normalisation is: to mean 0 and variance 1, or to a mean square of 1.
      norm_epsilon: added to the variance or the mean square.
      windows: for each layer how many positions back it sees, None for all.
      query_scales: for each layer the factor on its scores.
      rope: rotary positions; None where positions are learned.
      biases: which projections have a bias.
      fused_attention: queries, keys and values come from one projection, ``query_key_value``.
      gated: the feed-forward block multiplies ``activation(gate)`` with ``up``.
      head_norms: queries and keys are normalised head by head, before they are rotated.
      output_norms: what attention and feed-forward give is normalised too, before it is added.
      norm_offset: added to the scales of all normalisations.
      embedding_scale: factor on the token vectors.
      counts_real_tokens: a token's position is the number of real tokens before it; else its column, padding or not.
      position_offset: rows of the position table before that of the first position.
      score_cap: bound of the attention scores, ``cap · tanh(score / cap)``.
      logit_cap: bound of the logits, in the same way.
      tied_head: the token table gives the logits too.
    """

    vocabulary_size: int
    width: int
    n_layers: int
    n_heads: int
    n_key_heads: int
    head_width: int
    inner_width: int
    max_tokens: int
    activation: str
    norm: Literal["layer", "rms"]
    norm_epsilon: float
    windows: tuple[int | None, ...]
    query_scales: tuple[float, ...]
    rope: Rope | None
    biases: frozenset[str] = frozenset()
    fused_attention: bool = False
    gated: bool = True
    head_norms: bool = False
    output_norms: bool = False
    norm_offset: float = 0.0
    embedding_scale: float = 1.0
    counts_real_tokens: bool = False
    position_offset: int = 0
    score_cap: float | None = None
    logit_cap: float | None = None
    tied_head: bool = False

    @property
    def window_kinds(self) -> tuple[int | None, ...]:
        """The different windows, in the order of their first layers."""
        return tuple(dict.fromkeys(self.windows))


class Context(NamedTuple):
    """What all layers are told about a batch of t tokens and s cached ones.

    Attributes:
      turn: see ``rope.rotation``; None without rotary positions.
      biases: [kinds of windows, b, t, t], see ``causal_bias``.
      cached_biases: [kinds of windows, b, t, s]; None without a cache.
    """

    turn: tuple[Array, Array] | None
    biases: Array
    cached_biases: Array | None = None


def normalise(config: DecoderConfig, weights: Mapping[str, Array], name: str, states: Array) -> Array:
    """Normalise [..., d] in float32, then scale; with root mean square: https://arxiv.org/abs/1910.07467."""
    scale = weights[f"{name}scale"].astype(jnp.float32) + config.norm_offset
    if config.norm == "layer":
        return layer_norm(states, scale, weights[f"{name}bias"], config.norm_epsilon)
    exact = states.astype(jnp.float32)
    mean_square = jnp.square(exact).mean(axis=-1, keepdims=True)
    return (exact * lax.rsqrt(mean_square + config.norm_epsilon) * scale).astype(states.dtype)


def token_positions(config: DecoderConfig, attention_mask: Array) -> Array:
    """The position of each token, [b, t]: its column, or the number of real tokens before it."""
    if not config.counts_real_tokens:
        return jnp.broadcast_to(jnp.arange(attention_mask.shape[1], dtype=jnp.int32), attention_mask.shape)
    return jnp.maximum(jnp.cumsum(attention_mask > 0, axis=1, dtype=jnp.int32) - 1, 0)


def embed(config: DecoderConfig, weights: Weights, input_ids: Array, positions: Array) -> Array:
    """Hidden state 0, [b, t, d], of token ids and positions [b, t]; NaN where an id is outside the vocabulary."""
    table = weights["embeddings"]["token"]
    states = table.at[input_ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    if config.embedding_scale != 1.0:
        states = states * jnp.asarray(config.embedding_scale, states.dtype)
    if config.rope is None:
        states = states + weights["embeddings"]["position"][positions + config.position_offset]
    return states


def batch_context(config: DecoderConfig, positions: Array, attention_mask: Array) -> Context:
    """What layers are told about a batch without a cache; both arguments are [b, t]."""
    seen = attention_mask > 0
    biases = [causal_bias(positions, positions, seen, window) for window in config.window_kinds]
    return Context(None if config.rope is None else rotation(config.rope, positions), jnp.stack(biases))


def run_layer(
    config: DecoderConfig,
    layer: Mapping[str, Array],
    states: Array,
    context: Context,
    *,
    kind: Array | int,
    query_scale: Array | float,
    cached: tuple[Array, Array] | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """One layer.

    Args:
      config: the network's shape.
      layer: this layer's weights, kernels as [in, out].
      states: [b, t, d].
      context: of the batch.
      kind: which of the config's ``window_kinds`` the layer has.
      query_scale: factor on its scores.
      cached: keys and values of earlier tokens, [b, key heads, s, e] each.

    Returns:
      States [b, t, d]; keys and values of these tokens, [b, key heads, t, e] each.
    """
    b, t, _ = states.shape

    def heads(states: Array) -> Array:
        return states.reshape(b, t, -1, config.head_width).swapaxes(1, 2)

    inputs = normalise(config, layer, "attention_norm_", states)
    if config.fused_attention:
        query, key, value = map(heads, jnp.split(project(layer, "query_key_value", inputs), 3, axis=-1))
    else:
        query, key, value = (heads(project(layer, name, inputs)) for name in ("query", "key", "value"))
    if config.head_norms:
        query, key = normalise(config, layer, "query_norm_", query), normalise(config, layer, "key_norm_", key)
    if context.turn is not None:
        query, key = rotate(query, context.turn), rotate(key, context.turn)
    stretches = [Stretch(key, value, context.biases[kind])]
    if cached is not None and context.cached_biases is not None:
        stretches.insert(0, Stretch(*cached, context.cached_biases[kind]))
    attended = grouped_attention(query, stretches, scale=query_scale, score_cap=config.score_cap)
    attended = project(layer, "output", attended.swapaxes(1, 2).reshape(b, t, -1))
    states = states + (
        normalise(config, layer, "attention_output_norm_", attended) if config.output_norms else attended
    )

    inputs = normalise(config, layer, "feed_forward_norm_", states)
    activation = ACTIVATIONS[config.activation]
    if config.gated:
        inner = activation(project(layer, "gate", inputs)) * project(layer, "up", inputs)
    else:
        inner = activation(project(layer, "up", inputs))
    fed = project(layer, "down", inner)
    states = states + (normalise(config, layer, "feed_forward_output_norm_", fed) if config.output_norms else fed)
    return states, (key, value)


def run_layers(
    config: DecoderConfig,
    layers: Mapping[str, Array],
    states: Array,
    context: Context,
    *,
    read: Callable[[Array, Array, Array], Any],
    bounds: tuple[int, int] | None = None,
    cached: tuple[Array, Array] | None = None,
) -> tuple[Array, Any]:
    """Run the layers and read something off each of them.

    Args:
      config: the network's shape.
      layers: weights with a leading axis of n layers.
      states: [b, t, d], below the first layer that runs.
      context: of the batch.
      read: function of a layer's output [b, t, d] and its tokens' keys and values [b, key heads, t, e].
      bounds: numbers of the first layer that runs and of the first one after it that does not; None for all. Layers
        outside are stepped over: to cut the stack would copy the weights.
      cached: keys and values of earlier tokens, [n, b, key heads, s, e] each.

    Returns:
      The last output [b, t, d], before the final norm; what was read off the layers that ran, with a leading axis.
    """
    first, last = bounds or (0, config.n_layers)
    kinds = jnp.asarray([config.window_kinds.index(window) for window in config.windows], jnp.int32)
    scales = jnp.asarray(config.query_scales, jnp.float32)
    numbers = jnp.arange(config.n_layers)

    def step(states: Array, inputs: tuple[Any, ...]) -> tuple[Array, Any]:
        layer, number, kind, scale, past = inputs

        def run() -> tuple[Array, tuple[Array, Array]]:
            return run_layer(config, layer, states, context, kind=kind, query_scale=scale, cached=past)

        if (first, last) == (0, config.n_layers):
            outputs, new = run()
        else:
            empty = jax.tree.map(lambda new: jnp.zeros(new.shape, new.dtype), jax.eval_shape(run)[1])
            outputs, new = lax.cond((number >= first) & (number < last), run, lambda: (states, empty))
        return outputs, read(outputs, *new)

    states, readings = lax.scan(step, states, (dict(layers), numbers, kinds, scales, cached))
    return states, jax.tree.map(lambda array: array[first:last], readings)


def final_norm(config: DecoderConfig, weights: Weights, states: Array) -> Array:
    """The last hidden state, [b, t, d], of what the last layer gave."""
    return normalise(config, weights["final_norm"], "", states)


def head_logits(config: DecoderConfig, weights: Weights, states: Array) -> Array:
    """Logits [..., vocabulary], float32, of last hidden states [..., d].

    Raises:
      ConfigError: the model has no output head.
    """
    table = weights["embeddings"]["token"] if config.tied_head else weights["head"].get("kernel")
    if table is None:
        raise ConfigError(
            "this checkpoint was saved without its output head and gives no logits",
            mend="use the checkpoint of the causal language model, or its hidden states only",
        )
    precision = matmul_precision(table.dtype)
    logits = jnp.einsum("...d,vd->...v", states, table, precision=precision, preferred_element_type=jnp.float32)
    return logits if config.logit_cap is None else config.logit_cap * jnp.tanh(logits / config.logit_cap)
