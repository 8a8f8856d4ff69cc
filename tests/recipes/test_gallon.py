import csv
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from jaxgkd import cli
from jaxgkd.data.flat_arrays import array_folder
from jaxgkd.data.molecule_texts import templates
from jaxgkd.data.splits import Split
from jaxgkd.errors import JaxgkdError
from jaxgkd.recipes import gallon_heads
from jaxgkd.recipes.gallon_config import GALLON, rows_of, settings_of
from jaxgkd.recipes.gallon_students import Studied, choose
from jaxgkd.recipes.gallon_teachers import Lesson
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.teachers.store import Store
from jaxgkd.training.checkpoint import load_tree
from jaxgkd.training.scaling import Scale
from jaxgkd.training.summary import check_summary

CHAINS = [f"{'C' * n}{end}" for n in range(1, 9) for end in ("", "O", "N", "=O", "C(=O)O", "c1ccccc1")]
SMALL = {
    "seeds": 2,
    "split": "random",
    "epochs": 20,
    "gnn_epochs": 1,
    "gnn_width": 8,
    "gnn_layers": 1,
    "lm_epochs": 1,
    "max_tokens": 24,
    "search": 2,
    "width": 8,
    "unlabelled": "none",
    "lm_reads_atoms": False,
}
ROWS = ["student_alone", "student_distilled", "student_gnn", "student_lm"]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Forty-eight molecules with a number and two tasks of classes, some of whose labels are missing."""
    folder = tmp_path_factory.mktemp("data")
    with open(folder / "chains.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["smiles", "size", "oxygen", "ring"])
        for i, smiles in enumerate(CHAINS):
            writer.writerow([smiles, len(smiles) + 0.1 * (i % 3), int("O" in smiles), "" if i % 5 == 0 else i % 2])
    return folder / "chains.csv"


@pytest.fixture(scope="module")
def run(bert_folder):
    """The exit code of a run on the command line; flags and changed settings come last."""

    def run(data, out, *flags, **changed) -> int:
        words = ["run", "gallon", "--data", str(data), "--out", str(out), "--lm", str(bert_folder)]
        for name, value in (SMALL | changed).items():
            flag = f"--{name.replace('_', '-')}"
            words += [flag.replace("--lm-reads", "--no-lm-reads")] if value is False else [flag, str(value)]
        return cli.main([*words, *flags])

    return run


@pytest.fixture(scope="module")
def first(run, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    assert run(data, out, "--label", "size", "--baselines", "mean") == 0
    return out


def summary_of(folder):
    summary = json.loads((folder / "summary.json").read_text())
    check_summary(summary, folder / "summary.json")
    return summary


def test_a_run_scores_every_row_and_writes_its_report(first):
    summary = summary_of(first)
    assert set(summary["results"]) == {"teacher", "gnn", *ROWS, "mean"}
    assert summary["metric"] == "rmse" and not summary["higher_is_better"]
    assert summary["cost"]["read_ms_per_item"] > 0
    assert [len(values) for values in summary["results"]["student_distilled"]["settings"].values()] == [2] * 6
    arrays = np.load(first / "predictions.npz")
    for row in ("teacher", "gnn", *ROWS):
        for seed in (0, 1):
            test = arrays["split"][seed] == 3
            error = arrays[f"pred/{row}"][seed, test, 0] - arrays["labels"][test, 0]
            np.testing.assert_allclose(
                np.sqrt(np.square(error).mean()), summary["results"][row]["test"][seed], rtol=1e-5
            )
    assert (first / "report.md").is_file() and list((first / "figures").glob("*.png"))
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert {line["row"] for line in lines} == set(ROWS) and {line["epoch"] for line in lines} == {10, 20}
    page = (first / "examples.md").read_text()
    assert "template" in page and len(list((first / "examples").glob("*.png"))) == page.count("![")


def test_the_run_predicts_what_it_said_itself(first, data, predicts_itself):
    assert predicts_itself(first, data)["smiles"].tolist() == CHAINS


def test_a_finished_run_is_reported_and_another_is_not_written_over(first, run, data, capsys):
    assert run(data, first, "--label", "size", "--baselines", "mean", "--resume") == 0
    assert run(data, first, "--label", "size", "--baselines", "mean") == 2
    assert "not empty" in capsys.readouterr().err


def reader_of(file, cache, run):
    """What reads a file that a run leaves behind, and raises where it is damaged."""
    if run in file.parents:
        return partial(load_tree, run / "checkpoints" / file.relative_to(run / "checkpoints").parts[0])
    kind, key = file.relative_to(cache / "jaxgkd").parts[:2]
    folder = cache / "jaxgkd" / kind / key
    return {"stores": partial(Store.open, folder), "taught": partial(load_tree, folder)}.get(
        kind, partial(array_folder, file.parent, lambda writer: pytest.fail("written again without a word"))
    )


@pytest.mark.filterwarnings("error")
def test_one_flipped_byte_in_any_checkpoint_or_cached_file_is_found_and_named(first, own_cache, tmp_path):
    run, cache = (Path(shutil.copytree(each, tmp_path / each.name)) for each in (first, own_cache))
    random, kinds = np.random.default_rng(0), set()
    files = [each for folder in (run / "checkpoints", cache / "jaxgkd") for each in sorted(folder.rglob("*"))]
    for file in (each for each in files if each.is_file() and each.stat().st_size and each.name != ".lock"):
        content, read = file.read_bytes(), reader_of(file, cache, run)
        for place in {0, len(content) - 1, *random.integers(len(content), size=3).tolist()}:
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(random.integers(8))
            file.write_bytes(flipped)
            with pytest.raises((JaxgkdError, UserWarning)) as caught:
                read()
            # A checkpoint is named by its folder.
            assert str(file) in str(caught.value) or any(
                f"{each}:" in str(caught.value) for each in file.parents if cache != each != run
            )
        file.write_bytes(content)
        read()
        kinds.add(file.relative_to(tmp_path).parts[2])
    assert kinds >= {"stores", "taught", "molecules", "molecule_texts", "students-0"}


def test_labels_of_what_is_tested_play_no_part(first, run, data, tmp_path):
    """With other labels there, whoever learned says the same of every molecule."""
    before = np.load(first / "predictions.npz")
    rows = [line.split(",") for line in data.read_text().split()]
    for i in np.flatnonzero(before["split"][0] == 3):
        rows[i + 1][1] = str(100 + i)
    with open(tmp_path / "chains.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert run(tmp_path / "chains.csv", tmp_path / "run", "--label", "size", "--baselines", "mean", seeds=1) == 0
    after = np.load(tmp_path / "run" / "predictions.npz")
    np.testing.assert_array_equal(before["split"][0], after["split"][0])
    # One seed has other settings to choose from its own validation: the teachers are what both runs share.
    for row in ("teacher", "gnn", "mean"):
        np.testing.assert_array_equal(before[f"pred/{row}"][0], after[f"pred/{row}"][0])


@pytest.mark.thorough
def test_several_tasks_with_missing_labels_drawings_bits_and_unlabelled_molecules(
    run, data, predicts_itself, tmp_path, monkeypatch
):
    monkeypatch.setattr(gallon_heads, "_EPOCHS", 20)
    monkeypatch.setattr(gallon_heads, "FOLDS", 2)
    others = tmp_path / "others.csv"
    others.write_text("smiles\n" + "\n".join(f"{'C' * n}Cl" for n in range(1, 9)) + "\n")
    flags = ["--label", "oxygen", "ring", "--teachers", "gnn", "lm", "drawing", "--student", "fingerprint"]
    flags += ["--baselines", "mean", "--unlabelled", str(others), "--lm-reads-atoms", "--modalities"]
    assert run(data, tmp_path / "run", *flags, seeds=1) == 0
    summary = summary_of(tmp_path / "run")
    modalities = {"lm_smiles", "lm_description", "lm_structure"}
    wanted = {"teacher", "gnn", "drawing", *ROWS, "student_drawing", "student_all", "mean"}
    assert set(summary["results"]) == wanted | modalities | {f"student_{name}" for name in modalities}
    assert summary["metric"] == "auroc" and summary["data"]["tasks"] == ["oxygen", "ring"]
    assert summary["data"]["molecules"] == len(CHAINS)
    assert any("8 molecules of others" in note for note in summary["notes"])
    assert np.load(tmp_path / "run" / "predictions.npz")["pred/student_distilled"].shape == (1, len(CHAINS), 2)
    assert {"p_oxygen", "predicted_oxygen", "p_ring", "predicted_ring"} < predicts_itself(tmp_path / "run", data).keys()


@pytest.mark.thorough
def test_a_graph_network_can_be_the_student(run, data, predicts_itself, tmp_path):
    flags = ["--label", "size", "--baselines", "mean", "--student", "gnn", "--layers", "1", "--folds", "2"]
    assert run(data, tmp_path / "run", *flags, seeds=1, epochs=2) == 0
    summary = summary_of(tmp_path / "run")
    arrays = np.load(tmp_path / "run" / "predictions.npz")
    for row in ROWS:
        assert np.isfinite(arrays[f"pred/{row}"]).all() and summary["results"][row]["parameters"] > 0
    # The best epoch's validation error stands in the lines, in the unit of the labels.
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    best = min(line["valid"] for line in lines if line["row"] == "student_alone")
    np.testing.assert_allclose(best, summary["results"]["student_alone"]["valid"][0], rtol=1e-4)
    predicts_itself(tmp_path / "run", data)


def test_descriptions_from_a_file(run, data, tmp_path, capsys):
    lines = [
        {"smiles": text, "text": said, "model": "somebody"}
        for text, said in zip(CHAINS, templates(CHAINS), strict=True)
    ]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines[:-2]))
    flags = ("--label", "size", "--baselines", "mean", "--descriptions", str(file))
    assert run(data, tmp_path / "error", *flags, "--missing", "error") == 2
    message = capsys.readouterr().err
    assert "2" in message and "texts.jsonl" in message and not (tmp_path / "error").exists()
    assert run(data, tmp_path / "run", *flags, seeds=1) == 0
    summary = summary_of(tmp_path / "run")
    assert summary["teacher"]["descriptions"] == "somebody"
    assert any("2 of 48 molecules without a description" in note for note in summary["notes"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--label", "size", "--teachers", "gnn", "gnn"], "'--teachers'"),
        (["--label", "size", "--parts"], "'--parts'"),
        (["--label", "size", "--epochs", "-1"], "'--epochs'"),
        (["--label", "size", "--teachers", "gnn", "--modalities"], "add lm to --teachers"),
        (["--label", "size", "--search", "16", "--sweep", "nothing=1"], "names no setting"),
        (["--label", "size", "--sweep", "lr=0.1"], "drawn or swept"),
        (["--label", "size", "oxygen"], "some labels are classes and others are numbers"),
        (["--label", "size", "--unlabelled", "nowhere.csv"], "nowhere.csv"),
        (["--label", "size", "--descriptions", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(run, data, tmp_path, capsys, flags, message):
    assert run(data, tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxgkd: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "run").exists()


def test_a_table_without_smiles_and_labels_of_one_class(run, tmp_path, capsys):
    (tmp_path / "bare.csv").write_text("name,y\na,1\nb,2\n")
    assert run(tmp_path / "bare.csv", tmp_path / "run") == 2
    assert "smiles" in capsys.readouterr().err
    (tmp_path / "constant.csv").write_text("smiles,y\n" + "".join(f"{smiles},1\n" for smiles in CHAINS))
    assert run(tmp_path / "constant.csv", tmp_path / "run", "--task", "classification") == 2
    assert "both classes" in capsys.readouterr().err
    assert run(tmp_path / "constant.csv", tmp_path / "run", "--task", "regression") == 2
    assert "labels that differ" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("metric", ["rmse", "auroc"])
def test_a_row_keeps_what_validates_best_without_what_tests(metric):
    """Whatever is said of a split's test molecules, and whatever their labels, its rows keep the same."""
    random, n, n_row, n_try = np.random.default_rng(0), 40, 3, 4
    labels = random.integers(0, 2, (n, 2)).astype(float) if metric == "auroc" else random.normal(size=(n, 2))
    kind = "classification" if metric == "auroc" else "regression"
    orders = [random.permutation(n).astype(np.int32) for _ in range(3)]
    splits = [Split(*(np.sort(part) for part in np.split(order, [16, 28])), name="random", seed=0) for order in orders]
    scale = Scale(np.zeros(2), np.ones(2))

    def kept(labels, said):
        targets = Targets(labels, kind, metric)
        lessons = [Lesson(range(n), targets, scale, split, seed, 1) for seed, split in enumerate(splits)]
        studied = [
            Studied({}, np.zeros(0), np.zeros(0), one[:, split.valid], {}, np.zeros(0), 0.0)
            for one, split in zip(said, splits, strict=True)
        ]
        return choose(studied, lessons, n_row)

    said = random.normal(size=(3, n_row * n_try, n, 2))
    before = kept(labels, said)
    # By hand: the mean over splits of the score of those that do not test in the second one.
    sign = 1 if metric == "auroc" else -1
    targets, wanted = Targets(labels, kind, metric), []
    for row in range(n_row):
        scores = [
            np.mean(
                [
                    sign * targets.score(said[s, row * n_try + i], np.setdiff1d(splits[s].valid, splits[1].test))
                    for s in range(3)
                ]
            )
            for i in range(n_try)
        ]
        wanted.append(int(np.argmax(scores)))
    assert before[1].tolist() == wanted
    for seed, split in enumerate(splits):
        changed, other = labels.copy(), said.copy()
        changed[split.test] = 1 - changed[split.test]
        other[:, :, split.test] = random.normal(size=(3, n_row * n_try, len(split.test), 2))
        np.testing.assert_array_equal(kept(changed, other)[seed], before[seed])


