"""Molecules from a table of SMILES, an SD file, or both: their graphs, coordinates and labels, kept memory-mapped.

A file is parsed once, in all cores; what it gives lies in the user's cache under the hash of the file and the settings,
as flat arrays that are mapped, not loaded, so a data set may be larger than memory.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rdkit import Chem, rdBase

from jaxgkd.data.featurise import Hydrogens, Problem, featurise
from jaxgkd.data.flat_arrays import ArrayFolderWriter, array_folder, content_hash, open_array, read_meta
from jaxgkd.data.molecule_files import (
    LineStream,
    Record,
    choose_columns,
    is_sdf,
    paired_records,
    read_csv_rows,
    read_sdf,
    sdf_records,
    table_records,
)
from jaxgkd.data.repeated_molecules import write_repeats
from jaxgkd.data.tables import reading
from jaxgkd.errors import ConfigError, DataError, shown
from jaxgkd.graphs.batching import ManyGraphs
from jaxgkd.training.compilation import cache_folder

TaskKind = Literal["classification", "regression"]
# Counts up when the arrays change in kind or content, so that what older versions left behind is not read.
_FORMAT = 1
# Arrays that say what the molecules are.
_STRUCTURE = ("atoms", "atom_start", "senders", "receivers", "edges", "smiles", "smiles_atoms")
_MISSING = ("", "nan", "na", "none", "null")


class Task(NamedTuple):
    """A column of labels: its name, and whether it is classified (0 or 1) or regressed."""

    name: str
    kind: TaskKind


@dataclass(frozen=True, eq=False)
class Molecules:
    """n molecules with N atoms and E directed edges in all; the edges of a bond follow each other, there and back.

    Attributes:
      name: what reports call them.
      tasks: the t columns of labels.
      atoms: [N, 9] uint8, see ``atom_fields.ATOM_FIELDS``.
      atom_start: [n + 1]; atoms ``atom_start[i]:atom_start[i + 1]`` are those of molecule i.
      senders: [E] uint16 atoms the edges start from, counted within the molecule; receivers: [E] likewise.
      edges: [E, 3] uint8, see ``atom_fields.BOND_FIELDS``; edge_start: [n + 1].
      coordinates: [N, 3] float32 in Å, zeros where not known, or None where no molecule has any.
      placed: [n] whether the coordinates of a molecule are known.
      labels: [n, t] float64, NaN where missing.
      n_record: records in the file, those left out counted too.
      rows: [n] rows of the table (header: row 1), or records of the SD file counted from 1.
      record: [n] records counted from 0, those left out counted too: what given splits refer to.
      repeats: [n] the first molecule that is the same by canonical SMILES, or -1 where a molecule is the first.
      problems: rows left out, and rows without the coordinates they should have, with reasons.
      hydrogens: whether hydrogens are atoms of the graphs.
      sha256: hash of the arrays, the names of the tasks and their kinds.
      structure_sha256: hash of the graphs alone.
      notes: counted facts that a report repeats.
    """

    name: str
    tasks: tuple[Task, ...]
    atoms: np.ndarray
    atom_start: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    edges: np.ndarray
    edge_start: np.ndarray
    coordinates: np.ndarray | None
    placed: np.ndarray
    labels: np.ndarray
    n_record: int
    rows: np.ndarray
    record: np.ndarray
    repeats: np.ndarray
    problems: tuple[Problem, ...]
    hydrogens: Hydrogens
    sha256: str
    structure_sha256: str
    notes: tuple[str, ...]
    _smiles: np.ndarray
    _smiles_start: np.ndarray
    _smiles_atoms: np.ndarray | None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_atom(self) -> np.ndarray:
        """Atoms of every molecule, [n]."""
        return np.diff(self.atom_start)

    @property
    def n_edge(self) -> np.ndarray:
        """Directed edges of every molecule, [n]: two a bond."""
        return np.diff(self.edge_start)

    def graphs(self, *, labels: np.ndarray | None = None, coordinates: np.ndarray | None = None) -> ManyGraphs:
        """All molecules for batches: the arrays stay where they are, on disk.

        Nodes are ``fields`` [N, 9] and, where there are any, ``coordinates`` [N, 3]; edges are ``fields`` [E, 3];
        globals are ``labels`` [n, t] float32 (0 where missing), ``label_mask`` [n, t] (False where missing) and
        ``placed`` [n].

        Args:
          labels: [n, t] in place of those given, such as scaled ones; NaN where missing.
          coordinates: [N, 3] in place of those given, such as one conformer a molecule.
        """
        labels = self.labels if labels is None else labels
        coordinates = self.coordinates if coordinates is None else coordinates
        # Plain views of the mapped arrays: they are indexed faster.
        nodes = {"fields": np.asarray(self.atoms)}
        if coordinates is not None:
            nodes["coordinates"] = np.asarray(coordinates)
        return ManyGraphs(
            nodes=nodes,
            edges={"fields": np.asarray(self.edges)},
            senders=np.asarray(self.senders),
            receivers=np.asarray(self.receivers),
            globals={
                "labels": np.nan_to_num(labels).astype(np.float32),
                "label_mask": ~np.isnan(labels),
                "placed": np.asarray(self.placed),
            },
            node_start=np.asarray(self.atom_start),
            edge_start=np.asarray(self.edge_start),
        )

    def smiles(self, i: int) -> str:
        """The SMILES of molecule i: the table's, or one written for a record of an SD file."""
        return self._smiles[self._smiles_start[i] : self._smiles_start[i + 1]].tobytes().decode()

    def rdkit_molecule(self, i: int) -> Chem.Mol:
        """Molecule i for RDKit, its atoms in the order of ``atoms``, without coordinates."""
        order = None if self._smiles_atoms is None else self._smiles_atoms[self.atom_start[i] : self.atom_start[i + 1]]
        given = order is None or bool(order[0] < 0)
        parameters = Chem.SmilesParserParams()
        parameters.removeHs = given or self.hydrogens == "implicit"
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(self.smiles(i), parameters)
        if order is None or given:
            return Chem.AddHs(molecule) if self.hydrogens == "explicit" else molecule
        return Chem.RenumberAtoms(molecule, np.argsort(order).tolist())

    def canonical_smiles(self, i: int) -> str:
        """The canonical SMILES of molecule i, hydrogens implied."""
        with rdBase.BlockLogs():
            return Chem.MolToSmiles(Chem.RemoveHs(self.rdkit_molecule(i)))


