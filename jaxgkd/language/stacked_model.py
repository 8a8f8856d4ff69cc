"""What every encoder here can be asked, whatever its layers are made of.

A family gives two pure functions of (configuration, weights, batch): one for the embeddings and one that runs a
stretch of its stacked layers and reads something off every state (see ``Network``). Everything else follows from them
and is compiled once per shape. A training step splits the module once and merges it inside its own jit, where these
functions become part of the step:

    graphdef, params = nnx.split(encoder)
    step = jax.jit(lambda params, ids, mask: nnx.merge(graphdef, params).hidden_states(ids, mask)[-1])
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from jaxgkd.errors import ConfigError
from jaxgkd.language.batches import Pooling, check_batch, check_pooling, check_width, in_blocks, pool

Weights = Mapping[str, Mapping[str, Array]]


class Network(NamedTuple):
    """The arithmetic of a family.

    Attributes:
      embed: (config, weights, input_ids [b, t], attention_mask [b, t]) to hidden state 0 [b, t, d].
      read_between: (config, weights, states, attention_mask, (first, last), read) to [b, last - first + 1, ...]:
        ``read`` of hidden state ``first``, which is given, and of all up to ``last``.
    """

    embed: Callable[[Any, Weights, Array, Array], Array]
    read_between: Callable[[Any, Weights, Array, Array, tuple[int, int], Callable[[Array], Array]], Array]


def scan_layers(
    run_layer: Callable[[Mapping[str, Array], Array], Array],
    layers: Mapping[str, Array],
    states: Array,
    read: Callable[[Array], Array],
    bounds: tuple[int, int],
) -> tuple[Array, Array]:
    """Run layers number first to last under one scan and read something off what each gives.

    Args:
      run_layer: from one layer's weights and states [b, t, d] to states.
      layers: weights with a leading axis of all layers.
      states: [b, t, d], hidden state number first.
      read: function of states.
      bounds: (first, last).

    Returns:
      The last states [b, t, d]; what was read, [last - first, ...].
    """

    def step(states: Array, layer: Mapping[str, Array]) -> tuple[Array, Array]:
        states = run_layer(layer, states)
        return states, read(states)

    return lax.scan(step, states, {name: stack[slice(*bounds)] for name, stack in layers.items()})


@partial(jax.jit, static_argnames=("network", "config", "first"))
def _states_from(
    network: Network, config: Any, weights: Weights, states: Array, attention_mask: Array, first: int
) -> Array:
    def run(batch: tuple[Array, Array]) -> Array:
        return network.read_between(config, weights, *batch, (first, config.n_layers), lambda states: states)

    return jnp.moveaxis(in_blocks(run, (states, attention_mask), states.shape[1]), 1, 0)


@partial(jax.jit, static_argnames=("network", "config"))
def _hidden_states(network: Network, config: Any, weights: Weights, input_ids: Array, attention_mask: Array) -> Array:
    def run(batch: tuple[Array, Array]) -> Array:
        states = network.embed(config, weights, *batch)
        return network.read_between(config, weights, states, batch[1], (0, config.n_layers), lambda states: states)

    return jnp.moveaxis(in_blocks(run, (input_ids, attention_mask), input_ids.shape[1]), 1, 0)


@partial(jax.jit, static_argnames=("network", "config", "layers", "pooling"))
def _pooled_states(
    network: Network,
    config: Any,
    weights: Weights,
    input_ids: Array,
    attention_mask: Array,
    layers: tuple[int, ...],
    pooling: Pooling,
) -> Array:
    def run(batch: tuple[Array, Array]) -> Array:
        ids, mask = batch
        states = network.embed(config, weights, ids, mask)
        return network.read_between(
            config, weights, states, mask, (0, max(layers)), lambda states: pool(states, mask, pooling)
        )

    pooled = in_blocks(run, (input_ids, attention_mask), input_ids.shape[1])
    return pooled[:, jnp.asarray(layers)]


class StackedModel(nnx.Module):
    """A language model with its weights; every method may be called directly or inside jit and grad.

    Attributes:
      config: the shape, a frozen dataclass with ``vocabulary_size``, ``width``, ``n_layers`` and ``max_tokens``.
      config_json: the config.json the model was made from; None where it was put together from weights alone.

    Besides, one ``nnx.Dict`` of parameters for each group of weights; those of ``layers`` have a leading layer axis.
    """

    network: ClassVar[Network]
    groups: ClassVar[tuple[str, ...]]
    config_json: str | None = None

    def __init__(self, config: Any, weights: Weights):
        self.config = config
        for group in self.groups:
            arrays = weights.get(group, {})
            setattr(self, group, nnx.Dict({name: nnx.Param(array) for name, array in arrays.items()}))

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
        """Numbers in all weights; heads and poolers, which are not read, are not counted."""
        return sum(math.prod(array.shape) for group in self.weights().values() for array in group.values())

    def weights(self) -> dict[str, dict[str, Any]]:
        """The bare arrays: ``{group: {parameter: array}}``."""
        return {
            group: {name: param.get_value() for name, param in getattr(self, group).items()} for group in self.groups
        }

    def hidden_states(self, input_ids: Array, attention_mask: Array) -> Array:
        """Every hidden state, the embeddings first, the last layer (after its norm, where there is one) last.

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
        return _hidden_states(self.network, self.config, self.weights(), input_ids, attention_mask)

    def pooled_states(
        self, input_ids: Array, attention_mask: Array, *, layers: tuple[int, ...], pooling: Pooling
    ) -> Array:
        """One vector for each text and wanted hidden state, without keeping the states of every token.

        Layers above the highest one wanted are not run.

        Args:
          input_ids: [b, t] token ids.
          attention_mask: [b, t]; above 0 at real tokens, padding on either side.
          layers: which hidden states, 0 (embeddings) to n_layers (last), in the order wanted.
          pooling: see ``pool``.

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
        weights = self.weights()
        return _pooled_states(self.network, self.config, weights, input_ids, attention_mask, tuple(layers), pooling)

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
        return _states_from(self.network, self.config, self.weights(), layer_states, attention_mask, first_layer)

    def _check(self, input_ids: Array, attention_mask: Array) -> None:
        check_batch(input_ids, attention_mask, vocabulary_size=self.vocabulary_size, max_tokens=self.max_tokens)

    def _check_layer(self, layer: int, field: str) -> None:
        if not 0 <= layer <= self.n_layers:
            raise ConfigError(
                f"there is no hidden state {layer}", field=field, mend=f"count from 0 (embeddings) to {self.n_layers}"
            )
