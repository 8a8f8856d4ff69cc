"""Save a model back: as a Hugging Face checkpoint that PyTorch's transformers opens, or in Orbax's format.

Both write the config.json that the model was made from, so that nothing about it is lost, and appear under their name
only once they are whole.
"""

import json
import math
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgkd.errors import ConfigError
from jaxgkd.language.families import FAMILIES, LanguageModel, read_config
from jaxgkd.language.orbax_files import write_orbax
from jaxgkd.language.projection import is_quantised
from jaxgkd.language.safetensors_files import SINGLE_FILE
from jaxgkd.language.weight_plan import StoredTensor, WeightPlan, stored_names
from jaxgkd.whole_file import write_whole_folder

# Name, shape, dtype and a function that gives the values.
Tensor = tuple[str, tuple[int, ...], jnp.dtype, Callable[[], np.ndarray]]

SAFETENSORS_TYPES = {"float32": "F32", "bfloat16": "BF16"}


def save(model: LanguageModel, folder: str | PathLike[str]) -> None:
    """Write config.json and model.safetensors, under the names and in the layout of Hugging Face's transformers.

    Weights are written one after another: no second copy of the model is made. What was not read (heads, poolers, the
    decoder of T5) is not written. The tokenizer's files are the caller's to copy.

    Args:
      model: a model that ``load`` or ``initialise`` made, possibly trained since.
      folder: a new or empty folder.

    Raises:
      ConfigError: the model was made from weights alone, without a config.json, or is quantised; the folder is not
        empty; or the disk does not take it.
    """

    def write(scratch: Path) -> None:
        plan = _write_config(scratch, model)
        with (scratch / SINGLE_FILE).open("wb") as stream:
            write_safetensors(stream, list(stored_tensors(plan, model.weights())))

    write_whole_folder(Path(folder), write)


def save_orbax(model: LanguageModel, folder: str | PathLike[str]) -> None:
    """Write config.json and the stacked weights in Orbax's format, sharded as they are; ``load`` reads the folder.

    Args:
      model: a model that ``load`` or ``initialise`` made, possibly trained since.
      folder: a new or empty folder.

    Raises:
      ConfigError: the model was made from weights alone, without a config.json, or is quantised; the folder is not
        empty; or the disk does not take it.
    """

    def write(scratch: Path) -> None:
        _write_config(scratch, model)
        write_orbax(scratch, model.weights())

    write_whole_folder(Path(folder), write)


def write_safetensors(stream: BinaryIO, tensors: list[Tensor]) -> None:
    """Write a safetensors file, one tensor in memory at a time.

    Args:
      stream: where to.
      tensors: what to write, float32 or bfloat16.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape, dtype, _ in tensors:
        end = offset + math.prod(shape) * jnp.dtype(dtype).itemsize
        header[name] = {
            "dtype": SAFETENSORS_TYPES[jnp.dtype(dtype).name],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    written = json.dumps(header).encode()
    # The values begin on a multiple of 8 bytes.
    written += b" " * (-len(written) % 8)
    stream.write(len(written).to_bytes(8, "little") + written)
    for _, shape, dtype, values in tensors:
        stream.write(np.ascontiguousarray(values(), dtype).reshape(shape).view(np.uint8).data)


def _write_config(folder: Path, model: LanguageModel) -> WeightPlan:
    if model.config_json is None:
        raise ConfigError(
            f"this {type(model).__name__} was made from bare weights; a saved model begins with its config.json",
            mend="make the model with load or initialise",
        )
    if any(map(is_quantised, model.weights()["layers"].values())):
        raise ConfigError(
            "a quantised model is not saved: the rounding would be lost or repeated",
            mend="save the model it was made from, and adapters with save_adapters",
        )
    values = json.loads(model.config_json)
    family = FAMILIES[values["model_type"]]
    if family.architecture is not None:
        values["architectures"] = [family.architecture]
    dtype = next(array.dtype for group in model.weights().values() for array in group.values())
    # transformers 5 calls it dtype and reads both names, 4 called it torch_dtype.
    values["torch_dtype" if "torch_dtype" in values else "dtype"] = jnp.dtype(dtype).name
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    _, config = read_config(folder)
    if config != model.config:
        raise ConfigError(
            f"this {type(model).__name__} is no longer what its config.json describes",
            mend="save the model it was cut from",
        )
    plan = family.plan_weights(config)
    for group, arrays in model.weights().items():
        for name in sorted(arrays.keys() - plan.tensors[group].keys()):
            raise ConfigError(
                f"array {group}/{name} has no place in a checkpoint of this family",
                mend="merge adapters into the model first, or save them with save_adapters",
            )
    return plan


def stored_tensors(plan: WeightPlan, weights: dict[str, dict[str, Array]]) -> Iterator[Tensor]:
    """The tensors of a plan as they are stored, cut out of stacked weights ``{group: {parameter: array}}``."""
    for group, tensors in plan.tensors.items():
        for parameter, stored in tensors.items():
            if parameter not in weights[group] and stored.optional:
                continue
            stack = weights[group][parameter]
            prefix = plan.saved_prefix if stored.prefixed else ""
            for layer, name in enumerate(stored_names(stored, plan.n_layers)):
                yield prefix + name, stored.shape, stack.dtype, _reader(stored, stack, layer)


def _reader(stored: StoredTensor, stack: Array, layer: int) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        values = np.asarray(stack[layer] if "{layer}" in stored.name else stack)
        return values.swapaxes(-1, -2) if stored.transpose else values

    return read
