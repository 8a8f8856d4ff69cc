"""Read config.json so strictly that no field can change the numbers unnoticed.

A model is reproduced exactly or refused. Every field of config.json is therefore either read by its family
(``integer``, ``number``, ``flag``, ``choice``, ``words``, ``section``), allowed only at the value that leaves the model
as it is (``neutral``), or named in a list of fields that cannot touch a hidden state (``harmless``). Whatever is left
over raises ``UnsupportedModelError``.

The layouts of transformers 4 and 5 differ in which fields they write, not in what the fields mean, and both leave out
fields that had no name yet when a model was released: a missing field takes the default its family documents.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from jaxgkd.errors import CheckpointError, UnsupportedModelError

# Where a model came from, how it is stored and what its heads predict.
BOOKKEEPING = frozenset(
    [
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_commit_hash",
        "_name_or_path",
        "_num_labels",
        "architectures",
        "attn_implementation",
        "bos_token_id",
        "cls_token_id",
        "decoder_start_token_id",
        "dtype",
        "eos_token_id",
        "finetuning_task",
        "gradient_checkpointing",
        "id2label",
        "initializer_factor",
        "initializer_range",
        "label2id",
        "mask_token_id",
        "model_max_length",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "prefix",
        "problem_type",
        "return_dict",
        "sbert_ce_default_activation_function",
        "sentence_transformers",
        "sep_token_id",
        "task_specific_params",
        "tf_legacy_loss",
        "tokenizer_class",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "unk_token_id",
        "use_bfloat16",
        "use_cache",
        "xla_device",
    ]
)

# How text is sampled from a model; older configurations carry these beside the architecture.
GENERATION = frozenset(
    [
        "bad_words_ids",
        "begin_suppress_tokens",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_scores",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict_in_generate",
        "suppress_tokens",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
    ]
)

# Fields that give another model at any other value.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "auto_map": (),
    "chunk_size_feed_forward": (0,),
    "cross_attention_hidden_size": (),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "quantization_config": (),
    "tie_encoder_decoder": (False,),
}


class ConfigFields:
    """The fields of one config.json, each to be read, checked or waved through before ``finish``."""

    def __init__(self, values: Mapping[str, Any], file: str | PathLike[str], *, parent: str = ""):
        self.file = file
        self._parent = parent
        self._values = dict(values)
        self._left = set(values)

    def __contains__(self, name: str) -> bool:
        """Whether the file has field ``name``, be it null."""
        return name in self._values

    def integer(self, name: str, default: int | None, *, at_least: int = 1) -> int:
        """Field ``name`` as a whole number, ``default`` where it is missing; refused then if there is none."""
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
            raise self._unsupported(name, value, f"a whole number of at least {at_least} is expected")
        return value

    def number(self, name: str, default: float | None) -> float:
        """Field ``name`` as a number above 0, ``default`` where it is missing; refused then if there is none."""
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self._unsupported(name, value, "a number above 0 is expected")
        return float(value)

    def integer_or_none(self, name: str, default: int | None, *, at_least: int = 1) -> int | None:
        """As ``integer``, where null has a meaning of its own."""
        value = self._values.get(name, default)
        return self._take(name, None) if value is None else self.integer(name, value, at_least=at_least)

    def number_or_none(self, name: str, default: float | None) -> float | None:
        """As ``number``, where null has a meaning of its own."""
        value = self._values.get(name, default)
        return self._take(name, None) if value is None else self.number(name, value)

    def flag(self, name: str, default: bool) -> bool:
        """Field ``name`` as true or false, ``default`` where it is missing."""
        value = self._take(name, default)
        if not isinstance(value, bool):
            raise self._unsupported(name, value, "true or false is expected")
        return value

    def words(self, name: str, supported: Collection[str], *, length: int) -> tuple[str, ...] | None:
        """Field ``name`` as a list of ``length`` of the ``supported`` words, None where it is missing or null."""
        value = self._take(name, None)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != length:
            raise self._unsupported(name, value, f"a list of {length} words is expected")
        for word in value:
            if not isinstance(word, str) or word not in supported:
                raise self._unsupported(name, word, f"supported are {', '.join(sorted(supported))}")
        return tuple(value)

    def word_set(self, name: str, default: str, supported: Collection[str]) -> frozenset[str]:
        """Field ``name`` as some of the ``supported`` words, each at most once, as a list or in one string: "a|b"."""
        value = self._take(name, None)
        words = default if value is None else value
        if isinstance(words, str):
            words = [word.strip() for word in words.lower().split("|") if word.strip()]
        known = isinstance(words, list) and all(isinstance(word, str) and word in supported for word in words)
        if not known or len(set(words)) != len(words):
            raise self._unsupported(name, value, f"any of {', '.join(sorted(supported))} are expected")
        return frozenset(words)

    def section(self, name: str) -> "ConfigFields | None":
        """Field ``name`` as fields of its own, None where it is missing or null; ``finish`` them too."""
        value = self._take(name, None)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._unsupported(name, value, "an object is expected")
        return ConfigFields(value, self.file, parent=f"{self._parent}{name}.")

    def choice(self, name: str, default: str, supported: Collection[str]) -> str:
        """Field ``name`` as one of the ``supported`` words, ``default`` where it is missing."""
        value = self._take(name, default)
        if not isinstance(value, str) or value not in supported:
            raise self._unsupported(name, value, f"supported are {', '.join(sorted(supported))}")
        return value

    def neutral(self, fields: Mapping[str, tuple[Any, ...]]) -> None:
        """Let each field pass if it is missing, null or one of the values beside it, which leave the model as it is."""
        for name, accepted in fields.items():
            value = self._take(name, None)
            if value is not None and not any(value == other and type(value) is type(other) for other in accepted):
                allowed = " or ".join(json.dumps(other) for other in (*accepted, None))
                raise self._unsupported(name, value, f"only {allowed} is reproduced exactly")

    def harmless(self, names: Iterable[str]) -> None:
        """Wave through fields that cannot change a hidden state."""
        self._left.difference_update(names)

    def finish(self) -> None:
        """Raise ``UnsupportedModelError`` if a field was neither read nor waved through."""
        if self._left:
            name = min(self._left)
            raise self._unsupported(name, self._values[name], "this field is not understood")

    def refusal(self, name: str, reason: str) -> UnsupportedModelError:
        """The error to raise where the value of field ``name`` cannot stand beside the others."""
        return self._unsupported(name, self._values.get(name), reason)

    def _take(self, name: str, default: Any) -> Any:
        self._left.discard(name)
        return self._values.get(name, default)

    def _unsupported(self, name: str, value: Any, reason: str) -> UnsupportedModelError:
        written = json.dumps(value)
        shown = written if len(written) <= 60 else written[:57] + "..."
        return UnsupportedModelError(
            f"{shown} would not be reproduced exactly: {reason}",
            file=self.file,
            field=f"{self._parent}{name}",
            mend="choose another checkpoint, or remove the field if it does not belong to the model's arithmetic",
        )


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
      CheckpointError: the file is missing or is not a JSON object.
    """
    if not file.is_file():
        what = "is not a file" if file.exists() else "the file is missing"
        raise CheckpointError(what, file=file, mend="give a folder that holds a whole Hugging Face checkpoint")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"not readable as JSON ({error})", file=file, mend="download it again") from None
    if not isinstance(values, dict):
        raise CheckpointError("the file holds no JSON object", file=file, mend="download it again")
    return values


def read_fields(folder: Path) -> tuple[str, ConfigFields]:
    """Open the config.json of a checkpoint folder.

    Returns:
      Its ``model_type`` and its other fields.

    Raises:
      CheckpointError: there is no readable config.json.
      UnsupportedModelError: ``model_type`` is missing.
    """
    file = folder / "config.json"
    return fields_of(read_json(file), file)


def fields_of(values: Mapping[str, Any], file: str | PathLike[str]) -> tuple[str, ConfigFields]:
    """Open what a config.json says, whether or not it lies in a file.

    Returns:
      Its ``model_type`` and its other fields.

    Raises:
      UnsupportedModelError: ``model_type`` is missing.
    """
    values = dict(values)
    model_type = values.pop("model_type", None)
    if not isinstance(model_type, str):
        raise UnsupportedModelError(
            "the file does not say which family the model belongs to",
            file=file,
            field="model_type",
            mend='add the field, for instance "model_type": "bert"',
        )
    return model_type, ConfigFields(values, file)
