import dataclasses
import gzip
import os
import random
import string
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.sparse
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jaxgkd.data.registry import describe
from jaxgkd.data.text_graphs import load_text_graph, make_text_graph
from jaxgkd.errors import DataError, JaxgkdError

NODES = (
    "node,title,abstract,label,split\n10,One,first text,a,train\n11,Two,,b,val\n12,,third text,a,\n13,Four,x,,test\n"
)
EDGES = "src,dst\n10,11\n11,12\n12,10\n"
BASE = {"nodes.csv": NODES, "edges.csv": EDGES}


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def test_reads_a_folder(tmp_path):
    graph = load_text_graph(write(tmp_path / "mine", BASE))
    assert graph.name == "mine"
    assert graph.node_ids.tolist() == [10, 11, 12, 13] and graph.node_ids.dtype == np.int64
    assert graph.texts == ("One\nfirst text", "Two", "third text", "Four\nx")
    assert graph.student_texts == graph.texts
    assert graph.titles == ("One", "Two", "third text", "Four")
    assert graph.labels.tolist() == [0, 1, 0, -1] and graph.labels.dtype == np.int32
    assert graph.class_names == ("a", "b")
    assert graph.senders.tolist() == [0, 1, 2] and graph.senders.dtype == np.int32
    assert graph.receivers.tolist() == [1, 2, 0]
    assert graph.given_split.tolist() == ["train", "valid", "", "test"]
    assert graph.features is None and graph.n_feature == 0
    assert graph.notes == ("1 node without a label",)


def test_drops_self_links_and_duplicates_with_a_note(tmp_path):
    files = BASE | {"edges.csv": "src,dst,weight\n10,11,1\n11,11,1\n10,11,2\n11,10,1\n12,12,1\n"}
    graph = load_text_graph(write(tmp_path, files))
    assert list(zip(graph.senders, graph.receivers, strict=True)) == [(0, 1), (1, 0)]
    assert graph.notes[:3] == ("edge columns not used: weight", "2 self links dropped", "1 duplicate edge dropped")


def test_ids_are_text_unless_all_are_integers(tmp_path):
    nodes = "node,text,label\n007,a,0\nbond,b,1\n"
    graph = load_text_graph(write(tmp_path, {"nodes.csv": nodes, "edges.csv": "src,dst\n007,bond\n"}))
    assert graph.node_ids.tolist() == ["007", "bond"]


def test_text_columns(tmp_path):
    nodes = "node,title,keywords,class_name,label\n0,T,K,physics,0\n1,U,,biology,1\n"
    folder = write(tmp_path, {"nodes.csv": nodes, "edges.csv": "src,dst\n0,1\n"})
    assert load_text_graph(folder).texts == ("T\nK", "U")
    assert load_text_graph(folder, text_columns=["keywords", "title"]).texts == ("K\nT", "U")
    assert load_text_graph(folder, text_columns=["keywords"]).titles == ("K", "")
    assert load_text_graph(folder, text_columns=()).texts == ("", "")
    assert load_text_graph(folder, text_columns="class_name").texts == ("physics", "biology")
    with pytest.raises(DataError, match="there is no column 'summary'"):
        load_text_graph(folder, text_columns=["summary"])


def test_label_column_is_never_text(tmp_path):
    nodes = "node,title,keywords\n0,T,physics\n1,U,biology\n"
    folder = write(tmp_path, {"nodes.csv": nodes, "edges.csv": "src,dst\n0,1\n"})
    assert load_text_graph(folder, label="keywords").texts == ("T", "U")
    with pytest.raises(DataError, match="give the answer away"):
        load_text_graph(folder, label="keywords", text_columns=["title", "keywords"])


def test_new_data_needs_no_labels(tmp_path):
    folder = write(tmp_path, {"nodes.csv": "node,text\n0,a\n1,b\n", "edges.csv": "src,dst\n0,1\n"})
    graph = load_text_graph(folder, label=None)
    assert graph.labels.tolist() == [-1, -1] and graph.class_names == ()


def test_long_beginning_becomes_a_title_cut_between_words(tmp_path):
    nodes = f"node,text,label\n0,{'word ' * 50},0\n1,{'x' * 300},1\n"
    titles = load_text_graph(write(tmp_path, {"nodes.csv": nodes, "edges.csv": "src,dst\n0,1\n"})).titles
    assert titles[0] == ("word " * 16).strip() + "…"
    assert titles[1] == "x" * 80 + "…"


