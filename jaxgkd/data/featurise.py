"""Molecules to arrays: parses chunks of records in many processes and writes what they give into growing arrays.

A record that gives no molecule, or a molecule without the coordinates it should have, becomes a problem with its row
and reason. Nothing is dropped in silence.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from jaxgkd.data.atom_fields import Fields, both_ways, may_have_stereo, molecule_fields
from jaxgkd.data.flat_arrays import ArrayFolderWriter
from jaxgkd.data.molecule_files import Record
from jaxgkd.data.workers import map_chunks

Hydrogens = Literal["implicit", "explicit"]
_CHUNK = 512
# What 16 bits can count.
_MOST_ATOMS = 32_767


class Problem(NamedTuple):
    """What is wrong with a record.

    Attributes:
      row: its row in the table, or its record in the SD file.
      reason: in words.
      kept: True where the molecule is there all the same, but without coordinates.
    """

    row: int
    reason: str
    kept: bool


class _Worked(NamedTuple):
    """What a process gives back for a chunk: fields of the molecules kept, and problems by position in the chunk."""

    kept: np.ndarray
    fields: Fields
    coordinates: np.ndarray
    placed: np.ndarray
    smiles: list[str]
    smiles_atoms: np.ndarray
    keys: np.ndarray
    problems: list[tuple[int, str, bool]]


def featurise(
    records: Iterable[Record],
    writer: ArrayFolderWriter,
    *,
    numbers_of: Callable[[Record], list[float]],
    n_label: int,
    hydrogens: Hydrogens,
    structures: bool,
    max_atoms: int | None,
    workers: int | None,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Parses all records and writes the arrays of a folder of molecules.

    Over all atoms: ``atoms`` [N, 9] and, where there may be structures, ``coordinates`` [N, 3] (0 where not known)
    and ``smiles_atoms`` [N] (the row of every atom that the SMILES lists, or -1 where the SMILES is the table's, whose
    order the rows have). Over all edges: ``senders`` [E], ``receivers`` [E] and ``edges`` [E, 3]. ``smiles`` are UTF-8
    bytes. ``atom_start``, ``edge_start`` and ``smiles_start`` [n + 1] say where molecules begin. For every molecule:
    ``labels`` [n, t], ``rows`` [n], ``record`` [n] (its record from 0, those left out counted), ``placed`` [n] and
    ``keys`` [n].

    Args:
      records: what the files give.
      writer: of an empty folder.
      numbers_of: the labels of a record as t numbers.
      n_label: t.
      hydrogens: "implicit" leaves them out of the graph, "explicit" makes them atoms.
      structures: whether records may come with mol blocks.
      max_atoms: molecules with more atoms are left out.
      workers: processes.
      progress: called with the number of records read so far.

    Returns:
      ``problems``, the counts ``n_record`` and ``n_molecule``, and ``binary``: for every label whether all its values
      are 0 or 1.
    """
    work = partial(_work, hydrogens=hydrogens, max_atoms=max_atoms)
    waiting: deque[tuple[list[int], np.ndarray]] = deque()

    def chunks() -> Iterator[list[tuple[str | None, str | None]]]:
        stream = iter(records)
        while chunk := list(islice(stream, _CHUNK)):
            labels = np.array([numbers_of(record) for record in chunk], np.float64).reshape(len(chunk), n_label)
            waiting.append(([record.row for record in chunk], labels))
            yield [(record.smiles, record.block) for record in chunk]

    totals = {"atom": 0, "edge": 0, "smiles": 0}
    writer.append(**{f"{name}_start": np.zeros(1, np.int64) for name in totals})
    problems: list[Problem] = []
    n_record = n_molecule = 0
    binary = np.ones(n_label, bool)
    for worked in map_chunks(work, chunks(), workers=workers):
        rows, labels = waiting.popleft()
        problems += [Problem(rows[i], reason, kept) for i, reason, kept in worked.problems]
        labels = labels[worked.kept]
        binary &= (np.isnan(labels) | (labels == 0) | (labels == 1)).all(axis=0)
        sizes = {"atom": worked.fields.n_atom, "edge": 2 * worked.fields.n_bond}
        texts = [text.encode() for text in worked.smiles]
        sizes["smiles"] = np.array([len(text) for text in texts], np.int64)
        for name, size in sizes.items():
            writer.append(**{f"{name}_start": totals[name] + np.cumsum(size, dtype=np.int64)})
            totals[name] += int(size.sum())
        senders, receivers, edges = both_ways(worked.fields.ends, worked.fields.bonds)
        if structures:
            writer.append(coordinates=worked.coordinates, smiles_atoms=worked.smiles_atoms)
        writer.append(
            atoms=worked.fields.atoms,
            senders=senders.astype(np.uint16),
            receivers=receivers.astype(np.uint16),
            edges=edges,
            smiles=np.frombuffer(b"".join(texts), np.uint8),
            labels=labels,
            rows=np.array(rows, np.int64)[worked.kept],
            record=n_record + worked.kept,
            placed=worked.placed,
            keys=worked.keys,
        )
        n_record, n_molecule = n_record + len(rows), n_molecule + len(worked.kept)
        if progress is not None:
            progress(n_record)
    return {
        "problems": [list(problem) for problem in problems],
        "n_record": n_record,
        "n_molecule": n_molecule,
        "binary": binary.tolist(),
    }