def load_molecules(
    path: str | PathLike[str],
    *,
    sdf: str | PathLike[str] | None = None,
    labels: Sequence[str] | None = None,
    kinds: Sequence[TaskKind] | None = None,
    smiles_column: str | None = None,
    id_column: str | None = None,
    hydrogens: Hydrogens = "implicit",
    max_atoms: int | None = None,
    name: str | None = None,
    workers: int | None = None,
    progress: Callable[[int, float], None] | None = None,
    root: Path | None = None,
) -> Molecules:
    """Reads molecules from ``.csv``, ``.csv.gz``, ``.sdf`` or ``.sdf.gz``, from the cache where they were read before.

    Args:
      path: a table of SMILES, or an SD file.
      sdf: beside a table, the SD file with the structures and coordinates of its rows. Records are found by their title
        where the table has a column of identifiers that holds them, else by position; each is compared with
        the SMILES of its row, if there are any.
      labels: columns of the table, or data fields of the SD file, that are labels. By default the one column that is no
        SMILES and no identifier; ``("all",)`` takes all of these.
      kinds: of every label; by default classification where all values are 0 or 1, else regression.
      smiles_column: by default the column called ``smiles``, in any case.
      id_column: of what the titles of the SD file are compared with; by default ``id``, ``idx``, ``name`` and the like.
      hydrogens: "implicit" leaves hydrogens out of the graphs (as OGB does), "explicit" makes them atoms.
      max_atoms: molecules with more atoms are left out, and listed.
      name: by default the name of the file.
      workers: processes, by default one a core.
      progress: called with the records read and the share of the file they are, from 0 to 1.
      root: folder of caches; the user's by default.

    Raises:
      DataError: a file cannot be read, a column is not there, a label is not a number, no record is a molecule.
      ConfigError: a setting does not fit.
    """
    path = Path(path).expanduser()
    sdf_path = None if sdf is None else Path(sdf).expanduser()
    if sdf_path is not None and is_sdf(path):
        raise ConfigError("two SD files are given", field="sdf", mend="give a table and an SD file, or one SD file")
    if max_atoms is not None and max_atoms < 1:
        raise ConfigError(f"max_atoms = {max_atoms} leaves no molecule", mend="use 1 or more")
    settings = {
        "format": _FORMAT,
        "rdkit": rdBase.rdkitVersion,
        "files": [_file_hash(file) for file in (path, sdf_path) if file is not None],
        "kind": "sdf" if is_sdf(path) else "csv",
        "labels": None if labels is None else list(labels),
        "smiles_column": smiles_column,
        "id_column": id_column,
        "hydrogens": hydrogens,
        "max_atoms": max_atoms,
    }
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]
    base = (cache_folder() if root is None else root) / "molecules" / key

    def write(writer: ArrayFolderWriter) -> dict[str, Any]:
        records, names, share = _open(path, sdf_path, labels, smiles_column, id_column)

        def told(count: int) -> None:
            if progress is not None:
                progress(count, share())

        meta = featurise(
            records,
            writer,
            numbers_of=partial(_numbers, names=names, path=path),
            n_label=len(names),
            hydrogens=hydrogens,
            structures=is_sdf(path) or sdf_path is not None,
            max_atoms=max_atoms,
            workers=workers,
            progress=told,
        )
        if not meta["n_molecule"]:
            problems = meta["problems"]
            what = f"none of the {meta['n_record']} records is a molecule"
            row, why = (problems[0][0], f"{what} ({shown(problems[0][1], 120)})") if problems else (None, what)
            raise DataError(why, file=path, row=row, mend="check the column of SMILES or the SD file")
        return meta | {"labels": list(names), "settings": settings}

    folder = array_folder(base / "arrays", write)
    repeats = array_folder(base / "repeats", partial(write_repeats, folder, workers=workers))
    return _open_folder(folder, repeats, name or _stem(path), kinds, path, hydrogens)


