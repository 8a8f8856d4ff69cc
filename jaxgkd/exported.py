"""Loads and runs what ``jaxgkd export`` wrote; needs only jax (with the package flatbuffers) and numpy.

    from jaxgkd.exported import load          # or, where jaxgkd is not installed, from the copy in the folder
    student = load("exported")
    answers = student(indptr=..., indices=..., data=..., senders=..., receivers=...)

The folder is plain: ``manifest.json`` says what goes in and comes out, ``weights.safetensors`` holds the weights by
name, ``program.jax`` the computation as StableHLO with symbolic sizes, in the form of `jax.export` and compiled for
CPU, CUDA and TPU, ``program.mlir`` the same as portable StableHLO bytecode for other compilers.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

_DTYPES = {"F32": "<f4", "I32": "<i4", "F16": "<f2"}


@dataclass(frozen=True, eq=False)
class ExportedStudent:
    """A student to be called.

    Fields:
      manifest: what ``manifest.json`` says.
      weights: name → array; may be exchanged for others of the same shapes.
      folder: where further files lie, such as the vocabulary.
    """

    manifest: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]
    folder: Path
    _call: Any

    def __call__(self, **inputs: Any) -> np.ndarray:
        """What the student says; ``inputs`` by the names of the manifest, of any sizes that fit together.

        Raises:
          ValueError: an input is missing, not known, or of another number of axes.
        """
        wanted = self.manifest["inputs"]
        if odd := sorted(inputs.keys() ^ wanted.keys()):
            raise ValueError(f"the inputs are {', '.join(wanted)}; '{odd[0]}' is missing or not one of them")
        arrays = {}
        for name, spec in wanted.items():
            array = np.asarray(inputs[name], spec["dtype"])
            if array.ndim != len(spec["shape"]):
                raise ValueError(f"'{name}' is [{', '.join(map(str, spec['shape']))}], not {array.shape}")
            arrays[name] = array
        return np.asarray(self._call(dict(self.weights), arrays))


def load(folder: str | Path) -> ExportedStudent:
    """Read an exported student.

    Raises:
      ValueError: a file is damaged; it is named.
      OSError: a file is missing.
      ImportError: flatbuffers, which jax reads programs with, is not installed.
    """
    folder = Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name, digest in manifest["sha256"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{folder / name}: the file is damaged; export the run again")
    program = export.deserialize(bytearray((folder / "program.jax").read_bytes()))
    return ExportedStudent(manifest, read_safetensors(folder / "weights.safetensors"), folder, jax.jit(program.call))


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file: eight bytes of length, a JSON header with places, and the numbers."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        numbers = np.frombuffer(content[start + first : start + last], _DTYPES[entry["dtype"]])
        arrays[name] = numbers.reshape(entry["shape"])
    return arrays
