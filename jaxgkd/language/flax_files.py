"""Checkpoints that transformers saved from its Flax models: ``flax_model.msgpack``, one file or shards with an index.

Flax and PyTorch agree on the modules of these families and not on what their weights are called: Flax has ``kernel``,
turned the other way, ``embedding`` and ``scale`` where PyTorch has ``weight``. Under PyTorch's names the tensors are
accounted for like those of any other checkpoint. MessagePack holds numbers and text only, no code.

Unlike safetensors, the format has no table of contents: a file is held in memory while its tensors are handed over.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax.serialization import msgpack_restore

from jaxgkd.errors import CheckpointError
from jaxgkd.language.config import read_json
from jaxgkd.language.safetensors_files import FLOAT_TYPES

FLAX_FILE = "flax_model.msgpack"
FLAX_INDEX = "flax_model.msgpack.index.json"

PYTORCH_NAMES = {"kernel": "weight", "embedding": "weight", "scale": "weight"}


@dataclass(frozen=True)
class HeldTensor:
    """A tensor in memory, as PyTorch would have stored it."""

    file: Path
    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in PyTorch."""
        return self.values.shape

    def read(self, name: str) -> np.ndarray:
        """Its values, without copying."""
        if self.values.dtype not in map(np.dtype, FLOAT_TYPES.values()):
            raise CheckpointError(
                f"tensor {name} is stored as {self.values.dtype}",
                file=self.file,
                mend="use weights stored as floating-point numbers",
            )
        return self.values


def flax_files(folder: Path) -> list[Path]:
    """The msgpack files of a checkpoint folder, in name order; none where it holds no such checkpoint.

    Raises:
      CheckpointError: the index cannot be used or a shard is missing.
    """
    if (folder / FLAX_FILE).is_file():
        return [folder / FLAX_FILE]
    index = folder / FLAX_INDEX
    if not index.is_file():
        return []
    names = _shard_of_tensor(index).values()
    for name in sorted(set(names)):
        if not (folder / name).is_file():
            raise CheckpointError(f"shard {name} is missing", file=folder, mend="download it again")
    return [folder / name for name in sorted(set(names))]


def held_tensors(files: list[Path]) -> dict[str, HeldTensor]:
    """Every tensor of the files that ``flax_files`` found, by its name in PyTorch.

    Raises:
      CheckpointError: a file is truncated or damaged, or index and shards do not fit together.
    """
    tensors: dict[str, HeldTensor] = {}
    paths: dict[str, Path] = {}
    for file in files:
        for path, values in _leaves(file, _restore(file), ()):
            name = _pytorch_name(path)
            if name in tensors:
                raise CheckpointError(
                    f"tensor {'/'.join(path)} is there twice", file=file, mend="download the checkpoint again"
                )
            tensors[name] = HeldTensor(file, values.T if path[-1] == "kernel" else values)
            paths["/".join(path)] = file
    if [file.name for file in files] != [FLAX_FILE]:
        listed = _shard_of_tensor(files[0].parent / FLAX_INDEX)
        for path in sorted(listed.keys() | paths.keys()):
            if path not in paths or listed.get(path) != paths[path].name:
                raise CheckpointError(
                    f"index and shards do not agree on where tensor {path} is",
                    file=files[0].parent / FLAX_INDEX,
                    mend="download the checkpoint again",
                )
    return tensors


def _shard_of_tensor(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    named = isinstance(weight_map, dict) and all(
        isinstance(name, str) and Path(name).name == name and name.endswith(".msgpack") for name in weight_map.values()
    )
    if not isinstance(weight_map, dict) or not weight_map or not named:
        raise CheckpointError(
            "the index does not say in which msgpack file of this folder each tensor is",
            file=index,
            field="weight_map",
            mend="download it again",
        )
    return weight_map


def _restore(file: Path) -> Mapping[str, Any]:
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            tree = msgpack_restore(mapped)  # type: ignore[arg-type]
    # Whatever the parser trips over, whichever library it is in, the file is what is wrong.
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise CheckpointError(
            f"the file is truncated or damaged ({reason})", file=file, mend="download it again"
        ) from None
    if isinstance(tree, dict) and set(tree) == {"params"}:
        tree = tree["params"]
    if not isinstance(tree, dict):
        raise CheckpointError("the file holds no tree of weights", file=file, mend="download it again")
    return tree


def _leaves(
    file: Path, tree: Mapping[str, Any], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    for name, value in tree.items():
        path = (*above, str(name))
        if isinstance(value, dict):
            yield from _leaves(file, value, path)
        elif isinstance(value, np.ndarray):
            yield path, value
        else:
            raise CheckpointError(
                f"{'/'.join(path)} is no array but {type(value).__name__}", file=file, mend="download it again"
            )


def _pytorch_name(path: tuple[str, ...]) -> str:
    return ".".join((*path[:-1], PYTORCH_NAMES.get(path[-1], path[-1])))
