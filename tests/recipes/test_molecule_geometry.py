import numpy as np
import pytest
from rich.console import Console

from jaxgkd.data.molecules import load_molecules
from jaxgkd.errors import ConfigError
from jaxgkd.recipes.molecule_geometry import choose, find_geometry

CONSOLE = Console(quiet=True)


@pytest.fixture
def molecules(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = tmp_path / "some.csv"
    table.write_text("smiles,y\nCCO,1\nCC(=O)O,2\n[Na+].[Cl-],3\n")
    return load_molecules(table)


def test_molecules_without_coordinates_get_conformers(molecules):
    geometry = find_geometry(molecules, "auto", 2, 0, CONSOLE)
    assert geometry.source == "rdkit" and geometry.coordinates.shape == (len(molecules.atoms), 2, 3)
    assert geometry.placed.all() and geometry.n_choice.max() == 2
    first = geometry.coordinates[:3, 0]
    # C-C is 1.5 Å long, C-O 1.4 Å.
    np.testing.assert_allclose(np.linalg.norm(np.diff(first, axis=0), axis=1), [1.51, 1.41], atol=0.03)
    assert any("Conformers by RDKit" in note for note in geometry.notes)


def test_wanted_coordinates_have_to_be_there(molecules):
    for source in ("given", "mixed"):
        with pytest.raises(ConfigError, match="some has no coordinates; use rdkit, or give an SD file"):
            find_geometry(molecules, source, 1, 0, CONSOLE)


def test_a_choice_is_one_of_those_there_are_and_all_come_up():
    coordinates = np.arange(4 * 2 * 3 * 3, dtype=np.float32).reshape(4, 2, 3, 3)
    n_choice = np.array([3, 1, 2, 0])
    seen = [set() for _ in n_choice]
    for draw in range(60):
        picked = choose(coordinates, n_choice, 7, draw)
        np.testing.assert_array_equal(picked, choose(coordinates, n_choice, 7, draw))
        for row in range(4):
            which = [c for c in range(3) if np.array_equal(picked[row], coordinates[row, :, c])]
            assert len(which) == 1
            seen[row] |= set(which)
    assert seen == [{0, 1, 2}, {0}, {0, 1}, {0}]
