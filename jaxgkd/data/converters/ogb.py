"""Data sets of the Open Graph Benchmark as text graphs and molecules."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.data.converters.pyg import text_graph_from_pyg
from jaxgkd.data.converters.tables import molecules_from_columns
from jaxgkd.data.converters.values import as_array, classes_of, edge_ends, features_of, split_of_indices, texts_of
from jaxgkd.data.molecules import Molecules
from jaxgkd.data.tables import read_table
from jaxgkd.data.text_graphs import TextGraph, make_text_graph, titles_of
from jaxgkd.errors import DataError


def text_graph_from_ogb(
    dataset: Any,
    *,
    texts: Sequence[str],
    titles: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
) -> TextGraph:
    """A ``NodePropPredDataset`` (or ``PygNodePropPredDataset``) with one class a node, and its usual split.

    Args:
      dataset: ``dataset[0]`` is the graph and its labels [n, 1], ``get_idx_split()`` the split.
      texts: [n]; OGB keeps none with its graphs (those of ogbn-arxiv come with `jaxgkd data fetch ogbn-arxiv`).
      titles: [n] short names; by default the beginning of the text.
      class_names: [c]; by default the class numbers.
      name: by default the data set's.

    Raises:
      DataError: the graph is heterogeneous, has several labels a node, or a part does not fit.
    """
    name = name or str(getattr(dataset, "name", "graph"))
    first = dataset[0]
    indices = dataset.get_idx_split() if hasattr(dataset, "get_idx_split") else None
    if not isinstance(first, tuple):
        graph = text_graph_from_pyg(first, texts=texts, titles=titles, class_names=class_names, name=name)
        split = split_of_indices(indices, graph.n_node)
        return graph if split is None else _with_split(graph, split)
    about, labels = first
    if not isinstance(about, Mapping) or "edge_index" not in about:
        what = "the graph has no edge_index, as heterogeneous ones have none"
        raise DataError(what, field=name, mend="give a homogeneous data set")
    n = int(about["num_nodes"])
    read = texts_of(texts, n, "texts")
    classes, names = classes_of(labels, n, "labels", class_names)
    senders, receivers = edge_ends(about["edge_index"])
    features = about.get("node_feat")
    return make_text_graph(
        name=name,
        node_ids=np.arange(n),
        texts=read,
        titles=titles_of(read, {} if titles is None else {"title": texts_of(titles, n, "titles")}),
        labels=classes,
        class_names=names,
        senders=senders,
        receivers=receivers,
        features=None if features is None else features_of(features, n, "node_feat"),
        given_split=split_of_indices(indices, n),
    )


def molecules_from_ogb(
    dataset: Any, *, smiles: Sequence[str] | None = None, label_names: Sequence[str] | None = None
) -> tuple[Molecules, np.ndarray | None]:
    """A ``GraphPropPredDataset`` of molecules (``ogbg-mol…``) and its usual split.

    Args:
      dataset: with ``labels`` [n, t], or labels beside every graph.
      smiles: [n]; by default those of ``mapping/mol.csv.gz`` in the data set's folder.
      label_names: [t]; by default the columns of that table, or else label_0, label_1, ….

    Returns:
      The molecules, and [n] of "train", "valid" or "test" for their records, or None.

    Raises:
      DataError: there are no SMILES, or another number of them than labels.
    """
    name = str(getattr(dataset, "name", "molecules"))
    labels = getattr(dataset, "labels", None)
    if labels is None:
        labels = [np.ravel(as_array(dataset[i][1], "labels")) for i in range(len(dataset))]
    values = as_array(labels, "labels").astype(np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if smiles is None:
        table = Path(str(getattr(dataset, "root", "."))) / "mapping" / "mol.csv.gz"
        if not table.is_file():
            raise DataError("there are no SMILES", file=table, mend="pass smiles=[…], one a molecule")
        read = read_table(table)
        smiles = read.column("smiles")
        named = [column for column in read.columns if column not in ("smiles", "mol_id", "")]
        label_names = label_names or (named if len(named) == values.shape[1] else None)
    if len(smiles) != len(values):
        raise DataError(f"there are {len(smiles)} SMILES for {len(values)} labels", mend="give one for every graph")
    label_names = label_names or [f"label_{i}" for i in range(values.shape[1])]
    columns = dict(zip(label_names, values.T, strict=True))
    indices = dataset.get_idx_split() if hasattr(dataset, "get_idx_split") else None
    return molecules_from_columns(smiles, columns, name=name), split_of_indices(indices, len(values))


def _with_split(graph: TextGraph, split: np.ndarray) -> TextGraph:
    fields = {
        field: getattr(graph, field) for field in ("name", "node_ids", "texts", "titles", "labels", "class_names")
    }
    fields |= {"senders": graph.senders, "receivers": graph.receivers, "features": graph.features}
    return make_text_graph(**fields, given_split=split)
