"""Which tensors a model is made of, and the accounting that finds each of them in a checkpoint, exactly once.

A tensor that is missing, unexpected or of another shape is an error that names it, and what is left unread (poolers
and heads) is left by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import numpy as np

from jaxgkd.errors import CheckpointError


@dataclass(frozen=True)
class StoredTensor:
    """One parameter as the file stores it.

    Attributes:
      name: its name there, without the model's prefix; ``{layer}`` stands for the layer number.
      shape: its shape there.
      transpose: store the last two axes the other way round; PyTorch keeps linear layers as [out, in].
      prefixed: the name follows the model's prefix; heads stand beside the model and do not.
      optional: the checkpoint may do without it, as one that was saved without its head; the parameter is left out.
    """

    name: str
    shape: tuple[int, ...]
    transpose: bool = False
    prefixed: bool = True
    optional: bool = False


@dataclass(frozen=True)
class WeightPlan:
    """Which tensors make up a model.

    Attributes:
      tensors: ``{group: {parameter: StoredTensor}}``; a parameter whose name holds ``{layer}`` is stacked over layers.
      n_layers: layers to stack.
      anchor: a tensor every checkpoint of the family has; it tells which prefix the file uses.
      prefixes: what may stand before every name, "" included.
      ignored: patterns (as in file names) of tensors that are no part of the model.
      renamed: old endings of names and today's.
      tied: other names, with their prefix or without, under which a checkpoint may keep a tensor of the plan a second
        time or instead (tied embeddings). Where both are there they must be equal.
      saved_prefix: what stands before the names when the model is saved.
    """

    tensors: Mapping[str, Mapping[str, StoredTensor]]
    n_layers: int
    anchor: str
    prefixes: tuple[str, ...]
    ignored: tuple[str, ...]
    renamed: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    saved_prefix: str = ""


class TensorEntry(Protocol):
    """A tensor that lies in a file."""

    @property
    def file(self) -> Path:
        """Where it lies."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape there."""
        ...

    def read(self, name: str) -> np.ndarray:
        """Its values; ``name`` is for errors."""
        ...


def stored_names(stored: StoredTensor, n_layers: int) -> list[str]:
    """The names of the tensors that one parameter is stacked from, without prefix."""
    if "{layer}" not in stored.name:
        return [stored.name]
    return [stored.name.format(layer=layer) for layer in range(n_layers)]


def stacked_shape(stored: StoredTensor, n_layers: int) -> tuple[int, ...]:
    """The shape of the array that one parameter becomes."""
    shape = stored.shape[:-2] + stored.shape[:-3:-1] if stored.transpose else stored.shape
    return (n_layers, *shape) if "{layer}" in stored.name else shape


def match_entries(folder: Path, plan: WeightPlan, entries: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """Give each tensor of the plan its entry and account for all others.

    Args:
      folder: where the checkpoint lies, for errors.
      plan: the tensors wanted.
      entries: the tensors there are, by the names they are stored under.

    Returns:
      The entries by the plan's names; optional tensors that are not there are left out.

    Raises:
      CheckpointError: a tensor is missing, unexpected, there twice or of another shape.
    """

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

    prefix = _prefix(folder, plan, renamed)
    _settle_ties(plan, prefix, entries, renamed)

    matched: dict[str, TensorEntry] = {}
    for tensors in plan.tensors.values():
        for stored in tensors.values():
            for name in stored_names(stored, plan.n_layers):
                written = prefix + name if stored.prefixed else name
                if written not in renamed:
                    if stored.optional:
                        continue
                    raise CheckpointError(
                        f"tensor {written} is missing", file=folder, mend="download the checkpoint again"
                    )
                entry = entries[renamed.pop(written)]
                if entry.shape != stored.shape:
                    raise CheckpointError(
                        f"tensor {written} has shape {list(entry.shape)} where the configuration asks for "
                        f"{list(stored.shape)}",
                        file=entry.file,
                        mend="use the configuration that belongs to these weights",
                    )
                matched[name] = entry
    for name, written in sorted(renamed.items()):
        if not any(fnmatchcase(name.removeprefix(prefix), pattern) for pattern in plan.ignored):
            raise CheckpointError(
                f"tensor {written} is not part of the model that the configuration describes",
                file=folder,
                mend="use the config.json that belongs to these weights",
            )
    return matched


def _prefix(folder: Path, plan: WeightPlan, names: Mapping[str, str]) -> str:
    used = [prefix for prefix in plan.prefixes if prefix + plan.anchor in names]
    if not used and plan.anchor in plan.tied.values():
        # Only its copy may be there, which stands outside of the model: any layer tells as well.
        stacked = (
            stored for tensors in plan.tensors.values() for stored in tensors.values() if "{layer}" in stored.name
        )
        layer = next(stacked).name.format(layer=0)
        used = [prefix for prefix in plan.prefixes if prefix + layer in names]
    if len(used) != 1:
        found = "missing" if not used else f"there {len(used)} times, with different prefixes"
        raise CheckpointError(
            f"tensor {plan.anchor} is {found}", file=folder, mend="use a checkpoint that holds one model of its family"
        )
    return used[0]


def _settle_ties(plan: WeightPlan, prefix: str, entries: Mapping[str, TensorEntry], names: dict[str, str]) -> None:
    """Take tied copies out of ``names`` (today's name to the stored one), after a look at whether they are copies."""
    for other, name in plan.tied.items():
        for copy in dict.fromkeys((other, prefix + other)):
            if copy not in names:
                continue
            written = names.pop(copy)
            kept = names.setdefault(prefix + name, written)
            if kept == written:
                continue
            first, second = entries[kept], entries[written]
            if first.shape != second.shape or not np.array_equal(
                np.asarray(first.read(kept)), np.asarray(second.read(written))
            ):
                raise CheckpointError(
                    f"tensors {kept} and {written} are one weight in this model, but they differ",
                    file=second.file,
                    mend="use the config.json that belongs to these weights",
                )
