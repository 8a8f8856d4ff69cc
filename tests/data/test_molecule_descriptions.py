import gzip
import json
import os
from pathlib import Path

import pytest
from rdkit import Chem

from jaxgkd.data.molecule_descriptions import in_one_notation, read_descriptions
from jaxgkd.data.molecule_texts import template_description
from jaxgkd.data.molecules import load_molecules
from jaxgkd.errors import ConfigError, DataError

SMILES = ("OCC", "C1=CC=CC=C1", "CC(=O)[O-].[Na+]", "CCO", "CN")


@pytest.fixture
def molecules(tmp_path):
    (tmp_path / "a.csv").write_text("smiles\n" + "".join(f"{each}\n" for each in SMILES))
    return load_molecules(tmp_path / "a.csv", root=tmp_path / "cache", workers=1)


@pytest.fixture
def read(tmp_path, molecules):
    """Writes lines, objects as JSON and text as it is, and reads them."""

    def write_and_read(*lines, missing="smiles", name="words.jsonl"):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        content = "".join(f"{text}\n" for text in texts).encode(errors="surrogateescape")
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return read_descriptions(path, molecules, missing=missing, workers=1)

    return write_and_read


def line(smiles, text, **more):
    return {"smiles": smiles, "text": text} | more


ALL = (line("c1ccccc1", "Benzene."), line("C(O)C", "Alcohol."), line("NC", "Amine."), line("[Na+].CC([O-])=O", "Salt."))


@pytest.mark.parametrize("name", ["words.jsonl", "words.jsonl.gz"])
def test_a_line_belongs_to_all_molecules_with_its_smiles(read, name):
    found = read(*ALL, missing="error", name=name)
    assert found.texts == ["Alcohol.", "Benzene.", "Salt.", "Alcohol.", "Amine."]
    assert (found.missing, found.source, found.notes) == ([], name, ())


def test_hydrogens_that_are_written_or_made_atoms_do_not_matter(tmp_path):
    (tmp_path / "a.csv").write_text("smiles\nCCO\n")
    molecules = load_molecules(tmp_path / "a.csv", hydrogens="explicit", root=tmp_path / "cache", workers=1)
    (tmp_path / "words.jsonl").write_text(json.dumps(line("[H]OC([H])([H])C", "Alcohol.")))
    assert read_descriptions(tmp_path / "words.jsonl", molecules, missing="error").texts == ["Alcohol."]


def test_missing_ones_get_nothing_or_a_template(read):
    found = read(ALL[1], missing="smiles")
    assert found.texts == ["Alcohol.", "", "", "Alcohol.", ""] and found.missing == [1, 2, 4]
    assert found.notes == ("3 of 5 molecules without a description, left with their SMILES alone",)
    assert found.source == "words.jsonl"
    found = read(ALL[1], missing="template")
    templates = [template_description(Chem.MolFromSmiles(SMILES[i])) for i in (1, 2, 4)]
    assert found.texts == ["Alcohol.", templates[0], templates[1], "Alcohol.", templates[2]]
    assert found.notes == ("3 of 5 molecules without a description, described by a template",)
    assert found.source == "template, words.jsonl"


def test_missing_ones_can_be_an_error(read):
    with pytest.raises(DataError) as error:
        read(*ALL[:2], missing="error")
    assert str(error.value).endswith(
        "words.jsonl: 2 of 5 molecules without a description (rows 4, 6 of the data); "
        "describe them, or take their SMILES alone or a template for them."
    )


def test_everything_odd_in_the_file_is_counted(read):
    found = read(
        *ALL,
        "",
        line("CN", "  "),
        line("OCC", "Alcohol. "),
        line("CCO", "Something else."),
        line("CCC", "Not there."),
        line("C#C#C", "Not a molecule."),
        missing="error",
    )
    assert found.texts == ["Alcohol.", "Benzene.", "Salt.", "Alcohol.", "Amine."]
    assert found.notes == (
        "1 empty description, taken as missing",
        "1 description twice in the file, word for word",
        "1 further description of molecules that had another one, the first was kept",
        "1 description of molecules that are not in the data",
        "1 description of SMILES that cannot be parsed (row 10)",
    )


def test_an_empty_text_is_filled_by_a_later_line(read):
    found = read(line("CN", ""), *ALL)
    assert found.texts[4] == "Amine." and found.missing == []
    found = read(*ALL[:2], ALL[3], line("CN", "\n"))
    assert found.missing == [4] and "1 empty description, taken as missing" in found.notes


def test_texts_in_another_script_are_counted(read):
    found = read(line("CN", "Метиламин, CN"), line("CCO", "乙醇"), line("c1ccccc1", "Größe über π und α-H, 78 °C"))
    assert found.notes[-1] == "2 descriptions in another language (mostly not in Latin script)"
    assert found.texts[4] == "Метиламин, CN"


