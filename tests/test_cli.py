import dataclasses
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jaxgkd
from jaxgkd import cli

RUN_FLAGS = ("--data", "--teacher", "--student", "--split", "--shots", "--label-free", "--out", "--resume", "--smoke")


def exit_code(*words) -> int:
    """Of the command line, whether it returns or leaves."""
    try:
        return cli.main(list(words))
    except SystemExit as left:
        return left.code


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch, own_cache):
    monkeypatch.delenv("JAXGKD_DATA", raising=False)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_command_all_are_listed(words, capsys):
    assert exit_code(*words) == (0 if words else 2)
    shown = capsys.readouterr().out
    for command in ("run RECIPE", "extract", "report RUN", "data list", "data check"):
        assert f"jaxgkd {command}" in shown


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["run", "--help"], ("lingugkd", "ccmd")),
        (
            ["run", "ccmd", "--help"],
            ("--data", "--conformers", "--coordinate-power", "--splits-file", "--log", "--profile"),
        ),
        (["run", "lingugkd", "--help"], RUN_FLAGS),
        (["extract", "--help"], ("--data", "--teacher", "--hops", "--max-tokens", "--out")),
        (["report", "--help"], ("Folders of finished runs",)),
        (["data", "--help"], ("list", "check", "fetch")),
        (["data", "fetch", "--help"], ("public data set", "--to")),
        (["data", "list", "--help"], ()),
        (["data", "check", "--help"], ("file of molecules", "--recipe", "--text-columns", "--label")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_command_explains_its_flags(words, wanted, capsys):
    assert exit_code(*words) == 0
    shown = capsys.readouterr().out
    for each in wanted:
        assert each in shown


@pytest.mark.parametrize(("recipe", "flags"), cli.RECIPES.items())
def test_every_flag_of_a_recipe_has_a_sentence_of_help(recipe, flags):
    recipe = getattr(importlib.import_module(f"jaxgkd.recipes.{recipe}"), flags)
    lines = [line.strip() for line in inspect.getsource(recipe).splitlines()]
    for field in dataclasses.fields(recipe):
        i = next(i for i, line in enumerate(lines) if line.startswith(f"{field.name}:"))
        assert lines[i + 1].startswith('"""'), field.name


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["fly"], "'fly'"),
        (["run", "fly"], "'fly'"),
        (["data", "fly"], "'fly'"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(words, named, capsys):
    assert exit_code(*words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    assert named in error
    assert "choose from" in error


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["data"],
        ["report"],
        ["run", "lingugkd", "--no-such-flag", "1"],
        ["run", "lingugkd", "--epochs", "many"],
        ["run", "lingugkd", "--student", "perceptron"],
        ["data", "check"],
    ],
    ids=" ".join,
)
def test_flags_that_cannot_be_used_leave_with_2(words, capsys):
    assert exit_code(*words) == 2
    out, error = capsys.readouterr()
    assert out or error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--seeds", "0"], "field '--seeds'"),
        (["--search-seeds", "0"], "field '--search-seeds'"),
        (["--terms", "soft", "soft"], "field '--terms'"),
        (["--student", "gat", "--width", "6"], "field '--width'"),
        (["--label-free", "--shots", "2"], "field '--label-free'"),
        (["--base-bits", "4"], "field '--base-bits'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_contradict_are_one_sentence(words, named, capsys, tmp_path):
    assert exit_code("run", "lingugkd", "--out", str(tmp_path / "out"), *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error
    assert not (tmp_path / "out").exists()


def test_the_version_is_the_packages(capsys):
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"{jaxgkd.__version__}\n"


def test_the_help_of_the_program_itself_loads_no_library():
    code = (
        "import sys; from jaxgkd import cli; assert cli.main(['--help']) == 0; "
        "heavy = {'jax', 'flax', 'transformers', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_data_sets_are_listed_with_those_of_the_data_folder(monkeypatch, capsys, tmp_path):
    assert exit_code("data", "list") == 0
    shown = capsys.readouterr().out.split()
    assert shown[:2] == ["lingugkd:", "scipy-docs"]
    for name in ("egfr", "simulated", "ogbn-arxiv", "qm9"):
        assert name in shown
    (tmp_path / "text" / "my-graph").mkdir(parents=True)
    monkeypatch.setenv("JAXGKD_DATA", str(tmp_path))
    assert exit_code("data", "list", "--recipe", "lingugkd") == 0
    assert "my-graph" in capsys.readouterr().out.split()


def test_a_folder_is_checked_and_counted(text_graph_folder, tmp_path, capsys):
    assert exit_code("data", "check", str(text_graph_folder(tmp_path / "topics", split=True)), "--no-estimate") == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["name"] == "topics"
    assert lines["nodes"] == "60"
    assert lines["class sizes"] == "graph 20, molecules 20, student 20"
    assert lines["given split"].startswith("train ")
    assert lines["labelled share"] == "1"
    assert -1 <= float(lines["adjusted homophily"]) < float(lines["homophily"]) <= 1
    assert "dropped" in lines["notes"]


def test_columns_are_chosen_by_flags(text_graph_folder, tmp_path, capsys):
    def rename(nodes, edges):
        for row in nodes:
            row["topic"] = row.pop("label")
            row["summary"] = row.pop("abstract")

    folder = text_graph_folder(tmp_path / "topics", change=rename)
    assert exit_code("data", "check", str(folder)) == 2
    assert "there is no column 'label'" in capsys.readouterr().err
    columns = ["--label", "topic", "--text-columns", "summary"]
    assert exit_code("data", "check", str(folder), "--no-estimate", *columns) == 0
    assert "labelled: 60" in capsys.readouterr().out


def test_a_broken_folder_is_one_sentence_with_file_and_row(text_graph_folder, tmp_path, capsys):
    def lose(nodes, edges):
        edges[4] = ("n1", "n999")

    folder = text_graph_folder(tmp_path / "topics", change=lose)
    assert exit_code("data", "check", str(folder)) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    assert f"{folder / 'edges.csv'}, row 6, field 'dst': there is no node 'n999'" in error


def test_a_report_is_written_again(run_directory, capsys):
    folder = run_directory()
    assert exit_code("report", str(folder)) == 0
    assert capsys.readouterr().out == f"report: {folder / 'report.md'}\n"
    assert (folder / "report.md").read_text().startswith("# ")
    assert list((folder / "figures").glob("*.png"))


def test_several_runs_are_compared_in_tables_and_on_a_page(run_directory, tmp_path, capsys):
    one, two = run_directory("one"), run_directory("two", metrics={}, predictions={})
    page = tmp_path / "both.html"
    assert exit_code("report", str(one), str(two), "--out", str(page)) == 0
    shown = capsys.readouterr().out
    assert "| " in shown
    assert shown.count("report: ") == 1
    assert shown.endswith(f"report: {page}\n")
    before = page.read_bytes()
    assert exit_code("report", str(one), str(two), "--out", str(page)) == 0
    assert page.read_bytes() == before
    # Runs may be somebody else's: they are only read.
    assert not (one / "report.md").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["one", "two", "--out", "one/summary.json"], "is not called .html"),
        (["one", "two", "--out", "mine.html"], "is no earlier comparison"),
        (["one", "one"], "a run is named twice"),
        (["one", "--out", "page.html"], "the report of a run lies in its folder"),
    ],
)
def test_a_report_writes_over_no_other_file(flags, said, run_directory, tmp_path, monkeypatch, capsys):
    folder = run_directory("one").parent
    run_directory("two", metrics={}, predictions={})
    monkeypatch.chdir(folder)
    Path("mine.html").write_text("<title>mine</title>")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert exit_code("report", *flags) == 2
    assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_figures_are_written_whole_or_not_at_all(run_directory, capsys):
    folder = run_directory("one")
    (folder / "figures").write_text("a file")
    assert exit_code("report", str(folder)) == 2
    assert "figures: the folder cannot be made" in capsys.readouterr().err


