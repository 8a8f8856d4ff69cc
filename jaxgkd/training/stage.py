"""Results that are computed at most once: kept as checkpoints, with what is underway of them beside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxgkd import processes
from jaxgkd.training.checkpoint import load_tree, save_tree
from jaxgkd.training.execution import execution
from jaxgkd.training.underway import discard, keeping

Tree = Any


def once(folder: Path, compute: Callable[[], Tree]) -> Tree:
    """The nested dicts of arrays that ``compute`` returns, read from ``folder`` or computed and put there.

    What ``compute`` trains is kept in ``<folder>.underway`` until it has returned. Of several processes all compute, if
    the leader does not find it, and the leader writes.

    Raises:
      CheckpointError: what is there is damaged, or the disk does not take it.
    """
    underway = folder.with_name(f"{folder.name}.underway")
    if not processes.decided(folder.is_dir(), "stage"):
        with keeping(underway, execution().checkpoint_every):
            tree = compute()
        # Another run may have had the same to do, and been quicker: both have computed the same.
        if not processes.decided(folder.is_dir(), "stage-there"):
            save_tree(folder, tree)
    if processes.leading():
        discard(underway)
    return load_tree(folder)