@pytest.mark.parametrize(
    ("files", "file", "row", "match"),
    [
        ({"edges.csv": EDGES + "10,99\n"}, "edges.csv", 5, "no node '99' in nodes.csv; add the node or remove"),
        ({"edges.csv": EDGES + "10,\n"}, "edges.csv", 5, "the node id is empty"),
        ({"edges.csv": EDGES + "ten,11\n"}, "edges.csv", 5, "'ten' is not an integer, while all node ids"),
        ({"edges.csv": "src,dst\n10,11,12\n"}, "edges.csv", 2, "has 3 cells where the header has 2"),
        ({"edges.csv": "src,dst\n"}, "edges.csv", None, "there are no edges"),
        ({"edges.csv": "src,dst\n10,10\n"}, "edges.csv", None, "every edge links a node to itself"),
        ({"edges.csv": "from,to\n10,11\n"}, "edges.csv", 1, "there is no column 'src', the columns are 'from', 'to'"),
        ({"edges.csv": ""}, "edges.csv", None, "is empty"),
        ({"edges.csv": " \n\n"}, "edges.csv", None, "is empty"),
        ({"edges.csv": "\nsrc,dst\n10,11\n"}, "edges.csv", 1, "the header is blank"),
        ({"edges.csv": "src;dst\n10;11\n"}, "edges.csv", 1, "is not separated by commas"),
        ({"nodes.csv": "node;text\n10;one, two\n"}, "nodes.csv", 1, "is not separated by commas"),
        ({"nodes.csv": NODES + "10,Again,x,a,train\n"}, "nodes.csv", 6, "node '10' is also in row 2"),
        ({"nodes.csv": NODES + ",Nameless,x,a,train\n"}, "nodes.csv", 6, "the node has no id"),
        ({"nodes.csv": NODES + "14,Short,x\n"}, "nodes.csv", 6, "has 3 cells where the header has 5"),
        ({"nodes.csv": NODES + "14,Odd,x,a,dev\n"}, "nodes.csv", 6, "'dev' is not a part of a split"),
        ({"nodes.csv": NODES + '14,"open,x,a,train\n'}, "nodes.csv", 6, "is not well-formed CSV; close every quote"),
        ({"nodes.csv": NODES + '14,"a"b,x,a,train\n'}, "nodes.csv", 6, "is not well-formed CSV"),
        ({"nodes.csv": NODES.encode() + b"14,caf\xe9,x,a,train\n"}, "nodes.csv", 6, "is not UTF-8 text; save it"),
        ({"nodes.csv": NODES.encode("utf-16")}, "nodes.csv", 1, "is not a text file"),
        ({"nodes.csv": NODES.encode() + b"14,\0,x,a,train\n"}, "nodes.csv", 6, "is not a text file"),
        ({"nodes.csv": b"PK\x03\x04\x14\0\x06\0\x08\0\xff\xff"}, "nodes.csv", 1, "is not a text file"),
        ({"nodes.csv": gzip.compress(NODES.encode())}, "nodes.csv", None, "is gzip-compressed; name it .csv.gz"),
        ({"nodes.csv": NODES.splitlines()[0]}, "nodes.csv", None, "there are no nodes"),
        ({"nodes.csv": '{"node": [1, 2]}'}, "nodes.csv", 1, "there is no column 'node'"),
        ({"nodes.csv": "node,text\n10,a\n11,b\n12,c\n"}, "nodes.csv", 1, "there is no column 'label'"),
        ({"nodes.csv": "node,label,words\n10,0,a\n"}, "nodes.csv", 1, "there is no text column"),
        ({"nodes.csv": "node,text,text\n10,0,a\n"}, "nodes.csv", 1, "there are two columns 'text'"),
        ({"nodes.csv": "node,text,label\n10, ,0\n11,,1\n"}, "nodes.csv", None, "every node is without text in text"),
        ({"nodes.parquet": b""}, "", None, "nodes.csv and nodes.parquet are both there"),
    ],
)
def test_broken_tables(tmp_path, files, file, row, match):
    folder = write(tmp_path, BASE | files)
    with pytest.raises(DataError, match=match) as caught:
        load_text_graph(folder)
    assert str(caught.value.file).endswith(file) and caught.value.row == row
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


