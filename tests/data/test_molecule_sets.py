import gzip

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from jaxgkd.data import registry
from jaxgkd.data.molecule_sets import find_molecule_file, load_molecule_set, molecule_names, unit_of
from jaxgkd.errors import ConfigError, DataError

SMILES = ("CCO", "CC(=O)N", "c1ccccc1")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_table(path, header="smiles,y,z"):
    path.write_text("\n".join([header, *(f"{smiles},{i}.5,{i % 2}" for i, smiles in enumerate(SMILES))]) + "\n")
    return path


def write_sdf(path):
    blocks = []
    for smiles in SMILES:
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        rdDistGeom.EmbedMolecule(molecule, randomSeed=1)
        blocks.append(Chem.MolToMolBlock(molecule) + "$$$$\n")
    with gzip.open(path, "wt") as file:
        file.write("".join(blocks))
    return path


def test_the_structures_beside_a_table_are_read_with_it(tmp_path):
    table = write_table(tmp_path / "mine.csv")
    plain = load_molecule_set(table, labels=("y",))
    assert plain.coordinates is None and plain.hydrogens == "implicit" and plain.name == "mine"
    write_sdf(tmp_path / "mine.sdf.gz")
    placed = load_molecule_set(table, labels=("y",))
    assert placed.hydrogens == "explicit" and placed.placed.all() and placed.n_atom.tolist() == [9, 9, 12]
    np.testing.assert_array_equal(placed.labels[:, 0], [0.5, 1.5, 2.5])
    assert load_molecule_set(table, labels=("y",), hydrogens="implicit").n_atom.tolist() == [3, 4, 6]


def test_a_name_ends_where_the_ending_of_a_table_begins(tmp_path):
    write_sdf(tmp_path / "mine.sdf.gz")
    other = load_molecule_set(write_table(tmp_path / "mine.v2.csv"), labels=("y",))
    assert other.coordinates is None and other.name == "mine.v2"
    assert molecule_names(tmp_path) - {"cache"} == {"mine", "mine.v2"}


def test_a_folder_holds_one_table(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(DataError, match="holds neither a table nor an SD file"):
        load_molecule_set(folder)
    write_table(folder / "a.csv")
    assert len(load_molecule_set(folder, labels=("all",)).tasks) == 2
    write_table(folder / "b.csv")
    with pytest.raises(DataError, match=r"several files: a.csv, b.csv; give the path of one"):
        load_molecule_set(folder)
    with pytest.raises(DataError, match=r"does not exist; give a \.csv or \.sdf file"):
        load_molecule_set(tmp_path / "none.csv")


def test_kinds_can_be_said(tmp_path):
    table = write_table(tmp_path / "mine.csv")
    kinds = [task.kind for task in load_molecule_set(table, labels=("y", "z")).tasks]
    assert kinds == ["regression", "classification"]
    assert load_molecule_set(table, labels=("z",), kinds=("regression",)).tasks[0].kind == "regression"


def test_what_is_known_of_published_sets(tmp_path):
    table = write_table(tmp_path / "qm7.csv", header="smiles,hof_kcal_mol,n_atoms")
    molecules = load_molecule_set(table)
    assert [task.name for task in molecules.tasks] == ["hof_kcal_mol"] and unit_of(molecules) == "kcal/mol"
    assert unit_of(load_molecule_set(write_table(tmp_path / "other.csv"), labels=("y",))) is None


def test_names_are_found_in_the_data_folder(tmp_path, monkeypatch):
    folder = tmp_path / "molecules"
    folder.mkdir()
    write_table(folder / "mine.csv")
    write_sdf(folder / "others.sdf.gz")
    (folder / "README.md").write_text("")
    assert molecule_names(folder) == {"mine", "others"}
    assert find_molecule_file(folder, "others") == folder / "others.sdf.gz"
    assert find_molecule_file(folder, "README") is None
    monkeypatch.setenv("JAXGKD_DATA", str(tmp_path))
    assert registry.names("ccmd")[:3] == ("egfr", "chembl2321810", "qm7") and registry.names("ccmd")[-2:] == (
        "mine",
        "others",
    )
    assert registry.load("mine", recipe="ccmd", labels=("y",)).name == "mine"
    assert registry.load(folder / "mine.csv", recipe="ccmd", labels=("y",)).name == "mine"
    with pytest.raises(ConfigError, match="'qm7' is not in"):
        registry.load("qm7", recipe="ccmd")
    with pytest.raises(ConfigError, match="there is no data set 'yours' for ccmd"):
        registry.load("yours", recipe="ccmd")
