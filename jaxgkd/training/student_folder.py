"""What a finished run keeps of its student: ``RUN/student``, all that prediction and export read.

    student.json           format, recipe, what it reads and says, sizes of the network, its members and the chosen ones
    weights.safetensors    name → [members, ...], one member a seed, fold or part of an ensemble
    checksums.json         SHA-256 of the others, and of what the student reads beside, such as vocabulary.json

A run that leaves a second student keeps it in the same form in ``RUN/text_student``.
Nothing in either is pickled, and nothing is left of the teacher. Members differ in seed and split. Which one is chosen
rests on its score on its own validation part, never on the test; these parts differ, so the choice is a noisy one.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from jaxgkd import processes
from jaxgkd.errors import CheckpointError, ConfigError
from jaxgkd.training.checkpoint import CHECKSUMS, checksums
from jaxgkd.whole_file import write_whole

FOLDER = "student"
#: Of a run that leaves a second one, which reads texts alone.
TEXT_FOLDER = "text_student"
_FORMAT = 1
_JSON, _WEIGHTS = "student.json", "weights.safetensors"


@dataclass(frozen=True, eq=False)
class KeptStudent:
    """A trained student without what it was trained on.

    Fields:
      recipe: of the run.
      reads: what goes in, as JSON values: kind of data, columns, widths, files by name.
      model: sizes of the network.
      says: what comes out: ``kind`` is ``classes`` with ``names``, or ``values`` or ``binary`` with ``tasks``.
      members: of every member its ``seed`` (and ``fold``) and its validation score ``valid``.
      chosen: positions of the members that predict unless all do; why: in words.
      weights: name → [members, ...].
      files: name → content of what it reads besides.
    """

    recipe: str
    reads: Mapping[str, Any]
    model: Mapping[str, Any]
    says: Mapping[str, Any]
    members: Sequence[Mapping[str, Any]]
    chosen: Sequence[int]
    why: str
    weights: Mapping[str, np.ndarray]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def of_members(self, which: Sequence[int]) -> dict[str, np.ndarray]:
        """Weights of some members: name → [members, ...]."""
        return {name: leaf[list(which)] for name, leaf in self.weights.items()}


def write_student(run: Path, kept: KeptStudent, folder: str = FOLDER) -> None:
    """Write ``run/folder``, whole or not at all, in the place of one that is there; of several processes the leader.

    Raises:
      CheckpointError: the disk does not take it.
    """
    if not processes.leading():
        return
    described = {name: value for name, value in asdict(kept).items() if name not in ("weights", "files")}
    described = {"format": _FORMAT, **described}
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in kept.weights.items()}
    try:
        with tempfile.TemporaryDirectory(dir=run, prefix=f".{folder}.") as scratch:
            whole = Path(scratch) / folder
            whole.mkdir()
            for name, content in kept.files.items():
                write_whole(whole / name, content)
            write_whole(whole / _WEIGHTS, save_tensors(tensors))
            write_whole(whole / _JSON, (json.dumps(described, indent=2) + "\n").encode())
            write_whole(whole / CHECKSUMS, (json.dumps(checksums(whole), indent=2) + "\n").encode())
            if (run / folder).exists():
                shutil.rmtree(run / folder)
            os.rename(whole, run / folder)
    except OSError as error:
        mend = "free space there and run again with --resume"
        raise CheckpointError(f"the student cannot be written ({error.strerror})", file=run, mend=mend) from error


def read_student(run: Path, name: str = FOLDER) -> KeptStudent:
    """Read what `write_student` wrote into ``run/name``.

    Raises:
      ConfigError: the folder is no finished run, or one that keeps no such student.
      CheckpointError: a file is missing or damaged; it is named.
    """
    folder = run / name
    _check_run(run)
    if name != FOLDER and not folder.is_dir():
        mend = "leave --student out, or run lmgnn on classes of nodes with the stage student"
        raise ConfigError(f"the run leaves no {name}", file=run, field="--student", mend=mend)
    mend = f"copy the folder again, or delete it and {run / 'summary.json'} and run again with --resume"
    try:
        found = checksums(folder)
        written = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        if not isinstance(written, dict) or not {_JSON, _WEIGHTS} <= written.keys():
            raise ValueError
    except (OSError, ValueError) as error:
        raise CheckpointError("there are no readable checksums", file=folder / CHECKSUMS, mend=mend) from error
    for name, digest in written.items():
        if found.get(name) != digest:
            what = "the file is damaged" if name in found else "the file is missing"
            raise CheckpointError(what, file=folder / name, mend=mend)
    try:
        described = json.loads((folder / _JSON).read_text(encoding="utf-8"))
        if described.pop("format") != _FORMAT:
            what = "the student was written by another version of jaxgkd"
            raise ConfigError(what, file=folder / _JSON, field="format", mend="use that version")
        weights = load_tensors((folder / _WEIGHTS).read_bytes())
        files = {name: (folder / name).read_bytes() for name in written if name not in (_JSON, _WEIGHTS)}
        return KeptStudent(**described, weights=weights, files=files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError("the student cannot be read", file=folder, mend=mend) from error


def _check_run(run: Path) -> None:
    mend = "give the folder of a finished run"
    if not run.is_dir():
        raise ConfigError("is not a folder" if run.exists() else "does not exist", file=run, mend=mend)
    if not (run / "config.json").exists():
        raise ConfigError("is not the folder of a run", file=run, mend=mend)
    if not (run / "summary.json").exists():
        raise ConfigError("the run is not finished", file=run, mend="finish it with its own command and --resume")
    if not (run / FOLDER).is_dir():
        what = "the run keeps no student, as those of earlier versions"
        mend = "delete its summary.json and run its command again with --resume, which trains nothing anew"
        raise ConfigError(what, file=run, mend=mend)
