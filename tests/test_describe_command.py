import dataclasses
import inspect
import json

import pytest
from rdkit import Chem
from rich.console import Console

from jaxgkd.data.molecule_texts import template_description
from jaxgkd.describe_command import Describe, run
from jaxgkd.errors import CheckpointError, ConfigError
from jaxgkd.teachers.describe import SYSTEM
from tests.teachers.misbehaving_server import KEY, MisbehavingServer

SMILES = ("OCC", "c1ccccc1O", "C(C)O", "CC(=O)Nc1ccc(O)cc1", "CCN")
CANONICAL = ["CCO", "Oc1ccccc1", "CC(=O)Nc1ccc(O)cc1", "CCN"]
#: Numbers that would be found in a prompt.
LABELS = (0.7351, 12.9182, 0.7351, 5.5553, 7.1177)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "drugs.csv"
    rows = [f"{smiles},{label}" for smiles, label in zip(SMILES, LABELS, strict=True)]
    path.write_text("\n".join(["smiles,secret_label", *rows]) + "\n")
    return path


@pytest.fixture
def described(table, tmp_path, capsys):
    """Runs with flags; gives the report, the lines of the file, and what was printed as one line."""

    def described(**flags):
        out = tmp_path / "texts.jsonl"
        report = run(Describe(**({"data": str(table), "out": out} | flags)), Console(width=500))
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        return report, lines, capsys.readouterr().out

    return described


def test_templates_describe_every_molecule_once_in_the_order_of_the_data(described):
    report, lines, printed = described()
    assert [line["smiles"] for line in lines] == CANONICAL
    assert [line["text"] for line in lines] == [template_description(Chem.MolFromSmiles(s)) for s in CANONICAL]
    assert {line["model"] for line in lines} == {"template"}
    assert "5 molecules, 1 of them repeats; 4 to describe" in printed
    assert "4 answered, 0 kept from before, 0 failed" in printed and "tokens" not in printed
    report, again, printed = described()
    assert again == lines and report.n_kept == 4 and "0 answered, 4 kept" in printed


def test_which_columns_are_labels_does_not_matter(described, tmp_path):
    path = tmp_path / "two.csv"
    path.write_text("smiles,one,other\nCCO,1,2\nCCN,3,words\n")
    assert [line["smiles"] for line in described(data=str(path))[1]] == ["CCO", "CCN"]


def test_only_the_first_molecules_are_described_if_asked_so(described):
    assert [line["smiles"] for line in described(limit=2)[1]] == CANONICAL[:2]
    assert [line["smiles"] for line in described(limit=3)[1]] == CANONICAL[:3]


def test_servers_are_asked_about_the_property_and_never_see_a_label(described, monkeypatch, tmp_path):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with MisbehavingServer({"*": ["length"]}) as server:
        flags = {"backend": "server", "model": "small", "base_url": server.url, "concurrency": 1}
        asked = flags | {"about": "solubility in water", "price_in": 10.0, "price_out": 1000.0}
        report, lines, printed = described(**asked, max_tokens=33)
        bodies = [request.body for request in server.requests]
        assert [line["smiles"] for line in lines] == CANONICAL and report.n_cut == 4
        for smiles, body in zip(CANONICAL, bodies, strict=True):
            system, user = (message["content"] for message in body["messages"])
            assert system == SYSTEM and "solubility in water" in user
            assert f"SMILES: {smiles}\n" in user and "single bond" in user
            assert body["max_tokens"] == 33 and body["temperature"] == 0.0
            assert not any(str(label) in json.dumps(body) for label in LABELS)
            assert "secret" not in json.dumps(body)
        assert "4 answers were cut at 33 tokens" in printed
        assert "tokens: 400 read, 80 written" in printed and "cost: 0.08" in printed
        # Another question is asked anew.
        described(**flags, parts=("image",), limit=1)
        text, image = server.requests[-1].body["messages"][1]["content"]
        assert "CCO" not in text["text"] and "bond." not in text["text"]
        assert image["image_url"]["url"].startswith("data:image/png;base64,")
        assert len(server.requests) == 5
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_failures_and_repetitions_are_printed(described, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with MisbehavingServer({"*": ["500"]}) as server:
        flags = {"backend": "server", "model": "small", "base_url": server.url, "limit": 2}
        report, lines, printed = described(**flags, retries=0)
        assert lines == [] and len(report.failed) == 2
        assert "0 answered, 0 kept from before, 2 failed" in printed and "failed: CCO: HTTP 500" in printed


def test_a_dry_run_needs_no_key_asks_nobody_and_writes_nothing(described, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    flags = {"backend": "server", "model": "small", "dry_run": True, "max_tokens": 100}
    report, lines, printed = described(**flags, price_in=0.0, price_out=1e6)
    assert (report, lines) == (None, [])
    assert "still to ask: 4 of 4" in printed and "at most 400 written" in printed
    assert "3 characters a token" in printed and "cost: at most about 400.00" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["drugs.csv"]
    described(limit=1)
    assert "still to ask: 0 of 1" in described(dry_run=True, limit=1)[2]


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        ({"parts": ()}, ConfigError, "'--parts': no part is named"),
        ({"limit": 0}, ConfigError, "'--limit': the value is 0"),
        ({"price_in": 1.0}, ConfigError, "--price-in and --price-out"),
        ({"backend": "server"}, ConfigError, "'--model': no model is named"),
        ({"backend": "local"}, ConfigError, "'--model': no model is named"),
        ({"backend": "local", "model": "./none"}, CheckpointError, "no such folder"),
        ({"backend": "local", "model": "m", "parts": ("image",)}, ConfigError, "sees no pictures"),
        ({"backend": "server", "model": "m", "base_url": "there"}, ConfigError, "no plain address"),
    ],
)
def test_flags_that_cannot_be_used_are_named_before_anything_is_written(described, tmp_path, flags, error, words):
    with pytest.raises(error, match=words):
        described(**flags)
    assert [path.name for path in tmp_path.iterdir()] == ["drugs.csv"]


def test_every_flag_has_a_sentence_of_help():
    lines = [line.strip() for line in inspect.getsource(Describe).splitlines()]
    for field in dataclasses.fields(Describe):
        i = next(i for i, line in enumerate(lines) if line.startswith(f"{field.name}:"))
        assert lines[i + 1].startswith('"""'), field.name
