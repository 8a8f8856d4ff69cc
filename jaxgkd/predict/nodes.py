"""Nodes of a new text graph through the student of ``jaxgkd run lingugkd``.

An MLP takes some nodes at a time as they come from the disk. A graph network takes the whole new graph, layer by layer
in ranges of nodes: what it holds is the nodes' words, their edges and two layers of states.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.special
from flax import nnx

from jaxgkd.data.bag_of_words import Vocabulary
from jaxgkd.data.new_nodes import NewNodes, NodeChunk
from jaxgkd.data.node_features import read_features
from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.errors import ConfigError, DataError
from jaxgkd.graphs import undirected
from jaxgkd.graphs.compressed import EDGE, Neighbours, compress_homogeneous
from jaxgkd.graphs.input_rows import SparseInputs
from jaxgkd.graphs.layout import host_layout
from jaxgkd.nn.layerwise import LayerwiseStudent
from jaxgkd.nn.named_weights import states_of
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.predict.columns import class_columns
from jaxgkd.predict.outcome import Outcome
from jaxgkd.predict.output_file import OutputFile
from jaxgkd.recipes.kept_nodes import VOCABULARY, node_student_maker, one_member
from jaxgkd.recipes.student_inputs import unit_rows
from jaxgkd.training.batch_loop import over_runs
from jaxgkd.training.by_value import jitted
from jaxgkd.training.student_folder import KeptStudent

_UNKNOWN = "the text holds no word that the student knows"


def predict_nodes(kept: KeptStudent, members: Sequence[int], nodes: NewNodes, out: OutputFile) -> Outcome:
    """Write ``node``, ``class``, ``p_<class>`` of every class and ``problem`` of every node, in the table's order.

    Args:
      kept: the student.
      members: whose probabilities are averaged.
      nodes: that are asked about.
      out: where rows are written.

    Raises:
      DataError: the nodes cannot be read, or none can be predicted.
      ConfigError: the student reads what a new graph does not have.
    """
    if kept.reads["positions"]:
        what = "the student reads spectral positions, which mean something in the graph of its run alone"
        raise ConfigError(what, mend="train a student without --positions")
    outcome = Outcome("nodes")
    for chunk, problems, probabilities in (_with_edges if kept.reads["edges"] else _alone)(kept, members, nodes):
        outcome.add(chunk.rows, problems)
        out.write(class_columns({"node": chunk.ids}, kept.says["names"], probabilities, problems))
    outcome.check()
    return outcome


def _alone(
    kept: KeptStudent, members: Sequence[int], nodes: NewNodes
) -> Iterator[tuple[NodeChunk, dict[int, str], np.ndarray]]:
    """Chunks, their problems and probabilities [n, classes], of a student that reads no edges."""
    make = node_student_maker(kept)
    states = jax.tree.map(jnp.asarray, states_of(make, kept.of_members(members)))
    forward = jitted(partial(_forward, graphdef_of(make)))
    size = 0
    for chunk, inputs in _inputs(kept, nodes):
        # All chunks but the last have one size, and so has the program.
        size = max(size, len(chunk.ids))
        padded = np.where(np.arange(size) < len(chunk.ids), np.arange(size), -1)
        logits = np.asarray(forward(*states, inputs.of(padded)))[:, : len(chunk.ids)]
        problems = chunk.problems | _wordless(chunk, inputs)
        yield chunk, problems, scipy.special.softmax(logits, axis=-1).mean(axis=0)


def _forward(graphdef: Any, params: Any, rest: Any, rows: Any) -> jax.Array:
    """[members, n, classes] logits of nodes without edges."""

    def one(params: Any, rest: Any, rows: Any) -> jax.Array:
        student, n = nnx.merge(graphdef, params, rest), rows.shape[0]
        nothing = host_layout(np.zeros(0, np.int32), np.zeros(0, np.int32), n)
        state = student.embed(rows)
        for number in range(len(student.convolutions)):
            state = student.layer(number, state, nothing)
        return student.head(state)

    return over_runs(one, (params, rest), rows)


def _with_edges(
    kept: KeptStudent, members: Sequence[int], nodes: NewNodes
) -> Iterator[tuple[NodeChunk, dict[int, str], np.ndarray]]:
    """The same of a student that reads the whole graph."""
    chunks, parts = [], []
    for chunk, inputs in _inputs(kept, nodes):
        problems = chunk.problems | _wordless(chunk, inputs)
        chunks.append((NodeChunk(chunk.rows, chunk.ids, None, chunk.problems), problems))
        parts.append(inputs)
    if not parts:
        return
    inputs = _joined(parts)
    del parts
    neighbours = compress_homogeneous(*undirected(*nodes.edges()), inputs.shape[0]).relations[EDGE]
    make = node_student_maker(kept)
    student = LayerwiseStudent(make, lambda model: model, neighbours, inputs)
    states = jax.tree.map(jnp.asarray, states_of(make, kept.of_members(members)))
    total = np.zeros((inputs.shape[0], len(kept.says["names"])), np.float32)
    for member in range(len(members)):
        logits, _ = student(*one_member(states, member))
        total += scipy.special.softmax(logits[0], axis=-1) / len(members)
    known = np.concatenate([[i not in problems for i in range(len(chunk.ids))] for chunk, problems in chunks])
    reached = _reached(known, neighbours, student.n_layers)
    start = 0
    for chunk, problems in chunks:
        # What is said of a node without known words is said by its neighbours, as in training.
        missing = {i: why for i, why in problems.items() if i in chunk.problems or not reached[start + i]}
        yield chunk, missing, total[start : start + len(chunk.ids)]
        start += len(chunk.ids)


def _reached(known: np.ndarray, neighbours: Neighbours, steps: int) -> np.ndarray:
    """Nodes [n] at most so many steps along edges from one that is ``known`` [n]."""
    if known.all():
        return known
    receivers = np.repeat(np.arange(len(known)), np.diff(neighbours.indptr))
    for _ in range(steps):
        found = known.copy()
        found[receivers[known[neighbours.indices]]] = True
        known = found
    return known


def _wordless(chunk: NodeChunk, inputs: SparseInputs) -> dict[int, str]:
    if chunk.texts is None:
        return {}
    return {int(i): _UNKNOWN for i in np.flatnonzero(np.diff(inputs.indptr) == 0) if i not in chunk.problems}


def _inputs(kept: KeptStudent, nodes: NewNodes) -> Iterator[tuple[NodeChunk, SparseInputs]]:
    """Chunks and what the student reads of their nodes."""
    width = kept.reads["width"]
    if kept.reads["inputs"] == "words":
        vocabulary = Vocabulary.from_json(kept.files[VOCABULARY], VOCABULARY)
        for chunk in nodes.chunks():
            assert chunk.texts is not None
            yield chunk, _sparse(vocabulary.transform(chunk.texts))
        return
    features = _features(nodes, width)
    start = 0
    for chunk in nodes.chunks():
        yield chunk, _sparse(features[start : start + len(chunk.ids)])
        start += len(chunk.ids)


def _features(nodes: NewNodes, width: int) -> scipy.sparse.csr_array:
    if not isinstance(nodes.source, TextGraph):
        path = nodes.features_path
        if not path.exists():
            mend = f"put features [nodes, {width}] there, made as those of the run were"
            raise DataError("the student reads features, and there are none", file=path, mend=mend)
        features = read_features(path, nodes.count())
    else:
        path, features = nodes.path, nodes.source.features
        if features is None:
            raise DataError("the student reads features, and the graph has none", mend="give it features")
    found = features.shape[1]  # type: ignore[index]
    if found != width:
        what = f"has {found} features a node, the student reads {width}"
        raise DataError(what, file=path, mend="make the features as those of the run were made")
    return unit_rows(features)


def _sparse(matrix: scipy.sparse.csr_array) -> SparseInputs:
    _, width = matrix.shape  # type: ignore[misc]
    return SparseInputs(matrix.indptr, matrix.indices, matrix.data, width)


def _joined(parts: list[SparseInputs]) -> SparseInputs:
    before = np.cumsum([0, *(len(part.values) for part in parts)])
    indptr = [part.indptr[1:] + start for part, start in zip(parts, before[:-1], strict=True)]
    return SparseInputs(
        np.concatenate([np.zeros(1, np.int64), *indptr]),
        np.concatenate([part.columns for part in parts]),
        np.concatenate([part.values for part in parts]),
        parts[0].width,
    )