def test_all_rows_try_as_many_settings_and_only_their_own_teachers():
    config = GALLON(teachers=("gnn", "lm", "drawing"), search=8)
    rows = rows_of(config)
    assert rows["student_alone"] == () and rows["student_distilled"] == ("gnn", "lm")
    assert rows["student_all"] == ("gnn", "lm", "drawing") and rows["student_drawing"] == ("drawing",)
    tries = {row: settings_of(config, names, ["gnn", "lm", "drawing"]) for row, names in rows.items()}
    assert {len(settings) for settings in tries.values()} == {8}
    for name in ("learning_rate", "dropout", "weight_decay"):
        # Later draws may differ: a row that has fewer settings to draw meets the same ones again sooner.
        drawn = {tuple(each[name] for each in settings[:4]) for settings in tries.values()}
        assert len(drawn) == 1
    for row, names in rows.items():
        heard = np.array([each["labels"] for each in tries[row]])
        assert (heard.any(axis=0) == [name in names for name in ("gnn", "lm", "drawing")]).all()
        # A teacher of whom nothing is heard shows nothing either.
        assert not np.array([each["states"] for each in tries[row]])[heard == 0].any()


def test_a_sweep_tries_all_combinations():
    config = GALLON(sweep=("lr=0.1,0.2", "gnn-strength=1,10"))
    settings = settings_of(config, ("gnn",), ["gnn", "lm"])
    assert [(each["learning_rate"], *each["labels"]) for each in settings] == [
        (0.1, 1.0, 0.0),
        (0.1, 10.0, 0.0),
        (0.2, 1.0, 0.0),
        (0.2, 10.0, 0.0),
    ]
