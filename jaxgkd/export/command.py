"""``jaxgkd export``: its flags, and the folder it writes.

jaxgkd export runs/lingugkd-my-graph --out student
"""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console
from safetensors.numpy import save as save_tensors

from jaxgkd import exported
from jaxgkd.errors import ConfigError
from jaxgkd.export.program import PLATFORMS, Program, described, lower
from jaxgkd.training.student_folder import KeptStudent, read_student

_LOADER = "load_exported.py"


@dataclass(frozen=True)
class Export:
    """Write the distilled student of a finished run as a program that runs without jaxgkd.

    The folder holds weights as safetensors, the computation as StableHLO for CPU, CUDA and TPU with symbolic sizes, a
    manifest of what goes in and comes out, and a loader that needs jax and numpy.
    """

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    out: Path
    """Folder to make."""
    student: Literal["student", "text_student"] = "student"
    """Which of a run's students: the distilled one, or, of `lmgnn` on classes of nodes, the language model that has
    learned from the graph network and reads a node's text alone."""
    member: int | None = None
    """Member to export, by its position in student.json; by default those that predict: the one that validated
    best, or the mean of its ensemble."""
    overwrite: bool = False
    """Replace --out where it is an earlier export."""


def run(config: Export, console: Console) -> Path:
    """Lower the student and write the folder, whole or not at all.

    Raises:
      JaxgkdError: the run cannot be read, its student cannot be exported, or the folder cannot be written.
    """
    _check_out(config)
    kept = read_student(config.run, config.student)
    members = list(kept.chosen) if config.member is None else [config.member]
    if not 0 <= members[0] < len(kept.members):
        mend = f"give 0 to {len(kept.members) - 1}"
        raise ConfigError(f"the run has {len(kept.members)} members", field="--member", mend=mend)
    program = _program(kept)
    weights = kept.of_members(members)
    weights |= {name: np.broadcast_to(leaf, (len(members), *leaf.shape)) for name, leaf in program.beside.items()}
    weights = {name: np.ascontiguousarray(leaf, np.float32) for name, leaf in weights.items()}
    lowered = lower(program, weights)
    files = {
        **kept.files,
        **program.files,
        "weights.safetensors": save_tensors(weights),
        "program.jax": bytes(_serialized(lowered)),
        "program.mlir": lowered.mlir_module_serialized,
        _LOADER: Path(exported.__file__).read_bytes(),
    }
    manifest = {
        "format": 1,
        "recipe": kept.recipe,
        "members": [dict(kept.members[member]) for member in members],
        "platforms": list(PLATFORMS),
        "inputs": described(program.inputs),
        "output": {"shape": list(program.output), "dtype": "float32", "about": program.about},
        "says": dict(kept.says),
        "reads": dict(kept.reads),
        "versions": {name: metadata.version(name) for name in ("jaxgkd", "jax", "jaxlib")},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    files["manifest.json"] = (json.dumps(manifest, indent=2) + "\n").encode()
    _write(config.out, files)
    size = sum(map(len, files.values()))
    console.print(f"{len(weights)} arrays and a program for {', '.join(PLATFORMS)}: {size / 2**20:.1f} MiB")
    console.print(f"exported: {config.out}", soft_wrap=True, highlight=False, markup=False)
    return config.out


def _program(kept: KeptStudent) -> Program:
    if kept.reads["data"] == "molecules":
        from jaxgkd.export.molecules import molecule_program

        return molecule_program(kept)
    if kept.reads["data"] == "brains":
        from jaxgkd.export.brains import brain_program

        return brain_program(kept)
    if kept.reads["data"] == "typed graph":
        from jaxgkd.export.hetero import hetero_program

        return hetero_program(kept)
    from jaxgkd.export.nodes import node_program

    return node_program(kept)


def _serialized(lowered):
    try:
        return lowered.serialize()
    except ImportError as error:
        what = "jax writes programs with the package flatbuffers, which is not installed"
        raise ConfigError(what, mend="pip install flatbuffers") from error


def _check_out(config: Export) -> None:
    out = config.out
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError("is a file or a link", file=out, field="--out", mend="give the name of a folder")
    if out.is_dir() and any(out.iterdir()):
        if not config.overwrite:
            raise ConfigError("the folder is not empty", file=out, mend="choose another --out, or add --overwrite")
        if not _is_export(out):
            raise ConfigError("the folder is no earlier export", file=out, mend="choose another --out")


def _is_export(folder: Path) -> bool:
    """Whether a folder holds what an export wrote, and nothing else."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        listed = {"manifest.json", *manifest["sha256"]}
        return "recipe" in manifest and {each.name for each in folder.iterdir()} <= listed
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _write(out: Path, files: dict[str, bytes]) -> None:
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as scratch:
            whole = Path(scratch) / "whole"
            whole.mkdir()
            for name, content in files.items():
                (whole / name).write_bytes(content)
            if out.exists():
                os.rename(out, Path(scratch) / "before")
            os.rename(whole, out)
    except OSError as error:
        what = f"the folder cannot be written ({error.strerror})"
        raise ConfigError(what, file=out, mend="choose another --out") from error
