"""Molecules out of columns in memory, through the reader of files, so that they are checked and kept as those are."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from jaxgkd.data.featurise import Hydrogens
from jaxgkd.data.folders import save_molecules
from jaxgkd.data.molecules import Molecules, load_molecules


def molecules_from_columns(
    smiles: Sequence[str],
    labels: Mapping[str, ArrayLike],
    *,
    name: str = "molecules",
    hydrogens: Hydrogens = "implicit",
    root: Path | None = None,
) -> Molecules:
    """Molecules with labels.

    Args:
      smiles: [n]; those that cannot be parsed are left out and listed.
      labels: column → [n] numbers, NaN where missing.
      name: of the set.
      hydrogens: see ``load_molecules``.
      root: folder of caches; the user's by default.

    Raises:
      DataError: a column does not fit, or no SMILES is a molecule.
    """
    with tempfile.TemporaryDirectory() as scratch:
        table = save_molecules(Path(scratch) / "molecules", [str(text or "") for text in smiles], labels)
        return load_molecules(table, labels=tuple(labels), hydrogens=hydrogens, name=name, root=root)
