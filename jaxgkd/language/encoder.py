"""The post-norm transformer encoder: BERT, RoBERTa and DistilBERT are one network with different names for its parts.

The weights of all layers are stacked along a first axis and the layers run under one ``lax.scan``: compile time does
not grow with depth. The arithmetic is pure functions of (configuration, weights, batch), compiled once per shape; the
module holds the weights as ``nnx.Param`` and calls them. A training step splits the module once and merges it inside
its own jit, where these functions become part of the step:

    graphdef, params = nnx.split(encoder)
    step = jax.jit(lambda params, ids, mask: nnx.merge(graphdef, params).hidden_states(ids, mask)[-1])
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from jaxgkd.errors import ConfigError
from jaxgkd.language.activations import ACTIVATIONS
from jaxgkd.language.attention import bidirectional_attention, matmul_precision, padding_bias
from jaxgkd.language.batches import Pooling, check_batch, check_pooling, check_width, in_blocks, pool

Weights = Mapping[str, Mapping[str, Array]]


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of a post-norm encoder and the choices its arithmetic depends on.

    Attributes:
      vocabulary_size: rows of the token table.
      width: d, the size of a hidden state.
      n_layers: transformer layers.
      n_heads: attention heads; divides ``width``.
      inner_width: size inside the feed-forward block.
      n_positions: rows of the position table.
      n_token_types: rows of the token-type table, 0 where the family has none. Single texts are of type 0.
      activation: a name in ``activations.ACTIVATIONS``.
      norm_epsilon: added to the variance in layer normalisation.
      padding_id: None where a token's position is its column; where it is an id, tokens other than it are counted from
        ``padding_id + 1`` on, as in RoBERTa.
    """

    vocabulary_size: int
    width: int
    n_layers: int
    n_heads: int
    inner_width: int
    n_positions: int
    n_token_types: int
    activation: str
    norm_epsilon: float
    padding_id: int | None = None

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that has a position for each."""
        return self.n_positions if self.padding_id is None else self.n_positions - self.padding_id - 1


def layer_norm(states: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    """Normalise [..., d] to mean 0 and variance 1 in float32, then ``· scale + bias``; https://arxiv.org/abs/1607.06450."""
    exact = states.astype(jnp.float32)
    centred = exact - exact.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return (centred * lax.rsqrt(variance + epsilon) * scale + bias).astype(states.dtype)


