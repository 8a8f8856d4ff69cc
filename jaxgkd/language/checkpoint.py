"""Read weights into stacked arrays at their final place, every tensor exactly once.

A family says in a ``WeightPlan`` which tensors its network is made of, and every tensor of the checkpoint is accounted
for. Safetensors, Flax's msgpack and Orbax folders are read; pickled weights can run code and are refused.

Each stacked array is put together in host memory in its final dtype, or only the part of it that a device is to hold,
and handed over before the next one is begun: beside the model there is never more in memory than one array of it.
"""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgkd.errors import CheckpointError
from jaxgkd.language.flax_files import FLAX_FILE, flax_files, held_tensors
from jaxgkd.language.orbax_files import orbax_files, read_orbax
from jaxgkd.language.placement import Bounds, Placement, aligned_empty, place
from jaxgkd.language.safetensors_files import SHARD_INDEX, SINGLE_FILE, mapped_tensors, safetensors_files
from jaxgkd.language.weight_plan import (
    StoredTensor,
    TensorEntry,
    WeightPlan,
    match_entries,
    stacked_shape,
    stored_names,
)

# Columns turned at a time.
_BAND = 128


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights, in name order: safetensors, else Orbax's, else Flax's msgpack.

    Raises:
      CheckpointError: there are none, only pickled ones, or a shard is missing.
    """
    files = safetensors_files(folder) or orbax_files(folder) or flax_files(folder)
    if files:
        return files
    pickled = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickled:
        raise CheckpointError(
            f"the weights are only there as {pickled[0].name}, a pickle, which can run code and is not read",
            file=folder,
            mend="convert them where PyTorch is installed, with transformers: AutoModel.from_pretrained(folder)"
            ".save_pretrained(folder)",
        )
    raise CheckpointError(
        f"there is neither {SINGLE_FILE} nor {SHARD_INDEX}, nor {FLAX_FILE}",
        file=folder,
        mend="give a folder that holds a whole Hugging Face checkpoint",
    )


def weights_hash(folder: str | Path) -> str:
    """SHA-256 of a checkpoint's weights and of ``config.json``, which says what network they make, in hexadecimal.

    Of the files' own hashes: those of the weights in name order, that of the configuration last.

    Raises:
      CheckpointError: as in ``weight_files``.
    """
    files = weight_files(Path(folder))
    if (config := Path(folder) / "config.json").is_file():
        files = [*files, config]
    return hashlib.sha256("\n".join(map(file_hash, files)).encode()).hexdigest()


def file_hash(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_weights(
    folder: Path, plan: WeightPlan, dtype: jnp.dtype, placement: Placement | None = None
) -> dict[str, dict[str, Array]]:
    """Read a model's weights.

    Args:
      folder: a checkpoint folder.
      plan: which tensors to read.
      dtype: what to convert them to.
      placement: where each array goes, see ``Placement``; None for the default device. A device's part is read from
        the file for that device alone.

    Returns:
      ``{group: {parameter: array}}``, stacked over layers along a leading axis where names hold ``{layer}``.

    Raises:
      CheckpointError: a tensor is missing, unexpected or of another shape, or a file is damaged.
    """
    files = weight_files(folder)
    if files == orbax_files(folder):
        return read_orbax(folder, plan, dtype, placement)
    tensors = held_tensors(files) if files[0].suffix == ".msgpack" else mapped_tensors(files)
    return stack_tensors(folder, plan, tensors, dtype, placement)


def stack_tensors(
    folder: Path,
    plan: WeightPlan,
    tensors: Mapping[str, TensorEntry],
    dtype: jnp.dtype,
    placement: Placement | None = None,
) -> dict[str, dict[str, Array]]:
    """Stack the tensors of a plan; as ``read_weights``, from ``tensors`` by the names they are stored under."""
    entries = match_entries(folder, plan, tensors)
    weights: dict[str, dict[str, Array]] = {group: {} for group in plan.tensors}
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for group, parameters in plan.tensors.items():
            for parameter, stored in parameters.items():
                names = stored_names(stored, plan.n_layers)
                if names[0] in entries:
                    source = _Source([(name, entries[name]) for name in names], stored, np.dtype(dtype), pool)
                    weights[group][parameter] = place(f"{group}/{parameter}", source.shape, source.read, placement)
    return weights


class _Source:
    """The tensors of one parameter, stacked, turned and converted while they are copied out of their files."""

    def __init__(
        self, entries: list[tuple[str, TensorEntry]], stored: StoredTensor, dtype: np.dtype, pool: ThreadPoolExecutor
    ):
        self.entries, self.transpose, self.dtype, self.pool = entries, stored.transpose, dtype, pool
        self.stacked = "{layer}" in stored.name
        self.shape = stacked_shape(stored, len(entries))

    def read(self, bounds: Bounds) -> np.ndarray:
        """The part of the parameter between ``bounds``, in its final dtype."""
        result = aligned_empty(tuple(stop - start for start, stop in bounds), self.dtype)
        if not self.stacked:
            name, entry = self.entries[0]
            self._copy(result, name, entry, bounds)
            return result
        (first, last), *inner = bounds

        def copy_layer(row: int) -> None:
            name, entry = self.entries[first + row]
            self._copy(result[row], name, entry, tuple(inner))

        # Iterated over, so that an error in a thread is raised here.
        for _ in self.pool.map(copy_layer, range(last - first)):
            pass
        return result

    def _copy(self, target: np.ndarray, name: str, entry: TensorEntry, bounds: Bounds) -> None:
        values = entry.read(name)
        if self.transpose:
            values = values.swapaxes(-1, -2)
        values = values[tuple(slice(*pair) for pair in bounds)]
        if values.dtype == target.dtype:
            # Copied as whole numbers of the same size: numpy lets other threads run for these types alone.
            raw = np.dtype(f"u{target.dtype.itemsize}")
            values, target = values.view(raw), target.view(raw)
        if not self.transpose:
            target[...] = values
            return
        # In bands: turned as a whole, a large matrix would be fetched into the cache once for every column.
        for start in range(0, target.shape[-1], _BAND):
            band = (..., slice(start, start + _BAND))
            target[band] = values[band]
