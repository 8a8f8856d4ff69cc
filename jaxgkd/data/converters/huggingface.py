"""Tables of Hugging Face's ``datasets`` as text graphs and molecules."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.data.class_labels import resolve_labels
from jaxgkd.data.converters.tables import molecules_from_columns
from jaxgkd.data.converters.values import part_named, texts_of
from jaxgkd.data.molecules import Molecules
from jaxgkd.data.tables import Table
from jaxgkd.data.text_graphs import INTEGER_ID, TEXT_COLUMNS, TextGraph, make_text_graph, read_end, read_ids, titles_of
from jaxgkd.errors import DataError, shown


def text_graph_from_huggingface(
    nodes: Any,
    edges: Any,
    *,
    node: str = "node",
    text_columns: Sequence[str] | None = None,
    label: str | None = "label",
    source: str = "src",
    destination: str = "dst",
    name: str = "graph",
) -> TextGraph:
    """A table of nodes and a table of edges as a text graph.

    Args:
      nodes: a ``Dataset``, or a ``DatasetDict`` whose parts train, validation and test become the given split.
      edges: a ``Dataset`` (or the only part of a ``DatasetDict``).
      node: column of the ids of nodes.
      text_columns: by default those of title, abstract, text, name and keywords that there are.
      label: column of the classes, named by the ``ClassLabel`` feature where it is one; None reads none.
      source, destination: columns of ``edges`` with ids of nodes.
      name: of the graph.

    Raises:
      DataError: a column is missing (the message lists those there are), an id is not there or there twice, or labels
        cannot be used.
    """
    parts = dict(nodes) if isinstance(nodes, Mapping) else {"": nodes}
    wanted = [node, *([] if label is None else [label])]
    columns = {column: _joined(parts, column) for column in wanted}
    texts_from = text_columns or [c for c in TEXT_COLUMNS if all(c in _names(part) for part in parts.values())]
    texts_from = [column for column in texts_from if column not in wanted]
    if not texts_from:
        found = ", ".join(_names(next(iter(parts.values()))))
        raise DataError(
            f"there is no text among the columns {found}", field="text_columns", mend="name the text columns"
        )
    n = len(columns[node])
    table = _table("the table of nodes", {"node": columns[node]})
    ids = read_ids(table)
    cells = {column: texts_of(_joined(parts, column), n, column) for column in texts_from}
    texts = ["\n".join(cell for cell in row if cell) for row in zip(*cells.values(), strict=True)]
    labels, class_names = np.full(n, -1, np.int32), ()
    if label is not None:
        labels, class_names = _classes(parts, label, columns[label], table)
    given = [part_named(part) for part, rows in parts.items() for _ in range(len(rows))]
    if isinstance(edges, Mapping):
        if len(edges) != 1:
            raise DataError(f"has the parts {', '.join(map(str, edges))}", field="edges", mend="pass one of them")
        edges = next(iter(edges.values()))
    ends = {"src": _joined({"": edges}, source), "dst": _joined({"": edges}, destination)}
    links = _table("the table of edges", ends)
    return make_text_graph(
        name=name,
        node_ids=np.array([int(i) for i in ids], np.int64) if all(map(INTEGER_ID.fullmatch, ids)) else np.array([*ids]),
        texts=texts,
        titles=titles_of(texts, cells),
        labels=labels,
        class_names=class_names,
        senders=read_end(links, "src", ids, table),
        receivers=read_end(links, "dst", ids, table),
        given_split=np.array(given, "<U5") if any(given) else None,
    )


def molecules_from_huggingface(
    dataset: Any, *, labels: Sequence[str], smiles: str = "smiles", name: str = "molecules"
) -> tuple[Molecules, np.ndarray | None]:
    """A table of SMILES with labels, and the parts of a ``DatasetDict`` as the split of its records.

    Args:
      dataset: a ``Dataset`` or a ``DatasetDict``.
      labels: columns of numbers; None is a missing label.
      smiles: column of the SMILES.
      name: of the set.

    Returns:
      The molecules, and [records] of "train", "valid", "test" or "", or None.

    Raises:
      DataError: a column is missing or holds no numbers, or no SMILES is a molecule.
    """
    parts = dict(dataset) if isinstance(dataset, Mapping) else {"": dataset}
    texts = _joined(parts, smiles)
    columns = {}
    for label in labels:
        try:
            columns[label] = np.array([np.nan if v is None else v for v in _joined(parts, label)], np.float64)
        except (TypeError, ValueError) as error:
            raise DataError("holds something that is no number", field=label, mend="choose other labels") from error
    given = [part_named(part) for part, rows in parts.items() for _ in range(len(rows))]
    molecules = molecules_from_columns(texts_of(texts, len(texts), smiles), columns, name=name)
    return molecules, np.array(given, "<U5") if any(given) else None


def _classes(
    parts: Mapping[str, Any], label: str, cells: list[Any], table: Table
) -> tuple[np.ndarray, tuple[str, ...]]:
    feature = (getattr(next(iter(parts.values())), "features", None) or {}).get(label)
    names = getattr(feature, "names", None)
    if names is not None:
        numbers = np.array([-1 if cell is None else cell for cell in cells], np.int32)
        return np.maximum(numbers, -1), tuple(str(each) for each in names)
    return resolve_labels(["" if cell is None else str(cell) for cell in cells], table.rows, table.path, label, None)


def _names(part: Any) -> list[str]:
    return [str(name) for name in getattr(part, "column_names", [])]


def _joined(parts: Mapping[str, Any], column: str) -> list[Any]:
    """A column of all parts, one after the other."""
    values: list[Any] = []
    for part in parts.values():
        if column not in _names(part):
            found = ", ".join(f"'{name}'" for name in _names(part)[:20])
            what = f"there is no such column, the columns are {shown(found, 300)}"
            raise DataError(what, field=column, mend="name another column")
        values += list(part[column])
    return values


def _table(name: str, columns: Mapping[str, list[Any]]) -> Table:
    texts = {column: ["" if value is None else str(value) for value in values] for column, values in columns.items()}
    # Rows are counted from 0, as a Dataset counts them.
    return Table(Path(name), texts, list(range(len(next(iter(texts.values()))))))
