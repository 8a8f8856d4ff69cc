import csv
import json

import numpy as np
import pandas
import pytest
from rich.console import Console

from jaxgkd import cli
from jaxgkd.data.brain_sets import load_brain_set
from jaxgkd.exported import load
from jaxgkd.recipes import bleg
from jaxgkd.recipes.bleg_config import BLEG, tries_of
from jaxgkd.recipes.kept_brains import inputs_of_member
from jaxgkd.training.checkpoint import load_tree
from jaxgkd.training.student_folder import read_student
from jaxgkd.training.summary import check_summary

# Fewer pairs of regions than training subjects: all runs of an MLP have the same shapes and share one program.
N, R = 44, 6
SMALL = {"folds": 2, "epochs": 2, "width": 8, "layers": 1, "search": 1, "components": 8, "max_tokens": 32, "batch": 22}
FLAGS = ("--baselines", "ridge", "--stages", "2+3", "--connectivity", "partial", "--shrinkage", "0.2", "0.5")


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


def write_cohort(folder, labels):
    """Two groups at two sites that differ in the ties of the first regions, and a split that tests every fourth."""
    folder.mkdir()
    random = np.random.default_rng(0)
    series = random.normal(size=(N, 40, R))
    truth = np.arange(N) % 2
    series[:, :, :3] += truth[:, None, None] * random.normal(size=(N, 40, 1))
    np.savez(folder / "connectivity.npz", correlation=[np.corrcoef(one.T) for one in series])
    with open(folder / "subjects.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("subject", "site", "label"), *((f"s{i}", "AB"[i // 2 % 2], labels[i]) for i in range(N))]
        )
    (folder / "classes.json").write_text('["healthy", "ill"]')
    parts = ["test", "train", "valid", "train", "train", "test", "train", "train", "valid", "train", "train"]
    with open(folder / "split.csv", "w", newline="") as file:
        csv.writer(file).writerows([("subject", "split"), *((f"s{i}", parts[i % 11]) for i in range(N))])
    return folder


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(
        tmp_path_factory.mktemp("data") / "cohort", ["healthy" if i % 2 == 0 else "ill" for i in range(N)]
    )


@pytest.fixture(scope="module")
def run(bert_folder):
    def run(data, out, *flags, **changed) -> int:
        words = ["run", "bleg", "--data", str(data), "--out", str(out), "--teacher", str(bert_folder)]
        for name, value in (SMALL | changed).items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        return cli.main([*words, *flags])

    return run


@pytest.fixture(scope="module")
def quick(bert_folder):
    """A run without the command line and its report."""

    def quick(data, out, **changed) -> None:
        config = BLEG(data=str(data), out=out, teacher=str(bert_folder), **(SMALL | changed))
        bleg.run(config, Console(quiet=True))

    return quick


