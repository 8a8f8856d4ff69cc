import json
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pandas as pd
import pytest
from rich.console import Console

from jaxgkd import cli
from jaxgkd.recipes import lingugkd
from jaxgkd.recipes.lingugkd import LinguGKD
from jaxgkd.training.checkpoint import load_tree
from jaxgkd.training.summary import check_summary

SMALL = {
    "epochs": 10,
    "width": 8,
    "hops": 1,
    "seeds": 2,
    "folds": 2,
    "max_tokens": 24,
    "parts": 8,
    "aligned_nodes": 16,
    "heads": "gcn",
}
STUDENTS = ("student_alone", "student_distilled")


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.fixture(scope="module")
def run(bert_folder):
    """The exit code of a run on the command line; flags and changed settings come last."""

    def run(data, out, *flags, **changed) -> int:
        words = ["run", "lingugkd", "--data", str(data), "--teacher", str(bert_folder), "--out", str(out)]
        for name, value in (SMALL | changed).items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        return cli.main([*words, *flags])

    return run


@pytest.fixture(scope="module")
def watched(run):
    """A run that has to succeed, and what it hands over for the summary: splits, rows, heads."""

    def watched(data, out, *flags, **changed):
        seen = {}
        with pytest.MonkeyPatch.context() as patch:
            write_run = lingugkd.write_run
            patch.setattr(lingugkd, "write_run", lambda *a, **given: (seen.update(given), write_run(*a, **given)))
            assert run(data, out, *flags, **changed) == 0
        return seen

    return watched


@pytest.fixture(scope="module")
def data(text_graph_folder, tmp_path_factory):
    return text_graph_folder(tmp_path_factory.mktemp("data") / "topics", split=True)


@pytest.fixture(scope="module")
def first(watched, data, tmp_path_factory):
    """A finished run, and what it handed over."""
    out = tmp_path_factory.mktemp("runs") / "first"
    return out, watched(data, out, split="public")


TOPICS = ("graph", "molecules", "student")


def summary_of(out: Path) -> dict:
    summary = json.loads((out / "summary.json").read_text())
    check_summary(summary, out / "summary.json")
    return summary


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_students(one: Path, other: Path, names=STUDENTS):
    """Weights, validation curves and chosen epochs are equal bit by bit."""
    for name in names:
        trees = [load_tree(out / "checkpoints" / name) for out in (one, other)]
        for tree in trees:
            tree.pop("seconds")
        jax.tree.map(np.testing.assert_array_equal, *trees)


def test_a_run_leaves_all_files_and_a_summary_that_keeps_the_contract(first):
    out, seen = first
    summary = summary_of(out)
    assert summary["seeds"] == [0, 1]
    assert summary["data"]["name"] == "topics"
    assert summary["data"]["split"] == "public"
    assert set(summary["results"]) == {"teacher", *STUDENTS}
    for name in ("config.json", "environment.json", "metrics.jsonl", "predictions.npz", "vocabulary.json", "report.md"):
        assert (out / name).stat().st_size > 0, name
    assert {path.name for path in (out / "splits").iterdir()} == {"seed-0.json", "seed-1.json"}
    figures = list((out / "figures").glob("*.png"))
    assert {"results.png", "learning_curves.png", "confusion.png"} <= {path.name for path in figures}
    for path in figures:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 5000
        assert f"figures/{path.name}" in (out / "report.md").read_text()
    with np.load(out / "predictions.npz", allow_pickle=False) as predictions:
        for name in ("teacher", *STUDENTS):
            predicted = predictions[f"pred/{name}"]
            right = [float(np.mean((predicted[i] == predictions["labels"])[seen["splits"].test[i]])) for i in (0, 1)]
            assert summary["results"][name]["test"] == pytest.approx(right)


def test_a_run_predicts_what_it_said_itself_from_its_folder_alone(first, data, tmp_path, capsys):
    out, seen = first
    # Nothing of the run is there but what it keeps of the student.
    alone = tmp_path / "alone"
    shutil.copytree(out / "student", alone / "student")
    for name in ("config.json", "summary.json"):
        shutil.copy(out / name, alone)
    probabilities = seen["rows"]["student_distilled"].probabilities
    valid = seen["rows"]["student_distilled"].curves["valid"].max(axis=1)
    for flag, expected in (("best", probabilities[valid.argmax()]), ("all", probabilities.mean(axis=0))):
        table = tmp_path / f"{flag}.parquet"
        words = ["predict", str(alone), "--data", str(data), "--out", str(table), "--seeds", flag]
        assert cli.main(words) == 0
        found = pd.read_parquet(table)
        np.testing.assert_allclose(found[[f"p_{name}" for name in TOPICS]], expected, atol=1e-6)
    with np.load(out / "predictions.npz", allow_pickle=False) as predictions:
        kept = predictions["pred/student_distilled"][valid.argmax()]
    best = pd.read_parquet(tmp_path / "best.parquet")
    assert best["class"].tolist() == [TOPICS[number] for number in kept]
    assert "60 of 60 nodes predicted" in capsys.readouterr().out


