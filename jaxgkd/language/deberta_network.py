"""DeBERTa: attention that looks at what a token says and at how far away it stands, as two things.

A score is the sum of content to content, content to distance and distance to content; He et al. 2021, equation 4,
https://arxiv.org/abs/2006.03654. Every layer shares one table of vectors for distances, small ones singly and large
ones in buckets whose size grows with the distance.

A table row for each of the 2 t − 1 distances between t tokens makes both position scores a product with that matrix,
whose rows then only have to be shifted against each other (``align``): no score is ever looked up one by one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxgkd.language.activations import ACTIVATIONS
from jaxgkd.language.attention import (
    attend,
    fold_heads,
    head_products,
    matmul_precision,
    padding_bias,
    unfold_heads,
)
from jaxgkd.language.encoder import layer_norm
from jaxgkd.language.projection import project
from jaxgkd.language.stacked_model import Network, StackedModel, Weights, scan_layers


@dataclass(frozen=True)
class DebertaConfig:
    """The shape of a DeBERTa encoder and the choices its arithmetic depends on.

    Attributes:
      vocabulary_size: rows of the token table.
      width: d, the size of a hidden state.
      n_layers: transformer layers.
      n_heads: attention heads; divides ``width``.
      inner_width: size inside the feed-forward block.
      max_tokens: the longest text, in tokens.
      n_token_types: rows of the token-type table, 0 where there is none. Single texts are of type 0.
      activation: a name in ``activations.ACTIVATIONS``.
      norm_epsilon: added to the variance in layer normalisation.
      absolute_positions: a vector for its column is added to each token's embedding.
      position_scores: "c2p" (content to distance), "p2c" (distance to content), both or neither.
      reach: distances from here on are alike; 0 where attention does not look at distances.
      buckets: distances fall into so many buckets in each direction, 0 where each has a vector of its own.
      shared_projections: distances go through the projections of queries and keys, not through their own.
      normalised_distances: the table of distances is normalised.
      conv_kernel: tokens that the convolution beside the first layer sees, 0 where there is none.
      conv_groups: its groups.
      conv_activation: a name in ``activations.ACTIVATIONS``.
    """

    vocabulary_size: int
    width: int
    n_layers: int
    n_heads: int
    inner_width: int
    max_tokens: int
    n_token_types: int
    activation: str
    norm_epsilon: float
    absolute_positions: bool
    position_scores: frozenset[str]
    reach: int
    buckets: int
    shared_projections: bool
    normalised_distances: bool
    conv_kernel: int = 0
    conv_groups: int = 1
    conv_activation: str = "tanh"

    @property
    def span(self) -> int:
        """Half the rows of the table of distances."""
        return self.buckets or self.reach

    @property
    def score_scale(self) -> float:
        """Factor on all scores: one over the root of a head's size times the number of kinds of scores."""
        return (self.width // self.n_heads * (1 + len(self.position_scores))) ** -0.5


class Context(NamedTuple):
    """What all layers are told about a batch.

    Attributes:
      padding: [b · heads, 1, t], see ``padding_bias``.
      distances: [2 t − 1, d], the vector of each distance from t − 1 (the key far to the left) down to 1 − t.
    """

    padding: Array
    distances: Array


def distance_rows(config: DebertaConfig, tokens: int) -> np.ndarray:
    """The row in the table of distances for each distance from ``tokens`` − 1 down to 1 − ``tokens``, [2 t − 1]."""
    distance = np.arange(tokens - 1, -tokens, -1)
    if config.buckets:
        middle = config.buckets // 2
        size = np.abs(distance)
        # In float32, as the reference computes it: where a bucket ends may hang on the last bit.
        steps = np.log(np.maximum(size, middle).astype(np.float32) / np.float32(middle))
        steps = steps / np.log(np.float32((config.reach - 1) / middle)) * np.float32(middle - 1)
        distance = np.where(size <= middle, distance, np.sign(distance) * (np.ceil(steps) + middle)).astype(np.int64)
    return np.clip(distance + config.span, 0, 2 * config.span - 1)


def align(products: Array) -> Array:
    """Shift each row so that a column stands for a token and not for a distance: out[i, j] = in[i, t − 1 − i + j].

    Args:
      products: [n, t, 2 t − 1].

    Returns:
      [n, t, t].
    """
    n, t, columns = products.shape
    # One column more and a flat array whose rows begin one value earlier each: the shift is in how it is cut up.
    flat = jnp.pad(products, ((0, 0), (0, 0), (0, 1))).reshape(n, t * (columns + 1))
    return flat[:, t - 1 : t - 1 + t * columns].reshape(n, t, columns)[:, :, :t]


def embed(config: DebertaConfig, weights: Weights, input_ids: Array, attention_mask: Array) -> Array:
    """Hidden state 0, [b, t, d]: token, position and token-type vectors, added and normalised; zero at padding.

    NaN where an id is outside the vocabulary.
    """
    embeddings = weights["embeddings"]
    states = embeddings["token"].at[input_ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    if config.absolute_positions:
        states = states + embeddings["position"][: input_ids.shape[1]]
    if config.n_token_types:
        states = states + embeddings["token_type"][0]
    states = layer_norm(states, embeddings["norm_scale"], embeddings["norm_bias"], config.norm_epsilon)
    return jnp.where(attention_mask[:, :, None] > 0, states, 0)


def batch_context(config: DebertaConfig, weights: Weights, attention_mask: Array) -> Context:
    """What all layers are told about a batch with the mask [b, t]."""
    padding = jnp.repeat(padding_bias(attention_mask), config.n_heads, axis=0)[:, None, :]
    distances = weights["distances"]
    if not config.reach:
        return Context(padding, jnp.zeros((0, config.width)))
    table = distances["table"]
    if config.normalised_distances:
        table = layer_norm(table, distances["norm_scale"], distances["norm_bias"], config.norm_epsilon)
    return Context(padding, table[distance_rows(config, attention_mask.shape[1])])


def position_scores(
    config: DebertaConfig, layer: Mapping[str, Array], query: Array, key: Array, distances: Array
) -> Array:
    """The part of the scores that depends on distances.

    Args:
      config: the encoder's shape.
      layer: this layer's weights.
      query: [b · heads, t, e], scaled.
      key: [b · heads, t, e], scaled.
      distances: [2 t − 1, d], see ``Context``.

    Returns:
      [b · heads, t, t].
    """
    repeats = query.shape[0] // config.n_heads

    def vectors(name: str) -> Array:
        projection = name if config.shared_projections else f"position_{name}"
        heads = fold_heads(project(layer, projection, distances)[None], config.n_heads)
        return jnp.tile(heads, (repeats, 1, 1))

    scores = jnp.zeros((), jnp.float32)
    if "c2p" in config.position_scores:
        scores = scores + align(head_products(query, vectors("key")))
    if "p2c" in config.position_scores:
        # Seen from the key the distances run the other way, and so do rows and columns.
        scores = scores + align(head_products(key, vectors("query")[:, ::-1])).swapaxes(1, 2)
    return scores


def run_layer(config: DebertaConfig, layer: Mapping[str, Array], states: Array, context: Context) -> Array:
    """One layer, [b, t, d] to [b, t, d]: attention, then feed-forward, each added to its input and normalised."""

    def add_and_norm(name: str, residual: Array, states: Array) -> Array:
        return layer_norm(residual + states, layer[f"{name}_scale"], layer[f"{name}_bias"], config.norm_epsilon)

    query, key, value = (fold_heads(project(layer, name, states), config.n_heads) for name in ("query", "key", "value"))
    query = query * config.score_scale
    bias = context.padding
    if config.reach:
        bias = bias + position_scores(config, layer, query, key * config.score_scale, context.distances)
    attended = unfold_heads(attend(query, key, value, bias), config.n_heads)
    states = add_and_norm("attention_norm", states, project(layer, "output", attended))
    inner = ACTIVATIONS[config.activation](project(layer, "up", states))
    return add_and_norm("feed_forward_norm", states, project(layer, "down", inner))


def convolve(
    config: DebertaConfig, convolution: Mapping[str, Array], states: Array, output: Array, attention_mask: Array
) -> Array:
    """Add a convolution over the first layer's input to its output and normalise; zero at padding.

    Args:
      config: the encoder's shape.
      convolution: ``filter`` [d, d / groups, kernel], ``bias``, ``norm_scale`` and ``norm_bias`` [d].
      states: [b, t, d], the first layer's input, zero at padding.
      output: [b, t, d], what it gave.
      attention_mask: [b, t].

    Returns:
      [b, t, d].
    """
    real = attention_mask[:, :, None] > 0
    side = config.conv_kernel // 2
    seen = lax.conv_general_dilated(
        states,
        convolution["filter"],
        window_strides=(1,),
        padding=[(side, side)],
        dimension_numbers=("NWC", "OIW", "NWC"),
        feature_group_count=config.conv_groups,
        precision=matmul_precision(states.dtype),
    )
    seen = jnp.where(real, seen + convolution["bias"], 0)
    states = output + ACTIVATIONS[config.conv_activation](seen)
    states = layer_norm(states, convolution["norm_scale"], convolution["norm_bias"], config.norm_epsilon)
    return jnp.where(real, states, 0)


def read_between(
    config: DebertaConfig,
    weights: Weights,
    states: Array,
    attention_mask: Array,
    bounds: tuple[int, int],
    read: Callable[[Array], Array],
) -> Array:
    """``read`` of hidden states number first to last, [b, last - first + 1, ...]; see ``stacked_model.Network``."""
    context = batch_context(config, weights, attention_mask)
    first, last = bounds
    readings = [read(states)[None]]
    if config.conv_kernel and first == 0 < last:
        lowest = {name: stack[0] for name, stack in weights["layers"].items()}
        output = run_layer(config, lowest, states, context)
        states = convolve(config, weights["convolution"], states, output, attention_mask)
        readings.append(read(states)[None])
        first = 1
    _, above = scan_layers(
        lambda layer, states: run_layer(config, layer, states, context), weights["layers"], states, read, (first, last)
    )
    return jnp.moveaxis(jnp.concatenate([*readings, above]), 0, 1)


class Deberta(StackedModel):
    """A DeBERTa encoder with its weights.

    Attributes:
      config: the shape, a ``DebertaConfig``.
      embeddings: ``nnx.Dict`` of parameters, see ``embed``: ``token``, ``norm_scale``, ``norm_bias``; ``position`` and
        ``token_type`` where there are such.
      distances: ``table`` [2 · span, d], ``norm_scale`` and ``norm_bias`` [d], where attention looks at distances.
      convolution: see ``convolve``; empty where there is none.
      layers: parameters with a leading layer axis: kernels [layers, in, out] and biases [layers, out] of ``query``,
        ``key``, ``value``, ``output``, ``up``, ``down``, ``position_key`` and ``position_query``; ``attention_norm``
        and ``feed_forward_norm`` as ``_scale`` and ``_bias`` [layers, d].
      config_json: the config.json the model was made from; None where it was put together from weights alone.
    """

    network = Network(embed, read_between)
    groups = ("embeddings", "distances", "convolution", "layers")
    config: DebertaConfig
