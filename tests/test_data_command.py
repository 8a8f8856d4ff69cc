import gzip

import numpy as np
import pytest

from jaxgkd import cli
from jaxgkd.data_command import lines_of
from jaxgkd.run_estimate import REFERENCES
from tests.recipes.hetero_folder import write_films


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXGKD_DATA", raising=False)


def shown(capsys, *words) -> str:
    capsys.readouterr()
    assert cli.main(["data", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_facts_as_lines():
    facts = {
        "n": 1234567,
        "share": 0.123456,
        "given": None,
        "sizes": {"a": 1, "b": 2},
        "sites": {"A": {"x": 1, "y": 10}, "long name": {"x": 5, "y": 0}},
        "types": {"p": {"nodes": 3}, "q": {"nodes": 4, "share": 0.5}},
    }
    assert lines_of(facts) == [
        "n: 1,234,567",
        "share: 0.1235",
        "given: none",
        "sizes: a 1, b 2",
        "sites:",
        "             x   y",
        "  A          1  10",
        "  long name  5   0",
        "types:",
        "  p",
        "    nodes: 3",
        "  q",
        "    nodes: 4",
        "    share: 0.5",
    ]
    many = lines_of({"sizes": {str(i): i for i in range(100)}})[0]
    assert many.endswith("39 39, … (100 in all)")


def test_molecules(tmp_path, capsys):
    table = "smiles,y,z\nCCO,0.5,1\nOCC,1.5,0\nbad,1,1\nc1ccccc1Cl,,1\n"
    (tmp_path / "m.csv").write_text(table)
    words = ("check", tmp_path / "m.csv", "--recipe", "gallon", "--label", "y", "z")
    found = shown(capsys, *words)
    for line in (
        "row 4: the SMILES cannot be parsed (left out)",
        "left out: 1",
        "atoms: median 3, 95 % 7, largest 7",
        "elements: C 3, O 2, Cl 1",
        "repeats: 1",
        "contradicting: 1",
        "problems: the SMILES cannot be parsed 1",
        "    least: 0.5",
        "    positive share: 0.6667",
    ):
        assert line in found.splitlines()
    minutes = REFERENCES["gallon"].seconds / 60
    assert f"`jaxgkd run gallon --data clintox` took {minutes:.0f} min for 1,478 molecules" in found


def test_typed_graphs(tmp_path, capsys):
    found = shown(capsys, "check", write_films(tmp_path / "films"), "--recipe", "lmgnn").splitlines()
    at = found.index("  movie")
    assert "    class sizes: graph 12, molecules 12, student 12" in found[at : at + 12]
    assert "    director without any: 0" in found or "    director without any: 1" in found
    assert any(line.startswith("tasks: node_classification movie") for line in found)


def test_brains_have_a_table_of_sites(tmp_path, capsys):
    series = np.random.default_rng(0).normal(size=(4, 20, 3))
    np.savez(tmp_path / "series.npz", series=series, subject=np.arange(1, 5))
    (tmp_path / "subjects.csv").write_text("subject,site,label\n1,A,HC\n2,A,HC\n3,B,ASD\n4,B,HC\n")
    found = shown(capsys, "check", tmp_path, "--recipe", "bleg").splitlines()
    at = found.index("sites:")
    assert found[at + 1 : at + 4] == ["     HC  ASD", "  A   2    0", "  B   1    1"]
    assert "site guess: 0.75" in found
    assert "largest class: 0.75" in found


def test_sets_are_listed_where_they_are(tmp_path, capsys):
    found = shown(capsys, "list", "--recipe", "ccmd")
    assert "  egfr             built in, the default" in found.splitlines()
    assert "(jaxgkd data fetch qm9: 87.0 MB, not stated at this home)" in found
    folder = tmp_path / "cache" / "jaxgkd" / "data" / "molecules" / "qm9"
    folder.mkdir(parents=True)
    (folder / "qm9.csv.gz").write_bytes(gzip.compress(b"smiles,gap\nC,1\n"))
    found = shown(capsys, "list", "--recipe", "ccmd")
    assert f"  qm9              in {folder.parent}" in found.splitlines()
    assert "data fetch qm9" not in found


def test_an_unknown_public_set_is_one_sentence(capsys):
    assert cli.main(["data", "fetch", "corra"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxgkd: field 'NAME': there is no public data set 'corra'; use one of cora, ")
    assert error.count("\n") == 1
