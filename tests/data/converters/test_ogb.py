import gzip
from types import SimpleNamespace

import numpy as np
import pytest

from jaxgkd.data.converters import molecules_from_ogb, text_graph_from_ogb
from jaxgkd.errors import DataError


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Nodes:
    """As ``NodePropPredDataset`` is."""

    name = "ogbn-toy"

    def __getitem__(self, i):
        graph = {"edge_index": np.array([[0, 1], [1, 2]]), "edge_feat": None, "num_nodes": 3, "node_feat": np.eye(3)}
        return graph, np.array([[0.0], [np.nan], [1.0]])

    def get_idx_split(self):
        return {"train": np.array([0]), "valid": np.array([2]), "test": np.array([1])}


def test_nodes():
    graph = text_graph_from_ogb(Nodes(), texts=["a", "b", "c"], class_names=["x", "y"])
    assert (graph.name, graph.labels.tolist()) == ("ogbn-toy", [0, -1, 1])
    assert graph.given_split.tolist() == ["train", "test", "valid"]
    with pytest.raises(DataError, match="has 1 texts for 3 nodes"):
        text_graph_from_ogb(Nodes(), texts=["a"])
    typed = SimpleNamespace(__getitem__=None)
    typed = type("Typed", (Nodes,), {"__getitem__": lambda self, i: ({"edge_index_dict": {}}, {})})()
    with pytest.raises(DataError, match="no edge_index, as heterogeneous ones have none"):
        text_graph_from_ogb(typed, texts=[])


def test_nodes_as_pyg_has_them():
    data = SimpleNamespace(num_nodes=3, edge_index=np.array([[0], [1]]), y=np.array([[0], [1], [1]]), x=None)
    dataset = type("Pyg", (Nodes,), {"__getitem__": lambda self, i: data})()
    graph = text_graph_from_ogb(dataset, texts=["a", "b", "c"])
    assert graph.given_split.tolist() == ["train", "test", "valid"]
    assert graph.labels.tolist() == [0, 1, 1]


def test_molecules(tmp_path):
    table = "toxic,useful,smiles,mol_id\n1,,CCO,a\n,0,CCN,b\n0,1,CC,c\n"
    (tmp_path / "mapping").mkdir()
    (tmp_path / "mapping" / "mol.csv.gz").write_bytes(gzip.compress(table.encode()))
    labels = np.array([[1, np.nan], [np.nan, 0], [0, 1]])
    dataset = SimpleNamespace(root=tmp_path, labels=labels, name="ogbg-moltoy")
    molecules, split = molecules_from_ogb(dataset)
    assert split is None
    assert [task.name for task in molecules.tasks] == ["toxic", "useful"]
    np.testing.assert_array_equal(molecules.labels, labels)
    assert molecules.smiles(1) == "CCN"
    with pytest.raises(DataError, match=r"mol\.csv\.gz: there are no SMILES; pass smiles="):
        molecules_from_ogb(SimpleNamespace(root=tmp_path / "no", labels=labels))
    with pytest.raises(DataError, match="1 SMILES for 3 labels"):
        molecules_from_ogb(dataset, smiles=["C"])
