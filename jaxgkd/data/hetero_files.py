"""Reads a heterogeneous graph from a folder of plain files.

``metadata.json`` names the node types, the relations and the tasks::

    {"node_types": {"movie": {"text": ["title"], "label": "genre", "split": "split"}, "actor": {"text": ["name"]}},
     "edge_types": [["actor", "acts_in", "movie"]],
     "tasks": {"node_classification": {"node_type": "movie"},
               "link_prediction": {"edge_type": ["actor", "acts_in", "movie"]}}}

Nodes of a type are in ``nodes_movie.csv`` (or ``.csv.gz``, ``.parquet``) with a column ``node``, and numbers that they
have beside a text or in place of one, if any, in the array ``features`` [n, f] of ``features_movie.npz``, a row a node
in the table's order; edges in ``edges_actor__acts_in__movie.csv`` with ``src`` and ``dst``. Columns are read only where
``metadata.json`` names them: nothing else can give a label away. A task on edges may name a ``label``, its ``classes``
and a ``split``; ``order`` says in words what a split goes by. Nodes that are to be predicted by a student that reads no
links need no ``edge_types``.
"""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.data.class_labels import list_classes, resolve_labels
from jaxgkd.data.hetero_graphs import (
    TASK_KINDS,
    EdgeSet,
    EdgeType,
    HeteroGraph,
    NodeSet,
    Task,
    make_hetero_graph,
    shown_type,
)
from jaxgkd.data.node_features import read_features
from jaxgkd.data.tables import Table, find_table, read_table, reading
from jaxgkd.data.text_graphs import INTEGER_ID, read_end, read_ids, read_split, titles_of
from jaxgkd.errors import DataError, shown

_FIELDS = {"node_types": dict, "edge_types": list, "tasks": dict}
_NODE_KEYS = ("text", "label", "classes", "split", "value")
_TASK_KEYS = {
    "node_classification": ("node_type",),
    "node_regression": ("node_type",),
    "edge_classification": ("edge_type", "label", "classes", "split", "order"),
    "link_prediction": ("edge_type", "split", "order"),
}


def load_hetero_graph(folder: str | PathLike[str]) -> HeteroGraph:
    """Reads a heterogeneous graph (see the module); the folder's name becomes its own.

    A type without ``text`` has none: its nodes are known by their links alone. ``value`` names a column of numbers to
    predict instead of ``label``.

    Raises:
      DataError: anything in the folder is missing, damaged or contradicts the rest; with file, row and mend.
    """
    folder = Path(folder)
    path = folder / "metadata.json"
    metadata = _read_metadata(path)
    tables: dict[str, tuple[Table, dict[str, int]]] = {}
    nodes, notes = {}, []
    for name, about in metadata["node_types"].items():
        table = read_table(find_table(folder, f"nodes_{name}"))
        tables[name] = table, read_ids(table)
        nodes[name] = _read_nodes(folder, name, table, list(tables[name][1]), about, path)
        unread = [column for column in table.columns if column and column not in _named(about)]
        notes += [f"columns of {name} not used: {', '.join(unread)}"] if unread else []
    kinds = [_edge_type(kind, path) for kind in metadata.get("edge_types", [])]
    tasks = [_task(kind, about, path) for kind, about in metadata.get("tasks", {}).items()]
    edges: dict[EdgeType, EdgeSet] = {}
    for kind in kinds:
        for end in (kind[0], kind[2]):
            if end not in nodes:
                what = f"the relation {shown_type(kind)} joins nodes of type '{shown(end)}', which does not exist"
                raise DataError(what, file=path, field="edge_types", mend=f"use one of {', '.join(nodes)}")
        if kind in edges:
            raise DataError(f"the relation {shown_type(kind)} is there twice", file=path, mend="name it once")
        abouts = [about for of, about in metadata.get("tasks", {}).items() if _of_edges(of, about, kind)]
        table = read_table(find_table(folder, f"edges_{'__'.join(kind)}"))
        if not len(table):
            raise DataError("there are no edges", file=table.path, mend="add a row for every edge, or leave it out")
        edges[kind] = _read_edges(kind, table, tables, abouts, path)
        repeated = len(table) - len(edges[kind])
        plural = "" if repeated == 1 else "s"
        notes += [f"{repeated} duplicate edge{plural} of {shown_type(kind)} dropped"] if repeated else []
        used = {"src", "dst"} | {about[key] for about in abouts for key in ("label", "split") if key in about}
        unread = [column for column in table.columns if column and column not in used]
        notes += [f"columns of {shown_type(kind)} not used: {', '.join(unread)}"] if unread else []
    for kind, about in metadata.get("tasks", {}).items():
        if about.get("order"):
            notes.append(f"the split of {kind} goes by {about['order']}")
    try:
        return make_hetero_graph(name=folder.resolve().name, nodes=nodes, edges=edges, tasks=tasks, notes=notes)
    except DataError as error:
        raise DataError(str(error).rstrip("."), file=path) from error