def embed(config: EncoderConfig, embeddings: Mapping[str, Array], input_ids: Array) -> Array:
    """Hidden state 0: token, position and token-type vectors, added and normalised.

    Args:
      config: the encoder's shape.
      embeddings: ``token`` [vocabulary, d], ``position`` [positions, d], ``token_type`` [types, d] where there are
        types, ``norm_scale`` and ``norm_bias`` [d].
      input_ids: [b, t].

    Returns:
      [b, t, d]; NaN where an id is outside the vocabulary.
    """
    states = embeddings["token"].at[input_ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    if config.padding_id is None:
        states = states + embeddings["position"][: input_ids.shape[1]]
    else:
        counted = (input_ids != config.padding_id).astype(jnp.int32)
        states = states + embeddings["position"][jnp.cumsum(counted, axis=1) * counted + config.padding_id]
    if config.n_token_types:
        states = states + embeddings["token_type"][0]
    return layer_norm(states, embeddings["norm_scale"], embeddings["norm_bias"], config.norm_epsilon)


def run_layer(config: EncoderConfig, layer: Mapping[str, Array], states: Array, bias: Array) -> Array:
    """One layer: attention, then feed-forward, each added to its input and normalised.

    Args:
      config: the encoder's shape.
      layer: this layer's weights, kernels as [in, out].
      states: [b, t, d].
      bias: [b, t], see ``padding_bias``.

    Returns:
      [b, t, d].
    """
    precision = matmul_precision(states.dtype)

    def project(name: str, inputs: Array) -> Array:
        return jnp.matmul(inputs, layer[f"{name}_kernel"], precision=precision) + layer[f"{name}_bias"]

    def add_and_norm(name: str, residual: Array, states: Array) -> Array:
        return layer_norm(residual + states, layer[f"{name}_scale"], layer[f"{name}_bias"], config.norm_epsilon)

    query, key, value = (project(name, states) for name in ("query", "key", "value"))
    attended = bidirectional_attention(query, key, value, bias, n_heads=config.n_heads)
    states = add_and_norm("attention_norm", states, project("output", attended))
    inner = ACTIVATIONS[config.activation](project("up", states))
    return add_and_norm("feed_forward_norm", states, project("down", inner))


def scan_layers(
    config: EncoderConfig,
    layers: Mapping[str, Array],
    states: Array,
    attention_mask: Array,
    read: Callable[[Array], Array],
) -> Array:
    """Run stacked layers from ``states`` on and read something off the states before and after each of them.

    Args:
      config: the encoder's shape.
      layers: weights with a leading axis of n layers.
      states: [b, t, d], the states below the first of them.
      attention_mask: [b, t].
      read: function of states [b, t, d].

    Returns:
      [b, n + 1, ...]: ``read`` of the states below the first layer, then of every layer's output.
    """
    bias = padding_bias(attention_mask)

    def step(states: Array, layer: Mapping[str, Array]) -> tuple[Array, Array]:
        states = run_layer(config, layer, states, bias)
        return states, read(states)

    _, readings = lax.scan(step, states, layers)
    return jnp.concatenate([read(states)[:, None], jnp.moveaxis(readings, 0, 1)], axis=1)


@partial(jax.jit, static_argnames="config")
def _hidden_states(config: EncoderConfig, weights: Weights, input_ids: Array, attention_mask: Array) -> Array:
    def run(batch: tuple[Array, Array]) -> Array:
        ids, mask = batch
        return scan_layers(config, weights["layers"], embed(config, weights["embeddings"], ids), mask, lambda s: s)

    return jnp.moveaxis(in_blocks(run, (input_ids, attention_mask), input_ids.shape[1]), 1, 0)


@partial(jax.jit, static_argnames=("config", "layers", "pooling"))
def _pooled_states(
    config: EncoderConfig,
    weights: Weights,
    input_ids: Array,
    attention_mask: Array,
    layers: tuple[int, ...],
    pooling: Pooling,
) -> Array:
    needed = jax.tree.map(lambda stack: stack[: max(layers)], dict(weights["layers"]))

    def run(batch: tuple[Array, Array]) -> Array:
        ids, mask = batch
        states = embed(config, weights["embeddings"], ids)
        return scan_layers(config, needed, states, mask, lambda states: pool(states, mask, pooling))

    pooled = in_blocks(run, (input_ids, attention_mask), input_ids.shape[1])
    return pooled[:, jnp.asarray(layers)]


@partial(jax.jit, static_argnames=("config", "first_layer"))
def _states_from(
    config: EncoderConfig, weights: Weights, layer_states: Array, attention_mask: Array, first_layer: int
) -> Array:
    upper = jax.tree.map(lambda stack: stack[first_layer:], dict(weights["layers"]))

    def run(batch: tuple[Array, Array]) -> Array:
        states, mask = batch
        return scan_layers(config, upper, states, mask, lambda states: states)

    return jnp.moveaxis(in_blocks(run, (layer_states, attention_mask), layer_states.shape[1]), 1, 0)


class Encoder(nnx.Module):
    """A post-norm encoder with its weights; every method may be called directly or inside jit and grad.

    Attributes:
      config: the shape, an ``EncoderConfig``.
      embeddings: ``nnx.Dict`` of parameters, see ``embed``.
      layers: ``nnx.Dict`` of parameters with a leading layer axis: kernels [layers, in, out] and biases [layers, out]
        of ``query``, ``key``, ``value``, ``output``, ``up`` and ``down``; ``attention_norm`` and ``feed_forward_norm``
        as ``_scale`` and ``_bias`` [layers, d].
    """

    def __init__(self, config: EncoderConfig, weights: Weights):
        self.config = config
        self.embeddings = nnx.Dict({name: nnx.Param(array) for name, array in weights["embeddings"].items()})
        self.layers = nnx.Dict({name: nnx.Param(array) for name, array in weights["layers"].items()})

    @property
    def width(self) -> int:
        """d, the size of a hidden state."""
        return self.config.width

    @property
    def n_layers(self) -> int:
        """Transformer layers; there is one hidden state more."""
        return self.config.n_layers

    @property
    def vocabulary_size(self) -> int:
        """Token ids run from 0 to this, exclusive."""
        return self.config.vocabulary_size

    @property
    def max_tokens(self) -> int:
        """The widest batch the model reads."""
        return self.config.max_tokens

    @property
    def n_parameters(self) -> int:
        """Numbers in all weights; heads and pooler, which are not read, are not counted."""
        return sum(array.size for group in self.weights().values() for array in group.values())

    def weights(self) -> dict[str, dict[str, Any]]:
        """The bare arrays: ``{"embeddings": {name: array}, "layers": {name: array}}``."""
        return {
            "embeddings": {name: param.get_value() for name, param in self.embeddings.items()},
            "layers": {name: param.get_value() for name, param in self.layers.items()},
        }

    def hidden_states(self, input_ids: Array, attention_mask: Array) -> Array:
        """Every hidden state, the embeddings first, the last layer last.

        Args:
          input_ids: [b, t] token ids.
          attention_mask: [b, t]; above 0 at real tokens. Padding may stand on either side; as in Hugging Face, it does
            not move a token's position.

        Returns:
          [n_layers + 1, b, t, d] in the dtype of the weights; what stands at padding means nothing.

        Raises:
          DataError: the arrays are no [b, t] pair or hold an id outside the vocabulary.
          ConfigError: t is above ``max_tokens``.
        """
        self._check(input_ids, attention_mask)
        return _hidden_states(self.config, self.weights(), input_ids, attention_mask)

    def pooled_states(
        self, input_ids: Array, attention_mask: Array, *, layers: tuple[int, ...], pooling: Pooling
    ) -> Array:
        """One vector for each text and wanted hidden state, without keeping the states of every token.

        Layers above the highest one wanted are not run.

        Args:
          input_ids: [b, t] token ids.
          attention_mask: [b, t]; above 0 at real tokens, padding on either side.
          layers: which hidden states, 0 (embeddings) to n_layers (last), in the order wanted.
          pooling: "mean" over real tokens, "cls" (first real token) or "last" (last real token).

        Returns:
          [b, len(layers), d], float32; zeros for a row without real tokens.

        Raises:
          DataError: as in ``hidden_states``.
          ConfigError: t is above ``max_tokens``, a layer does not exist or ``pooling`` is unknown.
        """
        self._check(input_ids, attention_mask)
        check_pooling(pooling)
        if not layers:
            raise ConfigError("no layer is asked for", field="layers", mend="name at least one hidden state")
        for layer in layers:
            self._check_layer(layer, "layers")
        return _pooled_states(self.config, self.weights(), input_ids, attention_mask, tuple(layers), pooling)

    def states_from(self, layer_states: Array, attention_mask: Array, first_layer: int) -> Array:
        """Run only the layers above a cached hidden state, for fine-tuning the upper layers.

        ``states_from(hidden_states(ids, mask)[k], mask, k)`` equals ``hidden_states(ids, mask)[k:]``. The layers below
        get no gradient.

        Args:
          layer_states: [b, t, d], hidden state number ``first_layer``.
          attention_mask: [b, t].
          first_layer: k, 0 to n_layers.

        Returns:
          [n_layers - k + 1, b, t, d], the given state first.

        Raises:
          ConfigError: the states are no [b, t, d] that fits the mask and the model, or the layer does not exist.
        """
        self._check_layer(first_layer, "first_layer")
        if layer_states.shape != (*attention_mask.shape, self.width):
            raise ConfigError(
                f"states of shape {list(layer_states.shape)} do not fit a mask of shape {list(attention_mask.shape)} "
                f"and a width of {self.width}",
                field="layer_states",
                mend="pass [batch, tokens, width] states that this model made",
            )
        check_width(layer_states.shape[1], self.max_tokens)
        return _states_from(self.config, self.weights(), layer_states, attention_mask, first_layer)

    def _check(self, input_ids: Array, attention_mask: Array) -> None:
        check_batch(input_ids, attention_mask, vocabulary_size=self.vocabulary_size, max_tokens=self.max_tokens)

    def _check_layer(self, layer: int, field: str) -> None:
        if not 0 <= layer <= self.n_layers:
            raise ConfigError(
                f"there is no hidden state {layer}", field=field, mend=f"count from 0 (embeddings) to {self.n_layers}"
            )
