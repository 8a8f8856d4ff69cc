"""Labelled molecules followed by others without labels, which teachers can speak of and students learn from."""

import hashlib
from dataclasses import replace

import numpy as np
from rdkit import rdBase

from jaxgkd.data.molecule_descriptions import canonical_keys
from jaxgkd.data.molecules import Molecules
from jaxgkd.data.workers import map_chunks
from jaxgkd.errors import ConfigError
from jaxgkd.graphs.batching import ranges

_CHUNK = 512


def joined_molecules(labelled: Molecules, others: Molecules, most: int | None = None) -> Molecules:
    """All of ``labelled``, at their places, then those of ``others`` that are not among them or each other.

    The others have no labels and no coordinates. None of them is any molecule of ``labelled``, whatever its part of a
    split: a student that met the molecules it is tested on, even without labels, would be tested on something else.

    Args:
      labelled: n molecules.
      others: from another source, with hydrogens treated alike.
      most: of the others that are taken, in their order; None for all.

    Raises:
      ConfigError: hydrogens are atoms of the one and not of the other.
    """
    if labelled.hydrogens != others.hydrogens:
        what = f"hydrogens are {labelled.hydrogens} in {labelled.name} and {others.hydrogens} in {others.name}"
        raise ConfigError(what, field="hydrogens", mend="read both alike")
    known = set(_keys(labelled))
    rows = []
    for i, key in enumerate(_keys(others)):
        if key not in known:
            known.add(key)
            rows.append(i)
    n_met = len(others) - len(rows)
    rows = np.array(rows[:most], np.int64)
    notes = [f"{len(rows):,} molecules of {others.name} are taught without labels"]
    if n_met:
        notes.append(f"{n_met:,} more of {others.name} are in the data or there twice, and left out")
    notes += [f"{others.name}: {note}" for note in others.notes]
    starts = (np.asarray(start, np.int64) for start in (others.atom_start, others.edge_start, others._smiles_start))
    atoms, edges, letters = (ranges(start[rows], start[rows + 1] - start[rows]) for start in starts)
    join = lambda first, second: np.concatenate([np.asarray(first), np.asarray(second)])  # noqa: E731
    grow = lambda first, second: join(first, first[-1] + np.cumsum(np.diff(second)[rows]))  # noqa: E731
    blank = lambda array, value: np.full((len(atoms), *array.shape[1:]), value, array.dtype)  # noqa: E731
    taken = others.structure_sha256 + hashlib.sha256(rows.tobytes()).hexdigest()
    digest = lambda text: hashlib.sha256((text + taken + rdBase.rdkitVersion).encode()).hexdigest()  # noqa: E731
    missing = np.full((len(rows), labelled.labels.shape[1]), np.nan)
    return replace(
        labelled,
        atoms=join(labelled.atoms, others.atoms[atoms]),
        atom_start=grow(labelled.atom_start, others.atom_start),
        senders=join(labelled.senders, others.senders[edges]),
        receivers=join(labelled.receivers, others.receivers[edges]),
        edges=join(labelled.edges, others.edges[edges]),
        edge_start=grow(labelled.edge_start, others.edge_start),
        coordinates=None
        if labelled.coordinates is None
        else join(labelled.coordinates, blank(labelled.coordinates, 0)),
        placed=join(labelled.placed, np.zeros(len(rows), bool)),
        labels=join(labelled.labels, missing),
        n_record=labelled.n_record + len(rows),
        rows=join(labelled.rows, others.rows[rows]),
        record=join(labelled.record, labelled.n_record + np.arange(len(rows))),
        repeats=join(labelled.repeats, np.full(len(rows), -1)),
        sha256=digest(labelled.sha256),
        structure_sha256=digest(labelled.structure_sha256),
        notes=(*labelled.notes, *notes),
        _smiles=join(labelled._smiles, others._smiles[letters]),
        _smiles_start=grow(labelled._smiles_start, others._smiles_start),
        _smiles_atoms=None
        if labelled._smiles_atoms is None and others._smiles_atoms is None
        else join(_smiles_atoms(labelled), _smiles_atoms(others)[atoms]),
    )


def _smiles_atoms(molecules: Molecules) -> np.ndarray:
    """Which atom of the graph every atom of a SMILES is; -1 where it is as it was given, in the order of the graph."""
    kept = molecules._smiles_atoms
    return np.full(len(molecules.atoms), -1, np.int32) if kept is None else np.asarray(kept)


def _keys(molecules: Molecules) -> list[str]:
    """The canonical SMILES of every molecule."""
    n = len(molecules)
    chunks = ([molecules.smiles(i) for i in range(at, min(at + _CHUNK, n))] for at in range(0, n, _CHUNK))
    return [key for found in map_chunks(canonical_keys, chunks) for key, _ in found]
