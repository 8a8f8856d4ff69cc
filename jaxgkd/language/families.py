"""Which model families are read, and ``load``, which reads one.

A further family is a file that turns config.json into a configuration and names its tensors (see ``bert.py``), a
network for that configuration where none fits yet (see ``encoder.py``), and a line in ``FAMILIES``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxgkd.errors import ConfigError, UnsupportedModelError
from jaxgkd.language import bert
from jaxgkd.language.batches import Pooling
from jaxgkd.language.checkpoint import WeightPlan, read_weights
from jaxgkd.language.config import ConfigFields, read_fields
from jaxgkd.language.encoder import Encoder
from jaxgkd.language.locate import resolve


class LanguageModel(Protocol):
    """What every model that ``load`` returns can do; each is an ``nnx.Module``. See ``encoder.Encoder`` for details."""

    @property
    def width(self) -> int:
        """d, the size of a hidden state."""
        ...

    @property
    def n_layers(self) -> int:
        """Transformer layers; there is one hidden state more."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Token ids run from 0 to this, exclusive."""
        ...

    @property
    def max_tokens(self) -> int:
        """The widest batch the model reads."""
        ...

    @property
    def n_parameters(self) -> int:
        """Numbers in all weights that were read."""
        ...

    def hidden_states(self, input_ids: Array, attention_mask: Array) -> Array:
        """[b, t] ids and mask to [n_layers + 1, b, t, d], embeddings first, last state after the final norm."""
        ...

    def pooled_states(
        self, input_ids: Array, attention_mask: Array, *, layers: tuple[int, ...], pooling: Pooling
    ) -> Array:
        """[b, t] ids and mask to [b, len(layers), d], float32."""
        ...

    def states_from(self, layer_states: Array, attention_mask: Array, first_layer: int) -> Array:
        """[b, t, d], hidden state k, to the hidden states from k on: [n_layers - k + 1, b, t, d]."""
        ...


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one ``model_type`` are read.

    Attributes:
      read_config: from the fields of config.json to the model's configuration.
      plan_weights: from the configuration to the tensors to read.
      build: from configuration and weights to the model.
    """

    read_config: Callable[[ConfigFields], Any]
    plan_weights: Callable[[Any], WeightPlan]
    build: Callable[[Any, Mapping[str, Mapping[str, Array]]], LanguageModel]


FAMILIES: dict[str, Family] = {
    "bert": Family(bert.bert_config, bert.bert_weights, Encoder),
    "distilbert": Family(bert.distilbert_config, bert.distilbert_weights, Encoder),
    "roberta": Family(bert.roberta_config, bert.roberta_weights, Encoder),
}


def read_config(folder: str | PathLike[str]) -> tuple[Family, Any]:
    """Read config.json without touching the weights.

    Args:
      folder: a checkpoint folder.

    Returns:
      The model's family and its configuration.

    Raises:
      UnsupportedModelError: the family is not supported, or a field would not be reproduced exactly.
      CheckpointError: there is no readable config.json.
    """
    model_type, fields = read_fields(Path(folder))
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"models of type '{model_type}' are not supported",
            file=fields.file,
            field="model_type",
            mend=f"choose a model of type {', '.join(sorted(FAMILIES))}",
        )
    family = FAMILIES[model_type]
    return family, family.read_config(fields)


def load(path_or_id: str | PathLike[str], dtype: DTypeLike | None = None) -> LanguageModel:
    """Load a language model from a Hugging Face checkpoint.

    >>> model = load("all-MiniLM-L6-v2")  # doctest: +SKIP

    Args:
      path_or_id: a folder or a model's id; see ``resolve`` for where an id is looked for.
      dtype: of weights and arithmetic: float32 (also for None, whatever the file stores) or bfloat16. Normalisation,
        attention scores and pooling are float32 in both.

    Returns:
      The model, an ``nnx.Module``.

    Raises:
      UnsupportedModelError: the model would not be reproduced exactly; the error names the configuration field.
      CheckpointError: the model cannot be found or its weights are missing, damaged or do not fit.
      ConfigError: ``dtype`` is neither float32 nor bfloat16.
    """
    try:
        wanted = jnp.dtype(jnp.float32 if dtype is None else dtype)
    except TypeError:
        wanted = None
    if wanted is None or wanted not in (jnp.float32, jnp.bfloat16):
        raise ConfigError(f"models do not run in {dtype}", field="dtype", mend="choose float32 or bfloat16")
    folder = resolve(path_or_id)
    family, config = read_config(folder)
    return family.build(config, read_weights(folder, family.plan_weights(config), wanted))