def test_a_terminal_of_another_encoding_ends_nothing(run_directory):
    one, two = run_directory("one"), run_directory("two", metrics={}, predictions={})
    for arguments in (["--help"], ["report", str(one), str(two), "--out", str(one.parent / "both.html")]):
        found = subprocess.run(
            [sys.executable, "-m", "jaxgkd.cli", *arguments],
            capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
        )
        assert found.returncode == 0, found.stderr.decode()


def test_only_a_question_for_help_is_answered_with_success(capsys):
    assert exit_code("run", "--help") == 0
    assert exit_code("run", "--smoke", "lingugkd") == 2
    assert "usage: jaxgkd run" in capsys.readouterr().err
    assert exit_code("run", "lingugkd", "--smoke", "--resume") == 2
    assert "'--resume': nothing says which run goes on; give its folder with --out" in capsys.readouterr().err


def test_a_run_is_watched_by_what_is_asked_for(run_directory, tmp_path, monkeypatch, capsys):
    from jaxgkd.recipes import ccmd

    folder, logs, trace = run_directory("finished"), tmp_path / "logs", tmp_path / "trace"
    monkeypatch.setattr(ccmd, "run", lambda config, console: folder)
    flags = ["--log", "tensorboard", "--log-dir", str(logs), "--profile", str(trace), "--out", str(tmp_path / "name")]
    assert exit_code("run", "ccmd", *flags) == 0
    assert list(logs.glob("name/events.*")) and list(logs.glob("name/student_alone, seed 0/events.*"))
    assert list(trace.rglob("*.xplane.pb"))
    assert f"report: {folder / 'report.md'}" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("kind", ["missing", "empty", "unfinished", "broken"])
