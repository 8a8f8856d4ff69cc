"""Adapters on disk, in the layout of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors."""

import json
import math
import re
from os import PathLike
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxgkd.errors import CheckpointError, ConfigError
from jaxgkd.language.checkpoint import stack_tensors
from jaxgkd.language.config import ConfigFields, read_json
from jaxgkd.language.families import FAMILIES, LanguageModel
from jaxgkd.language.lora import KERNEL, Adapters, LoraConfig, linear_maps
from jaxgkd.language.safetensors_files import read_header
from jaxgkd.language.saving import stored_tensors, write_safetensors
from jaxgkd.language.weight_plan import StoredTensor, WeightPlan
from jaxgkd.whole_file import write_whole_folder

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

# What PEFT puts before the names of the model it wraps.
WRAPPER = "base_model.model."

# Fields that say how the adapters came about, or where to put them, which the names of their tensors say too.
HARMLESS = frozenset(
    [
        "auto_mapping",
        "base_model_name_or_path",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "layers_pattern",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "target_modules",
        "task_type",
    ]
)

# Other ways to begin change the base as well.
BEGINNINGS = (True, False, "gaussian")


def save_adapters(
    adapters: Adapters,
    config: LoraConfig,
    model: LanguageModel,
    folder: str | PathLike[str],
    *,
    base_name: str | None = None,
) -> None:
    """Write adapters so that PEFT puts them onto the same model in PyTorch.

    Args:
      adapters: see ``lora.initial_adapters``.
      config: what they are like.
      model: the base they belong to, made by ``load`` or ``initialise``.
      folder: a new or empty folder.
      base_name: the base's id or folder, for those who read the file.

    Raises:
      ConfigError: the model was made from weights alone, without a config.json; the folder is not empty; or the disk
        does not take it.
    """
    base = _base_plan(model)
    plan = _adapter_plan(base, {name: adapter["a"].shape[-1] for name, adapter in adapters.items()}, model)
    alpha = int(config.alpha) if float(config.alpha).is_integer() else config.alpha
    values = {
        "base_model_name_or_path": base_name,
        "bias": "none",
        # PyTorch's GPT-2 keeps its kernels as [in, out], everyone else as [out, in].
        "fan_in_fan_out": not all(base.tensors["layers"][name + KERNEL].transpose for name in adapters),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": config.rank,
        "target_modules": _target_modules(base, sorted(adapters)),
        "task_type": "CAUSAL_LM" if hasattr(model, "logits") else "FEATURE_EXTRACTION",
        "use_dora": False,
        "use_rslora": False,
    }

    def write(scratch: Path) -> None:
        (scratch / CONFIG_FILE).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
        with (scratch / WEIGHTS_FILE).open("wb") as stream:
            write_safetensors(stream, list(stored_tensors(plan, adapters)))

    write_whole_folder(Path(folder), write)


