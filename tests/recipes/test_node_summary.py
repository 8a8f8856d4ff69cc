import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.recipes.node_rows import Row
from jaxgkd.recipes.node_splits import draw_splits
from jaxgkd.recipes.node_summary import epochs_to_reach, write_run
from jaxgkd.report import console_table, write_report
from jaxgkd.report.run_directory import read_run
from jaxgkd.teachers.heads import HeadEnsemble, HeadOutput, HeadSettings
from jaxgkd.training.run_dir import RunDirectory
from jaxgkd.training.summary import STUDENTS

SEEDS = [0, 4]
COST = {"teacher_parameters": 1000, "teacher_ms_per_item": 2.5, "extract_seconds": 3.0}
DESCRIBE = {
    "recipe": "lingugkd",
    "protocol": "clean",
    "teacher": {"name": "tiny"},
    "student": {"name": "GCN"},
    "split": "60-20-20",
}


@pytest.fixture(scope="module")
def graph(text_graph_folder, tmp_path_factory):
    return load_text_graph(text_graph_folder(tmp_path_factory.mktemp("data") / "topics"))


def probabilities(graph, splits, wrong):
    """Answers that are right everywhere but on ``wrong`` [seeds, n_rows]."""
    labels = np.pad(graph.labels, (0, splits.n_rows - graph.n_node))
    return np.eye(3)[(labels + wrong) % 3]


def make_row(answers, *, valid=((0.5, 0.7, 0.6), (0.4, 0.4, 0.8)), milliseconds=6.0) -> Row:
    curves = {"valid": np.array(valid), "train_loss": np.array([[1.0, 0.5, 0.4], [1.0, np.nan, np.nan]])}
    return Row(
        probabilities=answers,
        hidden=np.arange(answers.shape[1] * 4.0).reshape(-1, 4),
        settings={"learning_rate": 0.01},
        best_epoch=np.array([4, 6]),
        epochs=np.array([2, 4, 6]),
        curves=curves,
        weights={},
        parameters=42,
        milliseconds=milliseconds,
        seconds=1.5,
    )


@pytest.fixture(params=["60-20-20", "inductive"])
def written(request, graph, tmp_path):
    """A run whose plain student errs on all test nodes of class 1, and whose other rows err on one node each."""
    splits = draw_splits(graph, request.param, SEEDS)
    classes = np.pad(graph.labels, (0, splits.n_rows - graph.n_node), constant_values=-1)
    alone = splits.test & (classes == 1)
    one = np.zeros_like(splits.test)
    one[0, np.flatnonzero(splits.valid[0])[0]] = True
    rows = {
        "student_alone": make_row(probabilities(graph, splits, alone)),
        "student_distilled": make_row(probabilities(graph, splits, one), valid=((0.6, 0.75, 0.7), (0.1, 0.2, 0.3))),
    }
    log_probs = np.log(np.maximum(probabilities(graph, splits, one), 1e-9))
    heads = HeadEnsemble((HeadOutput(log_probs.astype(np.float32), {"w": np.zeros((2, 3))}, HeadSettings(folds=2)),))
    heads = HeadEnsemble((heads,))
    run_dir = RunDirectory(tmp_path / "run", {"class_names": list(graph.class_names)}, resume=False)
    labels = {"teacher": "The teacher", "student_alone": "Alone", "student_distilled": "Distilled"}
    write_run(
        run_dir,
        graph=graph,
        splits=splits,
        rows=rows,
        labels=labels,
        heads=heads,
        describe=DESCRIBE,
        cost=COST,
        notes=["One note"],
    )
    return splits, read_run(run_dir.path)


