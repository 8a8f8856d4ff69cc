"""Flags of ``jaxgkd run lmgnn`` that cannot be used are refused in a line, and leave nothing behind."""

import pytest

from jaxgkd import cli
from jaxgkd.errors import ConfigError
from jaxgkd.recipes.lmgnn_config import LMGNN, check, resolved, shrunk
from tests.recipes.hetero_folder import SMALL, run_films, write_films


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("data") / "films")


@pytest.fixture(scope="module")
def run(bert_folder):
    """The exit code of a run on the command line; flags come last."""
    return lambda data, out, *flags, teacher=bert_folder: run_films(data, out, teacher, *flags, **SMALL)


WRONG = {
    "task": (["--task", "node_regression"], "--task"),
    "without": (["--without", "plays"], "--without"),
    "seeds": (["--seeds", "0"], "--seeds"),
    "dropout": (["--dropout", "1"], "--dropout"),
    "pseudo weight": (["--pseudo-weight", "1.5"], "--pseudo-weight"),
    "stages": (["--stages", "cotrain"], "--stages"),
    "candidates": (["--task", "link_prediction", "--candidates", "directs"], "--candidates"),
    "n candidates": (
        ["--task", "link_prediction", "--candidates", "uniform", "--n-candidates", "99"],
        "--n-candidates",
    ),
    "negatives": (
        ["--task", "link_prediction", "--candidates", "uniform", "--negatives", "candidates"],
        "--negatives",
    ),
    "n negatives": (["--task", "link_prediction", "--n-negatives", "37"], "--n-negatives"),
    "sweep": (["--sweep", "lr"], "sweep"),
    "width": (["--encoder", "hgt", "--width", "6"], "--width"),
    "tokens": (["--max-tokens", "41"], "max"),
    "data": (["--data", "/nowhere"], "/nowhere"),
    "teacher": (["--teacher", "/nowhere"], "/nowhere"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_flag_is_one_line_and_leaves_nothing(name, run, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags, words = WRONG[name]
    unset = {flag[2:].replace("-", "_") for flag in flags if flag.startswith("--")}
    kept = {key: value for key, value in SMALL.items() if key not in unset}
    monkeypatch.setattr(f"{__name__}.SMALL", kept)
    if name == "tokens":
        monkeypatch.setattr("jaxgkd.recipes.lmgnn.shrunk", lambda config: config)
    given = data
    if name == "data":
        given, flags = "/nowhere", []
    if name == "teacher":
        assert run(given, tmp_path / "out", teacher="/nowhere") == 2
    else:
        assert run(given, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert len(error.strip().splitlines()) == 1, error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [["--encoder", "gcn"], ["--epochs", "many"], ["--stages", "lm", "all"]])
def test_what_is_no_value_of_a_flag_is_refused(flags, data, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "lmgnn", "--data", str(data), "--out", str(tmp_path / "out"), *flags])
    assert caught.value.code == 2 and flags[0] in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_task_without_any_text_is_refused_before_anything_is_written(run, tmp_path, capsys):
    def silent(metadata, tables):
        metadata["node_types"]["movie"].pop("text")

    def mute(metadata, tables):
        silent(metadata, tables)
        metadata["node_types"]["actor"].pop("text")

    assert run(write_films(tmp_path / "silent", change=silent), tmp_path / "out") == 2
    assert "'--stages': nodes of type movie have no text" in capsys.readouterr().err
    assert run(write_films(tmp_path / "mute", change=mute), tmp_path / "out") == 2
    assert "mute has no node with a text" in capsys.readouterr().err
    assert run(write_films(tmp_path / "idle", change=lambda m, t: m.update(tasks={})), tmp_path / "out") == 2
    assert "idle sets no task" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "flag"),
    [
        ({"lm_seeds": 6}, "--lm-seeds"),
        ({"lm_nodes_per_batch": 0}, "--lm-nodes-per-batch"),
        ({"freeze_steps": -1}, "--freeze-steps"),
        ({"lm_learning_rate": float("nan")}, "--lm-learning-rate"),
        ({"sweep": ("dropout=0.1,2",)}, "--dropout"),
        ({"encoder": "rgat", "width": 6}, "--width"),
    ],
)
def test_settings_out_of_range_name_their_flag(changed, flag):
    with pytest.raises(ConfigError, match=flag):
        check(LMGNN(**changed))
    check(LMGNN())
    check(shrunk(LMGNN()))


@pytest.mark.parametrize(("seeds", "asked", "trained"), [(5, 0, 3), (2, 0, 2), (1, 0, 1), (5, 5, 5), (5, 1, 1)])
def test_the_language_model_is_trained_for_three_seeds_at_most_unless_more_are_asked_for(seeds, asked, trained):
    config = LMGNN(seeds=seeds, lm_seeds=asked)
    check(config)
    assert resolved(config).lm_seeds == trained
