from types import SimpleNamespace

import numpy as np
import pytest

from jaxgkd.data.converters import hetero_graph_from_pyg, text_graph_from_pyg
from jaxgkd.data.folders import save_hetero_graph, save_text_graph
from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.errors import ConfigError, DataError

TEXTS = ["One\nof graphs", "Two\n", 'Three\nof, "quotes"', "Four\nof é"]


def stand_in(**changes):
    masks = np.eye(4, dtype=bool)
    fields = {
        "num_nodes": 4,
        "edge_index": np.array([[0, 1, 1, 2, 2], [1, 0, 0, 3, 2]]),
        "x": np.array([[0, 1.5], [0, 0], [2, 0], [0, -1]]),
        "y": np.array([0, 1, -1, 1]),
        "train_mask": masks[0],
        "val_mask": masks[1],
        "test_mask": masks[3],
        "raw_texts": TEXTS,
        "label_texts": ["even", "odd"],
    }
    return SimpleNamespace(**(fields | changes))


def test_a_graph_and_its_folder_are_the_same(tmp_path):
    graph = text_graph_from_pyg(stand_in(), name="mine")
    assert graph.texts == ("One\nof graphs", "Two", 'Three\nof, "quotes"', "Four\nof é")
    assert graph.titles == ("One", "Two", "Three", "Four")
    assert graph.class_names == ("even", "odd")
    assert graph.labels.tolist() == [0, 1, -1, 1]
    assert graph.given_split.tolist() == ["train", "valid", "", "test"]
    assert list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)) == [(0, 1), (1, 0), (2, 3)]
    assert graph.notes[:2] == ("1 self link dropped", "1 duplicate edge dropped")
    folder = save_text_graph(graph, tmp_path / "mine")
    assert load_text_graph(folder).sha256 == graph.sha256
    with pytest.raises(ConfigError, match="there is something already"):
        save_text_graph(graph, folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"raw_texts": None}, r"field 'texts': there is no text .*pass texts=\[…\]"),
        ({"raw_texts": TEXTS[:3]}, "has 3 texts for 4 nodes"),
        ({"raw_texts": [*TEXTS[:3], 4]}, "number 3 is int, not text"),
        ({"edge_index": None}, "convert adj_t to edge_index"),
        ({"edge_index": np.zeros((3, 2))}, r"is float64 \[3, 2\]"),
        ({"edge_index": np.array([[0], [9]])}, "a row that does not exist"),
        ({"y": np.zeros((4, 3))}, r"has shape \[4, 3\] for 4 items; .*several labels"),
        ({"y": np.array([0.5, 0, 1, 1])}, "holds fractions"),
        ({"y": np.array([0, 1, 2, 0])}, "numbers 3 classes and 2 have names"),
        ({"y": np.array(["a"] * 4)}, "holds <U1 values"),
        ({"x": np.full((4, 1), np.nan)}, "a value that is not finite"),
        ({"val_mask": np.ones(4, bool)}, "item 0 is in the train part too"),
        ({"train_mask": np.ones(3, bool)}, r"has shape \[3\] for 4 nodes"),
        ({"num_nodes": 0}, "there are no nodes"),
    ],
)
def test_what_is_missing_is_named(changes, said):
    with pytest.raises(DataError, match=said):
        text_graph_from_pyg(stand_in(**changes))


def test_texts_that_a_table_cannot_hold(tmp_path):
    graph = text_graph_from_pyg(stand_in(raw_texts=[*TEXTS[:3], "a\0b"]))
    with pytest.raises(DataError, match=r"nodes\.csv, row 5, .*zero byte"):
        save_text_graph(graph, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_real_data_class(tmp_path):
    torch = pytest.importorskip("torch")
    data = pytest.importorskip("torch_geometric.data").Data(
        x=torch.tensor([[0, 1.5], [0, 0], [2, 0]], dtype=torch.bfloat16).to_sparse(),
        edge_index=torch.tensor([[0, 1], [1, 2]]),
        y=torch.tensor([[0], [1], [0]]),
    )
    data.train_mask = torch.eye(3, dtype=torch.bool)
    data.text = ["a", "b", "c"]
    graph = text_graph_from_pyg(data, titles=["A", "B", "C"], split=1)
    np.testing.assert_array_equal(graph.features.toarray(), [[0, 1.5], [0, 0], [2, 0]])
    assert graph.given_split.tolist() == ["", "train", ""]
    assert graph.titles == ("A", "B", "C")
    assert graph.class_names == ("0", "1")


def test_the_real_hetero_data(tmp_path):
    torch = pytest.importorskip("torch")
    data = pytest.importorskip("torch_geometric.data").HeteroData()
    transforms = pytest.importorskip("torch_geometric.transforms")
    data["paper"].x = torch.eye(3)
    data["paper"].y = torch.tensor([0, 1, 0])
    data["paper"].train_mask = torch.tensor([True, True, False])
    data["author"].num_nodes = 2
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 0, 1, 0], [0, 1, 2, 0]])
    data = transforms.ToUndirected()(data)
    with pytest.raises(DataError, match="no node type has texts"):
        hetero_graph_from_pyg(data)
    with pytest.raises(DataError, match="no node type 'venue'; use paper, author"):
        hetero_graph_from_pyg(data, texts={"venue": []})
    data["paper", "prev_version", "paper"].edge_index = torch.tensor([[1], [0]])
    # The second a carriage return, which no table's row ends with.
    texts = {"paper": ["a", "b\rb", "c"]}
    graph = hetero_graph_from_pyg(data, texts=texts, class_names={"paper": ["x", "y"]}, name="g")
    assert sorted(graph.edges) == [("author", "writes", "paper"), ("paper", "prev_version", "paper")]
    assert graph.nodes["author"].texts is None
    assert graph.tasks["node_classification"].target == "paper"
    assert "the reverse relation paper–rev_writes–author left out" in graph.notes
    found = load_hetero_graph(save_hetero_graph(graph, tmp_path / "g"))
    assert found.sha256 == graph.sha256
