"""The node classifiers that learn from a teacher: an input layer, L convolutions, a linear head.

The layout of the states follows LinguGKD: state 0 comes from the node alone, state l from l hops around it, so that
state l can be held against what a teacher said of hop l.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.graphs import GraphsTuple, Layout
from jaxgkd.graphs.blocks import square
from jaxgkd.nn.convolutions import CONVOLUTIONS
from jaxgkd.nn.dropout import NodeInputs, dropout, input_dropout

Norm = Literal["batch", "none"]
Readout = Literal["last", "all"]


class LayerStates(NamedTuple):
    """What distillation needs of a model.

    Fields:
      hidden: one [n, d] per layer, the input layer first.
      logits: [n, classes].
    """

    hidden: tuple[Array, ...]
    logits: Array


class Student(nnx.Module):
    """Node classifier over one graph, or over nodes alone with ``kind="mlp"``."""

    def __init__(
        self,
        kind: str,
        d_in: int,
        width: int,
        n_layers: int,
        n_classes: int,
        *,
        norm: Norm = "none",
        readout: Readout = "last",
        rngs: nnx.Rngs,
    ):
        """Make the layers.

        Args:
          kind: ``gcn``, ``gat``, ``sage``, ``gin`` or ``mlp``.
          d_in: width of the node inputs; width: of every hidden state.
          n_layers: convolutions L, so there are L + 1 hidden states.
          n_classes: width of the logits.
          norm: ``batch`` puts BatchNorm before every activation.
          readout: logits from the last state, or from all of them side by side (jumping knowledge, Xu et al., arXiv
            1806.03536), by which a graph network can say something of a node that its neighbours do not share.
          rngs: random streams of the initial weights.
        """
        convolution = CONVOLUTIONS[kind]
        self.kernel = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), (d_in, width)))
        self.bias = nnx.Param(jnp.zeros(width))
        self.convolutions = nnx.List([convolution(width, width, rngs=rngs) for _ in range(n_layers)])
        n_norms = n_layers - 1 if norm == "batch" else 0
        self.norms = nnx.List([nnx.BatchNorm(width, momentum=0.9, rngs=rngs) for _ in range(n_norms)])
        self.head = nnx.Linear(width, n_classes, rngs=rngs)
        n_earlier = n_layers if readout == "all" else 0
        self.earlier = nnx.List([nnx.Linear(width, n_classes, use_bias=False, rngs=rngs) for _ in range(n_earlier)])

    def __call__(
        self,
        graph: GraphsTuple,
        layout: Layout | Sequence[Layout],
        *,
        degree: Array | None = None,
        dropout_key: Array | None = None,
        dropout_rate: ArrayLike = 0.0,
        where: Array | None = None,
    ) -> LayerStates:
        """States and logits of all nodes, or of those that the layers of a block compute.

        Args:
          graph: ``graph.nodes`` are the inputs, [n, d_in] dense, `SparseRows` or `MixedRows`.
          layout: of the graph's edges; or one for each layer, from the first nodes to fewer of them, as a
            `jaxgkd.graphs.blocks.Block` has them.
          degree: [n] edges that end in each node of the whole graph, where the layouts hold a sample of them.
          dropout_key: given in training only: dropout on, and BatchNorm uses and updates the nodes' own statistics.
          dropout_rate: of the inputs and of every hidden state.
          where: [n] True where a node counts in BatchNorm's statistics.
        """
        layouts = [layout] * len(self.convolutions) if isinstance(layout, Layout) else layout
        nodes: NodeInputs = graph.nodes  # type: ignore[assignment]
        keys = [None] * len(self.convolutions)
        if dropout_key is not None:
            keys = jax.random.split(dropout_key, len(self.convolutions))
            nodes = input_dropout(nodes, keys[0], dropout_rate)
        state = self.embed(nodes)
        hidden = [state]
        for i, (key, each) in enumerate(zip(keys, layouts, strict=True)):
            state = self.layer(i, state, each, degree=degree, dropout_key=key, dropout_rate=dropout_rate, where=where)
            hidden.append(state)
        # A block computes fewer nodes with every layer, the same ones first.
        parts = [self.read(number, hidden[number][: state.shape[0]]) for number in self.read_layers]
        return LayerStates(tuple(hidden), sum(parts[:-1], parts[-1]))

    def embed(self, nodes: NodeInputs) -> Array:
        """State 0, of every node by itself: [n, d_in] → [n, width]."""
        return nodes @ self.kernel[...] + self.bias[...]

    @property
    def read_layers(self) -> range:
        """Numbers of the states that the logits read."""
        return range(len(self.convolutions) - len(self.earlier), len(self.convolutions) + 1)

    def read(self, number: int, state: Array) -> Array:
        """What state ``number`` [n, width], one of ``read_layers``, adds to the logits [n, classes]."""
        return self.head(state) if number == len(self.convolutions) else self.earlier[number](state)

    def layer(
        self,
        number: int,
        state: Array,
        layout: Layout,
        *,
        degree: Array | None = None,
        dropout_key: Array | None = None,
        dropout_rate: ArrayLike = 0.0,
        where: Array | None = None,
    ) -> Array:
        """State ``number + 1`` of the receivers from state ``number`` [n_senders, width]; arguments as for the whole.

        Rows of the senders begin with those of the receivers; of longer arguments the first rows are used.
        """
        n = layout.n_senders
        # Activations stand between convolutions only: with two of them this is the network of Kipf & Welling.
        if number > 0:
            if self.norms:
                mask = None if where is None else where[:n, None]
                state = self.norms[number - 1](state, use_running_average=dropout_key is None, mask=mask)
            state = jax.nn.relu(state)
            if dropout_key is not None:
                state = dropout(state, dropout_key, dropout_rate)
        if layout.n_receivers == n:
            return self.convolutions[number](state, layout, degree)
        return self.convolutions[number](state, square(layout), None if degree is None else degree[:n])[
            : layout.n_receivers
        ]


def make_student(
    kind: str,
    d_in: int,
    width: int,
    n_layers: int,
    n_classes: int,
    key: Array,
    *,
    norm: Norm = "none",
    readout: Readout = "last",
) -> Student:
    """A `Student` with weights drawn from ``key``; an unknown kind is a ValueError that lists the known ones."""
    if kind not in CONVOLUTIONS:
        raise ValueError(f"'{kind}' is no student; choose one of {', '.join(CONVOLUTIONS)}")
    return Student(kind, d_in, width, n_layers, n_classes, norm=norm, readout=readout, rngs=nnx.Rngs(params=key))
