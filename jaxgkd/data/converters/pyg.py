"""``Data`` and ``HeteroData`` of PyTorch Geometric as graphs with texts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgkd.data.converters.values import classes_of, edge_ends, features_of, split_of_masks, texts_of
from jaxgkd.data.hetero_graphs import EdgeSet, EdgeType, HeteroGraph, NodeSet, Task, make_hetero_graph
from jaxgkd.data.text_graphs import TextGraph, make_text_graph, titles_of
from jaxgkd.errors import DataError

#: Attributes under which texts usually come with a graph.
TEXTS = ("raw_texts", "raw_text", "texts", "text")
#: The same for names of classes.
CLASS_NAMES = ("label_texts", "label_names", "class_names")
_MASKS = {"train": "train_mask", "valid": "val_mask", "test": "test_mask"}


def text_graph_from_pyg(
    data: Any,
    *,
    texts: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    split: int = 0,
    name: str = "graph",
) -> TextGraph:
    """A ``torch_geometric.data.Data`` as a text graph: edges, ``y``, ``x``, and the masks as the given split.

    Args:
      data: with ``edge_index`` [2, e]; ``y`` [n] class numbers and ``x`` [n, f] if there are any.
      texts: [n]; by default the attribute ``raw_texts``, ``raw_text``, ``texts`` or ``text``.
      titles: [n] short names; by default the beginning of the text.
      class_names: [c]; by default ``label_texts``, ``label_names`` or ``class_names``, or else the class numbers.
      split: which column, where masks have several.
      name: of the graph.

    Raises:
      DataError: there are no texts or no edges, or an attribute has another shape than expected; the message names it
        and the argument to pass instead.
    """
    n = _count(data)
    if texts is None:
        texts = _first(data, TEXTS)
    if texts is None:
        what = f"there is no text ({', '.join(TEXTS)})"
        raise DataError(what, field="texts", mend="pass texts=[…], one a node")
    read = texts_of(texts, n, "texts")
    edge_index = getattr(data, "edge_index", None)
    if edge_index is None:
        raise DataError("there are no edges", field="edge_index", mend="convert adj_t to edge_index first")
    labels, names = np.full(n, -1, np.int32), tuple(class_names or ())
    if getattr(data, "y", None) is not None:
        labels, names = classes_of(data.y, n, "y", class_names or _first(data, CLASS_NAMES))
    x = getattr(data, "x", None)
    senders, receivers = edge_ends(edge_index)
    return make_text_graph(
        name=name,
        node_ids=np.arange(n),
        texts=read,
        titles=titles_of(read, {} if titles is None else {"title": texts_of(titles, n, "titles")}),
        labels=labels,
        class_names=names,
        senders=senders,
        receivers=receivers,
        features=None if x is None else features_of(x, n, "x"),
        given_split=split_of_masks({part: getattr(data, mask, None) for part, mask in _MASKS.items()}, n, split),
    )


def hetero_graph_from_pyg(
    data: Any,
    *,
    texts: Mapping[str, Sequence[str]] | None = None,
    class_names: Mapping[str, Sequence[str]] | None = None,
    tasks: Iterable[Task] | None = None,
    name: str = "graph",
) -> HeteroGraph:
    """A ``torch_geometric.data.HeteroData`` as a typed graph.

    Relations that are the reverse of another (``rev_…``, as ``ToUndirected`` adds them) are left out with a note:
    encoders add them anyway. Duplicate edges are dropped.

    Args:
      data: with ``node_types`` and ``edge_types``; of a node type ``x``, ``y``, masks and texts are read.
      texts: node type → [n] texts; by default its attribute ``raw_texts``, ``raw_text``, ``texts`` or ``text``.
      class_names: node type → [c] names of its classes.
      tasks: by default classification of the one node type that has labels.
      name: of the graph.

    Raises:
      DataError: no type has texts, an attribute has another shape than expected, or no task is clear.
    """
    texts, class_names = texts or {}, class_names or {}
    for asked in (*texts, *class_names):
        if asked not in data.node_types:
            raise DataError(f"there is no node type '{asked}'", mend=f"use {', '.join(data.node_types)}")
    nodes = {each: _nodes(data[each], each, texts.get(each), class_names.get(each)) for each in data.node_types}
    if all(node_set.texts is None for node_set in nodes.values()):
        mend = "pass texts={node type: […]} for at least one type"
        raise DataError(f"no node type has texts ({', '.join(TEXTS)})", field="texts", mend=mend)
    kinds: list[EdgeType] = [(str(a), str(b), str(c)) for a, b, c in data.edge_types]
    dropped = [
        kind
        for kind in kinds
        if kind[1].startswith("rev_") and (kind[2], kind[1].removeprefix("rev_"), kind[0]) in kinds
    ]
    edges, notes = {}, [f"the reverse relation {'–'.join(kind)} left out" for kind in dropped]
    for kind in kinds:
        if kind in dropped:
            continue
        senders, receivers = edge_ends(data[kind].edge_index, f"edge_index of {'–'.join(kind)}")
        pairs = senders * max(len(nodes[kind[2]]), 1) + receivers
        first = np.sort(np.unique(pairs, return_index=True)[1])
        if len(first) < len(pairs):
            notes.append(f"{len(pairs) - len(first):,} duplicate edges of {'–'.join(kind)} dropped")
        edges[kind] = EdgeSet(senders[first].astype(np.int32), receivers[first].astype(np.int32))
    if tasks is None:
        labelled = [each for each, node_set in nodes.items() if node_set.labels is not None]
        if len(labelled) != 1:
            what = f"{len(labelled)} node types have labels ({', '.join(labelled) or 'none'})"
            raise DataError(what, field="tasks", mend='pass tasks=[Task("node_classification", node type)]')
        tasks = [Task("node_classification", labelled[0])]
    return make_hetero_graph(name=name, nodes=nodes, edges=edges, tasks=tasks, notes=notes)


def _nodes(store: Any, name: str, texts: Sequence[str] | None, class_names: Sequence[str] | None) -> NodeSet:
    n = _count(store)
    found = _first(store, TEXTS) if texts is None else texts
    read = None if found is None else tuple(texts_of(found, n, f"texts of {name}"))
    labels, names = None, ()
    if getattr(store, "y", None) is not None:
        labels, names = classes_of(store.y, n, f"y of {name}", class_names or _first(store, CLASS_NAMES))
    x = getattr(store, "x", None)
    ids = np.arange(n)
    return NodeSet(
        ids=ids,
        texts=read,
        titles=tuple(titles_of(list(read or map(str, ids)), {})),
        labels=labels,
        class_names=names,
        given_split=split_of_masks({part: getattr(store, mask, None) for part, mask in _MASKS.items()}, n, 0),
        features=None if x is None else features_of(x, n, f"x of {name}"),
    )


def _first(store: Any, names: Sequence[str]) -> Any:
    return next((value for name in names if (value := getattr(store, name, None)) is not None), None)


def _count(store: Any) -> int:
    for name in ("num_nodes", "x", "y", *TEXTS):
        value = getattr(store, name, None)
        if value is not None:
            n = int(value) if name == "num_nodes" else len(value)
            if n < 1:
                break
            return n
    raise DataError("there are no nodes", field="num_nodes", mend="set num_nodes, or give the nodes x or y")
