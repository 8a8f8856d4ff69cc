import io

import numpy as np
import pytest
from PIL import Image
from rdkit import Chem

from jaxgkd.data import molecule_drawings as module
from jaxgkd.data.molecule_drawings import drawings, inked, n_blank, png
from jaxgkd.data.molecules import load_molecules
from jaxgkd.errors import ConfigError

SMILES = ("CCO", "c1ccccc1", "[Na+].[Cl-]", "*CC", "C[Pt]Cl")


@pytest.fixture
def molecules(tmp_path):
    (tmp_path / "a.csv").write_text("smiles\n" + "".join(f"{each}\n" for each in SMILES))
    return load_molecules(tmp_path / "a.csv", root=tmp_path / "cache", workers=1)


def test_a_png_has_the_size_asked_for_and_colours():
    image = np.asarray(Image.open(io.BytesIO(png(Chem.MolFromSmiles("CC(=O)N"), 200))).convert("RGB")).astype(int)
    assert image.shape == (200, 200, 3) and (image[0, 0] == 255).all()
    assert np.ptp(image, axis=-1).max() > 100


def test_explicit_hydrogens_are_not_drawn():
    molecule = Chem.MolFromSmiles("CCO")
    assert png(Chem.AddHs(molecule)) == png(molecule)


def test_ink_on_white_paper(molecules, tmp_path):
    drawn = drawings(molecules, 48, workers=1, root=tmp_path / "cache")
    assert drawn.shape == (5, 48, 48) and drawn.dtype == np.uint8 and isinstance(drawn, np.memmap)
    share = (drawn > 64).mean(axis=(1, 2))
    # Paper is most of it, and lines stay dark though they are reduced.
    assert (share > 0.005).all() and (share < 0.3).all() and (drawn.max(axis=(1, 2)) > 150).all()
    assert not drawn[:, 0].any() and not drawn[:, :, 0].any() and n_blank(drawn) == 0
    assert len(np.unique(drawn.reshape(5, -1), axis=0)) == 5


def test_a_ring_is_drawn_as_one():
    (drawn,) = inked(["C1CCCCC1"], size=64)
    dark = drawn > 100
    # From the middle every way leads over a line.
    assert not dark[28:36, 28:36].any()
    assert dark[32, :32].any() and dark[32, 32:].any() and dark[:32, 32].any() and dark[32:, 32].any()


def test_the_upper_row_comes_first():
    (drawn,) = inked(["CCC(C)(C)O"], size=64)
    picture = np.asarray(Image.open(io.BytesIO(png(Chem.MolFromSmiles("CCC(C)(C)O"), 64))).convert("L"))
    ink = 255 - picture.astype(float)
    rows, own = ink.sum(axis=1), drawn.sum(axis=1).astype(float)
    assert np.corrcoef(rows, own)[0, 1] > np.corrcoef(rows, own[::-1])[0, 1]


def test_drawings_are_kept_by_size(molecules, tmp_path, monkeypatch):
    done = []
    options = {"workers": 1, "root": tmp_path / "cache"}
    first = drawings(molecules, 32, progress=lambda *counts: done.append(counts), **options)
    assert done == [(5, 5)]
    monkeypatch.setattr(module, "_drawn", None)
    np.testing.assert_array_equal(drawings(molecules, 32, **options), first)
    with pytest.raises(TypeError):
        drawings(molecules, 40, **options)


def test_what_cannot_be_drawn_is_blank_and_counted(molecules, tmp_path, monkeypatch):
    def fails_for_rings(molecule, *arguments, draw=module._drawn):
        if molecule.GetRingInfo().NumRings():
            raise RuntimeError("Pre-condition Violation")
        return draw(molecule, *arguments)

    monkeypatch.setattr(module, "_drawn", fails_for_rings)
    drawn = drawings(molecules, 32, workers=1, root=tmp_path / "cache")
    assert drawn.any(axis=(1, 2)).tolist() == [True, False, True, True, True] and n_blank(drawn) == 1
    with pytest.raises(ConfigError, match="cannot draw"):
        png(Chem.MolFromSmiles("c1ccccc1"))
    assert not inked(["", "not a molecule"], size=16).any()


@pytest.mark.parametrize("size", [0, -3, 8, 5000])
def test_odd_sizes_are_an_error(molecules, tmp_path, size):
    with pytest.raises(ConfigError, match="size"):
        drawings(molecules, size, root=tmp_path / "cache")


@pytest.mark.parametrize("smiles", ["C" * 400, "[Xe]", "*", "[2H]O[2H]", "C12C3C4C1C5C2C3C45", "c1ccccc1->[Cr]"])
def test_odd_molecules_are_drawn(smiles):
    assert inked([smiles], size=64).any() and png(Chem.MolFromSmiles(smiles)).startswith(b"\x89PNG")
