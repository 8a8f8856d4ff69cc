"""Writes graphs and molecules as the folders that ``--data`` reads; reading one back gives the same data, but for
blank lines between the title and the rest of a text.

A label is written as its number, its name stands in ``classes.json``: so no name can be taken for a number.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from jaxgkd.data.hetero_graphs import EdgeSet, HeteroGraph, NodeSet
from jaxgkd.data.tables import is_text
from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.errors import DataError, shown
from jaxgkd.whole_file import write_whole_folder


def save_text_graph(graph: TextGraph, folder: str | PathLike[str]) -> Path:
    """Write ``nodes.csv``, ``edges.csv``, ``classes.json`` and, if there are any, ``features.npz``.

    Titles are written as a column of their own where every text begins with its title, as texts from a folder do;
    else reading takes the beginning of the text for the title. A graph without any text gets no text column.

    Args:
      graph: n nodes.
      folder: new or empty.

    Returns:
      The folder.

    Raises:
      DataError: a text cannot be written as a table, or students see other texts than the teacher, which a folder
        cannot say.
      ConfigError: the folder is not empty or cannot be written.
    """
    folder = Path(folder)
    if graph.student_texts != graph.texts:
        mend = "save the graph with student_texts = texts"
        raise DataError(f"students of {graph.name} see other texts than the teacher", field="student_texts", mend=mend)
    columns: dict[str, Sequence[Any]] = {"node": graph.node_ids.tolist(), **_texts(graph.texts, graph.titles)}
    columns["label"] = _numbers(graph.labels)
    if graph.given_split is not None:
        columns["split"] = graph.given_split.tolist()

    def write(scratch: Path) -> None:
        _write_table(scratch / "nodes.csv", columns)
        ids = graph.node_ids
        ends = {"src": ids[graph.senders].tolist(), "dst": ids[graph.receivers].tolist()}
        _write_table(scratch / "edges.csv", ends)
        if graph.class_names:
            (scratch / "classes.json").write_text(_listed(graph.class_names), encoding="utf-8")
        if graph.features is not None:
            _write_features(scratch / "features.npz", graph.features)

    write_whole_folder(folder, write)
    return folder


def save_hetero_graph(graph: HeteroGraph, folder: str | PathLike[str]) -> Path:
    """Write ``metadata.json`` and the tables of all node types and relations.

    Args:
      graph: with types and relations whose names can be parts of file names.
      folder: new or empty.

    Raises:
      DataError: a name or a text cannot be written.
      ConfigError: the folder is not empty or cannot be written.
    """
    folder = Path(folder)
    for name in {*graph.nodes, *(part for kind in graph.edges for part in kind)}:
        if not name or not all(letter.isalnum() or letter in "_-" for letter in name) or "__" in name:
            mend = "rename it with letters, digits, - and single _"
            raise DataError(f"'{shown(name)}' cannot be part of a file's name", mend=mend)
    edge_columns = {kind: _edge_columns(graph, kind, edges) for kind, edges in graph.edges.items()}
    tasks: dict[str, Any] = {}
    for kind, task in graph.tasks.items():
        about: dict[str, Any] = (
            {"node_type": task.target} if isinstance(task.target, str) else {"edge_type": list(task.target)}
        )
        if not isinstance(task.target, str):
            edges = graph.edges[task.target]
            if kind == "edge_classification":
                about |= {"label": "label", "classes": json.loads(_listed(edges.class_names))}
            if edges.given_split is not None:
                about["split"] = "split"
        tasks[kind] = about
    metadata = {
        "node_types": {name: _about(nodes) for name, nodes in graph.nodes.items()},
        "edge_types": [list(kind) for kind in graph.edges],
        "tasks": tasks,
    }

    def write(scratch: Path) -> None:
        (scratch / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
        for name, nodes in graph.nodes.items():
            _write_table(scratch / f"nodes_{name}.csv", _node_columns(nodes))
            if nodes.features is not None:
                _write_features(scratch / f"features_{name}.npz", nodes.features)
        for kind, columns in edge_columns.items():
            _write_table(scratch / f"edges_{'__'.join(kind)}.csv", columns)

    write_whole_folder(folder, write)
    return folder


def save_molecules(
    folder: str | PathLike[str],
    smiles: Sequence[str],
    labels: Mapping[str, ArrayLike],
    *,
    ids: Sequence[Any] | None = None,
    name: str | None = None,
    blocks: Iterable[str] | None = None,
) -> Path:
    """Write a table of molecules, and an SD file beside it where there are mol blocks.

    Args:
      folder: new or empty.
      smiles: [n].
      labels: column → [n] numbers, NaN where missing.
      ids: [n] names of the rows, by default their numbers from 0.
      name: of the files; by default that of the folder.
      blocks: [n] mol blocks as RDKit writes them, for coordinates; their first lines become the ids.

    Returns:
      The table.

    Raises:
      DataError: a column has another length, or is called like the SMILES or the ids.
      ConfigError: the folder is not empty or cannot be written.
    """
    folder = Path(folder)
    name = name or folder.name
    ids = list(range(len(smiles))) if ids is None else list(ids)
    columns: dict[str, Sequence[Any]] = {"id": ids, "smiles": list(smiles)}
    for column, values in labels.items():
        numbers = np.asarray(values, np.float64)
        if numbers.shape != (len(smiles),) or column.strip().lower() in ("id", "smiles", ""):
            what = f"the labels '{shown(column)}' are {list(numbers.shape)} for {len(smiles)} molecules"
            raise DataError(what, mend="give one number a molecule, under a name of their own")
        columns[column] = ["" if np.isnan(value) else f"{value:.17g}" for value in numbers.tolist()]
    if len(ids) != len(smiles):
        raise DataError(f"there are {len(ids)} ids for {len(smiles)} molecules", mend="give one for every molecule")

    def write(scratch: Path) -> None:
        _write_table(scratch / f"{name}.csv", columns)
        if blocks is not None:
            with gzip.open(scratch / f"{name}.sdf.gz", "wt", encoding="utf-8", compresslevel=3) as out:
                for number, block in zip(ids, blocks, strict=True):
                    out.write(f"{number}\n{block.partition(chr(10))[2].rstrip(chr(10))}\n$$$$\n")

    write_whole_folder(folder, write)
    return folder / f"{name}.csv"


def _texts(texts: Sequence[str] | None, titles: Sequence[str]) -> dict[str, list[str]]:
    if texts is None or not any(texts):
        return {}
    pairs = [text.partition("\n") for text in texts]
    if all(first == title or not text for (first, _, _), title, text in zip(pairs, titles, texts, strict=True)):
        # Read back, a title and the text below it are joined as they were.
        rest = [rest for _, _, rest in pairs]
        return {"title": [first for first, _, _ in pairs], **({"text": rest} if any(rest) else {})}
    return {"text": list(texts)}


def _numbers(labels: np.ndarray) -> list[int | str]:
    return ["" if label < 0 else int(label) for label in labels]


def _listed(class_names: Sequence[str]) -> str:
    return json.dumps({str(number): name for number, name in enumerate(class_names)}, ensure_ascii=False)


def _about(nodes: NodeSet) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if texts := _texts(nodes.texts, nodes.titles):
        about["text"] = list(texts)
    if nodes.labels is not None:
        about |= (
            {"label": "label", "classes": json.loads(_listed(nodes.class_names))}
            if nodes.class_names
            else {"value": "value"}
        )
    return about | ({"split": "split"} if nodes.given_split is not None else {})


def _node_columns(nodes: NodeSet) -> dict[str, Sequence[Any]]:
    columns: dict[str, Sequence[Any]] = {"node": nodes.ids.tolist(), **_texts(nodes.texts, nodes.titles)}
    if nodes.labels is not None and nodes.class_names:
        columns["label"] = _numbers(nodes.labels)
    elif nodes.labels is not None:
        columns["value"] = ["" if np.isnan(value) else repr(float(value)) for value in nodes.labels]
    if nodes.given_split is not None:
        columns["split"] = nodes.given_split.tolist()
    return columns


def _edge_columns(graph: HeteroGraph, kind: tuple[str, str, str], edges: EdgeSet) -> dict[str, Sequence[Any]]:
    columns: dict[str, Sequence[Any]] = {
        "src": graph.nodes[kind[0]].ids[edges.senders].tolist(),
        "dst": graph.nodes[kind[2]].ids[edges.receivers].tolist(),
    }
    if edges.labels is not None:
        columns["label"] = _numbers(edges.labels)
    if edges.given_split is not None:
        columns["split"] = edges.given_split.tolist()
    return columns


def _write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """A CSV file. Raises DataError for text that a CSV file cannot hold."""
    buffer = io.StringIO(newline="")
    # The csv module leaves a lone carriage return unquoted, which would end the row.
    returns = any("\r" in str(cell) for cells in columns.values() for cell in cells)
    quoting = csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
    writer = csv.writer(buffer, lineterminator="\n", quoting=quoting)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    try:
        content = buffer.getvalue().encode()
    except UnicodeEncodeError as error:
        content = None
        cause: Exception | None = error
    else:
        cause = None
    if content is None or b"\0" in content:
        row, column = next(
            (row, column)
            for column, cells in columns.items()
            for row, cell in enumerate(cells, start=2)
            if "\0" in str(cell) or not is_text(str(cell))
        )
        what = "has a zero byte or half of a character"
        raise DataError(what, file=path.name, row=row, field=column, mend="take it out of the text") from cause
    path.write_bytes(content)


def _write_features(path: Path, features: scipy.sparse.csr_array) -> None:
    parts = {"data": features.data, "indices": features.indices, "indptr": features.indptr}
    np.savez_compressed(path, allow_pickle=False, shape=np.array(features.shape, np.int64), **parts)
