"""Data of other libraries as jaxgkd's own: graphs of PyTorch Geometric, data sets of OGB, tables of Hugging Face.

The objects are read by their attributes; none of these libraries is imported here. What is missing is named in the
error, with the argument to pass instead. ``folders.save_text_graph`` and its like write what comes out of here as a
folder for ``--data``:

    graph = text_graph_from_pyg(data, texts=texts, name="my-graph")
    save_text_graph(graph, "my-graph")

- ``pyg``: ``Data`` and ``HeteroData``.
- ``ogb``: node and molecule property prediction.
- ``huggingface``: ``Dataset`` and ``DatasetDict`` of nodes and edges, or of molecules.
"""

from jaxgkd.data.converters.huggingface import molecules_from_huggingface, text_graph_from_huggingface
from jaxgkd.data.converters.ogb import molecules_from_ogb, text_graph_from_ogb
from jaxgkd.data.converters.pyg import hetero_graph_from_pyg, text_graph_from_pyg

__all__ = [
    "hetero_graph_from_pyg",
    "molecules_from_huggingface",
    "molecules_from_ogb",
    "text_graph_from_huggingface",
    "text_graph_from_ogb",
    "text_graph_from_pyg",
]
