"""Which model families are read, and ``load``, which reads one.

A further family is a file that turns config.json into a configuration and names its tensors (see ``bert.py``), a
network for that configuration where none fits yet (see ``encoder.py``), and a line in ``FAMILIES``.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxgkd.errors import ConfigError, UnsupportedModelError
from jaxgkd.language import bert, deberta, gpt2, llama, t5
from jaxgkd.language.batches import Pooling
from jaxgkd.language.checkpoint import read_weights
from jaxgkd.language.config import ConfigFields, fields_of, read_fields, read_json
from jaxgkd.language.deberta_network import Deberta
from jaxgkd.language.decoder import Decoder
from jaxgkd.language.encoder import Encoder
from jaxgkd.language.locate import resolve
from jaxgkd.language.placement import Placement
from jaxgkd.language.random_weights import random_weights
from jaxgkd.language.t5_network import T5Encoder
from jaxgkd.language.weight_plan import WeightPlan


class LanguageModel(Protocol):
    """What every model that ``load`` returns can do; each is an ``nnx.Module``. See ``encoder.Encoder`` for details."""

    # What the model was made from; None where it was put together from weights alone.
    config_json: str | None

    @property
    def config(self) -> Any:
        """The shape of the model and the choices its arithmetic depends on, a frozen dataclass."""
        ...

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

    def weights(self) -> dict[str, dict[str, Any]]:
        """The bare arrays, ``{group: {parameter: array}}``, layers stacked along the first axis."""
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
      architecture: the class of transformers that opens the model as it is saved; None: the one it was read from.
    """

    read_config: Callable[[ConfigFields], Any]
    plan_weights: Callable[[Any], WeightPlan]
    build: Callable[[Any, Mapping[str, Mapping[str, Array]]], LanguageModel]
    architecture: str | None = None


FAMILIES: dict[str, Family] = {
    "bert": Family(bert.bert_config, bert.bert_weights, Encoder, "BertModel"),
    "biogpt": Family(gpt2.biogpt_config, gpt2.biogpt_weights, Decoder, "BioGptForCausalLM"),
    "deberta-v2": Family(deberta.deberta_config, deberta.deberta_weights, Deberta, "DebertaV2Model"),
    "distilbert": Family(bert.distilbert_config, bert.distilbert_weights, Encoder, "DistilBertModel"),
    "gemma2": Family(llama.gemma2_config, llama.rotary_weights, Decoder, "Gemma2ForCausalLM"),
    "gpt2": Family(gpt2.gpt2_config, gpt2.gpt2_weights, Decoder, "GPT2LMHeadModel"),
    "llama": Family(llama.llama_config, llama.rotary_weights, Decoder, "LlamaForCausalLM"),
    "mistral": Family(llama.mistral_config, llama.rotary_weights, Decoder, "MistralForCausalLM"),
    "qwen2": Family(llama.qwen2_config, llama.rotary_weights, Decoder, "Qwen2ForCausalLM"),
    "qwen3": Family(llama.qwen3_config, llama.rotary_weights, Decoder, "Qwen3ForCausalLM"),
    "roberta": Family(bert.roberta_config, bert.roberta_weights, Encoder, "RobertaModel"),
    "t5": Family(t5.t5_config, t5.t5_weights, T5Encoder, "T5EncoderModel"),
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
    return _family_config(*read_fields(Path(folder)))


def _family_config(model_type: str, fields: ConfigFields) -> tuple[Family, Any]:
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"models of type '{model_type}' are not supported",
            file=fields.file,
            field="model_type",
            mend=f"choose a model of type {', '.join(sorted(FAMILIES))}",
        )
    family = FAMILIES[model_type]
    return family, family.read_config(fields)


def initialise(
    values: Mapping[str, Any], *, key: Array, dtype: DTypeLike | None = None, placement: Placement | None = None
) -> LanguageModel:
    """Make a model with random weights.

    Kernels and tables are normal with the deviation that ``initializer_range`` says (0.02 unless given), biases are 0,
    and norms leave their inputs at unit variance. Each array is drawn where it is to stay.

    Args:
      values: what the model's config.json would say, ``model_type`` among it.
      key: for the random numbers.
      dtype: as in ``load``.
      placement: as in ``load``.

    Returns:
      The model, an ``nnx.Module``.

    Raises:
      UnsupportedModelError: the family is not supported, or a field is not understood.
      ConfigError: ``dtype`` is neither float32 nor bfloat16.
    """
    wanted = _model_dtype(dtype)
    family, config = _family_config(*fields_of(values, "config.json"))
    weights = random_weights(
        family.plan_weights(config),
        wanted,
        key=key,
        deviation=float(values.get("initializer_range") or 0.02),
        # Gemma's scales are stored as what is to be added to 1.
        norm_scale=1.0 - getattr(config, "norm_offset", 0.0),
        placement=placement,
    )
    model = family.build(config, weights)
    model.config_json = json.dumps(dict(values))
    return model


def load(
    path_or_id: str | PathLike[str], dtype: DTypeLike | None = None, *, placement: Placement | None = None
) -> LanguageModel:
    """Load a language model from a Hugging Face checkpoint.

    >>> model = load("all-MiniLM-L6-v2")  # doctest: +SKIP

    Args:
      path_or_id: a folder or a model's id; see ``resolve`` for where an id is looked for.
      dtype: of weights and arithmetic: float32 (also for None, whatever the file stores) or bfloat16. Normalisation,
        attention scores and pooling are float32 in both.
      placement: where the weights go: one ``jax.sharding.Sharding`` for all of them, or a function from an array's path
        ("layers/up_kernel") and shape, layers stacked first, to its sharding. None: all on the default device.

    Returns:
      The model, an ``nnx.Module``.

    Raises:
      UnsupportedModelError: the model would not be reproduced exactly; the error names the configuration field.
      CheckpointError: the model cannot be found or its weights are missing, damaged or do not fit.
      ConfigError: ``dtype`` is neither float32 nor bfloat16.
    """
    wanted = _model_dtype(dtype)
    folder = resolve(path_or_id)
    family, config = read_config(folder)
    model = family.build(config, read_weights(folder, family.plan_weights(config), wanted, placement))
    model.config_json = json.dumps(read_json(folder / "config.json"))
    return model


def _model_dtype(dtype: DTypeLike | None) -> jnp.dtype:
    try:
        wanted = jnp.dtype(jnp.float32 if dtype is None else dtype)
    except TypeError:
        wanted = None
    if wanted is None or wanted not in (jnp.float32, jnp.bfloat16):
        raise ConfigError(f"models do not run in {dtype}", field="dtype", mend="choose float32 or bfloat16")
    return wanted