def test_a_folder_that_is_no_finished_run_is_one_sentence(kind, run_directory, tmp_path, capsys):
    folder = tmp_path / "other"
    if kind != "missing":
        folder.mkdir()
    if kind == "unfinished":
        (folder / "config.json").write_text("{}")
    if kind == "broken":
        folder = run_directory()
        summary = json.loads((folder / "summary.json").read_text())
        del summary["results"]["student_alone"]
        (folder / "summary.json").write_text(json.dumps(summary))
    assert exit_code("report", str(folder)) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    assert str(folder) in error


def test_a_loss_that_is_not_finite_and_an_interruption_are_sentences(monkeypatch, capsys):
    for error, code, said in (
        (FloatingPointError("the loss of run 0 is not finite at epoch 3"), 2, "epoch 3; lower --learning-rate"),
        (KeyboardInterrupt(), 130, "the same command goes on from there"),
    ):

        def fail(arguments, error=error):
            raise error

        monkeypatch.setattr(cli, "_data", fail)
        assert exit_code("data", "list") == code
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert said in shown


def test_extract_keeps_what_a_language_model_says(text_graph_folder, bert_folder, tmp_path, capsys):
    data = text_graph_folder(tmp_path / "topics", n_per_class=4)
    flags = ["--data", str(data), "--teacher", str(bert_folder), "--hops", "1", "--max-tokens", "24"]
    assert exit_code("extract", *flags, "--out", str(tmp_path / "stores")) == 0
    shown = capsys.readouterr().out
    assert "24 prompts" in shown
    (folder,) = (tmp_path / "stores").iterdir()
    assert str(folder) in shown
    assert (folder / "manifest.json").exists()
    assert exit_code("extract", *flags[:-4], "--hops", "-1") == 2
    assert "--hops" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_causal_model_teaches(text_graph_folder, causal_folder, tmp_path, capsys):
    data = text_graph_folder(tmp_path / "topics", n_per_class=10)
    flags = ["--data", str(data), "--teacher", str(causal_folder), "--max-tokens", "200", "--hops", "1"]
    flags += ["--smoke", "--seeds", "1", "--label-free", "--heads", "mlp", "--epochs", "4"]
    assert exit_code("run", "lingugkd", *flags, "--out", str(tmp_path / "run")) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["teacher"]["name"] == "causal + MLP"
    assert len(summary["results"]["student_distilled"]["test"]) == 1
