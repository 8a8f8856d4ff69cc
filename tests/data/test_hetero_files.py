import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from jaxgkd.data import registry
from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.data.hetero_graphs import describe_hetero
from jaxgkd.errors import DataError

ACTS, DIRECTS = ("actor", "acts_in", "movie"), ("director", "directs", "movie")
METADATA = {
    "node_types": {
        "movie": {"text": ["title", "plot"], "label": "genre", "classes": ["drama", "comedy"], "split": "part"},
        "actor": {"text": ["name"]},
        "director": {},
    },
    "edge_types": [list(ACTS), list(DIRECTS)],
    "tasks": {
        "node_classification": {"node_type": "movie"},
        "edge_classification": {"edge_type": list(ACTS), "label": "lead", "classes": ["no", "yes"], "split": "part"},
        "link_prediction": {"edge_type": list(ACTS), "split": "part", "order": "year of release"},
    },
}
TABLES = {
    "nodes_movie": "node,title,plot,genre,part,year\nm1,One,a b,drama,train,1\nm2,Two,,comedy,val,2\nm3,,c,,test,3\n",
    "nodes_actor": "node,name\n7,Ann\n3,Bob\n",
    "nodes_director": "node\nd1\nd2\n",
    "edges_actor__acts_in__movie": "src,dst,lead,part\n3,m1,yes,train\n7,m1,no,train\n7,m2,yes,valid\n3,m3,,test\n",
    "edges_director__directs__movie": "src,dst\nd1,m1\nd1,m2\n",
}


