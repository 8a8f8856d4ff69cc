"""Read safetensors weights into stacked arrays, every tensor exactly once.

A family says in a ``WeightPlan`` which tensors its network is made of. Reading accounts for the whole file: a tensor
that is missing, unexpected or of another shape is an error that names it, and what is left unread (poolers and heads)
is left by name. Only safetensors are read; pickled weights can run code and are refused.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import Array
from safetensors import SafetensorError, safe_open

from jaxgkd.errors import CheckpointError
from jaxgkd.language.config import read_json

SINGLE_FILE = "model.safetensors"
SHARD_INDEX = "model.safetensors.index.json"

FLOAT_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class StoredTensor:
    """One parameter as the file stores it.

    Attributes:
      name: its name there, without the model's prefix; ``{layer}`` stands for the layer number.
      shape: its shape there.
      transpose: store the last two axes the other way round; PyTorch keeps linear layers as [out, in].
    """

    name: str
    shape: tuple[int, ...]
    transpose: bool = False


@dataclass(frozen=True)
class WeightPlan:
    """Which tensors make up a model.

    Attributes:
      tensors: ``{group: {parameter: StoredTensor}}``; in a group where names hold ``{layer}`` all of them do.
      n_layers: layers to stack.
      anchor: a tensor every checkpoint of the family has; it tells which prefix the file uses.
      prefixes: what may stand before every name, "" included.
      ignored: patterns (as in file names) of tensors that are no part of the model.
      renamed: old endings of names and today's.
    """

    tensors: Mapping[str, Mapping[str, StoredTensor]]
    n_layers: int
    anchor: str
    prefixes: tuple[str, ...]
    ignored: tuple[str, ...]
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its file, element type, shape and byte offset."""

    file: Path
    kind: str
    shape: tuple[int, ...]
    offset: int

    def read(self, name: str) -> np.ndarray:
        """Map the tensor's values from the file, without copying."""
        if self.kind not in FLOAT_TYPES:
            raise CheckpointError(
                f"tensor {name} is stored as {self.kind}",
                file=self.file,
                mend=f"use weights stored as one of {', '.join(FLOAT_TYPES)}",
            )
        dtype = np.dtype(FLOAT_TYPES[self.kind])
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, dtype)
        return np.memmap(self.file, dtype=dtype, mode="r", offset=self.offset, shape=self.shape)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder, in name order.

    Raises:
      CheckpointError: there are none, only pickled ones, or a shard is missing.
    """
    single, index = folder / SINGLE_FILE, folder / SHARD_INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        return [folder / name for name in sorted(set(_shard_of_tensor(folder).values()))]
    pickled = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickled:
        raise CheckpointError(
            f"the weights are only there as {pickled[0].name}, a pickle, which can run code and is not read",
            file=folder,
            mend="convert them where PyTorch is installed, with transformers: AutoModel.from_pretrained(folder)"
            ".save_pretrained(folder)",
        )
    raise CheckpointError(
        f"there is neither {SINGLE_FILE} nor {SHARD_INDEX}",
        file=folder,
        mend="give a folder that holds a whole Hugging Face checkpoint",
    )


def weights_hash(folder: str | Path) -> str:
    """SHA-256 of a checkpoint's weights, in hexadecimal.

    Of the file where there is one; of the shards' own hashes, in name order, where there are several.

    Raises:
      CheckpointError: as in ``weight_files``.
    """
    hashes = [file_hash(file) for file in weight_files(Path(folder))]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def file_hash(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_weights(folder: Path, plan: WeightPlan, dtype: jnp.dtype) -> dict[str, dict[str, Array]]:
    """Read a model's weights.

    Args:
      folder: a checkpoint folder.
      plan: which tensors to read.
      dtype: what to convert them to.

    Returns:
      ``{group: {parameter: array}}``, stacked over layers along a leading axis where names hold ``{layer}``.

    Raises:
      CheckpointError: a tensor is missing, unexpected or of another shape, or a file is damaged.
    """
    entries = _match(folder, plan, _list_tensors(folder))
    weights: dict[str, dict[str, Array]] = {}
    for group, tensors in plan.tensors.items():
        weights[group] = {}
        for parameter, stored in tensors.items():
            names = _names(stored, plan.n_layers)
            shape = stored.shape[:-2] + stored.shape[:-3:-1] if stored.transpose else stored.shape
            stacked = np.empty((len(names), *shape), dtype)
            for layer, name in enumerate(names):
                values = entries[name].read(name)
                stacked[layer] = values.swapaxes(-1, -2) if stored.transpose else values
            weights[group][parameter] = jnp.asarray(stacked if "{layer}" in stored.name else stacked[0])
    return weights


def _names(stored: StoredTensor, n_layers: int) -> list[str]:
    if "{layer}" not in stored.name:
        return [stored.name]
    return [stored.name.format(layer=layer) for layer in range(n_layers)]


def _shard_of_tensor(folder: Path) -> dict[str, str]:
    index = folder / SHARD_INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("the index lists no tensors", file=index, field="weight_map", mend="download it again")
    for name in set(weight_map.values()):
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{json.dumps(name)} is not the name of a safetensors file in the same folder",
                file=index,
                field="weight_map",
                mend="download the index again",
            )
        if not (folder / name).is_file():
            raise CheckpointError(f"shard {name} is missing", file=folder, mend="download it again")
    return weight_map


def _list_tensors(folder: Path) -> dict[str, Entry]:
    files = weight_files(folder)
    if [file.name for file in files] == [SINGLE_FILE]:
        return _read_header(files[0])
    shard_of_tensor = _shard_of_tensor(folder)
    entries: dict[str, Entry] = {}
    for file in files:
        header = _read_header(file)
        listed = {name for name, shard in shard_of_tensor.items() if shard == file.name}
        for name in sorted(listed ^ header.keys()):
            wrong = "lists a tensor the shard does not hold" if name in listed else "leaves out a tensor of the shard"
            raise CheckpointError(f"the index {wrong}: {name}", file=file, mend="download the checkpoint again")
        entries |= header
    return entries


def _read_header(file: Path) -> dict[str, Entry]:
    try:
        # Opening checks the header against the length of the file, so no offset below can point outside it.
        with safe_open(file, framework="numpy"):
            pass
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"the file is truncated or damaged ({error})", file=file, mend="download it again"
        ) from None
    header.pop("__metadata__", None)
    return {
        name: Entry(file, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
    }


def _match(folder: Path, plan: WeightPlan, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Give each tensor of the plan its entry, by the plan's names, and account for all others."""

    def today(name: str) -> str:
        for old, new in plan.renamed.items():
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name

    renamed: dict[str, str] = {}
    for name in entries:
        if today(name) in renamed:
            raise CheckpointError(
                f"tensors {renamed[today(name)]} and {name} are two names of one weight",
                file=folder,
                mend="use the checkpoint as it was released",
            )
        renamed[today(name)] = name

    used_prefixes = [prefix for prefix in plan.prefixes if prefix + plan.anchor in renamed]
    if len(used_prefixes) != 1:
        found = "missing" if not used_prefixes else f"there {len(used_prefixes)} times, with different prefixes"
        raise CheckpointError(
            f"tensor {plan.anchor} is {found}", file=folder, mend="use a checkpoint that holds one model of its family"
        )
    prefix = used_prefixes[0]

    matched: dict[str, Entry] = {}
    for tensors in plan.tensors.values():
        for stored in tensors.values():
            for name in _names(stored, plan.n_layers):
                if prefix + name not in renamed:
                    raise CheckpointError(
                        f"tensor {prefix + name} is missing", file=folder, mend="download the checkpoint again"
                    )
                entry = entries[renamed.pop(prefix + name)]
                if entry.shape != stored.shape:
                    raise CheckpointError(
                        f"tensor {prefix + name} has shape {list(entry.shape)} where config.json asks for "
                        f"{list(stored.shape)}",
                        file=entry.file,
                        mend="use the config.json that belongs to these weights",
                    )
                matched[name] = entry
    for name, written in sorted(renamed.items()):
        if not any(fnmatchcase(name.removeprefix(prefix), pattern) for pattern in plan.ignored):
            raise CheckpointError(
                f"tensor {written} is not part of the model that config.json describes",
                file=folder,
                mend="use the config.json that belongs to these weights",
            )
    return matched
