from pathlib import Path

import numpy as np
import pytest
from rdkit import RDConfig

from jaxgkd.data import rdkit_molecules
from jaxgkd.data.molecules import Task
from jaxgkd.data.rdkit_molecules import load_chembl_activities, load_egfr
from jaxgkd.errors import DataError


def test_activities_of_a_series(tmp_path):
    molecules = load_chembl_activities(root=tmp_path, workers=1)
    assert len(molecules) == 1017 and molecules.name == "chembl2321810" and not molecules.problems
    assert molecules.tasks == (Task("activity", "regression"),) and not np.isnan(molecules.labels).any()
    assert (molecules.labels.min(), molecules.labels.max()) == (4.27, 9.22)
    # The first line of either file.
    assert molecules.smiles(0) == "O=S(=O)(Nc1cccs1)c2ccc(Oc3ccccc3c4ccccc4)c(c2)C#N" and molecules.labels[0, 0] == 5.48
    assert molecules.coordinates is None
    assert load_chembl_activities(root=tmp_path).sha256 == molecules.sha256


@pytest.mark.parametrize("hydrogens", ["implicit", "explicit"])
def test_ligands_in_three_dimensions(tmp_path, hydrogens):
    molecules = load_egfr(hydrogens=hydrogens, root=tmp_path, workers=1)
    assert len(molecules) == 365 and molecules.placed.all() and not molecules.problems
    assert molecules.tasks == (Task("plane_of_best_fit", "regression"),)
    published = Path(RDConfig.RDContribDir) / "PBF" / "testData" / "egfr.out"
    expected = [float(line.split()[1]) for line in published.read_text().splitlines()]
    np.testing.assert_allclose(molecules.labels[:, 0], expected, atol=1e-5)
    if hydrogens == "explicit":
        for i in (0, 100, 364):
            start, end = molecules.atom_start[i : i + 2]
            centred = molecules.coordinates[start:end] - molecules.coordinates[start:end].mean(axis=0)
            normal = np.linalg.svd(centred.astype(float))[2][2]
            assert np.abs(centred @ normal).mean() == pytest.approx(molecules.labels[i, 0], abs=1e-3)


def test_an_rdkit_without_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(rdkit_molecules.RDConfig, "RDContribDir", str(tmp_path))
    for load in (load_chembl_activities, load_egfr):
        with pytest.raises(DataError, match="is not part of this RDKit"):
            load(root=tmp_path)


def test_a_damaged_table_is_made_again(tmp_path):
    before = load_chembl_activities(root=tmp_path, workers=1)
    table = next(tmp_path.glob("rdkit/*/*.csv"))
    content = table.read_bytes()
    table.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.warns(UserWarning, match=r"chembl2321810\.csv is damaged"):
        assert load_chembl_activities(root=tmp_path, workers=1).sha256 == before.sha256
    assert table.read_bytes() == content
