import numpy as np

from jaxgkd.data.hetero_graphs import EdgeSet, NodeSet, make_hetero_graph
from jaxgkd.data.mentions import mentions, with_mentions

TITLES = ("Gold", "Gold rush", "Silver", "Tin", "Tin", "")
TEXTS = (
    "Gold\nUnlike SILVER and golden things.",
    "Gold rush\nMany went for gold, gold and silver; (tin) too.",
    "Silver",
    "",
    "Tin\nThe Gold-Rush began.",
    "gold rush gold",
)


def nodes(titles=TITLES, texts=TEXTS):
    return NodeSet(np.arange(len(titles)), texts, titles)


def pairs(edges):
    return list(zip(edges.senders.tolist(), edges.receivers.tolist(), strict=True))


def test_whole_words_in_any_case_and_no_name_of_two_nodes():
    there = nodes()
    assert pairs(mentions(there, there)) == [(0, 2), (1, 0), (1, 2), (4, 0), (4, 1), (5, 0), (5, 1)]
    assert mentions(there, there).senders.dtype == np.int32
    # Others of the same names may well be named.
    assert pairs(mentions(there, nodes()))[:2] == [(0, 0), (0, 2)]
    assert len(mentions(nodes(texts=None), there)) == 0 and len(mentions(nodes(("a",), ("b",)), there)) == 0


def test_a_graph_gains_the_relations_it_does_not_have():
    metals, places = nodes(), NodeSet(np.arange(2), ("", "A river."), ("silver", "Klondike"))
    near = EdgeSet(np.array([0], np.int32), np.array([1], np.int32))
    before = {("metal", "found_in", "place"): near, ("metal", "mentions", "metal"): near}
    graph = make_hetero_graph(name="g", nodes={"metal": metals, "place": places}, edges=before, tasks=[])
    after = with_mentions(graph)
    assert list(after.edges) == [*before, ("metal", "mentions", "place")] and after.sha256 != graph.sha256
    assert pairs(after.edges["metal", "mentions", "metal"]) == [(0, 1)]
    assert pairs(after.edges["metal", "mentions", "place"]) == [(0, 0), (1, 0), (2, 0)]
    assert after.notes == ("texts of metal name 3 times another place",)
    # What a type without texts is called are its ids.
    numbered = {"metal": metals, "place": NodeSet(np.arange(2), None, ("silver", "1"))}
    unnamed = make_hetero_graph(name="g", nodes=numbered, edges=before, tasks=[])
    assert with_mentions(unnamed) is unnamed and not len(mentions(metals, numbered["place"]))
    assert with_mentions(graph, only=[("metal", "found_in", "place")]) is graph
