"""The shallow inputs of a student: the data's own features, or TF-IDF of what a student may read, and positions."""

from typing import cast

import numpy as np
import scipy.sparse

from jaxgkd.data import bag_of_words
from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.errors import ConfigError
from jaxgkd.graphs import SparseRows
from jaxgkd.graphs.neighbourhoods import spectral_positions
from jaxgkd.recipes.node_splits import NodeSplits


def student_inputs(
    graph: TextGraph, splits: NodeSplits, *, positions: int = 0, max_terms: int = 5000
) -> tuple[SparseRows, bag_of_words.Vocabulary | None]:
    """Sparse inputs [n_rows, f] with rows of unit length, and the vocabulary if one was made.

    Args:
      graph: its features are taken when it has some.
      splits: give the number of rows.
      positions: width of spectral positions of the nodes, from the whole graph.
      max_terms: largest vocabulary.

    Raises:
      DataError: no word is in two texts.
      ConfigError: there are not enough nodes for positions of this width.
    """
    if positions >= graph.n_node:
        mend = f"give less than {graph.n_node}, the number of nodes"
        raise ConfigError(f"the value is {positions}", field="--positions", mend=mend)
    vocabulary = None
    if graph.features is not None:
        matrix = unit_rows(graph.features)
    else:
        vocabulary = bag_of_words.fit(graph.student_texts, max_features=max_terms)
        matrix = vocabulary.transform(graph.student_texts)
    blocks = [matrix]
    if positions:
        dense = spectral_positions(splits.senders, splits.receivers, graph.n_node, positions)
        dense = dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
        blocks.append(scipy.sparse.csr_array(dense))
    # The extra row of inductive splits is empty.
    inputs = scipy.sparse.coo_array(scipy.sparse.hstack(blocks))
    _, width = cast(tuple[int, int], inputs.shape)
    inputs.resize(splits.n_rows, width)
    return SparseRows.from_scipy(inputs), vocabulary


def unit_rows(features: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Features [n, f] as a student reads them: float32 rows of length 1, empty ones left empty."""
    matrix = scipy.sparse.csr_array(features, dtype=np.float32)
    norms = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    return scipy.sparse.csr_array(scipy.sparse.diags_array(1.0 / np.maximum(norms, 1e-12)) @ matrix)
