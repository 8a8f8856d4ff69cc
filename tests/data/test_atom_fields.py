import csv
import os
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem, rdBase

from jaxgkd.data.atom_fields import ATOM_FIELDS, BOND_FIELDS, both_ways, may_have_stereo, molecule_fields

# Written down by hand: SMILES, fields of every atom (element - 1, chirality, degree with hydrogens, charge + 5,
# hydrogens, radicals, hybridization from sp = 0, aromatic, in a ring), then both ends and the fields of every bond.
BY_HAND = {
    "C": ([[5, 0, 4, 5, 4, 0, 2, 0, 0]], []),
    "[CH3]": ([[5, 0, 3, 5, 3, 1, 2, 0, 0]], []),
    "*": ([[118, 0, 0, 5, 0, 0, 5, 0, 0]], []),
    "[H][H]": ([[0, 0, 1, 5, 0, 0, 5, 0, 0]] * 2, [[0, 1, 0, 0, 0]]),
    "C#N": ([[5, 0, 2, 5, 1, 0, 0, 0, 0], [6, 0, 1, 5, 0, 0, 0, 0, 0]], [[0, 1, 2, 0, 0]]),
    "CC(=O)[O-]": (
        [
            [5, 0, 4, 5, 3, 0, 2, 0, 0],
            [5, 0, 3, 5, 0, 0, 1, 0, 0],
            [7, 0, 1, 5, 0, 0, 1, 0, 0],
            [7, 0, 1, 4, 0, 0, 1, 0, 0],
        ],
        [[0, 1, 0, 0, 0], [1, 2, 1, 0, 1], [1, 3, 0, 0, 1]],
    ),
    "c1cc[nH]c1": (
        [[5, 0, 3, 5, 1, 0, 1, 1, 1]] * 3 + [[6, 0, 3, 5, 1, 0, 1, 1, 1]] + [[5, 0, 3, 5, 1, 0, 1, 1, 1]],
        [[0, 1, 3, 0, 1], [1, 2, 3, 0, 1], [2, 3, 3, 0, 1], [3, 4, 3, 0, 1], [4, 0, 3, 0, 1]],
    ),
    "F[C@H](Cl)Br": (
        [
            [8, 0, 1, 5, 0, 0, 2, 0, 0],
            [5, 2, 4, 5, 1, 0, 2, 0, 0],
            [16, 0, 1, 5, 0, 0, 2, 0, 0],
            [34, 0, 1, 5, 0, 0, 2, 0, 0],
        ],
        [[0, 1, 0, 0, 0], [1, 2, 0, 0, 0], [1, 3, 0, 0, 0]],
    ),
    "F/C=C/F": (
        [[8, 0, 1, 5, 0, 0, 2, 0, 0], *[[5, 0, 3, 5, 1, 0, 1, 0, 0]] * 2, [8, 0, 1, 5, 0, 0, 2, 0, 0]],
        [[0, 1, 0, 0, 0], [1, 2, 1, 2, 0], [2, 3, 0, 0, 0]],
    ),
    "F/C=C\\F": (
        [[8, 0, 1, 5, 0, 0, 2, 0, 0], *[[5, 0, 3, 5, 1, 0, 1, 0, 0]] * 2, [8, 0, 1, 5, 0, 0, 2, 0, 0]],
        [[0, 1, 0, 0, 0], [1, 2, 1, 1, 0], [2, 3, 0, 0, 0]],
    ),
    "FS(F)(F)(F)(F)F": (
        [[8, 0, 1, 5, 0, 0, 2, 0, 0], [15, 0, 6, 5, 0, 0, 4, 0, 0], *[[8, 0, 1, 5, 0, 0, 2, 0, 0]] * 5],
        [[0, 1, 0, 0, 0], *([1, i, 0, 0, 0] for i in range(2, 7))],
    ),
    "[NH3]->[Fe+6]": (
        [[6, 0, 4, 5, 3, 0, 2, 0, 0], [25, 0, 1, 11, 0, 0, 5, 0, 0]],
        [[0, 1, 4, 0, 0]],
    ),
}


def fields_of(*smiles, **options):
    return molecule_fields([Chem.MolFromSmiles(text) for text in smiles], **options)


