"""Molecule data sets by name or path, with what is known of the usual ones: their labels, units and usual splits."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from jaxgkd.data.featurise import Hydrogens
from jaxgkd.data.molecule_files import is_sdf
from jaxgkd.data.molecules import Molecules, TaskKind, load_molecules
from jaxgkd.errors import DataError

_TABLES = (".csv", ".csv.gz")
_STRUCTURES = (".sdf", ".sdf.gz")


class KnownSet(NamedTuple):
    """What is known of a published data set.

    Attributes:
      labels: the columns that are labels; empty where there is one column it can be.
      unit: of the labels, None where they have none.
    """

    labels: tuple[str, ...] = ()
    unit: str | None = None


#: By the name of the file, without its ending.
KNOWN = {
    "qm7": KnownSet(("hof_kcal_mol",), "kcal/mol"),
    "esol": KnownSet(unit="log mol/L"),
    "lipo": KnownSet(unit="log D"),
    "tox21": KnownSet(("all",)),
    "bbbp": KnownSet(),
    "clintox": KnownSet(("CT_TOX",)),
    "hiv": KnownSet(),
    "freesolv": KnownSet(unit="kcal/mol"),
    "bace": KnownSet(),
    "sider": KnownSet(("all",)),
    "gdb7": KnownSet(("u0_atom",), "kcal/mol"),
    "qm9": KnownSet(("gap",), "Ha"),
    "pcqm4m-v2-train": KnownSet(("homolumogap",), "eV"),
}


def find_molecule_file(folder: Path, name: str) -> Path | None:
    """The table or SD file ``name`` of a folder, with or without an ending, or a folder of that name; else None."""
    endings = ("", *_TABLES, *_STRUCTURES)
    found = next((path for ending in endings if (path := folder / f"{name}{ending}").is_file()), None)
    return folder / name if found is None and (folder / name).is_dir() else found


def molecule_names(folder: Path) -> set[str]:
    """Names of the tables, SD files and folders in a folder."""
    files = {_stem(path.name) for path in folder.iterdir() if path.name.endswith((*_TABLES, *_STRUCTURES))}
    return files | {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}


def _stem(name: str) -> str:
    """A file's name without the ending of a table or an SD file."""
    ending = max((each for each in (*_TABLES, *_STRUCTURES) if name.endswith(each)), key=len, default="")
    return name.removesuffix(ending)


def load_molecule_set(
    path: str | PathLike[str],
    *,
    labels: Sequence[str] = (),
    kinds: Sequence[TaskKind] = (),
    hydrogens: Hydrogens | None = None,
    max_atoms: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, float], None] | None = None,
    labelled: bool = True,
    root: Path | None = None,
) -> Molecules:
    """Reads a table of SMILES, with the SD file of the same name beside it where there is one, or an SD file alone.

    Args:
      path: the table, the SD file, or a folder with one of each at most.
      labels: columns that are labels; by default those known of a published set, else the one column it can be.
      kinds: of every label, by default inferred.
      hydrogens: by default explicit where the coordinates of an SD file come with them, else implicit.
      max_atoms, workers, progress, root: see ``load_molecules``.
      labelled: False reads no label, whatever columns there are.

    Raises:
      DataError: nothing is there, or it cannot be used.
      ConfigError: a setting does not fit.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = _only_table(path)
    if not path.is_file():
        raise DataError("does not exist", file=path, mend="give a .csv or .sdf file, or a folder with one of them")
    stem = _stem(path.name)
    sdf = None
    if not is_sdf(path):
        sdf = next((file for end in _STRUCTURES if (file := path.with_name(stem + end)).is_file()), None)
    known = KNOWN.get(stem.lower(), KnownSet())
    if hydrogens is None:
        hydrogens = "explicit" if sdf is not None or is_sdf(path) else "implicit"
    return load_molecules(
        path,
        sdf=sdf,
        labels=tuple(labels) or known.labels or None if labelled else (),
        kinds=tuple(kinds) or None,
        hydrogens=hydrogens,
        max_atoms=max_atoms,
        name=stem,
        workers=workers,
        progress=progress,
        root=root,
    )


def unit_of(molecules: Molecules) -> str | None:
    """The unit of a known set's labels, None where it has none or is not known."""
    return KNOWN.get(molecules.name.lower(), KnownSet()).unit


def _only_table(folder: Path) -> Path:
    for endings in (_TABLES, _STRUCTURES):
        found = sorted(path for path in folder.iterdir() if path.name.endswith(endings))
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:4])
            raise DataError(f"holds several files: {names}", file=folder, mend="give the path of one of them")
        if found:
            return found[0]
    raise DataError("holds neither a table nor an SD file", file=folder, mend="give a .csv or .sdf file")
