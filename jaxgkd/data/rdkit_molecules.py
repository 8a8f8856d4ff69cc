"""Molecules that come inside RDKit's own package, so that a first run needs no download.

- `load_chembl_activities`: 1,017 inhibitors of one series with measured activities, in two dimensions.
- `load_nci`: 5,000 compounds without labels.
- `load_egfr`: 365 ligands of a kinase in three dimensions, with a target that depends on their geometry.
"""

import csv
import hashlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem.rdMolDescriptors import CalcPBF

from jaxgkd import processes
from jaxgkd.data.featurise import Hydrogens
from jaxgkd.data.molecules import Molecules, load_molecules
from jaxgkd.errors import DataError
from jaxgkd.training.compilation import cache_folder
from jaxgkd.whole_file import write_whole


def load_chembl_activities(
    *, hydrogens: Hydrogens = "implicit", workers: int | None = None, root: Path | None = None
) -> Molecules:
    """The 1,017 sulfonamides of the ChEMBL document CHEMBL2321810, with ``activity`` as negative decadic logarithm.

    Args:
      hydrogens, workers, root: see ``load_molecules``.

    Raises:
      DataError: this RDKit comes without the files.
    """
    smiles = _file("FreeWilson/data/CHEMBL2321810.smi")
    activities = _file("FreeWilson/data/CHEMBL2321810_act.csv")

    def rows() -> Iterator[tuple[str, str, str]]:
        with open(activities, newline="", encoding="utf-8") as file:
            activity = {row["Name"]: row["Act"] for row in csv.DictReader(file)}
        for line in smiles.read_text(encoding="utf-8").splitlines():
            text, name = line.split()
            yield name, text, activity[name]

    table = _table("chembl2321810", ("id", "smiles", "activity"), rows, root)
    return load_molecules(
        table, labels=("activity",), hydrogens=hydrogens, name="chembl2321810", workers=workers, root=root
    )


def load_egfr(*, hydrogens: Hydrogens = "implicit", workers: int | None = None, root: Path | None = None) -> Molecules:
    """365 ligands of the epidermal growth factor receptor from ZINC, with the coordinates a force field gave them.

    The label is ``plane_of_best_fit``: how far the atoms, hydrogens included, are on average from the plane that fits
    them best, in Å. It is a property of the geometry: molecules in two dimensions only hint at it.

    Source of the label: Firth, Brown and Blagg, 2012.

    Args:
      hydrogens, workers, root: see ``load_molecules``.

    Raises:
      DataError: this RDKit comes without the file.
    """
    sdf = _file("PBF/testData/egfr.sdf")

    def rows() -> Iterator[tuple[str, str]]:
        with rdBase.BlockLogs():
            for molecule in Chem.SDMolSupplier(str(sdf), removeHs=False):
                yield molecule.GetProp("_Name"), f"{CalcPBF(molecule):.6f}"

    table = _table("egfr", ("id", "plane_of_best_fit"), rows, root)
    options: dict[str, Any] = {"hydrogens": hydrogens, "workers": workers, "root": root}
    return load_molecules(table, sdf=sdf, labels=("plane_of_best_fit",), name="egfr", **options)


def load_nci(*, hydrogens: Hydrogens = "implicit", workers: int | None = None, root: Path | None = None) -> Molecules:
    """The first 5,000 compounds of the open collection of the National Cancer Institute, without labels.

    Args:
      hydrogens, workers, root: see ``load_molecules``.

    Raises:
      DataError: this RDKit comes without the file.
    """
    smiles = _file("NCI/first_5K.smi", Path(RDConfig.RDDataDir))
    rows = lambda: (tuple(reversed(line.split()[:2])) for line in smiles.read_text().splitlines() if line)  # noqa: E731
    table = _table("nci", ("id", "smiles"), rows, root)
    return load_molecules(table, labels=(), hydrogens=hydrogens, name="nci", workers=workers, root=root)


def _file(name: str, folder: Path | None = None) -> Path:
    path = Path(folder or RDConfig.RDContribDir) / name
    if not path.is_file():
        raise DataError("is not part of this RDKit", file=path, mend="install rdkit from its wheel, or give other data")
    return path


def _table(
    name: str, header: tuple[str, ...], rows: Callable[[], Iterator[tuple[str, ...]]], root: Path | None
) -> Path:
    """A table of the rows in the cache, written when it is not there, or not whole, in the present version of RDKit."""
    with processes.leader_first("rdkit-table"):
        return _whole_table(name, header, rows, root)


def _whole_table(
    name: str, header: tuple[str, ...], rows: Callable[[], Iterator[tuple[str, ...]]], root: Path | None
) -> Path:
    folder = (cache_folder() if root is None else root) / "rdkit" / rdBase.rdkitVersion
    path = folder / f"{name}.csv"
    # The hash is written last: a table without one was not finished.
    seal = folder / f"{name}.sha256"
    whole = path.is_file() and seal.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == seal.read_text()
    if not whole:
        if seal.is_file():
            warnings.warn(f"{path} is damaged or missing, and is made again.", stacklevel=4)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows()])
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            mend = "make room there, or set XDG_CACHE_HOME to another folder"
            raise DataError(f"cannot be made ({error.strerror})", file=folder, mend=mend) from error
        content = text.getvalue().encode()
        write_whole(path, content)
        write_whole(seal, hashlib.sha256(content).hexdigest().encode())
    return path
