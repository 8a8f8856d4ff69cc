import numpy as np
import pytest

from jaxgkd.data import scipy_docs, scipy_hetero
from jaxgkd.data.scipy_docs import Item
from jaxgkd.data.scipy_hetero import load_scipy_hetero
from jaxgkd.errors import DataError

SEE_ALSO, MENTIONS = ("function", "see_also", "function"), ("function", "mentions", "function")
MEMBER_OF = ("function", "member_of", "module")


@pytest.fixture(scope="module")
def graph():
    """What takes long, the texts, is left as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scipy_hetero, "clean", lambda docstring, modules: docstring)
        graph = load_scipy_hetero()
        again = load_scipy_hetero()
    assert graph.sha256 == again.sha256
    return graph


def pairs_of(graph, kind):
    edges = graph.edges[kind]
    return list(zip(edges.senders.tolist(), edges.receivers.tolist(), strict=True))


def test_size_and_task(graph):
    # Counts move with the installed versions; 4,258 listed, 5,028 mentioned with SciPy 1.17 and NumPy 2.4.
    assert 2000 < graph.n_node["function"] < 3500 and 30 < graph.n_node["module"] < 100
    assert 3000 < len(graph.edges[SEE_ALSO]) < 7000 and 3000 < len(graph.edges[MENTIONS]) < 9000
    assert len(graph.edges[MEMBER_OF]) == graph.n_node["function"]
    assert {kind: task.target for kind, task in graph.tasks.items()} == {"link_prediction": SEE_ALSO}
    assert graph.nodes["function"].labels is None and graph.nodes["module"].texts is None


def test_edges_are_there_once_and_lead_elsewhere(graph):
    asked, known = pairs_of(graph, SEE_ALSO), pairs_of(graph, MENTIONS)
    for pairs in (asked, known):
        assert len(set(pairs)) == len(pairs) and all(one != other for one, other in pairs) and pairs == sorted(pairs)


def test_members_are_in_their_module(graph):
    paths, modules = graph.nodes["function"].ids, graph.nodes["module"].ids
    for function, module in pairs_of(graph, MEMBER_OF):
        assert str(paths[function]).startswith(str(modules[module]) + ".")


def item(module, name, docstring):
    return Item(f"{module}.{name}", name, "a.b", module, docstring)


def test_what_is_listed_is_no_mention_and_what_is_mentioned_beside_stays_one(monkeypatch):
    docstring = (
        "First line, like `two` and :func:`three`.\n\nSee Also\n--------\ntwo : another, not `four`\none\nfour\n\n"
        "Notes\n-----\nMore."
    )
    items = [item("a.b", "one", docstring), item("a.b", "two", "Nothing."), item("a.c", "three", "See `one`.")]
    items.insert(1, item("a.b", "four", "Nothing."))
    names = {each.path: each.path for each in items} | {"a.b.three": "a.c.three", "a.c.one": "a.b.one"}
    monkeypatch.setattr(scipy_docs, "collect", lambda: (items, names, frozenset({"a.b", "a.c"})))
    graph = load_scipy_hetero()
    assert pairs_of(graph, SEE_ALSO) == [(0, 1), (0, 2)]
    assert pairs_of(graph, MENTIONS) == [(0, 2), (0, 3), (3, 0)]
    assert pairs_of(graph, MEMBER_OF) == [(0, 0), (1, 0), (2, 0), (3, 1)]
    assert "another" not in graph.nodes["function"].texts[0] and "More." in graph.nodes["function"].texts[0]
    assert graph.nodes["module"].titles == ("a.b", "a.c")
    assert graph.nodes["function"].titles == ("one", "four", "two", "three")
    assert graph.edges[SEE_ALSO].senders.dtype == np.int32


def test_stripped_docstrings_are_an_error(monkeypatch):
    monkeypatch.setattr(scipy_docs, "collect", lambda: ([], {}, frozenset()))
    with pytest.raises(DataError, match="no docstrings"):
        load_scipy_hetero()
