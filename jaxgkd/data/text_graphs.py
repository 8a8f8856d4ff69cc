"""Graphs whose nodes carry text, and the folder of plain files they are read from.

A folder holds ``nodes.csv`` (or ``.csv.gz``, ``.parquet``), ``edges.csv`` likewise and, if there are any,
``classes.json`` and ``features.npz``. The columns are ``node``, text columns, ``label`` and, if given, ``split``;
``src`` and ``dst``.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import cast

import numpy as np
import scipy.sparse

from jaxgkd.data.class_labels import read_class_list, resolve_labels
from jaxgkd.data.node_features import read_features
from jaxgkd.data.tables import Table, find_table, read_table
from jaxgkd.errors import DataError, shown

TEXT_COLUMNS = ("title", "abstract", "text", "name", "keywords")
_SPLITS = {"": "", "train": "train", "valid": "valid", "val": "valid", "test": "test"}
INTEGER_ID = re.compile(r"0|-?[1-9][0-9]{0,17}")
LONGEST_ID = 500
_LONGEST_TITLE = 80


@dataclass(frozen=True, eq=False)
class TextGraph:
    """A graph with a text and a class for every node. Rows of all node fields are in the same order.

    Attributes:
      name: what reports call it.
      node_ids: [n] ids as in the file, int64 where all are integers, else text.
      texts: what a teacher may read of every node.
      titles: a short name of every node, for when it is mentioned as a neighbour.
      student_texts: what a student may read; the same as ``texts`` unless the data says otherwise.
      labels: [n] int32 class numbers, -1 where unlabelled.
      class_names: a name for every class.
      senders: [e] int32 rows the edges start from, directed as given, without self links and duplicates.
      receivers: [e] int32 rows the edges lead to.
      features: [n, f] float32 numbers of every node, or None.
      given_split: [n] of "train", "valid", "test" or "" (not used for supervision), or None where none is given.
      sha256: hash of the content, which is all fields but ``name`` and ``notes``: the same whatever file format it came
        from and whatever the folder is called.
      notes: counted facts that a report repeats, such as "12 self links dropped".
    """

    name: str
    node_ids: np.ndarray
    texts: tuple[str, ...]
    titles: tuple[str, ...]
    student_texts: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    senders: np.ndarray
    receivers: np.ndarray
    features: scipy.sparse.csr_array | None
    given_split: np.ndarray | None
    sha256: str
    notes: tuple[str, ...]

    @property
    def n_node(self) -> int:
        """Number of nodes."""
        return len(self.labels)

    @property
    def n_edge(self) -> int:
        """Number of directed edges."""
        return len(self.senders)

    @property
    def n_feature(self) -> int:
        """Number of features of a node, 0 where none are given."""
        return 0 if self.features is None else cast(tuple[int, int], self.features.shape)[1]


def make_text_graph(
    *,
    name: str,
    node_ids: np.ndarray,
    texts: Sequence[str],
    titles: Sequence[str],
    labels: np.ndarray,
    class_names: Sequence[str],
    senders: np.ndarray,
    receivers: np.ndarray,
    student_texts: Sequence[str] | None = None,
    features: scipy.sparse.csr_array | None = None,
    given_split: np.ndarray | None = None,
    notes: Iterable[str] = (),
) -> TextGraph:
    """Puts a ``TextGraph`` together from its parts: drops self links and duplicate edges with a note, and hashes it.

    Args are the fields of ``TextGraph``; ``student_texts`` default to ``texts``.

    Raises:
      DataError: the parts do not have one entry per node, or refer to rows or classes that do not exist.
    """
    n_node = len(node_ids)
    student_texts = texts if student_texts is None else student_texts
    parts = {"texts": texts, "titles": titles, "student_texts": student_texts, "labels": labels}
    parts |= {"given_split": given_split} if given_split is not None else {}
    for part, values in parts.items():
        if len(values) != n_node:
            raise DataError(f"there are {len(values)} {part} for {n_node} nodes", mend="give one for every node")
    if features is not None and len(features.indptr) - 1 != n_node:
        raise DataError(
            f"there are {len(features.indptr) - 1} rows of features for {n_node} nodes", mend="give one per node"
        )
    labels = np.asarray(labels, np.int32)
    if n_node and (labels.min() < -1 or labels.max() >= len(class_names)):
        raise DataError(f"a label is outside the {len(class_names)} classes", mend="number them from 0, -1 for none")
    senders, receivers, dropped = _clean_edges(np.asarray(senders), np.asarray(receivers), n_node)
    notes = (*notes, *dropped)
    without_text = sum(not text.strip() for text in texts)
    if without_text:
        notes = (*notes, f"{without_text} {'node' if without_text == 1 else 'nodes'} without text")
    unlabelled = int((labels < 0).sum())
    if unlabelled:
        notes = (*notes, f"{unlabelled} {'node' if unlabelled == 1 else 'nodes'} without a label")
    content = {
        "node_ids": node_ids,
        "texts": tuple(texts),
        "titles": tuple(titles),
        "student_texts": tuple(student_texts),
        "labels": labels,
        "class_names": tuple(class_names),
        "senders": senders,
        "receivers": receivers,
        "features": features,
        "given_split": given_split,
    }
    return TextGraph(name=name, sha256=content_hash(content), notes=notes, **content)


def load_text_graph(
    folder: str | PathLike[str],
    *,
    text_columns: Sequence[str] | None = None,
    label: str | None = "label",
    split: str = "split",
) -> TextGraph:
    """Reads a text graph from a folder (see the module).

    A node's text is what its text columns hold, one below the other; its title is its ``title`` or ``name``, or else
    the beginning of its text. Errors name the row as a spreadsheet counts it (see ``Table``).

    Args:
      folder: the folder; its name becomes the graph's name.
      text_columns: the columns to read as text, in this order. By default those of title, abstract, text, name and
        keywords that there are; no other column is ever read unless it is named here. An empty sequence reads a graph
        without text.
      label: the column of labels: integers (contiguous, or listed in ``classes.json``) or class names; empty or -1 is
        unlabelled. None reads no labels, for new data of which none are known.
      split: the column of train, valid (or val), test or nothing; used where it is there.

    Raises:
      DataError: anything in the folder is missing, damaged or contradicts the rest; with file, row and mend.
    """
    folder = Path(folder)
    nodes = read_table(find_table(folder, "nodes"))
    ids = read_ids(nodes)
    columns = choose_text_columns(nodes, text_columns, label, split)
    cells = [[cell.strip() for cell in nodes.column(column)] for column in columns]
    texts = joined_texts(cells, len(nodes))
    if columns and not any(texts):
        raise DataError(
            f"every node is without text in {', '.join(columns)}",
            file=nodes.path,
            mend="fill in the text, or name other columns with text_columns",
        )
    if label is None:
        labels, class_names = np.full(len(nodes), -1, np.int32), ()
    else:
        mend = "add it (a class or nothing for every node) or name the column that holds the classes"
        label_cells = nodes.column(label, mend)
        class_list = folder / "classes.json"
        listed = read_class_list(class_list) if class_list.exists() else None
        labels, class_names = resolve_labels(label_cells, nodes.rows, nodes.path, label, listed)
    given_split = read_split(nodes, split)
    senders, receivers, notes = _read_edges(folder, nodes, ids)
    features_path = folder / "features.npz"
    numeric = all(INTEGER_ID.fullmatch(node) for node in ids)
    return make_text_graph(
        name=folder.resolve().name,
        node_ids=np.array([int(node) for node in ids], np.int64) if numeric else np.array(list(ids)),
        texts=texts,
        titles=titles_of(texts, dict(zip(columns, cells, strict=True))),
        labels=labels,
        class_names=class_names,
        senders=senders,
        receivers=receivers,
        features=read_features(features_path, len(nodes)) if features_path.exists() else None,
        given_split=given_split,
        notes=notes,
    )


def read_ids(nodes: Table) -> dict[str, int]:
    """Row by node id, from the column ``node``. Raises DataError for an id that is empty, long or there twice."""
    ids: dict[str, int] = {}
    for i, cell in enumerate(nodes.column("node")):
        node = cell.strip()
        if not node or node in ids:
            what = f"node '{shown(node)}' is also in row {nodes.rows[ids[node]]}" if node else "the node has no id"
            raise DataError(what, file=nodes.path, row=nodes.rows[i], field="node", mend="give every node its own id")
        if len(node) > LONGEST_ID or "\0" in node:
            what = f"the id '{shown(node)}' has {len(node)} characters or a zero byte"
            mend = f"use at most {LONGEST_ID} characters of text, and close every quote"
            raise DataError(what, file=nodes.path, row=nodes.rows[i], field="node", mend=mend)
        ids[node] = i
    if not ids:
        raise DataError("there are no nodes", file=nodes.path, mend="add a row for every node")
    return ids


def choose_text_columns(
    nodes: Table, text_columns: Sequence[str] | None, label: str | None, split: str
) -> tuple[str, ...]:
    """The columns to read as text; never the label or the split, since a text must not hold what is to be predicted."""
    reserved = {"node", split} | ({label} if label is not None else set())
    if text_columns is None:
        columns = tuple(column for column in TEXT_COLUMNS if column in nodes.columns and column not in reserved)
        if not columns:
            raise DataError(
                f"there is no text column, which would be one of {', '.join(TEXT_COLUMNS)}",
                file=nodes.path,
                row=1,
                mend="rename a column or name the columns to read with text_columns",
            )
        return columns
    columns = (text_columns,) if isinstance(text_columns, str) else tuple(dict.fromkeys(text_columns))
    for column in columns:
        if column == label or (column == split and column in nodes.columns):
            what = "cannot be text and the label or split at once, the text would give the answer away"
            raise DataError(what, file=nodes.path, field=column, mend="take it out of text_columns")
        nodes.column(column, "correct text_columns")
    return columns


def joined_texts(cells: Sequence[Sequence[str]], n_node: int) -> list[str]:
    """[n_node] what the text columns hold of every node, one below the other; ``cells`` are stripped, by column."""
    return ["\n".join(cell for cell in row if cell) for row in zip(*cells, strict=True)] or [""] * n_node


def titles_of(texts: list[str], cells: dict[str, list[str]]) -> list[str]:
    """A short name of every node: its ``title`` or ``name`` among the columns, or else how its text begins."""
    named = cells.get("title") or cells.get("name") or [""] * len(texts)
    return [" ".join(title.split()) or _beginning(text) for title, text in zip(named, texts, strict=True)]


def _beginning(text: str) -> str:
    """The first line of a text, cut between words."""
    line = " ".join(text.split("\n", 1)[0].split())
    return line if len(line) <= _LONGEST_TITLE else line[: _LONGEST_TITLE + 1].rsplit(" ", 1)[0][:_LONGEST_TITLE] + "…"


def read_split(nodes: Table, split: str) -> np.ndarray | None:
    """[rows] of "train", "valid", "test" or "", or None without a column ``split`` or anything in it.

    Raises:
      DataError: a cell holds something else, or a column of another name is not there.
    """
    if split == "split" and split not in nodes.columns:
        return None
    parts = []
    for cell, row in zip(nodes.column(split), nodes.rows, strict=True):
        if cell.strip() not in _SPLITS:
            what = f"'{shown(cell)}' is not a part of a split"
            mend = "write train, valid, test or nothing"
            raise DataError(what, file=nodes.path, row=row, field=split, mend=mend)
        parts.append(_SPLITS[cell.strip()])
    return np.array(parts, "<U5") if any(parts) else None


def _read_edges(folder: Path, nodes: Table, ids: dict[str, int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    edges = read_table(find_table(folder, "edges"))
    ends = [read_end(edges, column, ids, nodes) for column in ("src", "dst")]
    if not len(edges):
        raise DataError("there are no edges", file=edges.path, mend="add a row for every edge")
    if (ends[0] == ends[1]).all():
        raise DataError("every edge links a node to itself", file=edges.path, mend="add edges between nodes")
    unread = [column for column in edges.columns if column not in ("src", "dst") and column]
    notes = [f"edge columns not used: {', '.join(unread)}"] if unread else []
    return ends[0], ends[1], notes


def read_end(edges: Table, column: str, ids: dict[str, int], nodes: Table) -> np.ndarray:
    """[rows of ``edges``] int32, the row of the node table that each id in ``column`` is in.

    Args:
      edges: an edge table; column: of node ids.
      ids: row by node id, as `read_ids` gives it; nodes: where they are from, for errors.

    Raises:
      DataError: an id that no node has.
    """
    found = [ids.get(cell.strip(), -1) for cell in edges.column(column)]
    if -1 in found:
        i = found.index(-1)
        node = edges.columns[column][i].strip()
        if node and not INTEGER_ID.fullmatch(node) and all(INTEGER_ID.fullmatch(each) for each in ids):
            what = f"'{shown(node)}' is not an integer, while all node ids in {nodes.path.name} are"
            mend = "write the id as the node table does"
        else:
            what = f"there is no node '{shown(node)}' in {nodes.path.name}" if node else "the node id is empty"
            mend = "add the node or remove the edge"
        raise DataError(what, file=edges.path, row=edges.rows[i], field=column, mend=mend)
    return np.array(found, np.int32)


def _clean_edges(senders: np.ndarray, receivers: np.ndarray, n_node: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Drops self links and all but the first of duplicate edges, and says how many."""
    if senders.shape != receivers.shape or senders.ndim != 1:
        raise DataError("senders and receivers do not pair up", mend="give one sender and one receiver per edge")
    if len(senders) and (min(senders.min(), receivers.min()) < 0 or max(senders.max(), receivers.max()) >= n_node):
        raise DataError("an edge leads to a row that does not exist", mend=f"use rows 0 to {n_node - 1}")
    proper = senders != receivers
    pairs = senders[proper].astype(np.int64) * n_node + receivers[proper]
    first = np.sort(np.unique(pairs, return_index=True)[1])
    kept = np.flatnonzero(proper)[first]
    counts = {"self link": int((~proper).sum()), "duplicate edge": len(pairs) - len(first)}
    notes = [f"{count} {what}{'' if count == 1 else 's'} dropped" for what, count in counts.items() if count]
    return senders[kept].astype(np.int32), receivers[kept].astype(np.int32), notes


def content_hash(content: dict[str, object]) -> str:
    """SHA-256 over the fields in order, each with its kind and length, so that no two contents run together."""
    digest = hashlib.sha256()
    for field, value in content.items():
        if isinstance(value, scipy.sparse.csr_array):
            arrays = (np.asarray(value.shape, "<i8"), value.indptr, value.indices)
            parts = [array.astype("<i8").tobytes() for array in arrays] + [value.data.astype("<f4").tobytes()]
        elif isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            parts = [value.astype("<i8").tobytes()]
        else:
            parts = [] if value is None else [str(entry).encode("utf-8", "surrogatepass") for entry in value]  # type: ignore
        digest.update(f"{field} {'none' if value is None else len(parts)} ".encode())
        for part in parts:
            digest.update(f"{len(part)} ".encode())
            digest.update(part)
    return digest.hexdigest()
