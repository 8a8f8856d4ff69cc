import pytest

from jaxgkd.data.new_nodes import NewNodes
from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.errors import DataError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nodes.csv").write_text("node,title,text,label\na,one,two,x\nb, ,four,y\nc,five,,x\n")
    (tmp_path / "edges.csv").write_text("src,dst\na,b\nc,a\n")
    return tmp_path


def opened(source, **changed):
    options = {"text_columns": None, "hidden": "label", "with_text": True}
    return NewNodes(source, **(options | changed))


def test_texts_ids_and_edges_are_those_that_training_reads(folder):
    nodes, graph = opened(folder), load_text_graph(folder)
    chunks = list(nodes.chunks(at_a_time=2))
    assert [len(chunk.ids) for chunk in chunks] == [2, 1]
    assert [node for chunk in chunks for node in chunk.ids] == graph.node_ids.tolist()
    assert tuple(text for chunk in chunks for text in chunk.texts) == graph.texts
    assert [row for chunk in chunks for row in chunk.rows] == [2, 3, 4]
    assert nodes.count() == 3
    senders, receivers = nodes.edges()
    assert (senders.tolist(), receivers.tolist()) == (graph.senders.tolist(), graph.receivers.tolist())


def test_labels_are_not_needed_and_never_text(folder):
    path = folder / "nodes.csv"
    path.write_text("node,name,text\na,graph,one\nb,student,two\n")
    # The column of the classes was `name`, which is usually text.
    assert next(iter(opened(folder, hidden="name").chunks())).texts == ["one", "two"]
    path.write_text("node,text\na,one\n")
    assert next(iter(opened(folder, hidden="name").chunks())).texts == ["one"]


def test_bad_ids_are_kept_with_the_reason(folder):
    (folder / "nodes.csv").write_text("node,text\na,one\n,two\na,three\n" + "x" * 501 + ",four\nb,five\n")
    nodes = opened(folder)
    problems = {
        2 * at + i: why for at, chunk in enumerate(nodes.chunks(at_a_time=2)) for i, why in chunk.problems.items()
    }
    assert problems.keys() == {1, 2, 3}
    assert problems[1] == "the node has no id"
    assert problems[2] == "an earlier node has the same id"
    (folder / "edges.csv").write_text("src,dst\na,b\n")
    assert [ends.tolist() for ends in nodes.edges()] == [[0], [4]]


def test_edges_to_nowhere_are_refused_with_their_row(folder):
    (folder / "edges.csv").write_text("src,dst\na,b\nz,a\n")
    nodes = opened(folder)
    list(nodes.chunks())
    with pytest.raises(DataError, match=r"edges\.csv, row 3, field 'src': there is no node 'z'"):
        nodes.edges()


def test_a_table_alone_has_no_edges(folder):
    nodes = opened(folder / "nodes.csv")
    assert [len(chunk.ids) for chunk in nodes.chunks()] == [3]
    with pytest.raises(DataError, match="a table of nodes alone"):
        nodes.edges()