def test_all_formats_give_the_same_hash(tmp_path):
    plain = load_text_graph(write(tmp_path / "csv", BASE))
    bom = {"nodes.csv": b"\xef\xbb\xbf" + NODES.replace("\n", "\r\n").encode(), "edges.csv": EDGES}
    zipped = {"nodes.csv.gz": gzip.compress(NODES.encode()), "edges.csv.gz": gzip.compress(EDGES.encode())}
    folder = tmp_path / "parquet"
    folder.mkdir()
    nodes = {
        "node": [10, 11, 12, 13],
        "title": pyarrow.array(["One", "Two", None, "Four"]).dictionary_encode(),
        "abstract": ["first text", "", "third text", "x"],
        "label": ["a", "b", "a", None],
        "split": ["train", "valid", None, "test"],
        "vector": [[1.0], [2.0], [3.0], [4.0]],
    }
    pyarrow.parquet.write_table(pyarrow.table(nodes), folder / "nodes.parquet")
    edges = {"src": [10, 11, 12], "dst": pyarrow.array(["11", "12", "10"])}
    pyarrow.parquet.write_table(pyarrow.table(edges), folder / "edges.parquet")
    for other in (write(tmp_path / "bom", bom), write(tmp_path / "zipped", zipped), folder):
        graph = load_text_graph(other)
        assert graph.sha256 == plain.sha256 and graph.texts == plain.texts and graph.notes == plain.notes


def test_parquet_numbers_and_errors(tmp_path):
    edges = write(tmp_path, {"edges.csv": "src,dst\n0,1\n"})
    table = {"node": [0, 1, 2], "text": ["a", "b", "c"], "label": [1.0, None, 0.0], "other": [b"x", b"y", b"z"]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "nodes.parquet")
    assert load_text_graph(edges).labels.tolist() == [1, -1, 0]
    with pytest.raises(DataError, match=r"nodes\.parquet, field 'other': holds binary values"):
        load_text_graph(tmp_path, text_columns=["other"])
    pyarrow.parquet.write_table(pyarrow.table(table | {"node": [0, 1, 1]}), tmp_path / "nodes.parquet")
    with pytest.raises(DataError, match="node '1' is also in row 3") as caught:
        load_text_graph(tmp_path)
    assert caught.value.row == 4
    whole = (tmp_path / "nodes.parquet").read_bytes()
    for broken in (b"PAR1", whole[:-20], whole[:200] + b"\xff" * 50 + whole[250:], NODES.encode()):
        (tmp_path / "nodes.parquet").write_bytes(broken)
        with pytest.raises(DataError, match=r"nodes\.parquet"):
            load_text_graph(tmp_path)


def test_the_hash_covers_every_field(tmp_path):
    graph = load_text_graph(write(tmp_path, BASE))
    parts = {field.name: getattr(graph, field.name) for field in dataclasses.fields(graph) if field.name != "sha256"}
    changes = {
        "node_ids": np.array(["10", "11", "12", "x"]),
        "texts": ("One\nfirst text", "Two", "third", "Four\nx"),
        "titles": ("One", "Two", "t", "Four"),
        "student_texts": ("One", "Two", "third text", "Four\nx"),
        "labels": np.array([0, 1, 1, -1]),
        "class_names": ("a", "c"),
        "senders": np.array([0, 1, 3]),
        "receivers": np.array([1, 2, 3]),
        "features": scipy.sparse.csr_array(np.eye(4, dtype=np.float32)),
        "given_split": np.array(["train", "valid", "", ""]),
    }
    assert make_text_graph(**parts).sha256 == graph.sha256
    hashes = {make_text_graph(**parts | {field: value}).sha256 for field, value in changes.items()}
    assert len(hashes | {graph.sha256}) == len(changes) + 1
    assert make_text_graph(**parts | {"name": "renamed"}).sha256 == graph.sha256


def test_parts_that_do_not_fit(tmp_path):
    graph = load_text_graph(write(tmp_path, BASE))
    parts = {field.name: getattr(graph, field.name) for field in dataclasses.fields(graph) if field.name != "sha256"}
    for change in (
        {"texts": ("one",)},
        {"labels": np.array([0, 1, 2, 0])},
        {"senders": np.array([0, 1, 4])},
        {"senders": np.array([0, 1])},
        {"features": scipy.sparse.csr_array((3, 2))},
    ):
        with pytest.raises(DataError):
            make_text_graph(**parts | change)


def test_twenty_thousand_nodes_take_about_a_second(tmp_path):
    draw = random.Random(0)
    words = ["".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(500)]
    n = 20_000
    nodes = "".join(f'{i},"{" ".join(draw.choices(words, k=100))}",{i % 5}\n' for i in range(n))
    edges = "".join(f"{i},{draw.randrange(n)}\n" for i in range(n) for _ in range(5))
    folder = write(tmp_path, {"nodes.csv": "node,text,label\n" + nodes, "edges.csv": "src,dst\n" + edges})
    start = time.process_time()
    graph = load_text_graph(folder)
    assert graph.n_node == n
    # Measured below 1 s; the margin is for slow machines.
    assert time.process_time() - start < 5


