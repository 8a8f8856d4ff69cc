import os
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from jaxgkd.data import molecule_texts as module
from jaxgkd.data.molecule_texts import all_templates, structure_sentences, template_description
from jaxgkd.data.molecules import load_molecules


def text(smiles, **options):
    return template_description(Chem.MolFromSmiles(smiles, **options))


def molecules_of(tmp_path, *smiles, **options):
    (tmp_path / "a.csv").write_text("smiles\n" + "".join(f"{each}\n" for each in smiles))
    return load_molecules(tmp_path / "a.csv", root=tmp_path / "cache", workers=1, **options)


def test_a_drug_in_words():
    # Clenbuterol with a trifluoromethyl group: mabuterol.
    assert text("CC(C)(C)NCC(O)c1cc(Cl)c(N)c(C(F)(F)F)c1") == (
        "A lipophilic aromatic molecule of formula C13H18ClF3N2O and molecular weight 311. "
        "Functional groups: one secondary alcohol, one aromatic amine, one secondary amine, one trifluoromethyl group "
        "and one tert-butyl group. Rings: one benzene ring. Halogens: three fluorines and one chlorine. "
        "It has logP 3.4 (lipophilic), polar surface 58 (low), three hydrogen-bond donors, three hydrogen-bond "
        "acceptors, three rotatable bonds (somewhat flexible) and 54% of its carbons sp3. "
        "It breaks none of Lipinski's four rules. Scaffold: c1ccccc1."
    )


def test_numbers_near_zero_and_elements_that_end_in_s_are_written_well():
    assert "It has logP 0.0 (" in text("CCO")
    assert "Other elements: two phosphorus." in text("OP(=O)(O)OP(=O)(O)O")


def test_salts_charges_and_stereochemistry():
    penicillin = text("CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)[O-].[K+]")
    assert penicillin.startswith("A polar aromatic salt of formula C16H17KN2O4S")
    assert "Beside its largest part: one potassium." in penicillin and "three stereocentres" in penicillin
    assert "one penicillin core and one benzene ring; three rings in all, one aromatic" in penicillin
    assert text("C[NH3+]").startswith("A positively charged (+1) polar acyclic molecule")
    assert "zwitterionic" in text("[NH3+]CC(=O)[O-]") and "zwitterionic" not in text("C[N+](=O)[O-]")
    assert "one fixed double bond" in text("F/C=C/F") and "double bond" not in text("FC=CF")
    assert "two molecules with SMILES CO" in text("CO.CO.CCCCO")
    assert "one water and two sodiums" in text("[Na+].[Na+].O.[O-]C(=O)C(=O)[O-]")


def test_unnamed_rings_are_described():
    assert "one partly aromatic 5-6-6 ring system with two nitrogens" in text("O=C1Nc2ccccc2C12C=CNC=C2")
    assert "one aliphatic 8-membered ring with one oxygen and one sulfur" in text("C1CCOCCSC1")
    assert "one aromatic 7-ring system" in text("c1cc2ccc3ccc4ccc5ccc6ccc1c1c2c3c4c5c61")


ODD = (
    "",
    "*",
    "[Na+]",
    "[H][H]",
    "[2H]O[2H]",
    "[Fe]",
    "[Pt](Cl)(Cl)(N)N",
    "*c1ccccc1*",
    "[U+4]",
    "c1ccccc1->[Cr]",
    "O",
)
ODD += (
    "B1C2CCCC1CCC2",
    "C12C3C4C1C5C2C3C45",
    "C" * 490,
    "[Na+].[Cl-]",
    "[Xe]",
    "[nH]1cccc1.[K+].[OH-]",
    "F[P-](F)(F)(F)(F)F",
)


@pytest.mark.parametrize("smiles", ODD)
def test_odd_molecules_have_a_text(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    described = template_description(molecule)
    assert described.endswith(".") and "  " not in described and "None" not in described and "nan" not in described
    structure = structure_sentences(molecule)
    assert structure.endswith(".") == bool(smiles)


def test_molecules_that_were_never_checked_have_a_text():
    parameters = Chem.SmilesParserParams()
    parameters.sanitize = False
    molecule = Chem.MolFromSmiles("C(C)(C)(C)(C)(C)c1cccc1", parameters)
    assert "5-membered" in template_description(molecule)
    assert structure_sentences(molecule).count("in a ring of 5") == 5


def test_what_cannot_be_computed_is_left_out(monkeypatch):
    def fails(molecule):
        raise RuntimeError("Pre-condition Violation")

    for name in ("CalcCrippenDescriptors", "CalcMolFormula", "GetScaffoldForMol"):
        monkeypatch.setattr(module, name, fails)
    described = text("CCOc1ccccc1")
    assert described.startswith("An aromatic molecule of molecular weight 122. Functional groups: one aryl ether.")
    assert "logP" not in described and "Lipinski" not in described and "polar surface 9 (low)" in described


@pytest.mark.parametrize("smiles", ["CC(=O)Oc1ccccc1C(=O)O", "S=C=Nc1ccc(SSc2ccc(N=C=S)cc2)cc1", "CN1C2CCC1CC(O)C2.Cl"])
def test_the_numbering_and_explicit_hydrogens_do_not_matter(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    expected = template_description(molecule)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(molecule.GetNumAtoms()).tolist()
        assert template_description(Chem.RenumberAtoms(molecule, order)) == expected
    assert template_description(Chem.AddHs(molecule)) == expected


def test_structure_names_each_bond_once():
    assert structure_sentences(Chem.MolFromSmiles("CC(=O)[O-].[Na+]")) == (
        "C1 and C2: single bond. C2 and O3: double bond. C2 and O4 (-1): single bond. Na5 (+1): no bond."
    )
    molecule = Chem.MolFromSmiles("c1ccc2c(c1)CCC2")
    sentences = structure_sentences(Chem.AddHs(molecule))
    assert sentences.count(".") == molecule.GetNumBonds()
    assert sentences.count("aromatic bond in a ring of 6") == 5 and sentences.count("single bond in a ring of 5") == 4
    assert sentences.count("aromatic bond in a ring of 5 and 6") == 1


@pytest.mark.parametrize("hydrogens", ["implicit", "explicit"])
def test_templates_are_kept(tmp_path, monkeypatch, hydrogens):
    molecules = molecules_of(tmp_path, "CCO", "[Na+].[Cl-]", "c1ccccc1", hydrogens=hydrogens)
    made = all_templates(molecules, workers=1, root=tmp_path / "cache")
    assert made == [template_description(molecules.rdkit_molecule(i)) for i in range(3)]
    monkeypatch.setattr(module, "templates", None)
    assert all_templates(molecules, workers=1, root=tmp_path / "cache") == made


@pytest.mark.skipif("JAXGKD_DATA" not in os.environ, reason="needs the data folder")
def test_texts_of_real_drugs_have_the_length_of_a_paragraph(tmp_path):
    rows = (Path(os.environ["JAXGKD_DATA"]) / "molecules/clintox.csv").read_text().splitlines()[1:300]
    made = all_templates(molecules_of(tmp_path, *(row.split(",")[0] for row in rows)), root=tmp_path / "cache")
    words = np.array([len(each.split()) for each in made])
    assert 55 < np.median(words) < 110 and np.quantile(words, 0.95) < 120
    assert len(set(made)) > 0.9 * len(made)
