import numpy as np
import pytest

from jaxgkd.data.bond_counts import ELEMENTS, MOST, N_KIND, NEIGHBOUR_SIZES, neighbour_fields
from jaxgkd.data.molecules import load_molecules

SMILES = ["CC(=O)O", "C#N", "c1ccccc1Cl", "CC(C)(C)C", "[Na+].[Cl-]", "*C", "C"]


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bonds")
    (folder / "m.csv").write_text("smiles\n" + "\n".join(SMILES) + "\n")
    return load_molecules(folder / "m.csv", labels=(), root=folder, workers=1)


def test_counts_are_those_of_the_bonds_of_every_atom(molecules):
    fields = neighbour_fields(molecules.graphs())
    assert fields.shape == (len(molecules.atoms), len(NEIGHBOUR_SIZES)) and fields.max() <= MOST
    kinds = {"SINGLE": 0, "DOUBLE": 1, "TRIPLE": 2, "AROMATIC": 3}
    for i in range(len(SMILES)):
        molecule = molecules.rdkit_molecule(i)
        for atom in molecule.GetAtoms():
            wanted = np.zeros(len(NEIGHBOUR_SIZES), int)
            for bond in atom.GetBonds():
                element = bond.GetOtherAtom(atom).GetAtomicNum()
                group = ELEMENTS.index(element) if element in ELEMENTS else len(ELEMENTS)
                wanted[group * N_KIND + kinds[str(bond.GetBondType())]] += 1
            row = fields[molecules.atom_start[i] + atom.GetIdx()]
            np.testing.assert_array_equal(row, np.minimum(wanted, MOST))


def test_more_neighbours_than_are_told_apart_count_as_the_most(molecules):
    middle = neighbour_fields(molecules.graphs())[molecules.atom_start[3] + 1]
    assert middle[0] == MOST and middle[1:].sum() == 0
