import dataclasses
import os

import numpy as np
import pytest

from jaxgkd.data import registry
from jaxgkd.data.text_graphs import make_text_graph
from jaxgkd.errors import ConfigError, DataError


def small_folder(folder):
    folder.mkdir(parents=True)
    (folder / "nodes.csv").write_text("node,title,words,label\n0,a,A,x\n1,b,B,y\n")
    (folder / "edges.csv").write_text("src,dst\n0,1\n")
    return folder


def test_names_in_the_data_folder(tmp_path, monkeypatch):
    small_folder(tmp_path / "text" / "tiny")
    small_folder(tmp_path / "text" / "cora")
    monkeypatch.setenv("JAXGKD_DATA", str(tmp_path))
    assert registry.names("lingugkd") == ("scipy-docs", "cora", "wikispeedia", "pubmed_graph", "tiny")
    assert registry.load("tiny", recipe="lingugkd").texts == ("a", "b")
    assert registry.load("cora", recipe="lingugkd", text_columns=["words"]).texts == ("A", "B")
    with pytest.raises(ConfigError, match=r"'wikispeedia' is not in .*text; put it there"):
        registry.load("wikispeedia", recipe="lingugkd")


def test_folders(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXGKD_DATA", raising=False)
    folder = small_folder(tmp_path / "mine")
    assert registry.load(folder, recipe="lingugkd").name == "mine"
    assert registry.load(str(folder), recipe="lingugkd").name == "mine"
    monkeypatch.chdir(tmp_path)
    assert registry.load("mine", recipe="lingugkd").name == "mine"
    assert registry.load("./mine", recipe="lingugkd").name == "mine"
    with pytest.raises(DataError, match="does not exist"):
        registry.load("./yours", recipe="lingugkd")


def test_unknown_names_say_what_there_is(monkeypatch, tmp_path):
    monkeypatch.delenv("JAXGKD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"no data set 'kora' for lingugkd; use one of scipy-docs, cora, .*JAXGKD_DATA"
    ):
        registry.load("kora", recipe="lingugkd")
    with pytest.raises(ConfigError, match="'cora' is not here; run `jaxgkd data fetch cora`, or put it into text/cora"):
        registry.load("cora", recipe="lingugkd")
    with pytest.raises(ConfigError, match="'imdb' is not built in, and JAXGKD_DATA is not set; set JAXGKD_DATA to"):
        registry.load("imdb", recipe="lmgnn")


def test_fetched_sets_are_found_without_a_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXGKD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = small_folder(registry.fetched_folder() / "text" / "cora")
    assert registry.load("cora", recipe="lingugkd").texts == ("a", "b")
    assert registry.at_hand("lingugkd") == {"cora": folder.parent}
    # The user's own data folder comes first.
    (small_folder(tmp_path / "text" / "cora") / "nodes.csv").write_text("node,title,label\n0,c,x\n1,d,y\n")
    monkeypatch.setenv("JAXGKD_DATA", str(tmp_path))
    assert registry.load("cora", recipe="lingugkd").texts == ("c", "d")
    with pytest.raises(ConfigError, match="recipe 'unknown'; use lingugkd"):
        registry.load("cora", recipe="unknown")


def test_the_default_is_embedded(monkeypatch):
    graph = object()
    source = registry._SOURCES["lingugkd"]
    source = dataclasses.replace(source, embedded={"scipy-docs": lambda: graph})
    monkeypatch.setitem(registry._SOURCES, "lingugkd", source)
    assert registry.load(recipe="lingugkd") is graph
    with pytest.raises(ConfigError, match="'scipy-docs' takes no options; leave out label"):
        registry.load("scipy-docs", recipe="lingugkd", label="x")


def test_describe():
    graph = make_text_graph(
        name="toy",
        node_ids=np.arange(5),
        texts=["ab", "", "abcd", "x", "y"],
        titles=["t"] * 5,
        labels=np.array([0, 0, 1, -1, 1]),
        class_names=["p", "q"],
        senders=np.array([0, 1, 1, 2, 0]),
        receivers=np.array([1, 0, 2, 3, 0]),
    )
    counts = registry.describe(graph)
    # Linked pairs: 0-1 (same class), 1-2 (other class), 2-3 (one unlabelled).
    assert counts["homophily"] == 0.5 and counts["linked_pairs"] == 3 and counts["edges"] == 4
    assert counts["class_sizes"] == {"p": 2, "q": 2} and counts["labelled"] == 4 and counts["classes"] == 2
    assert counts["isolated"] == 1 and counts["without_text"] == 1 and counts["mean_text_length"] == 8 / 5
    assert counts["features"] == 0 and counts["given_split"] is False
    assert counts["notes"] == ["1 self link dropped", "1 node without text", "1 node without a label"]


@pytest.mark.skipif("JAXGKD_DATA" not in os.environ, reason="JAXGKD_DATA does not name the data folder")
def test_real_names():
    assert registry.load("cora", recipe="lingugkd").n_node == 2708


def test_only_columns_that_were_named_become_options():
    assert registry.column_options((), "label") == {}
    assert registry.column_options(["title", "name"], "topic") == {"label": "topic", "text_columns": ("title", "name")}