def write(folder: Path, tables=None, metadata=None, change=None, ending="csv") -> Path:
    """The folder above, with other tables (None leaves one out) and metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.loads(json.dumps(METADATA))
    if change is not None:
        change(content)
    (folder / "metadata.json").write_text(json.dumps(content) if metadata is None else metadata, encoding="utf-8")
    for name, text in (TABLES | (tables or {})).items():
        if text is None:
            continue
        if ending == "csv":
            (folder / f"{name}.csv").write_text(text, encoding="utf-8")
        elif ending == "csv.gz":
            (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
        else:
            header, *rows = (line.split(",") for line in text.split())
            columns = [pyarrow.array([row[i] for row in rows], pyarrow.string()) for i in range(len(header))]
            pyarrow.parquet.write_table(
                pyarrow.table(dict(zip(header, columns, strict=True))), folder / f"{name}.parquet"
            )
    return folder


def test_reads_a_folder(tmp_path):
    graph = load_hetero_graph(write(tmp_path / "films"))
    assert graph.name == "films" and list(graph.nodes) == ["movie", "actor", "director"]
    movie, actor, director = graph.nodes.values()
    assert movie.texts == ("One\na b", "Two", "c") and movie.titles == ("One", "Two", "c")
    assert movie.labels.tolist() == [0, 1, -1] and movie.class_names == ("drama", "comedy")
    assert movie.given_split.tolist() == ["train", "valid", "test"] and movie.ids.tolist() == ["m1", "m2", "m3"]
    assert actor.ids.tolist() == [7, 3] and actor.ids.dtype == np.int64 and actor.labels is None
    assert director.texts is None and director.titles == ("d1", "d2") and director.given_split is None
    acts, directs = graph.edges[ACTS], graph.edges[DIRECTS]
    assert acts.senders.tolist() == [1, 0, 0, 1] and acts.receivers.tolist() == [0, 0, 1, 2]
    assert acts.labels.tolist() == [1, 0, 1, -1] and acts.class_names == ("no", "yes")
    assert acts.given_split.tolist() == ["train", "train", "valid", "test"]
    assert directs.labels is None and directs.given_split is None
    assert {kind: task.target for kind, task in graph.tasks.items()} == {
        "node_classification": "movie",
        "edge_classification": ACTS,
        "link_prediction": ACTS,
    }
    assert graph.notes == ("columns of movie not used: year", "the split of link_prediction goes by year of release")


def test_describes_what_there_is(tmp_path):
    facts = describe_hetero(load_hetero_graph(write(tmp_path)))
    assert facts["nodes"] == {"movie": 3, "actor": 2, "director": 2}
    assert facts["edges"] == {"actor–acts_in–movie": 4, "director–directs–movie": 2}
    assert facts["without_text"] == {"movie": 0, "actor": 0, "director": 2}
    assert facts["isolated"] == {"movie": 0, "actor": 0, "director": 1}
    assert facts["classes"] == {"movie": ["drama", "comedy"]}
    assert facts["tasks"]["link_prediction"] == "actor–acts_in–movie"


def test_every_kind_of_file_says_the_same_and_content_counts(tmp_path):
    tables = {"nodes_movie": TABLES["nodes_movie"].replace("a b", "ab")}
    hashes = {
        load_hetero_graph(write(tmp_path / ending, tables, ending=ending)).sha256
        for ending in ("csv", "csv.gz", "parquet")
    }
    assert len(hashes) == 1
    fewer = tables | {"edges_director__directs__movie": "src,dst\nd1,m1\n"}
    assert load_hetero_graph(write(tmp_path / "other", fewer)).sha256 not in hashes


def test_values_and_features_are_read(tmp_path):
    def regression(content):
        content["node_types"]["movie"] = {"text": ["title"], "value": "year", "split": "part"}
        content["tasks"] = {"node_regression": {"node_type": "movie"}}

    tables = {"nodes_movie": TABLES["nodes_movie"].replace("train,1", "train,").replace("val,2", "val,-2.5")}
    write(tmp_path, tables, change=regression)
    np.savez(tmp_path / "features_actor.npz", features=np.eye(2, 3, dtype=np.float32))
    graph = load_hetero_graph(tmp_path)
    labels = graph.nodes["movie"].labels
    assert labels.dtype == np.float32 and np.isnan(labels[0]) and labels[1:].tolist() == [-2.5, 3.0]
    assert graph.nodes["movie"].class_names == () and list(graph.tasks) == ["node_regression"]
    assert graph.nodes["actor"].features.toarray().tolist() == [[1, 0, 0], [0, 1, 0]]


def test_repeated_edges_count_once(tmp_path):
    """A copy of an edge would show it where it is asked for."""
    tables = {"edges_director__directs__movie": "src,dst\nd1,m1\nd2,m2\nd1,m1\n"}
    graph = load_hetero_graph(write(tmp_path, tables))
    assert graph.edges[DIRECTS].senders.tolist() == [0, 1] and graph.edges[DIRECTS].receivers.tolist() == [0, 1]
    assert "1 duplicate edge of director–directs–movie dropped" in graph.notes


def changed(**changes):
    return lambda content: content.update(changes)


def of_type(name, **changes):
    return lambda content: content["node_types"][name].update(changes)


def of_task(name, **changes):
    return lambda content: content["tasks"].setdefault(name, {}).update(changes)


BAD_METADATA = {
    "no types": (changed(node_types={}), "node_types", "is not an object with something in it"),
    "types are a list": (changed(node_types=["movie"]), "node_types", "is not an object"),
    "relations are an object": (changed(edge_types={}), "edge_types", "is not a list"),
    "tasks are a list": (changed(tasks=["node_classification"]), "tasks", "is not an object"),
    "unknown field": (changed(edges=[]), "edges", "is not known"),
    "no plain word": (lambda c: c["node_types"].update({"a/b": {}}), "node_types.a/b", "no plain word"),
    "two underscores": (lambda c: c["node_types"].update({"a__b": {}}), "node_types.a__b", "no plain word"),
    "type is no object": (lambda c: c["node_types"].update(actor=["name"]), "node_types.actor", "is not an object"),
    "unknown key": (of_type("actor", texts=["name"]), "node_types.actor", "'texts' is not known"),
    "text is no list": (of_type("actor", text="name"), "node_types.actor", "text is not a list"),
    "label is no text": (of_type("movie", label=3), "node_types.movie", "label is not text"),
    "label and value": (of_type("movie", value="year"), "node_types.movie", "has a label and a value"),
    "label is text too": (of_type("movie", text=["title", "genre"]), "node_types.movie.genre", "text and the label"),
    "split is text too": (of_type("movie", text=["title", "part"]), "node_types.movie.part", "text and the split"),
    "a list of twins": (of_type("movie", classes=["drama", "drama"]), None, "drama"),
    "edge type of two": (changed(edge_types=[["actor", "movie"]]), None, "is no edge type"),
    "edge type of a number": (changed(edge_types=[["actor", 1, "movie"]]), None, "is no edge type"),
    "unknown source": (
        changed(edge_types=[["cat", "acts_in", "movie"]], tasks={}),
        "edge_types",
        "'cat', which does not",
    ),
    "unknown destination": (
        changed(edge_types=[["actor", "in", "cat"]], tasks={}),
        "edge_types",
        "'cat', which does not",
    ),
    "twice": (changed(edge_types=[list(ACTS), list(DIRECTS), list(ACTS)]), None, "is there twice"),
    "unknown task": (of_task("graph_classification", node_type="movie"), "tasks", "no task 'graph_classification'"),
    "task is no object": (changed(tasks={"node_classification": "movie"}), "tasks.node_classification", "is not an ob"),
    "task on nothing": (changed(tasks={"link_prediction": {}}), "tasks.link_prediction", "there is no edge_type"),
    "task of an unknown key": (
        of_task("link_prediction", label="lead"),
        "tasks.link_prediction",
        "'label' is not known",
    ),
    "task on an unknown type": (of_task("node_classification", node_type="cat"), None, "'cat', which does not exist"),
    "task on an unknown relation": (of_task("link_prediction", edge_type=["actor", "x", "movie"]), None, "not exist"),
    "task without labels": (of_task("node_classification", node_type="actor"), None, "has no such labels"),
    "values for classes": (of_task("node_regression", node_type="movie"), None, "has no such labels"),
    "edges without labels": (
        changed(tasks={"edge_classification": {"edge_type": list(DIRECTS)}}),
        None,
        "director–directs–movie, which has no labels",
    ),
    "two splits": (of_task("link_prediction", split="lead"), "tasks", "name the splits lead and part"),
}


@pytest.mark.parametrize("name", BAD_METADATA)
def test_bad_metadata_is_one_sentence(name, tmp_path):
    change, field, words = BAD_METADATA[name]
    with pytest.raises(DataError) as caught:
        load_hetero_graph(write(tmp_path, change=change))
    assert_one_sentence(caught.value, tmp_path / "metadata.json", None, field, words)


BAD_TABLES = {
    "dangling source": ("edges_director__directs__movie", "src,dst\nd1,m1\nd9,m2\n", 3, "src", "no node 'd9'"),
    "dangling destination": ("edges_director__directs__movie", "src,dst\nd1,m9\n", 2, "dst", "no node 'm9'"),
    "empty end": ("edges_director__directs__movie", "src,dst\n,m1\n", 2, "src", "the node id is empty"),
    "no integer": ("edges_actor__acts_in__movie", "src,dst,lead,part\n07,m1,no,\n", 2, "src", "not an integer"),
    "no edges": ("edges_director__directs__movie", "src,dst\n", None, None, "there are no edges"),
    "no column of ends": ("edges_director__directs__movie", "src,to\nd1,m1\n", 1, None, "no column 'dst'"),
    "no text column": ("nodes_actor", "node,title\n7,Ann\n3,Bob\n", 1, None, "correct the text of 'actor'"),
    "no label column": (
        "nodes_movie",
        "node,title,plot,part\nm1,a,b,\nm2,a,b,\nm3,a,b,\n",
        1,
        None,
        "no column 'genre'",
    ),
    "no split column": (
        "nodes_movie",
        "node,title,plot,genre\nm1,a,b,drama\nm2,,,comedy\nm3,,,\n",
        1,
        None,
        "no column 'part'",
    ),
    "no text at all": ("nodes_actor", "node,name\n7,\n3,\n", None, None, "every node is without text in name"),
    "unknown part": (
        "nodes_movie",
        TABLES["nodes_movie"].replace("val", "dev"),
        3,
        "part",
        "'dev' is not a part of a split",
    ),
    "unknown class": ("nodes_movie", TABLES["nodes_movie"].replace("comedy", "noir"), 3, "genre", "noir"),
    "id twice": ("nodes_director", "node\nd1\nd1\n", 3, "node", "d1"),
    "id empty": ("nodes_director", 'node\nd1\n""\n', 3, "node", "the node has no id"),
    "unknown class of edges": (
        "edges_actor__acts_in__movie",
        TABLES["edges_actor__acts_in__movie"].replace("no", "maybe"),
        3,
        "lead",
        "maybe",
    ),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_one_sentence(name, tmp_path):
    table, text, row, field, words = BAD_TABLES[name]
    with pytest.raises(DataError) as caught:
        load_hetero_graph(write(tmp_path, {table: text}))
    assert_one_sentence(caught.value, tmp_path / f"{table}.csv", row, field, words)


def assert_one_sentence(error, file, row, field, words):
    text = str(error)
    assert words in text and text.endswith(".") and "\n" not in text and ".; " not in text
    assert str(file) in text and text.count(str(file)) == 1
    assert error.row == row
    if field is not None:
        assert error.field == field


def test_a_column_named_split_has_to_be_there_too(tmp_path):
    """Where metadata.json names it, a random split is not what was asked for."""
    with pytest.raises(DataError, match="split"):
        load_hetero_graph(write(tmp_path, change=of_type("movie", split="split")))


def test_values_have_to_be_numbers(tmp_path):
    def regression(content):
        content["node_types"]["movie"] = {"value": "year"}
        content["tasks"] = {}

    for year, row, words in (("x", 2, "'x' is no number"), ("inf", 2, "'inf' is no number")):
        tables = {"nodes_movie": TABLES["nodes_movie"].replace("train,1", f"train,{year}")}
        with pytest.raises(DataError) as caught:
            load_hetero_graph(write(tmp_path, tables, change=regression))
        assert_one_sentence(caught.value, tmp_path / "nodes_movie.csv", row, "year", words)
    with pytest.raises(DataError, match="no row has a value"):
        load_hetero_graph(write(tmp_path, {"nodes_movie": "node,year\nm1,\nm2,\nm3,\n"}, change=regression))


@pytest.mark.parametrize("metadata", ["", "{", '{"node_types": ', "[]", '"movie"', "[" * 100_000])
def test_what_is_no_object_of_json_is_refused(metadata, tmp_path):
    with pytest.raises(DataError) as caught:
        load_hetero_graph(write(tmp_path, metadata=metadata))
    assert_one_sentence(caught.value, tmp_path / "metadata.json", None, None, "is not")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"metadata\.json"):
        load_hetero_graph(tmp_path)
    with pytest.raises(DataError, match="edges_director__directs__movie"):
        load_hetero_graph(write(tmp_path, {"edges_director__directs__movie": None}))
    with pytest.raises(DataError, match="nodes_director"):
        load_hetero_graph(write(tmp_path / "other", {"nodes_director": None}))


REAL = pytest.mark.skipif(not os.environ.get("JAXGKD_DATA"), reason="needs the folder of data sets")


@REAL
def test_imdb():
    graph = registry.load("imdb", recipe="lmgnn")
    assert graph.n_node == {"movie": 4176, "director": 2079, "actor": 5252}
    assert {kind[1]: len(edges) for kind, edges in graph.edges.items()} == {"directed_by": 4176, "acts_in": 12_528}
    assert (
        graph.nodes["movie"].class_names == ("Action", "Comedy", "Drama") and (graph.nodes["movie"].labels >= 0).all()
    )
    assert list(graph.tasks) == ["node_classification", "link_prediction"]


@REAL
def test_wikispeedia():
    graph = registry.load("wikispeedia", recipe="lmgnn")
    assert graph.n_node == {"article": 4598}
    assert {kind[1]: len(edges) for kind, edges in graph.edges.items()} == {"links_to": 119_769, "clicked": 31_410}
    assert list(graph.tasks) == ["node_classification", "edge_classification", "link_prediction"]
    clicked = graph.edges["article", "clicked", "article"]
    assert clicked.class_names == ("kept", "undone") and 0.08 < clicked.labels.mean() < 0.2
    # How often something was clicked, or undone, is no feature.
    assert "columns of article–clicked–article not used: clicks, undone" in graph.notes
