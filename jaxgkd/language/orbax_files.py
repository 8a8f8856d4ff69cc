"""Checkpoints in Orbax's format: the stacked arrays themselves, written and read in parallel, sharded or not.

For models that jaxgkd is to read again, on one device or on another mesh; what other libraries read is written by
``saving.save``. Beside Orbax's files lies a list of their checksums: Orbax reads damaged numbers without a word.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxgkd.errors import CheckpointError
from jaxgkd.language.config import read_json
from jaxgkd.language.placement import Placement, sharding_of
from jaxgkd.language.weight_plan import WeightPlan, stacked_shape

ORBAX_FOLDER = "orbax"
CHECKSUMS = "orbax_checksums.json"

MEND = "delete the folder and save the model again"


def orbax_files(folder: Path) -> list[Path]:
    """All files of the Orbax checkpoint in a model's folder, in path order; none where there is no such checkpoint."""
    return sorted(file for file in (folder / ORBAX_FOLDER).rglob("*") if file.is_file())


def write_orbax(folder: Path, weights: Mapping[str, Mapping[str, Array]]) -> None:
    """Write stacked weights, ``{group: {parameter: array}}``, into an existing folder, and their checksums."""
    filled = {group: dict(arrays) for group, arrays in weights.items() if arrays}
    _orbax().save(os.fspath((folder / ORBAX_FOLDER).absolute()), filled)
    (folder / CHECKSUMS).write_text(json.dumps(_checksums(folder), indent=2) + "\n")


def read_orbax(
    folder: Path, plan: WeightPlan, dtype: jnp.dtype, placement: Placement | None
) -> dict[str, dict[str, Array]]:
    """Read what ``write_orbax`` wrote; arguments and result as in ``checkpoint.read_weights``.

    Raises:
      CheckpointError: an array is missing, unexpected or of another shape, or the files are damaged.
    """
    if damaged := sorted(_checksums(folder).items() ^ read_json(folder / CHECKSUMS).items()):
        raise CheckpointError("the file is missing, unexpected or damaged", file=folder / damaged[0][0], mend=MEND)
    path = os.fspath((folder / ORBAX_FOLDER).absolute())
    try:
        stored = _flat(_orbax().metadata(path).metadata)
        wanted = _wanted(folder, plan, stored)
        # Handed to Orbax with its place and dtype, each array is read straight to there.
        abstract = {
            group: {
                name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding_of(f"{group}/{name}", shape, placement))
                for name, shape in arrays.items()
            }
            for group, arrays in wanted.items()
        }
        read = _orbax().load(path, {group: arrays for group, arrays in abstract.items() if arrays})
    except (ValueError, TypeError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise CheckpointError(f"the checkpoint cannot be read ({reason})", file=folder, mend=MEND) from error
    return {group: dict(read.get(group, {})) for group in plan.tensors}


def _wanted(
    folder: Path, plan: WeightPlan, stored: dict[tuple[str, str], tuple[int, ...]]
) -> dict[str, dict[str, tuple[int, ...]]]:
    wanted: dict[str, dict[str, tuple[int, ...]]] = {group: {} for group in plan.tensors}
    for group, tensors in plan.tensors.items():
        for name, tensor in tensors.items():
            shape, found = stacked_shape(tensor, plan.n_layers), stored.pop((group, name), None)
            if found is None and tensor.optional:
                continue
            if found != shape:
                what = "is missing" if found is None else f"has shape {list(found)}"
                raise CheckpointError(
                    f"array {group}/{name} {what} where config.json asks for {list(shape)}",
                    file=folder,
                    mend="use the config.json that was saved with these weights",
                )
            wanted[group][name] = shape
    for group, name in stored:
        raise CheckpointError(
            f"array {group}/{name} is not part of the model that config.json describes",
            file=folder,
            mend="use the config.json that was saved with these weights",
        )
    return wanted


def _flat(tree: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], tuple[int, ...]]:
    return {(group, name): tuple(leaf.shape) for group, arrays in tree.items() for name, leaf in arrays.items()}


def _checksums(folder: Path) -> dict[str, str]:
    digests = {}
    for file in orbax_files(folder):
        with file.open("rb") as stream:
            digests[file.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def _orbax() -> Any:
    # Imported on first use: Orbax takes a second to load, and says more on every save than anyone reads.
    from orbax.checkpoint import v1

    logging.getLogger("absl").setLevel(logging.ERROR)
    return v1
