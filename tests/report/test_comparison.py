import importlib.util
from pathlib import Path

import pytest

from jaxgkd.cli import main
from jaxgkd.errors import ConfigError
from jaxgkd.report import compare_runs, write_comparison

spec = importlib.util.spec_from_file_location("test_html", Path(__file__).with_name("test_html.py"))
assert spec is not None and spec.loader is not None
test_html = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test_html)


@pytest.fixture
def runs(run_directory, summary) -> list[Path]:
    """Two runs that can be paired, one on other splits, and one of another kind."""
    paths = []
    for name, settings in {
        "gcn": {},
        "mlp": {"alone": 0.7, "distilled": 0.84},
        "inductive": {"distilled": 0.832},
        "rmse": {"metric": "rmse", "higher_is_better": False, "distilled": 0.8},
    }.items():
        given = summary(**settings)
        given["data"]["split_sha256"] = [f"{name == 'inductive'}{seed}" for seed in range(5)]
        given["data"] |= {"split": "inductive"} if name == "inductive" else {}
        given["data"] |= {"sha256": "77" * 32, "name": "esol | <x>"} if name == "rmse" else {}
        paths.append(run_directory(name, summary=given, metrics={}, predictions={}))
    return paths


def test_the_page_holds_everything(runs, tmp_path):
    page_path = write_comparison(runs, tmp_path / "deep" / "page.html")
    text = page_path.read_text(encoding="utf-8")
    page = test_html.check_page(text)
    assert page.headings[0] == "4 runs compared"
    assert page.headings.count("Run against run") == 1
    # Runs share an axis where data, split and metric are the same.
    assert len(page.named("img")) == 2 * 3
    students, pairs, costs = page.tables
    assert (
        [row[0][1] for row in students[1:]] == [row[0][1] for row in costs[1:]] == ["gcn", "mlp", "inductive", "rmse"]
    )
    assert [[cell for _, cell in row[:3]] for row in pairs[1:]] == [
        ["mlp", "gcn", "5"],
        ["inductive", "gcn, mlp", "–"],
        ["rmse", "gcn, mlp, inductive", "–"],
    ]
    assert [row[-1][1] for row in pairs[1:]] == [
        "",
        "not paired: other splits: the hashes differ",
        "not paired: other data: the hashes differ",
    ]
    assert "Distillation clearly helped in" in text
    assert write_comparison(runs, tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_a_page_that_cannot_be_written_says_so(runs, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "mine.html").write_text("<title>mine</title>")
    for out, said in (
        (tmp_path / "file" / "page.html", "the page cannot be written"),
        (tmp_path / "folder.html", "is no earlier comparison"),
        (tmp_path / "mine.html", "is no earlier comparison"),
        (runs[0] / "summary.json", "is not called .html"),
    ):
        with pytest.raises(ConfigError, match=f"{out.name}.*{said}"):
            write_comparison(runs, out)
    assert (tmp_path / "mine.html").read_text() == "<title>mine</title>"


def test_runs_of_one_name_are_told_apart_by_their_folders(run_directory, summary):
    paths = [
        run_directory(f"{where}/run", summary=summary(), metrics={}, predictions={}) for where in ("first", "second")
    ]
    table = compare_runs(paths)
    assert "| first/run |" in table and "| second/run |" in table


def test_command_line_writes_a_page(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(runs[0]), str(runs[1]), "--out", "both.html"]) == 0
    printed = capsys.readouterr().out
    assert "| mlp | gcn | 5 |" in printed
    test_html.check_page((tmp_path / "both.html").read_text(encoding="utf-8"))
    assert printed.rstrip().endswith("report: both.html")
