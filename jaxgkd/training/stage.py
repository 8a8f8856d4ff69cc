"""Results that are computed at most once: kept as checkpoints, with what is underway of them beside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxgkd.training.checkpoint import load_tree, save_tree
from jaxgkd.training.execution import execution
from jaxgkd.training.underway import discard, keeping

Tree = Any


def once(folder: Path, compute: Callable[[], Tree]) -> Tree:
    """The nested dicts of arrays that ``compute`` returns, read from ``folder`` or computed and put there.

    What ``compute`` trains is kept in ``<folder>.underway`` until it has returned.

    Raises:
      CheckpointError: what is there is damaged, or the disk does not take it.
    """
    underway = folder.with_name(f"{folder.name}.underway")
    if not folder.is_dir():
        with keeping(underway, execution().checkpoint_every):
            tree = compute()
        # Another process may have had the same to do, and been quicker: both have computed the same.
        if not folder.is_dir():
            save_tree(folder, tree)
    discard(underway)
    return load_tree(folder)
