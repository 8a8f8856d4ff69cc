import pytest
from rdkit import Chem

from jaxgkd.data.new_molecules import read_new_molecules
from jaxgkd.errors import DataError


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("id,Smiles,activity\n1,CCO,high\n2,C(,low\n\n4, CC ,\n5,,?\n")
    return path


def test_every_record_has_a_place_and_no_label_is_read(table, tmp_path):
    new = read_new_molecules(table, hydrogens="implicit", scratch=tmp_path / "scratch")
    assert new.rows == [2, 3, 5, 6]
    assert new.smiles == ["CCO", "C(", "CC", ""]
    assert new.place.tolist() == [0, -1, 1, -1]
    assert new.problems.keys() == {1, 3}
    assert len(new.molecules) == 2 and not new.molecules.tasks


def test_an_sd_file_gives_smiles_of_its_own(tmp_path):
    with Chem.SDWriter(str(tmp_path / "new.sdf")) as writer:
        for smiles in ("CCO", "CC"):
            writer.write(Chem.MolFromSmiles(smiles))
    new = read_new_molecules(tmp_path / "new.sdf", hydrogens="implicit", scratch=tmp_path / "scratch")
    assert new.rows == [1, 2] and [Chem.CanonSmiles(text) for text in new.smiles] == ["CCO", "CC"]


def test_a_file_without_molecules_is_refused(table, tmp_path):
    table.write_text("smiles\nC(\n")
    with pytest.raises(DataError, match="none of the 1 records is a molecule"):
        read_new_molecules(table, hydrogens="implicit", scratch=tmp_path / "scratch")
