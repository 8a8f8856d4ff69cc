from types import SimpleNamespace

import numpy as np
import pytest

from jaxgkd.data.converters import molecules_from_huggingface, text_graph_from_huggingface
from jaxgkd.errors import DataError


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Rows:
    """As ``datasets.Dataset`` is."""

    def __init__(self, columns, **features):
        self._columns, self.features = columns, features

    @property
    def column_names(self):
        return list(self._columns)

    def __len__(self):
        return len(next(iter(self._columns.values())))

    def __getitem__(self, column):
        return self._columns[column]


CLASSES = SimpleNamespace(names=["x", "y"])
PARTS = {
    "train": Rows({"node": [10, 11], "title": ["a", "b"], "label": [0, 1]}, label=CLASSES),
    "validation": Rows({"node": [12], "title": [None], "label": [-1]}, label=CLASSES),
}
EDGES = Rows({"src": [10, 12], "dst": [11, 10]})


def test_nodes_and_edges():
    graph = text_graph_from_huggingface(PARTS, EDGES)
    assert graph.node_ids.tolist() == [10, 11, 12]
    assert graph.texts == ("a", "b", "")
    assert (graph.labels.tolist(), graph.class_names) == ([0, 1, -1], ("x", "y"))
    assert graph.given_split.tolist() == ["train", "train", "valid"]
    assert (graph.senders.tolist(), graph.receivers.tolist()) == ([0, 2], [1, 0])
    named = Rows({"id": ["p", "q"], "abstract": ["a", "b"], "topic": ["n", "m"]})
    links = {"all": Rows({"from": ["p"], "to": ["q"]})}
    graph = text_graph_from_huggingface(named, links, node="id", label="topic", source="from", destination="to")
    assert (graph.class_names, graph.given_split) == (("m", "n"), None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"node": "key"}, "field 'key': there is no such column, the columns are 'node', 'title', 'label'"),
        ({"text_columns": ["body"]}, "field 'body': there is no such column"),
        ({"source": "from"}, "field 'from'"),
        ({"edges": Rows({"src": [10], "dst": [99]})}, "the table of edges, .*there is no node '99'"),
        ({"edges": {"a": EDGES, "b": EDGES}}, "has the parts a, b; pass one of them"),
    ],
)
def test_what_is_missing_is_named(options, said):
    options = dict(options)
    edges = options.pop("edges", EDGES)
    with pytest.raises(DataError, match=said):
        text_graph_from_huggingface(PARTS, edges, **options)


def test_molecules():
    parts = {
        "train": Rows({"smiles": ["CCO", "bad"], "y": [0.5, 1.0]}),
        "test": Rows({"smiles": ["CC"], "y": [None]}),
    }
    molecules, split = molecules_from_huggingface(parts, labels=["y"])
    assert (len(molecules), molecules.record.tolist()) == (2, [0, 2])
    np.testing.assert_array_equal(molecules.labels[:, 0], [0.5, np.nan])
    assert split.tolist() == ["train", "train", "test"]
    with pytest.raises(DataError, match="field 'z': there is no such column"):
        molecules_from_huggingface(parts, labels=["z"])
    with pytest.raises(DataError, match="field 'smiles': holds something that is no number"):
        molecules_from_huggingface(parts, labels=["smiles"])


def test_the_real_classes():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "node": datasets.Value("int64"),
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["x", "y"]),
        }
    )
    nodes = datasets.Dataset.from_dict({"node": [0, 1], "text": ["a", "b"], "label": [1, 0]}, features=features)
    edges = datasets.Dataset.from_dict({"src": [0], "dst": [1]})
    graph = text_graph_from_huggingface(datasets.DatasetDict(train=nodes), edges)
    assert (graph.labels.tolist(), graph.class_names) == ([1, 0], ("x", "y"))
