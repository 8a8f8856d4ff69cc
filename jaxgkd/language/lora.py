"""Low-rank adapters: a frozen model learns through small matrices beside its linear maps.

``x W + (alpha / r) · (x A) B`` with A [in, r] and B [r, out]; Hu et al. 2022, https://arxiv.org/abs/2106.09685. The
adapters are a pytree of their own, stacked over layers like the kernels they stand beside, and the base is only ever
read: it is handed to the network together with them (``adapted_weights``) and stays what it was to the last bit. Any
family will do whose layers go through ``projection.project``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxgkd.errors import ConfigError
from jaxgkd.language.families import LanguageModel
from jaxgkd.language.projection import is_quantised

Model = TypeVar("Model", bound=LanguageModel)

# {name of a linear map: {"a": [layers, in, r], "b": [layers, r, out]}}
Adapters = dict[str, dict[str, Array]]

# Queries and values, as in the paper (section 4.2); where one map makes queries, keys and values, that one.
DEFAULT_TARGETS = ("query", "value", "query_key_value")

KERNEL = "_kernel"


@dataclass(frozen=True)
class LoraConfig:
    """What the adapters are like.

    Attributes:
      rank: r.
      alpha: what the adapters give is multiplied by ``alpha / rank``.
      dropout: share of the adapters' inputs that is dropped in training.
      targets: names of the linear maps that get one, such as "query", "value", "output", "up" and "down"; empty for
        queries and values.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    def __post_init__(self):
        if self.rank < 1:
            raise ConfigError(f"adapters have no rank {self.rank}", field="rank", mend="choose 1 or more")
        if not self.alpha > 0:
            raise ConfigError(f"a scale of {self.alpha} switches adapters off", field="alpha", mend="choose above 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"{self.dropout} is no share to drop", field="dropout", mend="choose from 0 to below 1")

    @property
    def scale(self) -> float:
        """Factor on what the adapters give."""
        return self.alpha / self.rank


def linear_maps(model: LanguageModel) -> dict[str, tuple[int, int]]:
    """The maps of a model's layers that can have an adapter, by name, with their input and output sizes."""
    layers = model.weights()["layers"]
    return {name.removesuffix(KERNEL): array.shape[1:] for name, array in layers.items() if name.endswith(KERNEL)}


def targets_of(model: LanguageModel, config: LoraConfig) -> tuple[str, ...]:
    """The maps of a model that get an adapter.

    Raises:
      ConfigError: a target is named twice or is not there.
    """
    maps = linear_maps(model)
    targets = config.targets or tuple(name for name in DEFAULT_TARGETS if name in maps)
    for number, name in enumerate(targets):
        if name not in maps or name in targets[:number]:
            raise ConfigError(
                f"'{name}' is {'there twice' if name in maps else 'no linear map of this model'}",
                field="targets",
                mend=f"choose some of {', '.join(sorted(maps))}",
            )
    return targets


def initial_adapters(model: LanguageModel, config: LoraConfig, *, key: Array) -> Adapters:
    """Adapters that do not change the model yet: A is random, B is zero.

    Args:
      model: the model they are for.
      config: what they are like.
      key: for the random numbers, uniform in ±1/√in as in PEFT.

    Returns:
      ``{target: {"a": [layers, in, r], "b": [layers, r, out]}}``, float32.

    Raises:
      ConfigError: a target is named twice or is not there.
    """
    maps = linear_maps(model)
    adapters: Adapters = {}
    targets = targets_of(model, config)
    for name, target_key in zip(targets, jax.random.split(key, len(targets)), strict=True):
        inputs, outputs = maps[name]
        bound = inputs**-0.5
        shape = (model.n_layers, inputs, config.rank)
        adapters[name] = {
            "a": jax.random.uniform(target_key, shape, jnp.float32, -bound, bound),
            "b": jnp.zeros((model.n_layers, config.rank, outputs), jnp.float32),
        }
    return adapters


def adapted_weights(
    weights: Mapping[str, Mapping[str, Array]],
    adapters: Adapters,
    config: LoraConfig,
    *,
    dropout_key: Array | None = None,
) -> dict[str, dict[str, Any]]:
    """Weights with adapters beside the kernels, for the functions that take weights; nothing is copied.

    Args:
      weights: of the base, ``{group: {parameter: array}}``.
      adapters: see ``initial_adapters``.
      config: what they are like.
      dropout_key: in training, the random key of the step; None leaves dropout out.

    Returns:
      The weights with ``{target}_lora_a`` and ``{target}_lora_b`` (see ``projection.project``) among the layers'.
    """
    beside: dict[str, Array] = {}
    for number, (name, adapter) in enumerate(adapters.items()):
        beside[f"{name}_lora_a"], beside[f"{name}_lora_b"] = adapter["a"], adapter["b"] * config.scale
        if dropout_key is not None and config.dropout:
            n_layers = adapter["a"].shape[0]
            beside[f"{name}_lora_key"] = jax.random.split(jax.random.fold_in(dropout_key, number), n_layers)
            beside[f"{name}_lora_keep"] = jnp.full(n_layers, 1 - config.dropout, jnp.float32)
    return {**{group: dict(arrays) for group, arrays in weights.items()}, "layers": {**weights["layers"], **beside}}


def adapt(model: Model, adapters: Adapters, config: LoraConfig) -> Model:
    """A model with adapters beside the base's own arrays, to be asked like any other."""
    return _with_weights(model, adapted_weights(model.weights(), adapters, config))


def merge(model: Model, adapters: Adapters, config: LoraConfig) -> Model:
    """A model whose kernels are ``W + (alpha / r) · A B``: as fast as the base, and of its dtype and configuration.

    Raises:
      ConfigError: the base is quantised.
    """
    weights = model.weights()
    layers = dict(weights["layers"])
    if any(map(is_quantised, layers.values())):
        raise ConfigError(
            "adapters cannot be merged into a quantised base", mend="merge them into the model it was made from"
        )
    for name, adapter in adapters.items():
        kernel = layers[f"{name}{KERNEL}"]
        layers[f"{name}{KERNEL}"] = _merged(kernel, adapter["a"], adapter["b"] * config.scale)
    return _with_weights(model, {**weights, "layers": layers})


def _with_weights(model: Model, weights: dict[str, dict[str, Any]]) -> Model:
    make: Any = type(model)
    made = make(model.config, weights)
    made.config_json = model.config_json
    return made


@jax.jit
def _merged(kernel: Array, a: Array, b: Array) -> Array:
    def layer(parts: tuple[Array, Array, Array]) -> Array:
        kernel, a, b = parts
        return (kernel.astype(jnp.float32) + jnp.matmul(a, b, precision=lax.Precision.HIGHEST)).astype(kernel.dtype)

    # One layer after another: the product alone, in float32, would be twice a half-precision stack.
    return lax.map(layer, (kernel, a, b))
