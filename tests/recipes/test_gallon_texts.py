import json

import numpy as np
import pytest
from rdkit import Chem

from jaxgkd.data.molecules import load_molecules
from jaxgkd.errors import DataError
from jaxgkd.recipes.gallon_texts import make_prompts

SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "[Na+].[O-]c1ccc(Cl)cc1", "O", "C1CC1C#N"]


def table(folder, smiles):
    folder.mkdir()
    rows = "\n".join(f"{text},{i % 2}" for i, text in enumerate(smiles))
    (folder / "molecules.csv").write_text(f"smiles,label\n{rows}\n")
    return load_molecules(folder / "molecules.csv", labels=("label",), root=folder / "cache", workers=1)


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    return table(tmp_path_factory.mktemp("tables") / "as-written", SMILES)


def otherwise_written(smiles, seed):
    """The same molecules with their atoms in another order."""
    drawn = np.random.default_rng(seed)

    def shuffled(text):
        molecule = Chem.MolFromSmiles(text)
        order = drawn.permutation(molecule.GetNumAtoms()).tolist()
        return Chem.MolToSmiles(Chem.RenumberAtoms(molecule, order), canonical=False)

    return [shuffled(text) for text in smiles]


@pytest.mark.parametrize(
    "parts", [("smiles",), ("description",), ("structure",), ("smiles", "description", "structure")]
)
def test_a_prompt_does_not_tell_how_a_table_writes_a_molecule(molecules, tmp_path, parts):
    others = otherwise_written(SMILES, seed=1)
    assert others != SMILES
    again = table(tmp_path / "otherwise", others)
    assert make_prompts(molecules, parts).texts == make_prompts(again, parts).texts


def test_parts_stand_in_their_order_on_lines_of_their_own(molecules):
    prompts = make_prompts(molecules, ("description", "smiles"))
    assert prompts.source == "template" and prompts.whole.all()
    for i, (text, description) in enumerate(zip(prompts.texts, prompts.descriptions, strict=True)):
        assert text == f"{description}\n{molecules.canonical_smiles(i)}" and description
    # Where groups sit in space is part of what is read.
    assert "@" in make_prompts(molecules, ("smiles",)).texts[1]


def test_a_molecule_that_nobody_described_is_at_least_named(molecules, tmp_path):
    written = [{"smiles": text, "text": f"the molecule {i}"} for i, text in enumerate(SMILES) if i != 3]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in written))
    prompts = make_prompts(molecules, ("description",), file, "smiles")
    assert prompts.texts[3] == molecules.canonical_smiles(3) and not prompts.whole[3]
    assert prompts.texts[0] == "the molecule 0" and prompts.whole.sum() == 4


def test_only_molecules_of_the_data_have_to_be_described(molecules, tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"smiles": text, "text": "said"}) + "\n" for text in SMILES[:3]))
    prompts = make_prompts(molecules, ("smiles", "description"), file, "error", n_labelled=3)
    assert prompts.texts[3:] == ["", ""] and prompts.whole.tolist() == [True] * 3 + [False] * 2
    assert prompts.notes == ("The language model says nothing of 2 molecules without labels or a description",)
    everyone = make_prompts(molecules, ("smiles", "description"), file, "template", n_labelled=3)
    assert everyone.whole.all() and "template" in str(everyone.source)
    with pytest.raises(DataError, match="1 of 4 molecules without a description"):
        make_prompts(molecules, ("smiles", "description"), file, "error", n_labelled=4)
