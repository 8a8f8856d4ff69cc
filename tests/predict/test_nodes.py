import csv
import shutil
from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest
from flax import nnx

from jaxgkd import cli
from jaxgkd.data.bag_of_words import Vocabulary
from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.graphs import SparseRows, from_edges, undirected
from jaxgkd.nn.named_weights import states_of
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.recipes.kept_nodes import node_student_maker
from jaxgkd.recipes.student_inputs import unit_rows
from jaxgkd.training.student_folder import read_student, write_student

NAMES = ["graph", "molecules", "student"]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


def predicted(run, data, out, *flags) -> pd.DataFrame:
    assert cli.main(["predict", str(run), "--data", str(data), "--out", str(out), *flags]) == 0
    return pd.read_csv(out)


def probabilities(table) -> np.ndarray:
    return table[[f"p_{name}" for name in NAMES]].to_numpy()


def directly(run, data) -> np.ndarray:
    """[members, n, classes], of the whole graph at once."""
    kept, graph = read_student(run), load_text_graph(data)
    if graph.features is not None:
        rows = unit_rows(graph.features)
    else:
        vocabulary = Vocabulary.load(run / "student" / "vocabulary.json")
        rows = vocabulary.transform(graph.texts)
    nodes, layout = from_edges(SparseRows.from_scipy(rows), *undirected(graph.senders, graph.receivers), graph.n_node)
    make = node_student_maker(kept)
    states = states_of(make, kept.weights)
    graphdef = graphdef_of(make)
    ask = jax.jit(lambda *one: jax.nn.softmax(nnx.merge(graphdef, *one)(nodes, layout).logits))
    return np.stack([ask(*jax.tree.map(lambda leaf, i=i: leaf[i], states)) for i in range(len(kept.members))])


@pytest.mark.parametrize(("kind", "features"), [("gcn", False), ("gat", True), ("mlp", False), ("mlp", True)])
def test_predictions_are_those_of_the_whole_graph_at_once(node_run, tmp_path, kind, features):
    run, data = node_run(kind, features=features)
    expected = directly(run, data)
    table = predicted(run, data, tmp_path / "best.csv")
    assert table["node"].tolist() == [f"n{i}" for i in range(60)]
    np.testing.assert_allclose(probabilities(table), expected[1], atol=1e-6)
    assert table["class"].tolist() == [NAMES[best] for best in expected[1].argmax(axis=1)]
    assert table["problem"].isna().all()
    table = predicted(run, data, tmp_path / "all.csv", "--seeds", "all")
    np.testing.assert_allclose(probabilities(table), expected.mean(axis=0), atol=1e-6)


def test_labels_are_not_read(node_run, tmp_path):
    run, data = node_run("gcn")
    before = predicted(run, data, tmp_path / "before.csv")
    rows = list(csv.DictReader((data / "nodes.csv").read_text().splitlines()))
    with (data / "nodes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["node", "title", "abstract"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    pd.testing.assert_frame_equal(predicted(run, data, tmp_path / "after.csv"), before)


def unusable(nodes, edges):
    """Four nodes of strange words, one of them without links and two with each other; one without an id, one twice."""
    for i in (3, 5, 8, 9):
        nodes[i]["title"] = nodes[i]["abstract"] = "zebra"
    edges[:] = [ends for ends in edges if not {"n3", "n7", "n8", "n9"} & set(ends)] + [("n8", "n9")]
    nodes[7]["node"] = ""
    nodes.append(dict(nodes[0]))


@pytest.mark.parametrize(("kind", "missing"), [("gcn", {3, 7, 8, 9, 60}), ("mlp", {3, 5, 7, 8, 9, 60})])
def test_nodes_that_cannot_be_predicted_are_listed_and_kept(node_run, tmp_path, capsys, kind, missing):
    run, data = node_run(kind)
    rows = list(csv.DictReader((data / "nodes.csv").read_text().splitlines()))
    edges = [tuple(row) for row in csv.reader((data / "edges.csv").read_text().splitlines())][1:]
    unusable(rows, edges)
    for name, header, lines in (
        ("nodes", list(rows[0]), [list(row.values()) for row in rows]),
        ("edges", ["src", "dst"], edges),
    ):
        with (data / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *lines])
    table = predicted(run, data, tmp_path / "out.csv")
    assert set(np.flatnonzero(table["problem"].notna())) == missing
    assert set(np.flatnonzero(table["class"].isna())) == missing
    assert np.isnan(probabilities(table)).any(axis=1).sum() == len(missing)
    assert table["problem"][60] == "an earlier node has the same id"
    said = capsys.readouterr().out
    assert f"{61 - len(missing)} of 61 nodes predicted" in said
    assert "row 5: the text holds no word that the student knows" in said
    assert "row 9: the node has no id" in said


def test_an_mlp_needs_the_table_of_nodes_alone(node_run, tmp_path):
    run, data = node_run("mlp")
    (data / "edges.csv").unlink()
    table = predicted(run, data / "nodes.csv", tmp_path / "out.csv")
    assert len(table) == 60


def refused(capsys, run, data, out, *flags) -> str:
    assert cli.main(["predict", str(run), "--data", str(data), "--out", str(out), *flags]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_what_cannot_be_used_is_said_in_a_sentence(node_run, tmp_path, capsys):
    run, data = node_run("gcn", features=True)
    out = tmp_path / "out.csv"
    np.savez(data / "features.npz", features=np.ones((60, 7), np.float32))
    assert "has 7 features a node, the student reads 9" in refused(capsys, run, data, out)
    (data / "features.npz").unlink()
    assert "the student reads features, and there are none" in refused(capsys, run, data, out)
    assert "there is none of nodes.csv" in refused(capsys, run, tmp_path, out)
    assert "a table of nodes alone" not in refused(capsys, run, data / "nodes.csv", out)
    assert "ends in none of .csv" in refused(capsys, run, data, tmp_path / "out.xlsx")
    kept = read_student(run)
    write_student(run, replace(kept, reads={**kept.reads, "positions": 3}))
    assert "spectral positions" in refused(capsys, run, data, out)
    assert cli.main(["export", str(run), "--out", str(tmp_path / "student")]) == 2
    assert "spectral positions" in capsys.readouterr().err
    shutil.rmtree(run / "student")
    assert "the run keeps no student" in refused(capsys, run, data, out)
    (run / "config.json").write_text('{"recipe": "lmgnn"}')
    assert "the run keeps no student, as those of earlier versions" in refused(capsys, run, data, out)
