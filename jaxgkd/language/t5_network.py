"""The T5 encoder: normalise, attend, add; normalise, feed forward, add; and a last normalisation.

Raffel et al. 2020, section 2.1, https://arxiv.org/abs/1910.10683. Scores are not scaled; instead of positions each head
has a number for each distance between two tokens, added to the score and shared by all layers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxgkd.language.activations import ACTIVATIONS
from jaxgkd.language.attention import attend, fold_heads, padding_bias, unfold_heads
from jaxgkd.language.projection import project
from jaxgkd.language.stacked_model import Network, StackedModel, Weights, scan_layers

# Distances have no end, so any text could be read; a wider batch than this is a mistake.
MAX_TOKENS = 1 << 16


@dataclass(frozen=True)
class T5Config:
    """The shape of a T5 encoder and the choices its arithmetic depends on.

    Attributes:
      vocabulary_size: rows of the token table.
      width: d, the size of a hidden state.
      n_layers: transformer layers.
      n_heads: attention heads.
      head_width: e, the size of a head; the heads together need not be as wide as a state.
      inner_width: size inside the feed-forward block.
      activation: a name in ``activations.ACTIVATIONS``.
      gated: the feed-forward block multiplies ``activation(gate)`` with ``up``.
      norm_epsilon: added to the mean square in normalisation.
      buckets: of distances, half of them for keys to the right.
      reach: distances from here on are alike.
    """

    vocabulary_size: int
    width: int
    n_layers: int
    n_heads: int
    head_width: int
    inner_width: int
    activation: str
    gated: bool
    norm_epsilon: float
    buckets: int
    reach: int

    @property
    def max_tokens(self) -> int:
        """The widest batch the model reads."""
        return MAX_TOKENS


class Context(NamedTuple):
    """What all layers are told about a batch.

    Attributes:
      distances: [heads, t, t], added to the scores of all texts.
      padding: [b, t], see ``padding_bias``.
    """

    distances: Array
    padding: Array


def rms_norm(states: Array, scale: Array, epsilon: float) -> Array:
    """Divide [..., d] by its root mean square in float32, then scale; https://arxiv.org/abs/1910.07467."""
    exact = states.astype(jnp.float32)
    mean_square = jnp.square(exact).mean(axis=-1, keepdims=True)
    return (exact * lax.rsqrt(mean_square + epsilon) * scale).astype(states.dtype)


def distance_buckets(config: T5Config, tokens: int) -> np.ndarray:
    """The bucket of the distance from each query to each key, [t, t] int64.

    Half of a direction's buckets are for single distances, the other half grow with the logarithm of the distance.
    """
    distance = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
    half = config.buckets // 2
    single = half // 2
    size = np.abs(distance)
    # In float32, as the reference computes it: where a bucket ends hangs on the last bit.
    steps = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(single))
    steps = steps / np.float32(math.log(config.reach / single)) * np.float32(half - single)
    grown = np.minimum(single + steps.astype(np.int64), half - 1)
    return np.where(distance > 0, half, 0) + np.where(size < single, size, grown)


def embed(config: T5Config, weights: Weights, input_ids: Array, attention_mask: Array) -> Array:
    """Hidden state 0: the token vectors, [b, t, d]; NaN where an id is outside the vocabulary."""
    table = weights["embeddings"]["token"]
    return table.at[input_ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def batch_context(config: T5Config, weights: Weights, attention_mask: Array) -> Context:
    """What all layers are told about a batch with the mask [b, t]."""
    distances = weights["distances"]["bias"][distance_buckets(config, attention_mask.shape[1])]
    return Context(jnp.moveaxis(distances, 2, 0).astype(jnp.float32), padding_bias(attention_mask))


def run_layer(config: T5Config, layer: Mapping[str, Array], states: Array, context: Context) -> Array:
    """One layer, [b, t, d] to [b, t, d]."""
    inputs = rms_norm(states, layer["attention_norm_scale"], config.norm_epsilon)
    query, key, value = (fold_heads(project(layer, name, inputs), config.n_heads) for name in ("query", "key", "value"))
    # Put together in every layer anew, where it is added on the fly: for all texts and heads it is as large as scores.
    bias = context.distances[None] + context.padding[:, None, None, :]
    attended = attend(query, key, value, bias.reshape(-1, *bias.shape[2:]))
    states = states + project(layer, "output", unfold_heads(attended, config.n_heads))

    inputs = rms_norm(states, layer["feed_forward_norm_scale"], config.norm_epsilon)
    activation = ACTIVATIONS[config.activation]
    if config.gated:
        inner = activation(project(layer, "gate", inputs)) * project(layer, "up", inputs)
    else:
        inner = activation(project(layer, "up", inputs))
    return states + project(layer, "down", inner)


def read_between(
    config: T5Config,
    weights: Weights,
    states: Array,
    attention_mask: Array,
    bounds: tuple[int, int],
    read: Callable[[Array], Array],
) -> Array:
    """``read`` of hidden states number first to last, [b, last - first + 1, ...]; see ``stacked_model.Network``."""
    context = batch_context(config, weights, attention_mask)
    first, last = bounds
    top, readings = scan_layers(
        lambda layer, states: run_layer(config, layer, states, context), weights["layers"], states, read, bounds
    )
    if first < last == config.n_layers:
        normed = rms_norm(top, weights["final_norm"]["scale"], config.norm_epsilon)
        readings = jnp.concatenate([readings[:-1], read(normed)[None]])
    return jnp.moveaxis(jnp.concatenate([read(states)[None], readings]), 0, 1)


class T5Encoder(StackedModel):
    """A T5 encoder with its weights.

    Attributes:
      config: the shape, a ``T5Config``.
      embeddings: ``nnx.Dict`` of parameters: ``token`` [vocabulary, d].
      distances: ``bias`` [buckets, heads].
      layers: parameters with a leading layer axis: kernels [layers, in, out] of ``query``, ``key``, ``value``,
        ``output``, ``gate`` (where there is one), ``up`` and ``down``; ``attention_norm_scale`` and
        ``feed_forward_norm_scale`` [layers, d].
      final_norm: ``scale`` [d].
      config_json: the config.json the model was made from; None where it was put together from weights alone.
    """

    network = Network(embed, read_between)
    groups = ("embeddings", "distances", "layers", "final_norm")
    config: T5Config
