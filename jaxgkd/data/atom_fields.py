"""Atoms and bonds as small integers: nine fields an atom, three a bond, with the meaning and the order OGB gives them.

A field is a position in a list of values, the last of which stands for every other value: `ATOM_FIELDS` and
`BOND_FIELDS` name the fields and say how many values each has, which is what an embedding of it needs.

Source: Hu et al., Open Graph Benchmark, 2020 (``ogb.utils.features``).
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from rdkit import Chem

# Values of every field; 1 to 118 for the element, and one for dummy atoms.
ATOM_FIELDS = {
    "atomic_number": 119,
    "chirality": 5,
    "degree": 12,
    "formal_charge": 12,
    "hydrogens": 10,
    "radical_electrons": 6,
    "hybridization": 6,
    "aromatic": 2,
    "in_ring": 2,
}
BOND_FIELDS = {"bond_type": 5, "stereo": 6, "conjugated": 2}
_SMALLEST_CHARGE = -5


def _positions(enumeration, names: Sequence[str], other: int) -> np.ndarray:
    """For every value of an RDKit enumeration its position among ``names``, or ``other``."""
    table = np.full(max(enumeration.values) + 1, other, np.uint8)
    for value, member in enumeration.values.items():
        if member.name in names:
            table[value] = names.index(member.name)
    return table


_CHIRALITY = _positions(
    Chem.ChiralType, ("CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW", "CHI_OTHER"), 4
)
_HYBRIDIZATION = _positions(Chem.HybridizationType, ("SP", "SP2", "SP3", "SP3D", "SP3D2"), 5)
_BOND_TYPE = _positions(Chem.BondType, ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC"), 4)
# Twisted single bonds (atropisomers) have no value of their own in OGB's list: they count as "any".
_STEREO = _positions(Chem.BondStereo, ("STEREONONE", "STEREOZ", "STEREOE", "STEREOCIS", "STEREOTRANS", "STEREOANY"), 5)


class Fields(NamedTuple):
    """The fields of several molecules, one after another.

    Attributes:
      atoms: [a, 9] uint8, the columns of `ATOM_FIELDS`.
      bonds: [b, 3] uint8, the columns of `BOND_FIELDS`, every bond once.
      ends: [b, 2] int32, the atoms a bond joins, counted within their molecule.
      n_atom: [n] int32 atoms of every molecule; n_bond: [n] int32 bonds likewise.
    """

    atoms: np.ndarray
    bonds: np.ndarray
    ends: np.ndarray
    n_atom: np.ndarray
    n_bond: np.ndarray


def may_have_stereo(smiles: str) -> bool:
    """Whether a molecule read from ``smiles`` can have marked centres or double bonds.

    Only these signs mark them: ``@``, ``/`` and ``\\``, and ``|``, which begins the extensions of CXSMILES.
    """
    return any(sign in smiles for sign in "@/\\|")


def molecule_fields(molecules: Iterable[Chem.Mol], stereo: Iterable[bool] | None = None) -> Fields:
    """The fields of sanitized RDKit molecules.

    Args:
      molecules: n molecules, hydrogens as they are.
      stereo: [n] whether each may have marked centres or double bonds; where it is False these are not looked at, which
        saves an eighth of the time. By default all are looked at.
    """
    # Columns are collected over all molecules and become arrays at the end: building an array costs more than a
    # molecule's column takes to fill.
    calls_of_atoms = (
        Chem.Atom.GetAtomicNum,
        Chem.Atom.GetFormalCharge,
        Chem.Atom.GetTotalNumHs,
        Chem.Atom.GetNumRadicalElectrons,
        Chem.Atom.GetHybridization,
        Chem.Atom.GetIsAromatic,
        Chem.Atom.IsInRing,
    )
    calls_of_bonds = (
        Chem.Bond.GetBeginAtomIdx,
        Chem.Bond.GetEndAtomIdx,
        Chem.Bond.GetBondType,
        Chem.Bond.GetIsConjugated,
    )
    atom_columns: list[list[int]] = [[] for _ in calls_of_atoms]
    bond_columns: list[list[int]] = [[] for _ in calls_of_bonds]
    chirality, bond_stereo = [], []
    n_atom, n_bond = [], []
    marked = iter(stereo) if stereo is not None else None
    for molecule in molecules:
        atoms = list(map(molecule.GetAtomWithIdx, range(molecule.GetNumAtoms())))
        bonds = list(map(molecule.GetBondWithIdx, range(molecule.GetNumBonds())))
        for column, call in zip(atom_columns, calls_of_atoms, strict=True):
            column.extend(map(call, atoms))
        for column, call in zip(bond_columns, calls_of_bonds, strict=True):
            column.extend(map(call, bonds))
        looked_at = marked is None or next(marked)
        chirality.append(list(map(Chem.Atom.GetChiralTag, atoms)) if looked_at else [0] * len(atoms))
        bond_stereo.append(list(map(Chem.Bond.GetStereo, bonds)) if looked_at else [0] * len(bonds))
        n_atom.append(len(atoms))
        n_bond.append(len(bonds))
    number, charge, hydrogens, radicals, hybridization, aromatic, in_ring = map(_as_array, atom_columns)
    begin, end, bond_type, conjugated = map(_as_array, bond_columns)
    n_atom, n_bond = np.array(n_atom, np.int32), np.array(n_bond, np.int32)
    start = np.cumsum(n_atom, dtype=np.int64) - n_atom
    shift = np.repeat(start, n_bond)
    neighbours = np.bincount(np.r_[begin + shift, end + shift], minlength=len(number))
    atoms = np.stack(
        [
            np.where((number >= 1) & (number <= 118), number - 1, 118),
            _CHIRALITY[_as_array(list(chain.from_iterable(chirality)))],
            # RDKit's total degree is this sum by definition.
            np.minimum(neighbours + hydrogens, 11),
            np.where(np.abs(charge) <= -_SMALLEST_CHARGE, charge - _SMALLEST_CHARGE, 11),
            np.minimum(hydrogens, 9),
            np.minimum(radicals, 5),
            _HYBRIDIZATION[hybridization],
            aromatic,
            in_ring,
        ],
        axis=1,
    )
    bonds = np.stack(
        [_BOND_TYPE[bond_type], _STEREO[_as_array(list(chain.from_iterable(bond_stereo)))], conjugated], axis=1
    )
    ends = np.stack([begin, end], axis=1)
    return Fields(atoms.astype(np.uint8), bonds.astype(np.uint8), ends.astype(np.int32), n_atom, n_bond)


def both_ways(ends: np.ndarray, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every bond as two edges, one after the other: there and back.

    Args:
      ends: [b, 2] atoms that bonds join.
      bonds: [b, f] fields of the bonds.

    Returns:
      senders [2b] and receivers [2b] in the dtype of ``ends``, and the fields of the edges [2b, f].
    """
    return ends.reshape(-1), ends[:, ::-1].reshape(-1), np.repeat(bonds, 2, axis=0)


def _as_array(values: list[int]) -> np.ndarray:
    # RDKit's enumerations are integers, but np.array would keep them as objects.
    return np.fromiter(values, np.int64, len(values))