def _open_folder(
    folder: Path, repeats: Path, name: str, kinds: Sequence[TaskKind] | None, path: Path, hydrogens: Hydrogens
) -> Molecules:
    meta = read_meta(folder)
    assert meta is not None
    arrays = {array: open_array(folder, array) for array in meta["arrays"]}
    tasks = _tasks(meta["labels"], meta["binary"], kinds, path, arrays)
    problems = tuple(Problem(*problem) for problem in meta["problems"])
    repeated = open_array(repeats, "repeats")
    placed = arrays["placed"]
    structure = {array: meta["arrays"][array] for array in _STRUCTURE if array in meta["arrays"]}
    digest = content_hash(meta, ("labels",)) + json.dumps([task.kind for task in tasks])
    return Molecules(
        name=name,
        tasks=tasks,
        coordinates=arrays.get("coordinates") if placed.any() else None,
        repeats=repeated,
        problems=problems,
        hydrogens=hydrogens,
        sha256=hashlib.sha256(digest.encode()).hexdigest(),
        structure_sha256=content_hash({"arrays": structure}, ()),
        notes=tuple(_notes(meta["n_record"], problems, arrays, repeated)),
        _smiles=arrays["smiles"],
        _smiles_start=arrays["smiles_start"],
        _smiles_atoms=arrays.get("smiles_atoms"),
        **{
            field: arrays[field]
            for field in ("atoms", "atom_start", "senders", "receivers", "edges", "edge_start", "placed", "labels")
        },
        n_record=meta["n_record"],
        rows=arrays["rows"],
        record=arrays["record"],
    )


