"""Whose text names whom: a relation that texts hold and no file of edges does.

A node is named where the words of its title follow each other in a text, in small or capital letters. Titles that two
nodes share name neither. Nodes of a type without texts are called by their ids, which are not looked for.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection

import numpy as np

from jaxgkd.data.hetero_graphs import EdgeSet, EdgeType, HeteroGraph, NodeSet, make_hetero_graph

MENTIONS = "mentions"
_WORD = re.compile(r"\w+")


def with_mentions(graph: HeteroGraph, only: Collection[EdgeType] | None = None) -> HeteroGraph:
    """The graph with a relation ``mentions`` from every type that has texts to every such type that they name.

    Args:
      graph: where one of these relations is there already it stays as it is.
      only: the relations that may be added; all by default.
    """
    added: dict[EdgeType, EdgeSet] = {}
    for source, nodes in graph.nodes.items():
        for destination, others in graph.nodes.items():
            kind = (source, MENTIONS, destination)
            if kind in graph.edges or (only is not None and kind not in only):
                continue
            found = mentions(nodes, others)
            if len(found):
                added[kind] = found
    if not added:
        return graph
    notes = [f"texts of {a} name {len(edges):,} times another {b}" for (a, _, b), edges in added.items()]
    return make_hetero_graph(
        name=graph.name,
        nodes=graph.nodes,
        edges={**graph.edges, **added},
        tasks=graph.tasks.values(),
        notes=[*graph.notes, *notes],
    )


def mentions(nodes: NodeSet, others: NodeSet) -> EdgeSet:
    """Pairs of a node whose text names another one, each once, sorted; no node names itself.

    Args:
      nodes: with texts, or there are no pairs.
      others: whose titles are looked for, with texts likewise; may be the same nodes.
    """
    texts = () if nodes.texts is None or others.texts is None else nodes.texts
    names = [tuple(_words(title)) for title in others.titles]
    count = Counter(names)
    row_of = {name: row for row, name in enumerate(names) if name and count[name] == 1}
    lengths: dict[str, set[int]] = defaultdict(set)
    for name in row_of:
        lengths[name[0]].add(len(name))
    pairs = set()
    for row, text in enumerate(texts):
        words = _words(text)
        for start, word in enumerate(words):
            for length in lengths.get(word, ()):
                named = row_of.get(tuple(words[start : start + length]))
                if named is not None and not (nodes is others and named == row):
                    pairs.add((row, named))
    ends = np.array(sorted(pairs), np.int32).reshape(-1, 2)
    return EdgeSet(ends[:, 0].copy(), ends[:, 1].copy())


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
