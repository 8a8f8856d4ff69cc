"""The networks of a run over a heterogeneous graph: how they are made, trained on embeddings, and asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.graphs import without_edges
from jaxgkd.graphs.negatives import KnownEdges
from jaxgkd.nn.hetero import HeteroEncoder, entering
from jaxgkd.nn.hetero_convolutions import EdgeType
from jaxgkd.nn.hetero_problem import Drawing, pair_outputs
from jaxgkd.nn.hetero_tasks import EdgeTask, HeteroModel, LinkTask, Task
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.recipes.lmgnn_data import PARTS, TaskData
from jaxgkd.recipes.lmgnn_texts import GraphTexts
from jaxgkd.training.timing import median_milliseconds

Tree = Any
Make = Callable[[Array], HeteroModel]


@dataclass(frozen=True, eq=False)
class Workplace:
    """All that the rows of a run share.

    Fields:
      data: the task; texts: of the graph.
      drawing: what a step asks for.
      kind, width, layers: of the GNN.
      others: node type → what enters beside texts: features [n, f]; or, of nodes that have neither, rows [n] of
        embeddings to learn.
    """

    data: TaskData
    texts: GraphTexts
    drawing: Drawing
    kind: str
    width: int
    layers: int
    others: Mapping[str, Array]

    def maker(self, layers: int, task: Task | None = None) -> Make:
        """Makes a model of so many convolutions from a key; one without any sees texts alone, and no degrees."""
        task, n_node, edge_types = task or self.data.task, self.data.graph.n_node, self.data.edge_types
        d_in = self.widths_in(layers)
        return partial(make_hetero_model, self.kind, d_in, self.d_text, n_node, edge_types, self.width, layers, task)

    def widths_in(self, layers: int) -> dict[str, int]:
        """Node type → width of what enters of its nodes; 0 where an embedding of each is learned."""
        graph, layout, d_text = self.data.graph, self.data.layout, self.texts.states.width
        d_in = {}
        for name in graph.nodes:
            features = self.others.get(name)
            size = features.shape[1] if features is not None and features.ndim == 2 else 0
            if name in self.texts.first:
                # A model of texts alone reads nothing else of a node that has one.
                size = d_text + (size if layers else 0)
            n_count = len(layout[name].edge_types) if layers and size and name in layout else 0
            d_in[name] = size + n_count
        return d_in

    @property
    def d_text(self) -> dict[str, int]:
        """Node type → columns of its inputs that are a text's embedding, where features stand behind them."""
        return {name: self.texts.states.width for name in self.texts.first if name in self.others}

    def inputs(self, table: Array) -> dict[str, Array]:
        """Node type → what enters of its nodes, the texts' embeddings from ``table`` [texts, d]."""
        return entering(self.texts.by_type(table), self.others, self.data.graph.nodes)

    def shared(self, table: Array, **changed: Any) -> dict[str, Any]:
        """What `jaxgkd.nn.hetero_problem` wants all runs to share."""
        shared = {
            "inputs": self.inputs(table),
            "layout": self.data.layout,
            "train": self.data.asked["train"],
            "valid": self.data.asked["valid"],
        }
        task = self.data.task
        if isinstance(task, LinkTask):
            n_node, seen = self.data.graph.n_node, self.data.seen
            assert seen is not None
            shared["known"] = KnownEdges.from_edges(*seen, n_node[task.edge_type[0]], n_node[task.edge_type[2]])
        if self.data.opposite is not None:
            shared["opposite"] = jnp.asarray(self.data.opposite)
        if self.data.negatives is not None:
            starts, rows = self.data.negatives
            shared |= {"candidate_starts": jnp.asarray(starts), "candidates": jnp.asarray(rows)}
        return shared | changed

    def outputs(self, make: Make, task: Task, params: Tree, rest: Tree, table: Array) -> dict[str, np.ndarray]:
        """Part → what a trained model says: [m, c] logits or values, or scores of the pairs that are ranked."""
        return {
            part: self.ask(make, task, params, rest, table, self.data.asked[part])
            for part in PARTS
            if not (isinstance(task, LinkTask) and part == "train")
        }

    def ask(self, make: Make, task: Task, params: Tree, rest: Tree, table: Array, asked: Any) -> np.ndarray:
        """What a trained model says of anything that can be asked; values in the unit of the labels."""
        inputs, layout, scale = self.inputs(table), self.data.layout, self.data.scale
        said = np.asarray(model_outputs(graphdef_of(make), task, params, rest, inputs, layout, asked))
        return said if scale is None else scale.undo(said)

    def with_alone(self, node_type: str, rows: np.ndarray, left_out: Sequence[str]) -> "Workplace":
        """The same place where nodes ``rows`` of a type have no edges; ``left_out`` pass no messages anyhow."""
        alone = np.zeros(len(self.data.graph.nodes[node_type]), bool)
        alone[rows] = True
        removed = {}
        for kind, edges in self.data.graph.edges.items():
            if kind[1] not in left_out:
                touched = np.zeros(len(edges), bool)
                for end, nodes in ((kind[0], edges.senders), (kind[2], edges.receivers)):
                    touched |= alone[nodes] if end == node_type else False
                removed[kind] = jnp.asarray(touched)
        return replace(self, data=replace(self.data, layout=without_edges(self.data.layout, removed)))

    def milliseconds(self, make: Make, params: Tree, rest: Tree, table: Array) -> float:
        """Milliseconds of the states of all nodes."""
        graphdef, inputs = graphdef_of(make), self.inputs(table)
        return median_milliseconds(lambda: _states(graphdef, params, rest, inputs, self.data.layout))


def make_hetero_model(
    kind: str,
    d_in: Mapping[str, int],
    d_text: Mapping[str, int],
    n_node: Mapping[str, int],
    edge_types: Sequence[EdgeType],
    width: int,
    layers: int,
    task: Task,
    key: Array,
) -> HeteroModel:
    """An untrained encoder, which sees degrees if it has layers, with the head of a task."""
    rngs = nnx.Rngs(params=key)
    encoder = HeteroEncoder(kind, d_in, n_node, edge_types, width, layers, rngs=rngs)
    return HeteroModel(encoder, task, width, edge_types, counts=layers > 0, d_text=d_text, rngs=rngs)


@partial(jax.jit, static_argnames=("graphdef", "task"))
def model_outputs(graphdef, task: Task, params: Tree, rest: Tree, inputs: Mapping[str, Array], layout, asked) -> Array:
    """What a model says: [m, c] logits or scaled values of nodes or edges, or scores of the pairs that are ranked."""
    model = nnx.merge(graphdef, params, rest)
    states = model.states(inputs, layout)
    if isinstance(task, EdgeTask | LinkTask):
        return pair_outputs(task, model, states, asked.senders, asked.receivers)
    return task.outputs(model, states, asked.rows)


@partial(jax.jit, static_argnames="graphdef")
def _states(graphdef, params, rest, inputs, layout):
    return nnx.merge(graphdef, params, rest).states(inputs, layout).hidden[-1]


@partial(jax.jit, static_argnames=("graphdef", "node_type"))
def node_states(graphdef, node_type, params, rest, inputs, layout):
    """[n, d (L + 1)] joined states of the nodes of a type."""
    model = nnx.merge(graphdef, params, rest)
    return model.joined(model.states(inputs, layout), node_type)
