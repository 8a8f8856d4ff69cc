from types import SimpleNamespace

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from jaxgkd.data import conformers as module
from jaxgkd.data.conformers import embed, make_conformers
from jaxgkd.data.molecules import load_molecules
from jaxgkd.errors import ConfigError

SETTINGS = {"count": 1, "force_fields": ("MMFF94", "UFF"), "seed": 0, "time_limit": 60.0, "max_steps": 1000}


def made(smiles, **options):
    return embed(Chem.MolFromSmiles(smiles).ToBinary(), **(SETTINGS | options))


def molecules_of(tmp_path, *smiles, **options):
    (tmp_path / "a.csv").write_text("smiles\n" + "".join(f"{text}\n" for text in smiles))
    return load_molecules(tmp_path / "a.csv", root=tmp_path / "cache", workers=1, **options)


def test_geometry_is_that_of_the_molecule():
    result = made("OCC")
    assert (result.status, result.relaxed_with) == ("ok", 0)
    assert result.coordinates.shape == (1, 3, 3) and np.isfinite(result.energies).all()
    oxygen, carbon, other = result.coordinates[0]
    assert np.linalg.norm(oxygen - carbon) == pytest.approx(1.42, abs=0.03)
    assert np.linalg.norm(carbon - other) == pytest.approx(1.52, abs=0.03)


def test_conformers_are_ordered_by_energy_and_come_from_the_seed():
    one, same, other = (made("CCCCCO", count=5, seed=seed) for seed in (1, 1, 2))
    assert len(one.energies) == 5 and (np.diff(one.energies) >= 0).all()
    np.testing.assert_array_equal(one.coordinates, same.coordinates)
    assert not np.array_equal(one.coordinates, other.coordinates)


@pytest.mark.parametrize(
    ("smiles", "options", "expected"),
    [
        ("[Na+]", {}, ("ok", 0, 1)),
        ("CC[Fe]", {}, ("ok", 1, 1)),
        ("CC[Fe]", {"force_fields": ("MMFF94",)}, ("no parameters", -1, 1)),
        ("c1ccccc1[Pt]", {}, ("no parameters", -1, 1)),
        ("CCO", {"force_fields": ()}, ("ok", -1, 1)),
        ("CCCCCCCCCCCCO", {"max_steps": 1}, ("unconverged", 0, 1)),
        ("CCCCCCCCCCCCO", {"time_limit": 1e-9}, ("timed out", -1, 0)),
        ("C12C3C4C1C5C2C3C45", {}, ("ok", 0, 1)),
        ("N" + "C(CC1CCCCC1)C(=O)N" * 12 + "C", {"time_limit": 1.0}, ("timed out", -1, 0)),
    ],
)
def test_every_molecule_ends_with_a_status(smiles, options, expected):
    result = made(smiles, **options)
    assert (result.status, result.relaxed_with, len(result.energies)) == expected


@pytest.mark.parametrize(
    "smiles",
    [
        "Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(-c2cccnc2)n1",
        "CC(C)c1c(C(=O)Nc2ccccc2)c(-c2ccccc2)c(-c2ccc(F)cc2)n1CC[C@@H](O)C[C@@H](O)CC(=O)O",
    ],
)
def test_a_drug_comes_to_rest_where_rdkit_takes_it(smiles):
    result = made(smiles)
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = 0
    rdDistGeom.EmbedMolecule(molecule, parameters)
    [(moving, energy)] = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(molecule, maxIters=1000)
    assert (result.status, moving) == ("ok", 0)
    assert result.energies[0] == pytest.approx(energy, abs=0.5)


def test_where_embedding_fails_there_is_no_conformer(monkeypatch):
    monkeypatch.setattr(module.rdDistGeom, "EmbedMolecule", lambda *arguments: -1)
    result = made("CCO")
    assert (result.status, result.relaxed_with) == ("embedding failed", -1)
    assert result.coordinates.shape == (0, 3, 3) and result.energies.shape == (0,)