def _read_metadata(path: Path) -> dict[str, Any]:
    with reading(path):
        raw = path.read_bytes()
    try:
        metadata = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError("is not JSON in UTF-8", file=path, mend="write an object with node_types") from error
    if not isinstance(metadata, dict):
        raise DataError("is not an object", file=path, mend="write an object with node_types and edge_types")
    for field in metadata:
        if field not in _FIELDS:
            mend = f"use {', '.join(_FIELDS)}"
            raise DataError(f"'{shown(field)}' is not known", file=path, field=shown(field), mend=mend)
    for field, wanted in _FIELDS.items():
        value = metadata.get(field, None if field == "node_types" else wanted())
        if not isinstance(value, wanted) or (not value and field == "node_types"):
            kind = "a list" if wanted is list else "an object"
            kind += " with something in it" if field == "node_types" else ""
            raise DataError(f"is not {kind}", file=path, field=field, mend="see the documentation")
    for name, about in metadata["node_types"].items():
        field = f"node_types.{shown(name)}"
        if not name or not all(letter.isalnum() or letter in "_-" for letter in name) or "__" in name:
            what = "the name of a node type is no plain word"
            raise DataError(what, file=path, field=field, mend="use letters, digits, - and single _")
        _check_keys(about, _NODE_KEYS, path, field)
        text = about.get("text", [])
        if not (isinstance(text, list) and all(isinstance(column, str) for column in text)):
            raise DataError(
                "text is not a list of columns", file=path, field=field, mend='write ["title"], or [] for none'
            )
    for kind, about in metadata.get("tasks", {}).items():
        if kind not in TASK_KINDS:
            known = ", ".join(TASK_KINDS)
            raise DataError(f"there is no task '{shown(kind)}'", file=path, field="tasks", mend=f"use {known}")
        _check_keys(about, _TASK_KEYS[kind], path, f"tasks.{kind}")
    return metadata


def _check_keys(about: Any, known: tuple[str, ...], path: Path, field: str) -> None:
    if not isinstance(about, dict):
        raise DataError("is not an object", file=path, field=field, mend=f"write an object of {', '.join(known)}")
    for key, value in about.items():
        if key not in known:
            raise DataError(f"'{shown(key)}' is not known", file=path, field=field, mend=f"use {', '.join(known)}")
        if key in ("label", "split", "value", "node_type", "order") and not isinstance(value, str):
            raise DataError(f"{key} is not text", file=path, field=field, mend="name one")


def _named(about: dict[str, Any]) -> set[str]:
    return {"node", *about.get("text", []), *(about[key] for key in ("label", "split", "value") if key in about)}


def _read_nodes(folder: Path, name: str, table: Table, ids: list[str], about: dict[str, Any], path: Path) -> NodeSet:
    columns = dict.fromkeys(about.get("text", []))
    for key in ("label", "value", "split"):
        if about.get(key) in columns:
            what = f"cannot be text and the {key} at once, the text would give the answer away"
            raise DataError(what, file=path, field=f"node_types.{name}.{about[key]}", mend="take it out of text")
    mend = f"add it, or correct the text of '{name}' in {path.name}"
    cells = {column: [cell.strip() for cell in table.column(column, mend)] for column in columns}
    rows = zip(*cells.values(), strict=True)
    texts = tuple("\n".join(cell for cell in row if cell) for row in rows) if columns else None
    if texts is not None and not any(texts):
        mend = "fill in the text, or leave text out where there is none"
        raise DataError(f"every node is without text in {', '.join(columns)}", file=table.path, mend=mend)
    labels, class_names = None, ()
    if "label" in about and "value" in about:
        what = "has a label and a value"
        raise DataError(what, file=path, field=f"node_types.{name}", mend="predict one of them")
    if "label" in about:
        labels, class_names = _read_classes(table, about, path)
    elif "value" in about:
        labels = _read_values(table, about["value"])
    features = folder / f"features_{name}.npz"
    numeric = all(INTEGER_ID.fullmatch(node) for node in ids)
    return NodeSet(
        ids=np.array([int(node) for node in ids], np.int64) if numeric else np.array(ids),
        texts=texts,
        titles=tuple(titles_of(list(texts or ids), cells)),
        labels=labels,
        class_names=class_names,
        given_split=_read_split(table, about["split"], path) if "split" in about else None,
        features=read_features(features, len(table)) if features.exists() else None,
    )


