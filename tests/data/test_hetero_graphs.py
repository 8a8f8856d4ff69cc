import numpy as np
import pytest

from jaxgkd.data.hetero_graphs import EdgeSet, NodeSet, Task, describe_hetero, make_hetero_graph
from jaxgkd.errors import DataError

CITES, WRITES = ("paper", "cites", "paper"), ("author", "writes", "paper")


def edge_set(*pairs, **fields):
    ends = np.array(pairs, np.int32).reshape(-1, 2)
    return EdgeSet(ends[:, 0], ends[:, 1], **fields)


def parts(**changed):
    labels = np.array([0, 1, -1], np.int32)
    nodes = {
        "paper": NodeSet(np.arange(3), ("a", "", "c"), ("a", "b", "c"), labels, ("x", "y")),
        "author": NodeSet(np.array(["u", "v"]), None, ("u", "v")),
    }
    edges = {CITES: edge_set((0, 1), (1, 0)), WRITES: edge_set((0, 2))}
    tasks = [Task("node_classification", "paper"), Task("link_prediction", CITES)]
    return {"name": "papers", "nodes": nodes, "edges": edges, "tasks": tasks, **changed}


def test_counts_and_facts():
    graph = make_hetero_graph(**parts(notes=["made up"]))
    assert graph.n_node == {"paper": 3, "author": 2} and len(graph.edges[CITES]) == 2
    facts = describe_hetero(graph)
    assert facts["without_text"] == {"paper": 1, "author": 2} and facts["isolated"] == {"paper": 0, "author": 1}
    assert facts["tasks"] == {"node_classification": "paper", "link_prediction": "paper–cites–paper"}
    assert facts["classes"] == {"paper": ["x", "y"]} and facts["notes"] == ["made up"]


def test_the_hash_is_of_all_content_and_nothing_else():
    graph = make_hetero_graph(**parts())
    assert make_hetero_graph(**parts(name="other", notes=["x"])).sha256 == graph.sha256
    nodes, edges = parts()["nodes"], parts()["edges"]
    other_text = {
        **nodes,
        "paper": NodeSet(np.arange(3), ("a", "", "d"), ("a", "b", "c"), nodes["paper"].labels, ("x", "y")),
    }
    split = edge_set((0, 1), (1, 0), given_split=np.array(["train", "test"]))
    hashes = [
        make_hetero_graph(**parts(nodes=other_text)).sha256,
        make_hetero_graph(**parts(edges={**edges, CITES: edge_set((1, 0), (0, 1))})).sha256,
        make_hetero_graph(**parts(edges={**edges, CITES: split})).sha256,
        make_hetero_graph(**parts(tasks=[Task("link_prediction", CITES)])).sha256,
        make_hetero_graph(**parts(tasks=[])).sha256,
    ]
    assert len({graph.sha256, *hashes}) == 6


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"edges": {("cat", "sees", "paper"): edge_set((0, 0))}}, "source type 'cat'"),
        ({"edges": {("paper", "sees", "cat"): edge_set((0, 0))}}, "destination type 'cat'"),
        ({"edges": {CITES: edge_set()}}, "paper–cites–paper has no edges"),
        ({"edges": {CITES: edge_set((0, 3))}}, "leads to a row that does not exist"),
        ({"edges": {WRITES: edge_set((-1, 0))}}, "leads to a row that does not exist"),
        (
            {"edges": {WRITES: edge_set((0, 0)), ("paper", "rev_writes", "author"): edge_set((0, 0))}},
            "author–writes–paper has its reverse beside it",
        ),
        ({"tasks": [Task("regression", "paper")]}, "there is no task 'regression'"),
        ({"tasks": [Task("node_classification", "cat")]}, "'cat', which does not exist"),
        ({"tasks": [Task("node_classification", "author")]}, "'author', which has no such labels"),
        ({"tasks": [Task("node_regression", "paper")]}, "'paper', which has no such labels"),
        ({"tasks": [Task("link_prediction", "paper")]}, "set on the node type 'paper'"),
        ({"tasks": [Task("node_classification", CITES)]}, "set on a relation"),
        ({"tasks": [Task("link_prediction", ("a", "b", "c"))]}, "a–b–c, which does not exist"),
        ({"tasks": [Task("edge_classification", CITES)]}, "which has no labels"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changed, words):
    with pytest.raises(DataError, match=words) as caught:
        make_hetero_graph(**parts(**({"tasks": []} | changed)))
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
