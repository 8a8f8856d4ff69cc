"""The safetensors files of a checkpoint: one, or shards with an index, opened without reading what they hold.

Every way in which a download can be broken off or mixed up is found here, from the headers alone: a shard that is
missing or left over, a tensor that the index and the shard do not agree on, a tensor in two shards, a file that ends
early. The values are mapped from disk when they are asked for.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxgkd.errors import CheckpointError
from jaxgkd.language.config import read_json

SINGLE_FILE = "model.safetensors"
SHARD_INDEX = "model.safetensors.index.json"

FLOAT_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}

_SHARD_NAME = re.compile(r"model-\d+-of-\d+\.safetensors")


@dataclass(frozen=True)
class MappedTensor:
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


def safetensors_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder, in name order; none where it holds no such checkpoint.

    Raises:
      CheckpointError: the index cannot be used, a shard is missing, or one lies there that the index does not list.
    """
    single, index = folder / SINGLE_FILE, folder / SHARD_INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    listed = set(_shard_of_tensor(index).values())
    for name in sorted(listed):
        if not (folder / name).is_file():
            raise CheckpointError(f"shard {name} is missing", file=folder, mend="download it again")
    for file in sorted(folder.glob("*.safetensors")):
        if file.name not in listed and _SHARD_NAME.fullmatch(file.name):
            raise CheckpointError(
                "the index does not list this shard",
                file=file,
                mend="delete it if it is left over from another checkpoint, or download the index again",
            )
    return [folder / name for name in sorted(listed)]


def mapped_tensors(files: list[Path]) -> dict[str, MappedTensor]:
    """Every tensor of the files that ``safetensors_files`` found, by name.

    Raises:
      CheckpointError: a file is truncated or damaged, or index and shards do not fit together.
    """
    if [file.name for file in files] == [SINGLE_FILE]:
        return read_header(files[0])
    shard_of_tensor = _shard_of_tensor(files[0].parent / SHARD_INDEX)
    tensors: dict[str, MappedTensor] = {}
    for file in files:
        header = read_header(file)
        for name in sorted(header.keys() & tensors.keys()):
            raise CheckpointError(
                f"tensor {name} is in shard {tensors[name].file.name} too",
                file=file,
                mend="download the checkpoint again",
            )
        listed = {name for name, shard in shard_of_tensor.items() if shard == file.name}
        for name in sorted(listed ^ header.keys()):
            wrong = "lists a tensor the shard does not hold" if name in listed else "leaves out a tensor of the shard"
            raise CheckpointError(f"the index {wrong}: {name}", file=file, mend="download the checkpoint again")
        tensors |= header
    return tensors


def _shard_of_tensor(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("the index lists no tensors", file=index, field="weight_map", mend="download it again")
    for name in set(map(json.dumps, weight_map.values())):
        shard = json.loads(name)
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"{name} is not the name of a safetensors file in the same folder",
                file=index,
                field="weight_map",
                mend="download the index again",
            )
    return weight_map


def read_header(file: Path) -> dict[str, MappedTensor]:
    """Every tensor of one safetensors file, by name.

    Raises:
      CheckpointError: the file is truncated or damaged.
    """
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
        name: MappedTensor(file, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
    }