@pytest.mark.parametrize("smiles", BY_HAND)
def test_fields_written_down_by_hand(smiles):
    atoms, bonds = BY_HAND[smiles]
    fields = fields_of(smiles)
    np.testing.assert_array_equal(fields.atoms, atoms)
    rows = np.array(bonds, int).reshape(-1, 5)
    np.testing.assert_array_equal(fields.ends, rows[:, :2])
    np.testing.assert_array_equal(fields.bonds, rows[:, 2:])


def test_several_molecules_follow_each_other():
    together = fields_of(*BY_HAND)
    assert together.n_atom.tolist() == [len(atoms) for atoms, _ in BY_HAND.values()]
    assert together.n_bond.tolist() == [len(bonds) for _, bonds in BY_HAND.values()]
    np.testing.assert_array_equal(together.atoms, [row for atoms, _ in BY_HAND.values() for row in atoms])
    np.testing.assert_array_equal(together.bonds, [row[2:] for _, bonds in BY_HAND.values() for row in bonds])
    nothing = molecule_fields([])
    assert [part.shape for part in nothing] == [(0, 9), (0, 3), (0, 2), (0,), (0,)]


def test_every_field_stays_among_its_values():
    extreme = ("[C-6]", "[Ca+7]", "[CH4-5]", "[Og]", "[U](F)(F)(F)(F)(F)F", "[Mn]", "C[Pt@SP1](F)(Cl)Br", "*~*")
    fields = fields_of(*extreme)
    assert (fields.atoms < list(ATOM_FIELDS.values())).all() and (fields.bonds < list(BOND_FIELDS.values())).all()
    assert fields.atoms[0].tolist()[3] == fields.atoms[1].tolist()[3] == 11
    assert 4 in fields.atoms[:, 1], "square planar centres count as another chirality"


def test_molecules_without_marks_need_no_look_at_stereo():
    plain, marked = "CCO", "F/C=C/[C@H](F)Cl"
    assert not may_have_stereo(plain) and may_have_stereo(marked) and may_have_stereo("CC=CC |w:2.1|")
    looked = fields_of(plain, marked)
    not_looked = fields_of(plain, marked, stereo=[False, True])
    for one, other in zip(looked, not_looked, strict=True):
        np.testing.assert_array_equal(one, other)
    blind = fields_of(marked, stereo=[False])
    assert not blind.atoms[:, 1].any() and not blind.bonds[:, 1].any()
    assert looked.atoms[:, 1].any() and looked.bonds[:, 1].any()


def test_bonds_become_edges_there_and_back():
    senders, receivers, edges = both_ways(np.array([[0, 1], [2, 1]]), np.array([[3, 0, 1], [1, 2, 0]]))
    assert senders.tolist() == [0, 1, 2, 1] and receivers.tolist() == [1, 0, 1, 2]
    assert edges.tolist() == [[3, 0, 1], [3, 0, 1], [1, 2, 0], [1, 2, 0]]


def smiles_to_compare():
    folder = os.environ.get("JAXGKD_DATA")
    if folder is None:
        return [smiles for smiles in BY_HAND]
    found = []
    for name in ("hiv", "tox21", "bbbp", "clintox", "lipo", "esol"):
        with open(Path(folder) / "molecules" / f"{name}.csv", newline="") as file:
            found += [row[0] for row in list(csv.reader(file))[1:]]
    return found


def test_equal_to_ogb():
    """Every molecule of HIV and five other sets where JAXGKD_DATA is set, those above where it is not."""
    mol = pytest.importorskip("ogb.utils.mol", reason="ogb is not installed")
    compared = 0
    with rdBase.BlockLogs():
        for smiles in smiles_to_compare():
            molecule = Chem.MolFromSmiles(smiles)
            if molecule is None:
                continue
            fields = molecule_fields([molecule], [may_have_stereo(smiles)])
            senders, receivers, edges = both_ways(fields.ends, fields.bonds)
            expected = mol.smiles2graph(smiles)
            assert np.array_equal(fields.atoms, expected["node_feat"]), smiles
            assert np.array_equal([senders, receivers], expected["edge_index"]), smiles
            assert np.array_equal(edges, expected["edge_feat"]), smiles
            compared += 1
    assert compared >= len(BY_HAND)
