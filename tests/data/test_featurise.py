import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from jaxgkd.data.atom_fields import molecule_fields
from jaxgkd.data.featurise import _keys, featurise
from jaxgkd.data.flat_arrays import array_folder, open_array
from jaxgkd.data.molecule_files import Record

SMILES = ("C", "CC(=O)O", "c1ccccc1O", "F[C@H](Cl)Br", "F/C=C/F", "OCC1OC(O)C(O)C(O)C1O", "C[N+](C)(C)CC([O-])=O")


def write(tmp_path, records, **options):
    meta = {}
    settings = {
        "numbers_of": lambda record: [float(cell) for cell in record.labels],
        "n_label": 1,
        "hydrogens": "implicit",
        "structures": False,
        "max_atoms": None,
        "workers": 1,
        "progress": None,
    }

    def keep(writer):
        meta.update(featurise(iter(records), writer, **(settings | options)))
        return meta

    return array_folder(tmp_path / "set", keep), meta


@settings(deadline=None, max_examples=30)
@given(smiles=st.sampled_from(SMILES), seed=st.integers(0, 2**31 - 1))
def test_keys_do_not_depend_on_the_order_of_the_atoms(smiles, seed):
    molecule = Chem.MolFromSmiles(smiles)
    order = np.random.default_rng(seed).permutation(molecule.GetNumAtoms()).tolist()
    shuffled = Chem.RenumberAtoms(molecule, order)
    one, other = (_keys(molecule_fields([m, molecule])) for m in (molecule, shuffled))
    np.testing.assert_array_equal(one, other)


def test_keys_tell_molecules_apart():
    isomers = ["CCCO", "CC(C)O", "COCC", "C1CC1", "CC=C", "CCC", "CCC[O-]", "[CH2]CC", "Cc1ccccc1C", "Cc1cccc(C)c1"]
    keys = _keys(molecule_fields([Chem.MolFromSmiles(smiles) for smiles in isomers]))
    assert len(set(keys.tolist())) == len(isomers)


def test_every_record_is_a_molecule_or_a_problem_and_the_counts_go_on_over_chunks(tmp_path):
    texts = [SMILES[i % len(SMILES)] if i % 5 else ("", "C(", "CN(C)(C)(C)C")[i // 5 % 3] for i in range(1200)]
    told = []
    records = [Record(i + 2, text, None, (str(i),)) for i, text in enumerate(texts)]
    folder, meta = write(tmp_path, records, progress=told.append)
    assert told == [512, 1024, 1200]
    assert meta["n_record"] == 1200 and meta["n_molecule"] == 960 and len(meta["problems"]) == 240
    assert [row for row, _, _ in meta["problems"]] == [i + 2 for i in range(0, 1200, 5)]
    reasons = [reason for _, reason, _ in meta["problems"][:3]]
    assert reasons[:2] == ["the SMILES is empty", "the SMILES cannot be parsed"]
    assert "valence for atom # 1 N, 5" in reasons[2]
    kept = [i for i in range(1200) if i % 5]
    assert open_array(folder, "record").tolist() == kept
    assert open_array(folder, "rows").tolist() == [i + 2 for i in kept]
    assert open_array(folder, "labels")[:, 0].tolist() == kept
    n_atom = [Chem.MolFromSmiles(texts[i]).GetNumAtoms() for i in kept]
    assert np.diff(open_array(folder, "atom_start")).tolist() == n_atom
    assert len(open_array(folder, "atoms")) == sum(n_atom)
    assert open_array(folder, "smiles").tobytes().decode() == "".join(texts[i] for i in kept)
    assert not open_array(folder, "placed").any() and not (folder / "coordinates.npy").exists()


def test_labels_that_are_all_0_or_1_are_noticed(tmp_path):
    for name, cells, binary in (("a", "01n", True), ("b", "012", False)):
        records = [Record(2, "C", None, ("nan" if cell == "n" else cell,)) for cell in cells]
        assert write(tmp_path / name, records)[1]["binary"] == [binary]


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_give_the_same_arrays(tmp_path, workers, monkeypatch):
    monkeypatch.setattr("jaxgkd.data.featurise._CHUNK", 4)
    records = [Record(i, SMILES[i % len(SMILES)], None, ("1",)) for i in range(80)]
    folder, meta = write(tmp_path, records, workers=workers)
    together = molecule_fields([Chem.MolFromSmiles(record.smiles) for record in records])
    np.testing.assert_array_equal(open_array(folder, "atoms"), together.atoms)
    np.testing.assert_array_equal(open_array(folder, "edges"), np.repeat(together.bonds, 2, axis=0))
    assert meta["n_molecule"] == 80