def test_a_molecule_reads_the_same_in_whatever_notation_its_description_quotes_it(read):
    ways = ("c1ccccc1CCO", "C1=CC=CC=C1CCO", "OCCc1ccccc1", "C(O)Cc1ccccc1")
    for frame in ("Original SMILES: {}", "The molecule ({}), an alcohol (-OH).", '"{}".', "see {}: polar"):
        assert len({in_one_notation(frame.format(way), "OCCc1ccccc1") for way in ways}) == 1
    # With its stereo marks or without them, and in pieces.
    assert in_one_notation("Original SMILES: C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O") == "Original SMILES: "
    assert in_one_notation("A ring (C1=CC=CC=C1).", "OCCc1ccccc1") == "A ring (c1ccccc1)."
    assert in_one_notation("Cut: OCCc1ccccc1(", "OCCc1ccccc1") == "Cut: "
    found = read(line("C1=CC=CC=C1", "Written C1=CC=CC=C1."), line("CCO", "Alcohol."))
    assert found.texts[1] == "Written ." and "1 descriptions quote SMILES" in " ".join(found.notes)


@pytest.mark.parametrize(
    "text",
    [
        "A carbonyl group (C=O), an amide (-C(=O)NH-) and an alkene (C=C); C20H22O4, soluble in H2O.",
        "(2S,3R)-2-amino-3-hydroxybutanoic acid, N,N-dimethyl, P450 and COX-2; NO reacts soon, in 1.5 h (see [12]).",
        "CCO is short",
    ],
)
def test_groups_formulas_and_names_stay(text):
    assert in_one_notation(text, "CCCCC(N)C(=O)O") == text


def test_only_the_data_has_to_be_described(read, molecules, tmp_path):
    read(ALL[0], ALL[1])
    found = read_descriptions(tmp_path / "words.jsonl", molecules, missing="error", n_asked=2, workers=1)
    assert found.texts == ["Alcohol.", "Benzene.", "", "Alcohol.", ""] and found.notes == ()


def test_the_source_is_the_models_by_what_they_wrote(read):
    lines = [line(each["smiles"], each["text"], model=name) for each, name in zip(ALL, "abbc", strict=True)]
    assert read(*lines).source == "b, a, c"
    assert read(lines[0], line("CN", "Amine.", model=None)).source == "a, words.jsonl"


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ('{"smiles": "CN", "text": "x"', "row 2", "is not JSON"),
        ("[1]", "row 2", "is a list, not an object"),
        ("[" * 100_000, "row 2", "is not JSON"),
        (b"\xff".decode(errors="surrogateescape"), "row 2", "is not UTF-8 text"),
        ({"text": "x"}, "row 2, field 'smiles'", "there is no such field, there are 'text'"),
        ({"SMILES": "CN", "text": "x"}, "row 2, field 'smiles'", "there are 'SMILES', 'text'"),
        ({"smiles": "CN"}, "row 2, field 'text'", "there is no such field"),
        ({}, "row 2, field 'smiles'", "there is none"),
        (line("CN", 5), "row 2, field 'text'", "is a number, not text"),
        (line("CN", None), "row 2, field 'text'", "is null, not text"),
        (line(["CN"], "x"), "row 2, field 'smiles'", "is a list, not text"),
        (line("CN", "x", model=3), "row 2, field 'model'", "is a number, not text"),
        ('{"smiles": "CN", "text": "\\ud83d"}', "row 2, field 'text'", "half of a character"),
    ],
)
def test_a_line_that_is_no_description_is_named(read, content, where, what):
    with pytest.raises(DataError) as error:
        read(ALL[0], content, missing="template")
    assert f"words.jsonl, {where}: " in str(error.value) and what in str(error.value)


def test_a_file_that_does_not_fit_is_an_error(read, molecules, tmp_path):
    with pytest.raises(DataError, match="none of its 1 lines describes a molecule of a"):
        read(line("CCCC", "Butane."))
    with pytest.raises(DataError, match="none of its 1 lines"):
        read(line("CN", " "))
    with pytest.raises(DataError, match="holds no description"):
        read("")
    with pytest.raises(DataError, match="does not exist"):
        read_descriptions(tmp_path / "none.jsonl", molecules, missing="smiles")
    with pytest.raises(ConfigError, match="missing"):
        read(*ALL, missing="nothing")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(ALL[0]).encode())[:-12])
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_descriptions(tmp_path / "cut.jsonl.gz", molecules, missing="smiles")


def test_a_byte_order_mark_is_skipped(read):
    assert read("\ufeff" + json.dumps(ALL[0]), *ALL[1:]).missing == []


@pytest.mark.skipif("JAXGKD_DATA" not in os.environ, reason="needs the data folder")
def test_the_descriptions_of_clintox(tmp_path):
    folder = Path(os.environ["JAXGKD_DATA"]) / "molecules"
    molecules = load_molecules(folder / "clintox.csv", labels=("CT_TOX",), root=tmp_path, workers=1)
    found = read_descriptions(folder / "clintox_descriptions.jsonl.gz", molecules, missing="template", workers=1)
    # 1,478 rows are 1,459 molecules; the one without a description has an open end.
    assert [molecules.smiles(i)[0] for i in found.missing] == ["*"]
    assert all(found.texts) and found.texts[found.missing[0]].startswith("A polar acyclic molecule")
    assert found.notes[0] == "1 of 1,478 molecules without a description, described by a template"
    assert found.notes[1] == "2 descriptions of molecules that are not in the data"