def test_a_folder_in_use_is_refused_and_a_finished_run_stays_as_it_is(first, run, data, capsys):
    out, _ = first
    before = files_of(out)
    assert run(data, out, split="public") == 2
    assert capsys.readouterr().err == (
        f"jaxgkd: {out}: the folder is not empty; choose another --out, or add --resume to continue it.\n"
    )
    assert run(data, out, "--resume", split="public") == 0
    assert files_of(out) == before
    assert run(data, out, "--resume", split="public", epochs=12) == 2
    assert "field 'epochs': the run there was started with 10, not 12" in capsys.readouterr().err
    assert files_of(out) == before


def test_a_run_that_was_broken_off_is_continued_to_the_same_result(first, run, data, tmp_path):
    whole, again = first[0], tmp_path / "again"
    shutil.copytree(whole, again)
    (again / "summary.json").unlink()
    shutil.rmtree(again / "checkpoints" / "student_distilled")
    kept = files_of(again / "checkpoints" / "student_alone")
    assert run(data, again, "--resume", split="public") == 0
    assert files_of(again / "checkpoints" / "student_alone") == kept
    assert_same_students(whole, again)
    results = [summary_of(out)["results"] for out in (whole, again)]
    for row in ("teacher", *STUDENTS):
        for field in ("valid", "test", "per_class"):
            assert results[0][row][field] == results[1][row][field]


def test_labels_of_test_nodes_change_nothing_but_the_score(first, watched, text_graph_folder, tmp_path):
    def swap_labels(nodes, edges):
        tested = [row for row in nodes if row["split"] == "test"]
        for row, label in zip(tested, [*(row["label"] for row in tested[1:]), tested[0]["label"]], strict=True):
            row["label"] = label

    other = text_graph_folder(tmp_path / "topics", split=True, change=swap_labels)
    out, seen = first
    swapped = watched(other, tmp_path / "out", split="public")
    assert (seen["graph"].labels != swapped["graph"].labels).sum() == seen["splits"].test[0].sum()
    np.testing.assert_array_equal(seen["heads"].log_probs, swapped["heads"].log_probs)
    assert_same_students(out, tmp_path / "out")
    before, after = (summary_of(folder)["results"] for folder in (out, tmp_path / "out"))
    for row in ("teacher", *STUDENTS):
        assert before[row]["valid"] == after[row]["valid"]
        assert before[row]["test"] != after[row]["test"]


@pytest.mark.thorough
def test_an_inductive_student_learns_nothing_from_test_nodes(watched, text_graph_folder, tmp_path):
    # Without dropout, whose random bits are dealt out over all features that there are.
    options = {"split": "inductive", "terms": "soft", "dropout": 0.0}
    seen = watched(text_graph_folder(tmp_path / "one" / "topics", features=True), tmp_path / "a", **options)
    changed = f"n{np.flatnonzero(seen['splits'].test.all(axis=0))[0]}"

    def rewrite(nodes, edges):
        """A node that every seed tests gets another text, other features and other links."""
        for row in nodes:
            if row["node"] == changed:
                row["title"], row["abstract"] = "papers", "papers from papers"
        for i, (src, dst) in enumerate(edges):
            if changed in (src, dst):
                edges[i] = (changed, f"n{i % len(nodes)}")

    other = text_graph_folder(tmp_path / "two" / "topics", features=True, change=rewrite)
    again = watched(other, tmp_path / "b", **options)
    assert seen["graph"].sha256 != again["graph"].sha256
    assert not np.array_equal(seen["splits"].senders, again["splits"].senders)
    assert_same_students(tmp_path / "a", tmp_path / "b", names=["student_alone"])


@pytest.mark.thorough
def test_without_labels_the_true_ones_only_score(watched, data, tmp_path):
    seen = watched(data, tmp_path / "out", "--label-free", split="public")
    splits, true = seen["splits"], seen["graph"].labels
    assert summary_of(tmp_path / "out")["data"]["split"] == "public, no labels"
    supervised = splits.train | splits.valid
    assert not (supervised & splits.test).any()
    # An untrained language model errs, so training on its guesses shows.
    assert (splits.labels != true)[supervised].any()
    np.testing.assert_array_equal(splits.labels[splits.test], np.broadcast_to(true, splits.test.shape)[splits.test])


