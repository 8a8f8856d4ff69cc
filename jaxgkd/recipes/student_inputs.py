"""The shallow inputs of a student: the data's own features, or TF-IDF of what a student may read, and positions."""

from pathlib import Path

import numpy as np
import scipy.sparse

from jaxgkd.data import bag_of_words
from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.graphs import SparseRows
from jaxgkd.graphs.neighbourhoods import spectral_positions
from jaxgkd.recipes.node_splits import NodeSplits


def student_inputs(
    graph: TextGraph, splits: NodeSplits, folder: Path, *, positions: int = 0, max_terms: int = 5000
) -> SparseRows:
    """Sparse inputs [n_rows, f] with rows of unit length; a vocabulary that was made goes to ``folder``.

    Args:
      graph: its features are taken when it has some.
      splits: give the number of rows.
      folder: of the run.
      positions: width of spectral positions of the nodes, from the whole graph.
      max_terms: largest vocabulary.
    """
    if graph.features is not None:
        matrix = scipy.sparse.csr_array(graph.features, dtype=np.float32)
        norms = np.sqrt(matrix.multiply(matrix).sum(axis=1))
        matrix = scipy.sparse.diags_array(1.0 / np.maximum(norms, 1e-12)) @ matrix
    else:
        vocabulary = bag_of_words.fit(graph.student_texts, max_features=max_terms)
        vocabulary.save(folder / "vocabulary.json")
        matrix = vocabulary.transform(graph.student_texts)
    if positions:
        dense = spectral_positions(splits.senders, splits.receivers, graph.n_node, positions)
        dense = dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
        matrix = scipy.sparse.hstack([matrix, scipy.sparse.csr_array(dense)])
    empty = scipy.sparse.csr_array((splits.n_rows - graph.n_node, matrix.shape[1]), dtype=np.float32)
    return SparseRows.from_scipy(scipy.sparse.vstack([matrix, empty]))