CELL = st.sampled_from(
    ["0", "1", "2", "-1", "", "a", "b", '"', ",", "\n", "\r", "x" * 70, "0.5", "\0", "\x85", "é", "train"]
)
LINE = st.lists(st.one_of(CELL, st.text(max_size=4)), max_size=6).map(",".join)
RAGGED = st.lists(LINE, max_size=6).map("\n".join)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    nodes=st.one_of(
        st.binary(max_size=60), RAGGED.map(str.encode), RAGGED.map(lambda s: f"node,text,label\n{s}".encode())
    ),
    edges=st.one_of(st.binary(max_size=60), RAGGED.map(lambda s: f"src,dst\n{s}".encode())),
    classes=st.one_of(st.none(), st.binary(max_size=30), st.sampled_from([b"[1e999]", b"[[]]", b"[" * 9999, b"null"])),
    suffix=st.sampled_from([".csv", ".csv.gz", ".parquet"]),
)
@example(nodes=b'node,text,label\n0,"', edges=b"src,dst\n0,1", classes=None, suffix=".csv")
@example(nodes=b"node,text,label\n0,a,0\n1,b,1", edges=b"src,dst\n0,1", classes=b"[" * 99999, suffix=".csv")
def test_whatever_the_bytes_there_is_a_graph_or_a_sentence(tmp_path, nodes, edges, classes, suffix):
    for old in tmp_path.iterdir():
        old.unlink()
    write(tmp_path, {f"nodes{suffix}": nodes, "edges.csv": edges})
    if classes is not None:
        write(tmp_path, {"classes.json": classes})
    try:
        graph = load_text_graph(tmp_path)
    except JaxgkdError as error:
        assert "\n" not in str(error)
    else:
        assert len(graph.texts) == graph.n_node and graph.n_edge > 0
        assert max(graph.senders.max(), graph.receivers.max()) < graph.n_node


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans())
def test_one_damaged_byte_in_good_files(tmp_path, position, byte, cut):
    parquet = tmp_path / "nodes.parquet"
    if not parquet.exists():
        table = {"node": [10, 11, 12], "text": ["a", "b", "c"], "label": ["x", "y", "x"]}
        pyarrow.parquet.write_table(pyarrow.table(table), parquet, compression="none")
        (tmp_path / "whole").write_bytes(parquet.read_bytes())
        np.savez(tmp_path / "features.npz", features=np.eye(3))
        (tmp_path / "whole_features").write_bytes((tmp_path / "features.npz").read_bytes())
        write(tmp_path, {"edges.csv": "src,dst\n10,11\n"})
    for whole, damaged in (("whole", parquet), ("whole_features", tmp_path / "features.npz")):
        content = bytearray((tmp_path / whole).read_bytes())
        place = position % len(content)
        content[place] = byte
        damaged.write_bytes(content[:place] if cut else content)
    try:
        load_text_graph(tmp_path)
    except JaxgkdError as error:
        assert "\n" not in str(error)


needs_data = pytest.mark.skipif("JAXGKD_DATA" not in os.environ, reason="JAXGKD_DATA does not name the data folder")


@needs_data
def test_cora():
    graph = load_text_graph(Path(os.environ["JAXGKD_DATA"]) / "text" / "cora")
    assert (graph.n_node, graph.n_edge, len(graph.class_names), graph.n_feature) == (2708, 5429, 7, 1433)
    assert dict(zip(*np.unique(graph.given_split, return_counts=True), strict=True)) == {
        "": 1068,
        "train": 140,
        "valid": 500,
        "test": 1000,
    }
    counts = describe(graph)
    assert counts["linked_pairs"] == 5278 and counts["isolated"] == 0 and counts["without_text"] == 0
    np.testing.assert_allclose(counts["homophily"], 0.8099658961727927, rtol=1e-12)
    assert not any("class" in note or "dropped" in note for note in graph.notes)


@needs_data
def test_wikispeedia():
    graph = load_text_graph(Path(os.environ["JAXGKD_DATA"]) / "text" / "wikispeedia")
    counts = describe(graph)
    assert (graph.n_node, graph.n_edge, len(graph.class_names)) == (4598, 119_769, 15)
    assert (counts["linked_pairs"], counts["isolated"], counts["labelled"]) == (106_534, 9, 4597)
    np.testing.assert_allclose(counts["homophily"], 0.3199523089777411, rtol=1e-3)


@needs_data
def test_a_graph_without_text_is_read_when_that_is_said():
    folder = Path(os.environ["JAXGKD_DATA"]) / "text" / "pubmed_graph"
    with pytest.raises(DataError, match="there is no text column"):
        load_text_graph(folder)
    graph = load_text_graph(folder, text_columns=())
    assert (graph.n_node, graph.n_edge) == (19_717, 44_324)