@pytest.fixture(scope="module")
def first(run, cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    assert run(cohort, out, *FLAGS, student="mlp", text_epochs=2) == 0
    return out


def summary_of(folder):
    summary = json.loads((folder / "summary.json").read_text())
    check_summary(summary, folder / "summary.json")
    return summary


def test_a_run_scores_every_row_and_writes_its_report(first):
    summary = summary_of(first)
    assert set(summary["results"]) == {"teacher", "student_alone", "student_distilled", "ridge"}
    arrays = np.load(first / "predictions.npz")
    assert ((arrays["split"] == 3).sum(axis=0) == 1).all()
    for row, results in summary["results"].items():
        for fold in (0, 1):
            test = arrays["split"][fold] == 3
            scores, labels = arrays[f"pred/{row}"][fold, test, 0], arrays["labels"][test, 0]
            pairs = scores[labels == 1][:, None] - scores[labels == 0]
            np.testing.assert_allclose((pairs > 0).mean() + (pairs == 0).mean() / 2, results["test"][fold])
            right = (scores >= 0.5) == labels
            np.testing.assert_allclose(right.mean(), results["accuracy"][fold])
            np.testing.assert_allclose(right[labels == 1].mean(), results["sensitivity"][fold])
    assert summary["corrected_difference"]["mean"] == pytest.approx(summary["difference"]["mean"])
    assert {entry["site"] for entry in summary["sites"]} == {"A", "B"}
    assert sum(sum(entry["subjects"]) for entry in summary["sites"]) == N
    assert "roc.png" in {path.name for path in (first / "figures").glob("*.png")}
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert {(line["row"], line["fold"]) for line in lines} == {
        (row, fold) for row in ("student_alone", "student_distilled") for fold in (0, 1)
    }


def assert_predicts_itself(run, cohort, folder):
    """What a run keeps of its students says of the cohort what the run said; so does its exported program."""
    out = folder / f"{run.name}.parquet"
    assert cli.main(["predict", str(run), "--data", str(cohort), "--out", str(out)]) == 0
    kept, table = read_student(run), pandas.read_parquet(out)
    assert table["subject"].tolist() == [f"s{i}" for i in range(N)] and table["problem"].isna().all()
    said = np.load(run / "predictions.npz")["pred/student_distilled"]
    chosen = kept.chosen[0]
    np.testing.assert_allclose(table["p_ill"], said[chosen, :, 0], atol=1e-4)
    np.testing.assert_allclose(table["p_healthy"], 1 - said[chosen, :, 0], atol=1e-4)
    assert table["class"].tolist() == ["ill" if p > 0.5 else "healthy" for p in table["p_ill"]]
    everyone = folder / f"{run.name}-all.csv"
    assert cli.main(["predict", str(run), "--data", str(cohort), "--out", str(everyone), "--seeds", "all"]) == 0
    np.testing.assert_allclose(pandas.read_csv(everyone)["p_ill"], said[..., 0].mean(axis=0), atol=1e-4)
    assert cli.main(["export", str(run), "--out", str(folder / f"{run.name}-student")]) == 0
    student = load(folder / f"{run.name}-student")
    inputs = inputs_of_member(kept, chosen, load_brain_set(cohort))
    given = {"connections": inputs.rows} if inputs.rows.ndim == 2 else {"rows": inputs.rows}
    given |= {} if inputs.adjacency is None else {"adjacency": inputs.adjacency}
    np.testing.assert_allclose(student(**given)[:, 1], table["p_ill"], atol=1e-6)


def test_the_run_predicts_what_it_said_itself(first, cohort, tmp_path, capsys):
    assert_predicts_itself(first, cohort, tmp_path)
    # Without labels and without the scans of two subjects.
    new = tmp_path / "new"
    new.mkdir()
    scans = np.load(cohort / "connectivity.npz")["correlation"][:3]
    np.savez(new / "connectivity.npz", correlation=scans, subject=["s0", "s1", "s2"])
    (new / "subjects.csv").write_text("subject\n" + "\n".join(f"s{i}" for i in range(5)) + "\n")
    capsys.readouterr()
    assert cli.main(["predict", str(first), "--data", str(new), "--out", str(tmp_path / "new.csv")]) == 0
    found, whole = pandas.read_csv(tmp_path / "new.csv"), pandas.read_parquet(tmp_path / "first.parquet")
    assert found["subject"].tolist() == [f"s{i}" for i in range(5)]
    np.testing.assert_allclose(found["p_ill"][:3], whole["p_ill"][:3], atol=1e-6)
    assert found["p_ill"].isna().tolist() == found["problem"].notna().tolist() == [False] * 3 + [True] * 2
    assert "row 5: there is no scan of the subject" in capsys.readouterr().out
    np.savez(new / "connectivity.npz", correlation=scans[:, :4, :4], subject=["s0", "s1", "s2"])
    assert cli.main(["predict", str(first), "--data", str(new), "--out", str(tmp_path / "no.csv")]) == 2
    assert "new has 4 regions, the student reads 6" in capsys.readouterr().err
    assert not (tmp_path / "no.csv").exists()


def test_a_run_that_was_stopped_goes_on_to_the_same_end(first, run, cohort, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    for name in ("summary.json", "predictions.npz"):
        (copy / name).unlink()
    assert run(cohort, copy, *FLAGS, "--resume", student="mlp", text_epochs=2) == 0
    before, after = np.load(first / "predictions.npz"), np.load(copy / "predictions.npz")
    assert set(before.files) == set(after.files)
    for name in before.files:
        np.testing.assert_array_equal(before[name], after[name])


def test_labels_of_tested_subjects_leave_texts_weights_and_answers_as_they_are(quick, cohort, tmp_path):
    labels = ["healthy" if i % 2 == 0 else "ill" for i in range(N)]
    tested = [i for i in range(N) if i % 11 in (0, 5)]
    swapped = list(labels)
    for i, other in zip(tested, np.random.default_rng(1).permutation(tested), strict=True):
        swapped[i] = labels[other]
    assert swapped != labels
    other = write_cohort(tmp_path / "other", swapped)
    options = {"split": cohort / "split.csv", "connectivity": "tangent", "student": "gcn"}
    for data, out in ((cohort, "one"), (other, "two")):
        quick(data, tmp_path / out, **options)
    one, two = tmp_path / "one", tmp_path / "two"
    assert (one / "texts.jsonl").read_bytes() == (two / "texts.jsonl").read_bytes()
    weights = [load_tree(folder / "checkpoints" / "students-0")["weights"] for folder in (one, two)]
    for row in weights[0]:
        for name, values in weights[0][row].items():
            assert values.tobytes() == weights[1][row][name].tobytes(), (row, name)
    before, after = np.load(one / "predictions.npz"), np.load(two / "predictions.npz")
    for row in summary_of(one)["results"]:
        assert before[f"pred/{row}"].tobytes() == after[f"pred/{row}"].tobytes(), row
    assert (before["labels"] != after["labels"]).any()
    assert_predicts_itself(one, cohort, tmp_path)


@pytest.mark.thorough
def test_few_labels_sites_harmonised_and_a_control(quick, cohort, tmp_path):
    options = {"leave_one_site_out": True, "seeds": 2, "texts": "reference", "shuffle_texts": True, "harmonise": True}
    quick(cohort, tmp_path / "run", **options, student="mlp", k_shot=3, baselines=())
    summary = summary_of(tmp_path / "run")
    assert summary["data"]["split"].endswith("3 labels a group") and any("control" in note for note in summary["notes"])
    parts = np.load(tmp_path / "run" / "predictions.npz")["split"]
    assert ((parts == 1).sum(axis=1) == 6).all()
    # Two sites, each tested twice with other subjects validating, count as two values.
    np.testing.assert_array_equal(parts[:2] == 3, parts[2:] == 3)
    assert ((parts[:2] == 2) != (parts[2:] == 2)).any()
    rows = {name: np.mean(np.reshape(row["test"], (2, 2)), axis=0) for name, row in summary["results"].items()}
    gains = rows["student_distilled"] - rows["student_alone"]
    assert summary["difference"]["n"] == summary["corrected_difference"]["n"] == 2
    np.testing.assert_allclose(summary["corrected_difference"]["mean"], gains.mean(), atol=1e-9)
    assert_predicts_itself(tmp_path / "run", cohort, tmp_path)


@pytest.mark.thorough
def test_smoke(quick, tmp_path, cohort):
    quick(cohort, tmp_path / "run", smoke=True, texts="none", student="gcn")
    summary = summary_of(tmp_path / "run")
    assert "not_run" in summary["results"]["teacher"] and summary["difference"]["mean"] == 0


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--texts", "nowhere.jsonl"], "there is no 'nowhere.jsonl'"),
        (["--dropout", "1.5"], "--dropout"),
        (["--shrinkage", "0.5", "2"], "give one or more from 0 to 1"),
        (["--sweep", "lr=1e-3,2e-3", "--search", "3"], "not both"),
        (["--texts", "none", "--shuffle-texts"], "no texts"),
        (["--k-shot", "2", "--label-ratio", "0.5"], "counted or shared"),
        (["--split", "x.csv", "--leave-one-site-out"], "one split is given"),
    ],
)
def test_bad_settings_are_one_sentence(flags, what, capsys):
    assert cli.main(["run", "bleg", *flags]) == 2
    assert what in capsys.readouterr().err


def test_rows_try_as_many_settings_and_the_distilled_one_may_leave_the_teacher_out():
    config = BLEG(search=40)
    alone, distilled = (tries_of(config, row) for row in ("student_alone", "student_distilled"))
    assert all(each["state_strength"] == each["answer_strength"] == 0 for each in alone)
    assert any(each["state_strength"] == 0 for each in distilled)
    answers = tries_of(BLEG(search=40, teaches=("answers",)), "student_distilled")
    assert all(each["state_strength"] == 0 for each in answers)