def test_scores_are_those_of_the_answers_on_their_parts(written):
    splits, run = written
    results = run.summary["results"]
    n_valid = splits.valid[0].sum()
    assert results["student_alone"]["valid"] == [1.0, 1.0]
    assert results["student_alone"]["test"] == pytest.approx([2 / 3, 2 / 3])
    assert results["student_alone"]["per_class"] == [[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]]
    assert results["student_distilled"]["valid"] == pytest.approx([1 - 1 / n_valid, 1.0])
    assert results["student_distilled"]["test"] == [1.0, 1.0]
    assert results["teacher"]["valid"] == results["student_distilled"]["valid"]
    assert run.summary["difference"]["mean"] == pytest.approx(1 / 3)


def test_costs_are_per_node_and_of_the_right_row(written):
    _, run = written
    results, cost = run.summary["results"], run.summary["cost"]
    assert results["student_distilled"]["ms_per_item"] == pytest.approx(6.0 / 60)
    assert cost["student_ms_per_item"] == pytest.approx(6.0 / 60)
    assert (results["teacher"]["parameters"], results["student_alone"]["parameters"]) == (1000, 42)
    assert cost["student_parameters"] == 42
    assert cost["train_seconds"] == 3.0
    assert cost["peak_memory_mb"] > 10


def test_predictions_are_of_nodes_not_of_the_extra_row(written, graph):
    splits, run = written
    predictions = run.predictions
    np.testing.assert_array_equal(predictions.labels, graph.labels)
    assert predictions.by_row["teacher"].shape == (2, 60)
    assert predictions.embedding.shape == (60, 4)
    np.testing.assert_array_equal(predictions.split == 3, splits.test[:, :60])
    assert predictions.degree.sum() == len(splits.senders)


def test_metrics_leave_out_what_was_not_measured(written):
    _, run = written
    lines = [line for line in run.metrics if line["row"] == "student_alone" and line["seed"] == 4]
    assert [line["epoch"] for line in lines] == [2, 4, 6]
    assert [line["valid"] for line in lines] == [0.4, 0.4, 0.8]
    assert ["train_loss" in line for line in lines] == [True, False, False]


def test_the_report_and_the_table_are_made_from_it(written):
    _, run = written
    page = write_report(run.path).read_text()
    assert "Distilled" in page
    assert "One note" in page
    console = Console(record=True, quiet=True, width=100)
    with console.capture():
        console.print(console_table(json.loads((run.path / "summary.json").read_text())))
    assert run.summary["data"]["split_sha256"] == [split.sha256 for split in written[0].splits]


def test_how_soon_a_row_is_as_good_as_the_plain_student_ever_is(graph):
    answers = np.zeros((2, 60, 3))
    alone = make_row(answers, valid=((0.5, 0.7, 0.6), (0.4, np.nan, np.nan)))
    assert epochs_to_reach(alone, alone) == [4, 2]
    better = make_row(answers, valid=((0.7, 0.6, 0.8), (0.1, 0.2, 0.3)))
    assert epochs_to_reach(better, alone) == [2, None]


def test_a_class_that_is_not_tested_has_no_score(graph, tmp_path):
    """Nothing is not 0 % right."""
    splits = draw_splits(graph, "60-20-20", SEEDS)
    test = splits.test & (graph.labels != 2)
    splits = replace(splits, test=test)
    rows = {name: make_row(probabilities(graph, splits, np.zeros_like(test))) for name in STUDENTS}
    heads = HeadEnsemble(
        (HeadOutput(np.zeros((2, 60, 3), np.float32), {"w": np.zeros((2, 3))}, HeadSettings(folds=2)),)
    )
    heads = HeadEnsemble((heads,))
    run_dir = RunDirectory(tmp_path / "run", {"class_names": list(graph.class_names)}, resume=False)
    names = dict.fromkeys(("teacher", *STUDENTS), "a row")
    given = {"labels": names, "heads": heads, "describe": DESCRIBE, "cost": COST, "notes": []}
    write_run(run_dir, graph=graph, splits=splits, rows=rows, **given)
    results = read_run(run_dir.path).summary["results"]
    assert results["student_alone"]["per_class"] == [[1.0, 1.0, None]] * 2
    assert write_report(run_dir.path).exists()
