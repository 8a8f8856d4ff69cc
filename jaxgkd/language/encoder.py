"""The post-norm transformer encoder: BERT, RoBERTa and DistilBERT are one network with different names for its parts.

The weights of all layers are stacked along a first axis and the layers run under one ``lax.scan``: compile time does
not grow with depth. What a model can be asked is in ``stacked_model``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array, lax

from jaxgkd.language.activations import ACTIVATIONS
from jaxgkd.language.attention import bidirectional_attention, padding_bias
from jaxgkd.language.projection import project
from jaxgkd.language.stacked_model import Network, StackedModel, Weights, scan_layers


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


def embed(config: EncoderConfig, weights: Weights, input_ids: Array, attention_mask: Array) -> Array:
    """Hidden state 0: token, position and token-type vectors, added and normalised.

    Args:
      config: the encoder's shape.
      weights: ``embeddings`` are ``token`` [vocabulary, d], ``position`` [positions, d], ``token_type`` [types, d]
        where there are types, ``norm_scale`` and ``norm_bias`` [d].
      input_ids: [b, t].
      attention_mask: [b, t]; padding is embedded like everything else.

    Returns:
      [b, t, d]; NaN where an id is outside the vocabulary.
    """
    embeddings = weights["embeddings"]
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

    def add_and_norm(name: str, residual: Array, states: Array) -> Array:
        return layer_norm(residual + states, layer[f"{name}_scale"], layer[f"{name}_bias"], config.norm_epsilon)

    query, key, value = (project(layer, name, states) for name in ("query", "key", "value"))
    attended = bidirectional_attention(query, key, value, bias, n_heads=config.n_heads)
    states = add_and_norm("attention_norm", states, project(layer, "output", attended))
    inner = ACTIVATIONS[config.activation](project(layer, "up", states))
    return add_and_norm("feed_forward_norm", states, project(layer, "down", inner))


def read_between(
    config: EncoderConfig,
    weights: Weights,
    states: Array,
    attention_mask: Array,
    bounds: tuple[int, int],
    read: Callable[[Array], Array],
) -> Array:
    """``read`` of hidden states number first to last, [b, last - first + 1, ...]; see ``stacked_model.Network``."""
    bias = padding_bias(attention_mask)
    _, readings = scan_layers(
        lambda layer, states: run_layer(config, layer, states, bias), weights["layers"], states, read, bounds
    )
    return jnp.concatenate([read(states)[:, None], jnp.moveaxis(readings, 0, 1)], axis=1)


class Encoder(StackedModel):
    """A post-norm encoder with its weights.

    Attributes:
      config: the shape, an ``EncoderConfig``.
      embeddings: ``nnx.Dict`` of parameters, see ``embed``.
      layers: ``nnx.Dict`` of parameters with a leading layer axis: kernels [layers, in, out] and biases [layers, out]
        of ``query``, ``key``, ``value``, ``output``, ``up`` and ``down``; ``attention_norm`` and ``feed_forward_norm``
        as ``_scale`` and ``_bias`` [layers, d].
      config_json: the config.json the model was made from; None where it was put together from weights alone.
    """

    network = Network(embed, read_between)
    groups = ("embeddings", "layers")
    config: EncoderConfig
