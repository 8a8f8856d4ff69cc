"""The student of ``jaxgkd run lingugkd`` as a program: words or features of nodes, and the edges between them.

Nodes come in compressed sparse rows, as SciPy has them, since a dense bag of words of a large graph fits nowhere.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgkd.errors import ConfigError
from jaxgkd.export.program import Input, Program
from jaxgkd.graphs import GraphsTuple
from jaxgkd.graphs.traced_layout import traced_layout, traced_sparse_rows
from jaxgkd.nn.named_weights import states_of
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.recipes.kept_nodes import VOCABULARY, node_student_maker
from jaxgkd.training.student_folder import KeptStudent

_ROWS = {
    "words": f"TF-IDF of the terms of {VOCABULARY}, rows of length 1",
    "features": "features as the run's own, rows of length 1",
}


def node_program(kept: KeptStudent) -> Program:
    """From the rows of n nodes, and their edges unless it is an MLP, to probabilities [n, classes].

    Raises:
      ConfigError: the student reads spectral positions, which an exported program cannot compute.
    """
    if kept.reads["positions"]:
        what = "the student reads spectral positions, which mean something in the graph of its run alone"
        raise ConfigError(what, mend="train a student without --positions")
    make = node_student_maker(kept)
    graphdef, width, reads_edges = graphdef_of(make), kept.reads["width"], kept.reads["edges"]

    def call(weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> Array:
        rows = traced_sparse_rows(inputs["indptr"], inputs["indices"], inputs["data"], width)
        n = inputs["indptr"].shape[0] - 1
        none = jnp.zeros(0, jnp.int32)
        senders, receivers = (inputs["senders"], inputs["receivers"]) if reads_edges else (none, none)
        graph = GraphsTuple(rows, None, None, None, None, None, None)  # type: ignore[arg-type]
        student = nnx.merge(graphdef, *states_of(make, weights))
        return jax.nn.softmax(student(graph, traced_layout(senders, receivers, n, n)).logits)

    inputs = {
        "indptr": Input(("n + 1",), "int32", "values indptr[i]:indptr[i + 1] are those of node i"),
        "indices": Input(("v",), "int32", f"column of every value, below {width}"),
        "data": Input(("v",), "float32", _ROWS[kept.reads["inputs"]]),
    }
    if reads_edges:
        about = "of every link in both directions, each once, no node to itself, in any order"
        inputs |= {name: Input(("e",), "int32", f"{name} {about}") for name in ("senders", "receivers")}
    return Program(call, inputs, ("n", len(kept.says["names"])), "a probability for each class, in their order")
