import numpy as np
import pandas
import pytest

from jaxgkd import cli
from jaxgkd.training.metrics import area_under_roc
from tests.recipes.hetero_folder import SMALL, predicted, run_films, summary_of, write_films


def some_unasked(metadata, tables):
    """Some edges have no label, and others are in no part: they are in the graph of the run and of prediction."""
    for i, edge in enumerate(tables["edges_actor__acts_in__movie"]):
        edge["lead"] = "" if i % 5 == 0 and edge["part"] != "test" else edge["lead"]
        edge["part"] = "" if i % 7 == 0 and edge["part"] == "train" else edge["part"]


def without(*parts):
    def change(metadata, tables):
        some_unasked(metadata, tables)
        acts = tables["edges_actor__acts_in__movie"]
        tables["edges_actor__acts_in__movie"] = [edge for edge in acts if edge["part"] not in parts]

    return change


def test_pairs_that_are_asked_about(bert_folder, own_cache, tmp_path, capsys):
    data = write_films(tmp_path / "films", change=some_unasked)
    out = tmp_path / "edges"
    assert run_films(data, out, bert_folder, "--task", "edge_classification", "--stages", **SMALL) == 0
    known = write_films(tmp_path / "known", change=without("valid", "test"))
    edges = pandas.read_csv(data / "edges_actor__acts_in__movie.csv")
    test = edges[edges["part"] == "test"]
    test.to_csv(tmp_path / "test.csv", index=False)
    flags = ["--seeds", "best", "--pairs", str(tmp_path / "test.csv")]
    table = predicted(out, known, tmp_path / "out.csv", *flags)
    np.testing.assert_allclose(table["p_no"] + table["p_yes"], 1, atol=1e-6)
    result = summary_of(out)["results"]["student_distilled"]
    found = area_under_roc(
        table["p_yes"].to_numpy(), (test["lead"] == "yes").to_numpy().astype(int), np.ones(len(test), bool)
    )
    assert found == pytest.approx(result["test"][int(np.argmax(result["valid"]))])
    # What is asked passes no messages: it makes no difference whether it is in the graph already.
    both = write_films(tmp_path / "both", change=without("valid"))
    assert predicted(out, both, tmp_path / "both.csv", *flags).equals(table)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("src,dst\na0,m0\na99,m0\na1,\n")
    table = predicted(out, known, tmp_path / "some.csv", "--pairs", str(pairs))
    assert table["class"].notna().tolist() == [True, False, False]
    assert table["problem"].tolist()[1:] == ["src: there is no actor 'a99'", "dst: the node id is empty"]
    capsys.readouterr()

    def refused(*flags):
        words = ["predict", str(out), "--data", str(known), "--out", str(tmp_path / "no.csv"), *flags]
        assert cli.main(words) == 2 and not (tmp_path / "no.csv").exists()
        return capsys.readouterr().err

    assert "field '--pairs': the student answers for pairs of actor–acts_in–movie" in refused()
    pairs.write_text("src,dst\na99,m0\n")
    assert "pairs.csv, row 2: no pair can be answered for (src: there is no actor 'a99')" in refused(
        "--pairs", str(pairs)
    )
    pairs.write_text("src,dst\n")
    assert "pairs.csv: there are no pairs" in refused("--pairs", str(pairs))
    pairs.write_text("src,to\na0,m0\n")
    assert "there is no column 'dst'" in refused("--pairs", str(pairs))
