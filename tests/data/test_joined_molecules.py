import dataclasses

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from jaxgkd.data.joined_molecules import joined_molecules
from jaxgkd.data.molecules import load_molecules
from jaxgkd.data.rdkit_molecules import load_nci
from jaxgkd.errors import ConfigError


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    (folder / "known.csv").write_text("smiles,y\nCCO,1\nc1ccccc1,2\nCC(=O)O,3\n")
    (folder / "others.csv").write_text("smiles\nOCC\nCCCC\nC(C)O\nCCN\nCCCC\nC\n")
    known = load_molecules(folder / "known.csv", root=folder, workers=1)
    return known, load_molecules(folder / "others.csv", labels=(), root=folder, workers=1)


def test_what_is_known_stays_in_its_place_and_nothing_is_there_twice(sets):
    known, others = sets
    joined = joined_molecules(known, others)
    assert [joined.smiles(i) for i in range(len(joined))] == ["CCO", "c1ccccc1", "CC(=O)O", "CCCC", "CCN", "C"]
    np.testing.assert_array_equal(joined.labels[:3], known.labels)
    assert np.isnan(joined.labels[3:]).all()
    assert [joined.rdkit_molecule(i).GetNumAtoms() for i in range(6)] == joined.n_atom.tolist()
    assert "3 molecules of others are taught without labels" in joined.notes
    assert "3 more of others are in the data or there twice, and left out" in joined.notes
    assert joined.sha256 != known.sha256 and joined.structure_sha256 != known.structure_sha256


def test_every_graph_is_the_one_it_was(sets):
    known, others = sets
    joined = joined_molecules(known, others).graphs()
    for i, (source, row) in enumerate([(known, 0), (known, 1), (known, 2), (others, 1), (others, 3), (others, 5)]):
        graphs = source.graphs()
        for field, start in (("nodes", "node_start"), ("edges", "edge_start")):
            mine = slice(*getattr(joined, start)[i : i + 2])
            its = slice(*getattr(graphs, start)[row : row + 2])
            np.testing.assert_array_equal(getattr(joined, field)["fields"][mine], getattr(graphs, field)["fields"][its])
        mine, its = slice(*joined.edge_start[i : i + 2]), slice(*graphs.edge_start[row : row + 2])
        np.testing.assert_array_equal(joined.senders[mine], graphs.senders[its])


def test_atoms_of_an_sd_file_stay_in_its_order(tmp_path):
    molecule = Chem.AddHs(Chem.MolFromSmiles("BrCCNO"))
    rdDistGeom.EmbedMolecule(molecule, randomSeed=1)
    blocks = [
        Chem.MolToMolBlock(molecule),
        Chem.MolToMolBlock(Chem.RenumberAtoms(molecule, [4, 0, 2, 1, 3, *range(5, 11)])),
    ]
    (tmp_path / "others.sdf").write_text("".join(block + "$$$$\n" for block in blocks))
    (tmp_path / "known.csv").write_text("smiles,y\nCCO,1\nC(O)CN,2\n")
    known = load_molecules(tmp_path / "known.csv", root=tmp_path, workers=1)
    others = load_molecules(tmp_path / "others.sdf", labels=(), hydrogens="implicit", root=tmp_path, workers=1)
    for first, second in ((known, others), (others, known)):
        joined = joined_molecules(first, second)
        for i in range(len(joined)):
            elements = [atom.GetAtomicNum() for atom in joined.rdkit_molecule(i).GetAtoms()]
            assert elements == (joined.atoms[slice(*joined.atom_start[i : i + 2])][:, 0] + 1).tolist()


def test_at_most_so_many_are_taken(sets):
    assert [joined_molecules(*sets, most=1).smiles(i) for i in range(4)][-1] == "CCCC"
    assert joined_molecules(*sets, most=1).sha256 != joined_molecules(*sets, most=2).sha256


def test_hydrogens_have_to_be_alike(sets):
    known, others = sets
    with pytest.raises(ConfigError, match="hydrogens are implicit in known and explicit in others"):
        joined_molecules(known, dataclasses.replace(others, hydrogens="explicit"))


def test_the_collection_inside_rdkit_is_read(tmp_path):
    nci = load_nci(root=tmp_path)
    assert 4900 < len(nci) < 5000 and not nci.tasks and nci.labels.shape[1] == 0