def load_adapters(folder: str | PathLike[str], model: LanguageModel) -> tuple[LoraConfig, Adapters]:
    """Read adapters that ``save_adapters`` or PEFT wrote.

    Args:
      folder: with adapter_config.json and adapter_model.safetensors.
      model: the base they are for, made by ``load`` or ``initialise``.

    Returns:
      What they are like, and ``{target: {"a": [layers, in, r], "b": [layers, r, out]}}``, float32.

    Raises:
      UnsupportedModelError: the adapters are of a kind that would not be reproduced exactly; names the field.
      CheckpointError: a file is missing or damaged, or the adapters do not fit the model.
      ConfigError: the model was made from weights alone, without a config.json.
    """
    folder = Path(folder)
    rank, alpha, dropout = _read_config(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise CheckpointError(
            f"there is no {WEIGHTS_FILE}; pickled adapters can run code and are not read",
            file=folder,
            mend="save the adapters with PEFT's save_pretrained(folder)",
        )
    tensors = read_header(folder / WEIGHTS_FILE)
    base = _base_plan(model)
    targets = tuple(
        name
        for name in linear_maps(model)
        if any(stored.endswith("." + _module(base, name).format(layer=0) + ".lora_A.weight") for stored in tensors)
    )
    if not targets:
        raise CheckpointError(
            "none of these adapters is for a linear map in the model's first layer",
            file=folder / WEIGHTS_FILE,
            mend="use the model they were trained on",
        )
    plan = _adapter_plan(base, dict.fromkeys(targets, rank), model)
    adapters = stack_tensors(folder, plan, tensors, jnp.dtype("float32"))
    return LoraConfig(rank=rank, alpha=alpha, dropout=dropout, targets=targets), adapters


def _read_config(folder: Path) -> tuple[int, float, float]:
    file = folder / CONFIG_FILE
    values = read_json(file)
    fields = ConfigFields(values, file)
    fields.choice("peft_type", "", ("LORA",))
    rank = fields.integer("r", 8)
    alpha = fields.number("lora_alpha", 8)
    if fields.flag("use_rslora", False):
        # There the factor is alpha over the root of r, here it is alpha over r.
        alpha *= math.sqrt(rank)
    fields.neutral({"bias": ("none",), "init_lora_weights": BEGINNINGS})
    fields.harmless(HARMLESS)
    known = HARMLESS | {"peft_type", "r", "lora_alpha", "use_rslora", "bias", "init_lora_weights"}
    # Every other field is an extension of the method, switched off by one of these.
    fields.neutral({name: (False, {}, []) for name in values.keys() - known})
    fields.finish()
    dropout = values.get("lora_dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise fields.refusal("lora_dropout", "a share from 0 to below 1 is expected")
    return rank, alpha, float(dropout)


def _base_plan(model: LanguageModel) -> WeightPlan:
    if model.config_json is None:
        raise ConfigError(
            f"this {type(model).__name__} was made from bare weights, which have no names that adapters could follow",
            mend="make the model with load or initialise",
        )
    return FAMILIES[json.loads(model.config_json)["model_type"]].plan_weights(model.config)


def _module(base: WeightPlan, target: str) -> str:
    """What PyTorch calls a linear map, such as "layers.{layer}.self_attn.q_proj"."""
    return base.tensors["layers"][target + KERNEL].name.removesuffix(".weight")


def _adapter_plan(base: WeightPlan, ranks: dict[str, int], model: LanguageModel) -> WeightPlan:
    maps = linear_maps(model)
    tensors: dict[str, Any] = {}
    for name, rank in ranks.items():
        inputs, outputs = maps[name]
        module = _module(base, name)
        tensors[name] = {
            "a": StoredTensor(f"{module}.lora_A.weight", (rank, inputs), transpose=True),
            "b": StoredTensor(f"{module}.lora_B.weight", (outputs, rank), transpose=True),
        }
    return WeightPlan(
        tensors=tensors,
        n_layers=base.n_layers,
        anchor=next(iter(tensors.values()))["a"].name.format(layer=0),
        prefixes=tuple(WRAPPER + prefix for prefix in base.prefixes),
        ignored=(),
        saved_prefix=WRAPPER + base.saved_prefix,
    )


def _target_modules(base: WeightPlan, targets: list[str]) -> list[str] | str:
    """The ends of the targets' names that are nobody else's; where that cannot be, a pattern of whole names."""
    modules = {
        name.removesuffix(KERNEL): _module(base, name.removesuffix(KERNEL))
        for name in base.tensors["layers"]
        if name.endswith(KERNEL)
    }
    ends = []
    for target in targets:
        words = modules[target].split("{layer}.")[-1].split(".")
        others = [module for name, module in modules.items() if name != target]
        candidates = (".".join(words[start:]) for start in reversed(range(len(words))))
        ends.append(next((end for end in candidates if not any(o.endswith(f".{end}") for o in others)), None))
    found = [end for end in ends if end is not None]
    if len(found) == len(ends):
        return found
    names = "|".join(re.escape(modules[target]).replace(re.escape("{layer}"), r"\d+") for target in targets)
    return rf"(.*\.)?({names})"