def _read_classes(table: Table, about: dict[str, Any], path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    listed = list_classes(about["classes"], path) if "classes" in about else None
    cells = table.column(about["label"], f"add it, or correct the label in {path.name}")
    return resolve_labels(cells, table.rows, table.path, about["label"], listed)


def _read_values(table: Table, column: str) -> np.ndarray:
    values = np.full(len(table), np.nan, np.float32)
    for i, cell in enumerate(table.column(column)):
        if cell.strip():
            try:
                values[i] = float(cell)
            except ValueError:
                values[i] = np.inf
            if not np.isfinite(values[i]):
                what = f"'{shown(cell)}' is no number"
                raise DataError(what, file=table.path, row=table.rows[i], field=column, mend="write one, or nothing")
    if not np.isfinite(values).any():
        raise DataError("no row has a value", file=table.path, field=column, mend="fill in values")
    return values


def _edge_type(kind: Any, path: Path) -> EdgeType:
    if not (isinstance(kind, list) and len(kind) == 3 and all(isinstance(part, str) and part for part in kind)):
        what = f"{shown(json.dumps(kind))} is no edge type"
        raise DataError(what, file=path, mend='write ["source type", "relation", "destination type"]')
    return kind[0], kind[1], kind[2]


def _task(kind: Any, about: dict[str, Any], path: Path) -> Task:
    wanted = _TASK_KEYS[kind][0]
    if wanted not in about:
        raise DataError(f"there is no {wanted}", file=path, field=f"tasks.{kind}", mend="say what the task is set on")
    return Task(kind, about["node_type"] if wanted == "node_type" else _edge_type(about["edge_type"], path))


def _of_edges(task: str, about: dict[str, Any], kind: EdgeType) -> bool:
    return task in ("edge_classification", "link_prediction") and tuple(about["edge_type"]) == kind


def _read_edges(
    kind: EdgeType,
    table: Table,
    tables: dict[str, tuple[Table, dict[str, int]]],
    abouts: list[dict[str, Any]],
    path: Path,
) -> EdgeSet:
    ends = []
    for column, node_type in (("src", kind[0]), ("dst", kind[2])):
        nodes, ids = tables[node_type]
        ends.append(read_end(table, column, ids, nodes))
    labelled = [about for about in abouts if "label" in about]
    labels, class_names = _read_classes(table, labelled[0], path) if labelled else (None, ())
    splits = {about["split"] for about in abouts if "split" in about}
    if len(splits) > 1:
        what = f"the tasks on {shown_type(kind)} name the splits {' and '.join(sorted(splits))}"
        raise DataError(what, file=path, field="tasks", mend="name one split for a relation")
    given_split = _read_split(table, splits.pop(), path) if splits else None
    # A copy of an edge would show it in the step that leaves it out.
    pairs = ends[0].astype(np.int64) * len(tables[kind[2]][1]) + ends[1]
    first = np.sort(np.unique(pairs, return_index=True)[1])
    return EdgeSet(
        senders=ends[0][first],
        receivers=ends[1][first],
        labels=None if labels is None else labels[first],
        class_names=class_names,
        given_split=None if given_split is None else given_split[first],
    )


def _read_split(table: Table, column: str, path: Path) -> np.ndarray | None:
    # Where a split is named, one drawn at random is not what was asked for.
    table.column(column, f"add it, or correct the split in {path.name}")
    return read_split(table, column)