def test_conformers_that_were_there_when_time_ran_out_are_kept():
    result = made("CC(C)C[C@H](N)C(=O)N[C@@H](Cc1ccccc1)C(=O)N[C@@H](C)C(=O)O", count=4000, time_limit=2.0)
    assert result.status == "timed out" and 0 < len(result.energies) < 4000


def test_a_relaxation_that_takes_too_long_keeps_what_there_is(monkeypatch):
    clock = iter([0.0] * 3 + [99.0] * 50)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    result = made("CCCCCCCCO", max_steps=10_000)
    assert result.status == "timed out" and result.coordinates.shape == (1, 9, 3)


def test_all_molecules_of_a_set(tmp_path):
    molecules = molecules_of(tmp_path, "CCO", "c1ccccc1[Pt]", "C", "bad", "CC(C)CN")
    told = []
    settings = {"count": 2, "root": tmp_path, "workers": 1}
    found = make_conformers(molecules, progress=lambda done, n: told.append((done, n)), **settings)
    assert told == [(i, 4) for i in range(1, 5)]
    assert found.coordinates.shape == (3 + 7 + 1 + 5, 2, 3) and found.energies.shape == (4, 2)
    assert found.n_conformer.tolist() == [2] * 4 and found.placed.all()
    assert found.counts == {"ok": 3, "no parameters": 1, "relaxed with MMFF94": 3}
    assert found.problems(molecules) == [(3, "no parameters", True)]
    assert np.isnan(found.energies[1]).all() and np.isfinite(np.delete(found.energies, 1, axis=0)).all()
    for i in range(4):
        start, end = molecules.atom_start[i : i + 2]
        alone = embed(molecules.rdkit_molecule(i).ToBinary(), **(SETTINGS | {"count": 2}))
        np.testing.assert_array_equal(found.coordinates[start:end].swapaxes(0, 1), alone.coordinates)
    graphs = molecules.graphs(coordinates=found.lowest())
    np.testing.assert_array_equal(graphs.nodes["coordinates"], found.coordinates[:, 0])

    def never(*arguments, **options):
        raise AssertionError

    again = make_conformers(molecules, progress=never, **settings)
    np.testing.assert_array_equal(again.coordinates, found.coordinates)


def test_hydrogens_get_coordinates_where_they_are_atoms(tmp_path):
    molecules = molecules_of(tmp_path, "CO", hydrogens="explicit")
    found = make_conformers(molecules, root=tmp_path, workers=1)
    assert found.coordinates.shape == (6, 1, 3)
    carbon, oxygen, *hydrogens = found.lowest()
    distances = sorted(np.linalg.norm(hydrogen - carbon) for hydrogen in hydrogens)
    assert distances[:3] == pytest.approx([1.09] * 3, abs=0.02)
    assert np.linalg.norm(hydrogens[-1] - oxygen) == pytest.approx(0.97, abs=0.02)


def test_what_holds_a_process_up_or_ends_it_is_a_status_too(tmp_path, monkeypatch):
    molecules = molecules_of(tmp_path, "CCO", "C")

    def map_watched(work, items, *, late, died, **options):
        list(items)
        return iter([late, died])

    monkeypatch.setattr(module, "map_watched", map_watched)
    found = make_conformers(molecules, root=tmp_path)
    assert found.counts == {"embedding failed": 1, "timed out": 1}
    assert not found.placed.any() and not found.coordinates.any() and np.isnan(found.energies).all()
    assert found.problems(molecules) == [(2, "timed out", False), (3, "embedding failed", False)]


@pytest.mark.parametrize(
    "options",
    [{"count": 0}, {"seed": -1}, {"time_limit": 0}, {"max_steps": 0}, {"force_fields": ("GAFF",)}],
)
def test_settings_are_checked(options):
    with pytest.raises(ConfigError, match=r"cannot be made|no force field 'GAFF'"):
        make_conformers(None, **options)
