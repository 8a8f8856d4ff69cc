"""Values of nodes far from 0: learned in standard deviations, said in the unit of the labels."""

import numpy as np
import pandas
import pytest

from jaxgkd import cli
from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.errors import DataError
from jaxgkd.exported import load
from jaxgkd.recipes.lmgnn_data import task_data
from tests.export.test_hetero import inputs_of
from tests.recipes.hetero_folder import SMALL, predicted, run_films, summary_of, write_films


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


def years(metadata, tables):
    """A film's genre says its year, within one."""
    metadata["node_types"]["movie"] = {"text": ["title"], "value": "year", "split": "part"}
    metadata["tasks"] = {"node_regression": {"node_type": "movie"}}
    for i, row in enumerate(tables["nodes_movie"]):
        row["year"] = 1990 + 5 * (i % 3) + i % 2


def test_values_far_from_zero_are_learned_predicted_and_exported(bert_folder, tmp_path):
    data, run = write_films(tmp_path / "films", change=years), tmp_path / "run"
    settings = SMALL | {"epochs": 20, "learning_rate": 0.03, "width": 16}
    assert run_films(data, run, bert_folder, **settings) == 0
    results = summary_of(run)["results"]
    found, mean = results["student_distilled"], results["majority"]
    assert found["test"][0] <= mean["test"][0] and results["student_alone"]["test"][0] <= mean["test"][0]
    # Around 4 years: neither of the scaled values nor of values that count from 0.
    assert 3 < mean["test"][0] < 6 and found["metrics"]["mae"]["test"][0] < 6
    arrays = np.load(run / "predictions.npz")
    tested, said = arrays["split"][0] == 3, arrays["pred/student_distilled"]
    error = said[0, tested] - arrays["labels"][tested]
    assert np.sqrt((error**2).mean()) == pytest.approx(found["test"][0], abs=1e-3) and np.isnan(said[1]).all()
    assert (run / "figures" / "errors.png").is_file()
    table, given = predicted(run, data, tmp_path / "said.csv"), pandas.read_csv(data / "nodes_movie.csv")
    for part in ("valid", "test"):
        error = (table["predicted"] - given["year"])[given["part"] == part]
        assert np.sqrt((error**2).mean()) == pytest.approx(found[part][0], abs=1e-3)
    assert cli.main(["export", str(run), "--out", str(tmp_path / "student")]) == 0
    student = load(tmp_path / "student")
    said = student(**inputs_of(tmp_path / "student", data, shuffled=True))
    np.testing.assert_allclose(said[:, 0], table["predicted"], atol=2e-3)
    assert "unit of the labels" in student.manifest["output"]["about"]


def test_training_values_that_are_all_alike_are_refused(tmp_path):
    def alike(metadata, tables):
        years(metadata, tables)
        for row in tables["nodes_movie"]:
            row["year"] = 1995.3 if row["part"] == "train" else row["year"]

    graph = load_hetero_graph(write_films(tmp_path / "films", change=alike))
    with pytest.raises(DataError, match=r"all training values of movie are 1995\.3"):
        task_data(graph, "node_regression", candidates="auto", n_candidates=5, score="dot", loss="bpr")


def test_values_are_scaled_by_the_training_part_alone(tmp_path):
    graph = load_hetero_graph(write_films(tmp_path / "films", change=years))
    data = task_data(graph, "node_regression", candidates="auto", n_candidates=5, score="dot", loss="bpr")
    assert data.scale is not None and data.labels is not None
    targets = np.asarray(data.asked["train"].targets)
    assert abs(targets.mean()) < 1e-4 and targets.std() == pytest.approx(1, rel=1e-4)
    for part, rows in data.rows.items():
        np.testing.assert_allclose(
            data.scale.undo(np.asarray(data.asked[part].targets))[:, 0], data.labels[rows], atol=1e-3
        )
