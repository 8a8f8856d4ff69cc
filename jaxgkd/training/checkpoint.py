"""Pytrees of arrays on disk, through Orbax: written whole or not at all, checked and read back as they were."""

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgkd import processes
from jaxgkd.errors import CheckpointError

Tree = Any

#: Beside the files of a folder: the SHA-256 of each. Orbax itself reads damaged numbers without a word.
CHECKSUMS = "checksums.json"


def save_tree(path: Path, tree: Tree) -> None:
    """Write nested dicts of arrays as the folder ``path``, which must not exist; a killed write leaves nothing there.

    Of two runs that write it at once, what the first has written stays. Several processes of one run call this
    together, all of them with the whole arrays; the leader writes.

    Raises:
      CheckpointError: something is there already, or the disk does not take it.
    """
    if processes.decided(path.exists(), "there-already"):
        raise CheckpointError("there is something already", file=path, mend="choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(path) as scratch:
            whole = scratch / "tree"
            try:
                load_orbax().save(os.fspath(whole), jax.tree.map(np.asarray, tree))
            except ValueError as error:
                # What the disk said is at the end of what the library underneath Orbax says.
                if "os_error_code" not in str(error):
                    raise
                raise OSError(errno.EIO, str(error).split(": ")[-1].split(" [")[0]) from error
            if processes.leading():
                (whole / CHECKSUMS).write_text(json.dumps(checksums(whole), indent=2) + "\n")
                try:
                    os.rename(whole, path)
                except OSError:
                    if not path.is_dir():
                        raise
    except OSError as error:
        mend = "free space there or choose another folder"
        raise CheckpointError(f"the checkpoint cannot be written ({error.strerror})", file=path, mend=mend) from error
    processes.wait_for_all("checkpoint-written")


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """A folder beside ``path``, the same one in all processes, gone at the end."""
    folder = path.absolute().with_name(f".{path.name}.{processes.decided(secrets.randbits(31), 'scratch'):08x}")
    if processes.leading():
        folder.mkdir()
    processes.wait_for_all("scratch-made")
    try:
        yield folder
    finally:
        if processes.leading():
            shutil.rmtree(folder, ignore_errors=True)


def load_tree(path: Path) -> Tree:
    """Read what `save_tree` wrote, as nested dicts of numpy arrays.

    Raises:
      CheckpointError: nothing is there, or it is damaged.
    """
    if not path.is_dir():
        raise CheckpointError("there is no checkpoint", file=path, mend="run without --resume")
    mend = "delete this folder and run again with --resume"
    try:
        if not (path / CHECKSUMS).is_file():
            raise ValueError(f"{CHECKSUMS} is missing")
        written = json.loads((path / CHECKSUMS).read_text())
        found = checksums(path)
        if not isinstance(written, dict):
            raise ValueError(f"{CHECKSUMS} holds no checksums")
        if damaged := sorted(name for name in written if written[name] != found.get(name)):
            raise CheckpointError(f"the checkpoint is damaged in {damaged[0]}", file=path, mend=mend)
        with _alone():
            return jax.tree.map(np.asarray, load_orbax().load(os.fspath(path.absolute())))
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise CheckpointError(f"the checkpoint cannot be read ({reason})", file=path, mend=mend) from error


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its path there; of the list of checksums itself none."""
    digests = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != CHECKSUMS:
            with file.open("rb") as content:
                digests[file.relative_to(folder).as_posix()] = hashlib.file_digest(content, "sha256").hexdigest()
    return digests


def leaves_by_name(tree: Tree) -> dict[str, np.ndarray]:
    """The leaves of any pytree under the names of their paths, for `save_tree`."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def from_leaves(leaves: dict[str, np.ndarray], like: Tree) -> Tree:
    """The inverse of `leaves_by_name`.

    Args:
      leaves: name → array.
      like: a pytree of the wanted structure, whose leaves have the wanted shapes.

    Raises:
      CheckpointError: an array is missing, left over, or of another shape.
    """
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(like)}
    mend = "use the settings of the run that wrote it"
    if odd := sorted(wanted.keys() ^ leaves.keys()):
        raise CheckpointError(f"the checkpoint and the model do not share {odd[0]}", mend=mend)
    for name, leaf in wanted.items():
        if leaves[name].shape != leaf.shape:
            raise CheckpointError(f"{name} has shape {leaves[name].shape}, the model needs {leaf.shape}", mend=mend)
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in wanted])


def _alone():
    """Orbax reads for this process alone, which wants all of the arrays."""
    v1, me = load_orbax(), processes.number()
    options = v1.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process-{me}"
    )
    return v1.Context(multiprocessing_options=options)


def load_orbax():
    """The package, imported; to be called before threads write, since Python's imports wait for each other badly."""
    # Imported on first use: Orbax takes a second to load, and says on every save what the progress bar says better.
    from orbax.checkpoint import v1

    logging.getLogger("absl").setLevel(logging.ERROR)
    return v1