@pytest.mark.thorough
def test_few_labels_and_a_student_without_edges(watched, data, tmp_path):
    seen = watched(data, tmp_path / "out", shots=2, student="mlp", positions=3, terms="soft")
    assert (seen["splits"].train.sum(axis=1) == 6).all()
    summary = summary_of(tmp_path / "out")
    assert summary["data"]["split"] == "60-20-20, 2 labels a class"
    assert summary["student"]["name"] == "MLP"


@pytest.mark.thorough
def test_the_published_protocol_selects_on_test_nodes_and_says_so(watched, data, tmp_path):
    seen = watched(data, tmp_path / "out", split="public", protocol="paper")
    np.testing.assert_array_equal(seen["splits"].valid, seen["splits"].test)
    assert [member.settings.folds for member in seen["heads"].members] == [1]
    summary = summary_of(tmp_path / "out")
    assert summary["protocol"] == "paper"
    assert summary["results"]["student_alone"]["valid"] == summary["results"]["student_alone"]["test"]
    assert any("its figures are too high" in note for note in summary["notes"])


@pytest.mark.thorough
def test_students_on_batches_run_through_and_the_report_says_what_is_left_out(watched, data, tmp_path):
    out = tmp_path / "run"
    seen = watched(data, out, split="public", batch_nodes=20, fan_outs=3)
    summary = summary_of(out)
    assert any("batches of 20 nodes" in note for note in summary["notes"])
    curves = seen["rows"]["student_distilled"].curves
    assert {"loss/soft", "loss/local"} <= curves.keys() and "loss/global" not in curves
    assert seen["rows"]["student_distilled"].epochs.tolist() == list(range(1, 11))


@pytest.mark.thorough
def test_an_optimizer_of_the_users_own_is_used(data, bert_folder, tmp_path):
    given = {"data": str(data), "teacher": str(bert_folder), "split": "public", "norm": "none"}
    settings = SMALL | given | {"heads": ("gcn",), "terms": ("soft",)}
    config = LinguGKD(out=tmp_path / "out", **settings)
    lingugkd.run(config, Console(quiet=True), optimizer=lambda settings: optax.sgd(0.0 * settings["learning_rate"]))
    for name in STUDENTS:
        tree = load_tree(tmp_path / "out" / "checkpoints" / name)
        # Steps of length 0 leave the first weights, so that no epoch is better than the first that is evaluated.
        assert (tree["best_epoch"] == 2).all()
        np.testing.assert_array_equal(tree["curves"]["valid_loss"], tree["curves"]["valid_loss"][:, :1].repeat(5, 1))


@pytest.mark.thorough
def test_a_causal_teacher_is_instructed(watched, text_graph_folder, causal_folder, tmp_path):
    def swap_labels(nodes, edges):
        tested = [row for row in nodes if row["split"] == "test"]
        for row, label in zip(tested, [*(row["label"] for row in tested[1:]), tested[0]["label"]], strict=True):
            row["label"] = label

    runs = []
    for name, change in (("as it is", None), ("other test labels", swap_labels)):
        folder = text_graph_folder(tmp_path / name / "topics", split=True, change=change)
        flags = ["--teacher", str(causal_folder), "--tune", "lm", "--smoke"]
        runs.append(watched(folder, tmp_path / name / "out", *flags, split="public", max_tokens=200))
    heads = runs[0]["heads"]
    assert heads.answers is not None and heads.answers.shape == (2, 60, 3)
    np.testing.assert_allclose(np.exp(heads.answers).sum(axis=-1), 1, rtol=1e-5)
    both = (np.exp(heads.answers) + np.exp(heads.members[0].log_probs)) / 2
    np.testing.assert_allclose(np.exp(heads.log_probs), both, rtol=1e-4)
    # What was tuned is kept: a test node's label changes nothing that the models or the heads say.
    np.testing.assert_array_equal(heads.log_probs, runs[1]["heads"].log_probs)
    assert summary_of(tmp_path / "as it is" / "out")["results"]["teacher"]["test"]


def test_an_encoder_is_not_tuned_in_few_bits(run, data, tmp_path, capsys):
    assert run(data, tmp_path / "out", "--tune", "lm", "--base-bits", "4") == 2
    assert "field '--base-bits'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
