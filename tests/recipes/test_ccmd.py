import csv
import json
import shutil

import numpy as np
import pandas
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from jaxgkd import cli
from jaxgkd.training.checkpoint import load_tree
from jaxgkd.training.summary import check_summary

SMALL = {"width": 8, "heads": 2, "layers": 1, "epochs": 2, "seeds": 2, "batch_size": 8}
CHAINS = [f"{'C' * n}{end}" for n in range(1, 7) for end in ("", "O", "N", "=O", "C(=O)O")]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Thirty chains with coordinates, a number and two classes."""
    folder = tmp_path_factory.mktemp("data")
    with open(folder / "chains.csv", "w", newline="") as file, Chem.SDWriter(str(folder / "chains.sdf")) as structures:
        writer = csv.writer(file)
        writer.writerow(["smiles", "length", "oxygen"])
        for i, smiles in enumerate(CHAINS):
            molecule = Chem.MolFromSmiles(smiles)
            writer.writerow([smiles, molecule.GetNumHeavyAtoms() + 0.1 * (i % 3), int("O" in smiles)])
            molecule = Chem.AddHs(molecule)
            rdDistGeom.EmbedMolecule(molecule, randomSeed=i)
            structures.write(molecule)
    return folder / "chains.csv"


@pytest.fixture(scope="module")
def run():
    """The exit code of a run on the command line; flags and changed settings come last."""

    def run(data, out, *flags, **changed) -> int:
        words = ["run", "ccmd", "--data", str(data), "--out", str(out)]
        for name, value in (SMALL | changed).items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        return cli.main([*words, *flags])

    return run


@pytest.fixture(scope="module")
def first(run, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    assert run(data, out, "--label", "length", "--ablation", "--baselines", "mean", "composition") == 0
    return out


def summary_of(folder):
    summary = json.loads((folder / "summary.json").read_text())
    check_summary(summary, folder / "summary.json")
    return summary


def test_a_run_scores_every_row_and_writes_its_report(first):
    summary = summary_of(first)
    rows = ["teacher", "student_alone", "student_distilled", "global_last", "global_all", "local_mean"]
    assert list(summary["results"]) == [*rows, "global_local_mean", "mean", "composition"]
    assert summary["metric"] == "mae" and not summary["higher_is_better"] and summary["seeds"] == [0, 1]
    assert summary["data"]["hydrogens"] == "explicit" and summary["data"]["with_coordinates"] == len(CHAINS)
    arrays = np.load(first / "predictions.npz")
    test = arrays["split"][0] == 3
    error = np.abs(arrays["pred/student_distilled"][0, test, 0] - arrays["labels"][test, 0])
    np.testing.assert_allclose(error.mean(), summary["results"]["student_distilled"]["test"][0], rtol=1e-5)
    assert (first / "report.md").is_file() and list((first / "figures").glob("*.png"))
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert {line["row"] for line in lines} == {*rows, "global_local_mean"} and {line["seed"] for line in lines} == {
        0,
        1,
    }


def test_the_mean_predicts_the_mean_of_what_trains(first):
    arrays = np.load(first / "predictions.npz")
    for seed in (0, 1):
        train = arrays["labels"][arrays["split"][seed] == 1, 0]
        np.testing.assert_allclose(arrays["pred/mean"][seed, :, 0], train.mean(), rtol=1e-6)


def test_students_see_no_coordinates_at_test(first, run, data, tmp_path):
    """With other coordinates of what is tested the students answer the same; the teacher does not."""
    before = np.load(first / "predictions.npz")
    test = before["split"][0] == 3
    shutil.copy(data, tmp_path / "chains.csv")
    supplier = Chem.SDMolSupplier(str(data.with_suffix(".sdf")), removeHs=False)
    with Chem.SDWriter(str(tmp_path / "chains.sdf")) as structures:
        for i, molecule in enumerate(supplier):
            conformer = molecule.GetConformer()
            stretched = (1.3 if test[i] else 1.0) * conformer.GetPositions()
            for atom, position in enumerate(stretched):
                conformer.SetAtomPosition(atom, position.tolist())
            structures.write(molecule)
    flags = ("--label", "length", "--ablation", "--baselines", "mean")
    assert run(tmp_path / "chains.csv", tmp_path / "run", *flags, seeds=1) == 0
    after = np.load(tmp_path / "run" / "predictions.npz")
    np.testing.assert_array_equal(before["split"][0], after["split"][0])
    np.testing.assert_array_equal(before["pred/student_distilled"][0], after["pred/student_distilled"][0])
    np.testing.assert_array_equal(before["pred/teacher"][0, ~test], after["pred/teacher"][0, ~test])
    assert (before["pred/teacher"][0, test] != after["pred/teacher"][0, test]).all()


def test_a_killed_run_goes_on(first, run, data, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(first, again)
    for name in ("summary.json", "predictions.npz", "metrics.jsonl"):
        (again / name).unlink()
    shutil.rmtree(again / "checkpoints" / "students-1")
    flags = ("--label", "length", "--ablation", "--baselines", "mean", "composition")
    assert run(data, again, *flags, "--resume") == 0
    before, after = np.load(first / "predictions.npz"), np.load(again / "predictions.npz")
    for name in before.files:
        np.testing.assert_array_equal(before[name], after[name])


def test_the_run_predicts_what_it_said_itself(first, data, predicts_itself, tmp_path):
    found = predicts_itself(first, data)
    assert found["smiles"].tolist() == CHAINS and found["row"].tolist() == list(range(2, len(CHAINS) + 2))
    # Without labels, coordinates or, in one row, a molecule.
    table = tmp_path / "new.csv"
    table.write_text("\n".join(["name,SMILES", "a,CCO", "b,C(", "c,CCC(=O)O"]) + "\n")
    assert cli.main(["predict", str(first), "--data", str(table), "--out", str(tmp_path / "new.parquet")]) == 0
    new = pandas.read_parquet(tmp_path / "new.parquet")
    assert new["smiles"].tolist() == ["CCO", "C(", "CCC(=O)O"] and new["row"].tolist() == [2, 3, 4]
    assert new["predicted_length"].isna().tolist() == new["problem"].notna().tolist() == [False, True, False]
    for smiles, value in zip(new["smiles"][[0, 2]], new["predicted_length"][[0, 2]], strict=True):
        np.testing.assert_allclose(value, found["predicted_length"][CHAINS.index(smiles)], rtol=1e-5)


def test_a_finished_run_is_not_run_again(first, run, data, capsys):
    before = (first / "summary.json").stat().st_mtime_ns
    flags = ("--label", "length", "--ablation", "--baselines", "mean", "composition")
    assert run(data, first, *flags, "--resume") == 0
    assert (first / "summary.json").stat().st_mtime_ns == before
    assert run(data, first, *flags) == 2
    assert "is not empty" in capsys.readouterr().err
    assert run(data, first, *flags, "--resume", epochs=3) == 2
    assert "epochs" in capsys.readouterr().err


@pytest.mark.thorough
def test_classes_other_networks_conformers_and_ensembles(run, data, predicts_itself, tmp_path):
    table = tmp_path / "plain.csv"
    table.write_text(data.read_text())
    flags = ("--label", "oxygen", "--conformers", "rdkit", "--split", "stratified", "--baselines", "mean")
    out = tmp_path / "run"
    changed = {"student": "gine", "teacher": "schnet", "ensemble": 2, "n_conformers": 2, "seeds": 1}
    assert run(table, out, *flags, "--projection", "linear", **changed) == 0
    summary = summary_of(out)
    assert summary["metric"] == "auroc" and summary["data"]["hydrogens"] == "implicit"
    arrays = np.load(out / "predictions.npz")
    assert arrays["std/student_distilled"].shape == (1, len(CHAINS), 1) and arrays["std/student_distilled"].max() > 0
    assert any("Conformers by RDKit" in note for note in summary["notes"])
    assert arrays["pred/student_distilled"].min() >= 0 and arrays["pred/student_distilled"].max() <= 1
    found = predicts_itself(out, table)
    np.testing.assert_allclose(found["std_oxygen"], arrays["std/student_distilled"][0, :, 0], atol=1e-5)


@pytest.mark.thorough
def test_a_search_gives_every_row_as_many_tries(run, data, predicts_itself, tmp_path):
    out = tmp_path / "run"
    pytest.importorskip("sklearn")
    baselines = ("--baselines", "mean", "composition", "ecfp_forest")
    flags = ("--label", "length", *baselines, "--sweep", "lr=0.001,0.01", "global-strength=0.1,1")
    assert run(data, out, *flags, "--offset", "composition", seeds=1) == 0
    predicts_itself(out, data)
    results = summary_of(out)["results"]
    assert results["student_alone"]["settings"]["learning_rate"] in (0.001, 0.01)
    assert results["student_distilled"]["settings"]["global_strength"] in (0.1, 1.0)
    # The forest counts from what networks count from: sizes are sums over atoms, which it does not know of itself.
    assert results["ecfp_forest"]["label"].endswith("counted from that ridge")
    assert results["ecfp_forest"]["test"][0] < 2 * results["composition"]["test"][0] < results["mean"]["test"][0]


@pytest.mark.thorough
def test_students_start_from_those_of_another_run(first, run, data, tmp_path, capsys):
    flags = ("--label", "length", "--baselines", "mean", "--start", str(first))
    assert run(data, tmp_path / "tuned", *flags, seeds=1, epochs=1, learning_rate=0.0) == 0
    old, new = (load_tree(folder / "checkpoints" / "students-0")["params"] for folder in (first, tmp_path / "tuned"))
    for name in new:
        # Of each row the first run's distilled student, its second row; the outputs are drawn anew.
        same = [np.array_equal(leaf, old[name][1]) for leaf in new[name]]
        assert same == [True, True] or "head" in name
    capsys.readouterr()
    assert run(data, tmp_path / "odd", *flags, width=4, seeds=1) == 2
    assert "the model needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--width", "9"), "a width of 9 does not divide into 2 heads"),
        (("--dropout", "1.5"), "the value is 1.5; give 0 to 0.99"),
        (("--metric", "auroc"), "auroc does not score regression"),
        (("--label", "weight"), "weight"),
        (("--sweep", "lr=0.1", "--search", "2"), "settings are drawn or swept"),
    ],
)
def test_bad_settings_are_one_sentence_and_leave_nothing(run, data, tmp_path, capsys, flags, message):
    assert run(data, tmp_path / "run", "--label", "length", *flags) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "run").exists()