def _open(
    path: Path,
    sdf_path: Path | None,
    labels: Sequence[str] | None,
    smiles_column: str | None,
    id_column: str | None,
) -> tuple[Iterator[Record], tuple[str, ...], Callable[[], float]]:
    """The records of the files, the names of the labels, and the share of the file that has been read."""
    lines = LineStream(path)
    if is_sdf(path):
        names = () if labels is None else tuple(labels)
        return sdf_records(read_sdf(lines), names, path), names, lambda: lines.share
    rows = read_csv_rows(lines)
    _, header = next(rows)
    columns = choose_columns(
        header,
        path,
        labels=labels,
        smiles_column=smiles_column,
        id_column=id_column,
        smiles_needed=sdf_path is None,
    )
    if sdf_path is None:
        return table_records(rows, columns), columns.label_names, lambda: lines.share
    blocks = LineStream(sdf_path)
    records = paired_records(rows, columns, read_sdf(blocks), path, sdf_path)
    return records, columns.label_names, lambda: blocks.share


def _numbers(record: Record, *, names: Sequence[str], path: Path) -> list[float]:
    numbers = []
    for name, cell in zip(names, record.labels, strict=True):
        text = cell.strip()
        if text.lower() in _MISSING:
            numbers.append(np.nan)
            continue
        try:
            number = float(text)
        except ValueError:
            number = np.inf
        if not np.isfinite(number):
            what = f"the label '{shown(text)}' is not a finite number"
            mend = "write a number, or leave the cell empty where it is not known"
            raise DataError(what, file=path, row=record.row, field=name, mend=mend)
        numbers.append(number)
    return numbers


def _tasks(
    names: Sequence[str],
    binary: Sequence[bool],
    kinds: Sequence[TaskKind] | None,
    path: Path,
    arrays: dict[str, np.ndarray],
) -> tuple[Task, ...]:
    labels = arrays["labels"]
    for i, column in enumerate(names):
        if np.isnan(labels[:, i]).all():
            raise DataError("has no label at all", file=path, field=column, mend="choose another --label")
    if kinds is None:
        kinds = ["classification" if all_binary else "regression" for all_binary in binary]
    if len(kinds) != len(names):
        raise ConfigError(f"{len(kinds)} kinds are given for {len(names)} labels", mend="give one for every label")
    for i, (column, kind) in enumerate(zip(names, kinds, strict=True)):
        if kind == "classification" and not binary[i]:
            odd = np.flatnonzero(~(np.isnan(labels[:, i]) | np.isin(labels[:, i], (0, 1))))[0]
            what = f"the label {labels[odd, i]:g} is neither 0 nor 1"
            row = int(arrays["rows"][odd])
            raise DataError(what, file=path, row=row, field=column, mend="write 0 or 1, or take it as regression")
    return tuple(Task(column, kind) for column, kind in zip(names, kinds, strict=True))


def _notes(
    n_record: int, problems: Sequence[Problem], arrays: dict[str, np.ndarray], repeats: np.ndarray
) -> Iterator[str]:
    left_out = sum(not problem.kept for problem in problems)
    if left_out:
        yield f"{left_out:,} of {n_record:,} records left out"
    placed, labels = arrays["placed"], arrays["labels"]
    if placed.any() and not placed.all():
        yield f"{int((~placed).sum()):,} of {len(placed):,} molecules without coordinates"
    again = np.flatnonzero(repeats >= 0)
    if len(again):
        difference = np.nan_to_num(labels[again] - labels[repeats[again]])
        differ = np.count_nonzero(np.abs(difference).sum(axis=1))
        other = f", {differ:,} of them with another label" if differ else ""
        yield f"{len(again):,} {'molecule repeats' if len(again) == 1 else 'molecules repeat'} an earlier one{other}"
    missing = int(np.isnan(labels).sum())
    if missing:
        yield f"{missing:,} of {labels.size:,} labels missing"


def _file_hash(path: Path) -> str:
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0] or path.name