def _work(chunk: list[tuple[str | None, str | None]], *, hydrogens: Hydrogens, max_atoms: int | None) -> _Worked:
    kept, molecules, stereo, problems = [], [], [], []
    with rdBase.BlockLogs():
        for i, (smiles, block) in enumerate(chunk):
            molecule, reason = _parse(smiles, block, hydrogens)
            limit = min(_MOST_ATOMS, max_atoms or _MOST_ATOMS)
            if molecule is not None and molecule.GetNumAtoms() > limit:
                reason = f"has {molecule.GetNumAtoms():,} atoms, more than max_atoms = {limit:,}"
                molecule = None
            if reason:
                problems.append((i, reason, molecule is not None))
            if molecule is None:
                continue
            kept.append(i)
            molecules.append(molecule)
            from_smiles = molecule.GetNumConformers() == 0
            stereo.append(not from_smiles or smiles is None or may_have_stereo(smiles))
        fields = molecule_fields(molecules, stereo)
        coordinates, placed, texts, orders = [], [], [], []
        for i, molecule in zip(kept, molecules, strict=True):
            is_placed = _is_placed(molecule)
            placed.append(is_placed)
            n_atom = molecule.GetNumAtoms()
            coordinates.append(
                molecule.GetConformer().GetPositions() if is_placed else np.zeros((n_atom, 3), np.float32)
            )
            text, order = _smiles_and_order(molecule, chunk[i][0])
            texts.append(text)
            orders.append(order)
    return _Worked(
        kept=np.array(kept, np.int64),
        fields=fields,
        coordinates=np.concatenate(coordinates or [np.zeros((0, 3))]).astype(np.float32),
        placed=np.array(placed, bool),
        smiles=texts,
        smiles_atoms=np.concatenate(orders or [np.zeros(0)]).astype(np.int16),
        keys=_keys(fields),
        problems=problems,
    )


def _parse(smiles: str | None, block: str | None, hydrogens: Hydrogens) -> tuple[Chem.Mol | None, str]:
    """The molecule or None, and what is wrong with it, if anything."""
    text = (smiles or "").strip()
    of_text, why_not_text = (None, "the SMILES is empty") if not text else _from_smiles(text)
    if block is None:
        if of_text is not None and hydrogens == "explicit":
            of_text = Chem.AddHs(of_text)
        return of_text, why_not_text
    molecule, why_not = _from_block(block, hydrogens)
    if molecule is None:
        # The table's SMILES stands in for the structure, without coordinates.
        if of_text is not None and hydrogens == "explicit":
            of_text = Chem.AddHs(of_text)
        return of_text, why_not
    if of_text is not None and (one := CalcMolFormula(molecule)) != (other := CalcMolFormula(of_text)):
        return None, f"the SD record is {one}, the SMILES {other}"
    if not _is_placed(molecule):
        return molecule, "the SD record has no coordinates in three dimensions"
    return molecule, ""


def _from_smiles(smiles: str) -> tuple[Chem.Mol | None, str]:
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is not None:
        return (molecule, "") if molecule.GetNumAtoms() else (None, "the SMILES has no atoms")
    return None, _why(Chem.MolFromSmiles(smiles, sanitize=False), "the SMILES cannot be parsed")


def _from_block(block: str, hydrogens: Hydrogens) -> tuple[Chem.Mol | None, str]:
    molecule = Chem.MolFromMolBlock(block, removeHs=hydrogens == "implicit")
    if molecule is not None:
        return (molecule, "") if molecule.GetNumAtoms() else (None, "the SD record has no atoms")
    return None, _why(Chem.MolFromMolBlock(block, sanitize=False), "the SD record cannot be parsed")


def _why(unsanitized: Chem.Mol | None, otherwise: str) -> str:
    if unsanitized is None:
        return otherwise
    try:
        found = Chem.DetectChemistryProblems(unsanitized)
    except RuntimeError:
        # RDKit does not look for problems of atoms whose valence it has not worked out.
        return otherwise
    return found[0].Message() if found else otherwise


def _is_placed(molecule: Chem.Mol) -> bool:
    if not molecule.GetNumConformers() or not molecule.GetConformer().Is3D():
        return False
    return bool(np.isfinite(molecule.GetConformer().GetPositions()).all())


def _smiles_and_order(molecule: Chem.Mol, smiles: str | None) -> tuple[str, np.ndarray]:
    """A SMILES the molecule can be made from again, and for every atom it lists its row, or -1 for the table's own."""
    if smiles is not None and not molecule.GetNumConformers():
        return smiles.strip(), np.full(molecule.GetNumAtoms(), -1)
    text = Chem.MolToSmiles(molecule)
    order = molecule.GetPropsAsDict(includePrivate=True, includeComputed=True)["_smilesAtomOutputOrder"]
    return text, np.array(list(order))


def _keys(fields: Fields) -> np.ndarray:
    """A number [n] uint64 that is the same for equal molecules, in whatever order their atoms come.

    Weisfeiler and Lehman's refinement of elements, degrees, hydrogens and charges over three rounds. Different
    molecules may share one; stereoisomers always do.
    """
    start = np.cumsum(fields.n_atom, dtype=np.int64) - fields.n_atom
    shift = np.repeat(start, fields.n_bond)[:, None]
    senders, receivers, _ = both_ways(fields.ends + shift, fields.bonds)
    looked_at = fields.atoms[:, [0, 2, 3, 4]].astype(np.uint64)
    state = _mixed(looked_at @ np.array([1, 1 << 8, 1 << 16, 1 << 24], np.uint64))
    for _ in range(3):
        around = np.zeros_like(state)
        np.add.at(around, receivers, _mixed(state[senders]))
        state = _mixed(state * np.uint64(3) + around)
    keys = np.zeros(len(fields.n_atom), np.uint64)
    np.add.at(keys, np.repeat(np.arange(len(keys)), fields.n_atom), state)
    return keys


def _mixed(values: np.ndarray) -> np.ndarray:
    """Scrambles 64-bit numbers, one to one (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
