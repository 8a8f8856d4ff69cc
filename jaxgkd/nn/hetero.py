"""Encoders of heterogeneous graphs: a projection of every node type's inputs, then L layers over typed edges."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.graphs import HeteroLayout
from jaxgkd.nn.dropout import dropout
from jaxgkd.nn.hetero_convolutions import HETERO_CONVOLUTIONS, EdgeType


class HeteroStates(NamedTuple):
    """Node type → [n, d], one dict per layer, the projected inputs first."""

    hidden: tuple[dict[str, Array], ...]


def entering(
    embeddings: Mapping[str, Array], others: Mapping[str, Array], node_types: Iterable[str]
) -> dict[str, Array]:
    """What enters of the nodes of every type, in the order of ``node_types``, which the dropout of inputs goes by.

    Args:
      embeddings: node type → [n, d] of its texts.
      others: node type → [n, f] features, which stand behind the embedding where there are both; or, of types without
        texts, [n] rows of embeddings to learn.
      node_types: each is in one of the two.
    """

    def of_type(name: str) -> Array:
        if name in embeddings and name in others:
            return jnp.concatenate([embeddings[name], others[name]], axis=-1)
        return embeddings[name] if name in embeddings else others[name]

    return {name: of_type(name) for name in node_types}


class HeteroEncoder(nnx.Module):
    """States of the nodes of every type."""

    def __init__(
        self,
        kind: str,
        d_in: Mapping[str, int],
        n_node: Mapping[str, int],
        edge_types: Sequence[EdgeType],
        width: int,
        n_layers: int,
        *,
        rngs: nnx.Rngs,
    ):
        """Make the layers.

        Args:
          kind: ``rgcn``, ``rgat``, ``hgt`` or ``sage``.
          d_in: width of every node type's inputs; a type with none, 0, gets an embedding to learn for every node.
          n_node: number of nodes of every type.
          edge_types: of the layouts, reverses included.
          width: of every hidden state; n_layers: convolutions L, so there are L + 1 hidden states.
          rngs: random streams of the initial weights.

        Raises:
          ValueError: the kind is not known.
        """
        if kind not in HETERO_CONVOLUTIONS:
            raise ValueError(f"'{kind}' is no encoder; choose one of {', '.join(HETERO_CONVOLUTIONS)}")
        convolution = HETERO_CONVOLUTIONS[kind]
        given = {name: size for name, size in d_in.items() if size}
        self.project = nnx.Dict({name: nnx.Linear(size, width, rngs=rngs) for name, size in given.items()})
        embedding = nnx.initializers.normal(0.1)
        self.embeddings = nnx.Dict(
            {name: nnx.Param(embedding(rngs.params(), (n_node[name], width))) for name in d_in if name not in given}
        )
        # An `nnx.Dict` asked whether it has a name answers yes for its own methods, such as items.
        self.learned = tuple(name for name in d_in if name not in given)
        types = tuple(d_in)
        self.convolutions = nnx.List([convolution(width, types, edge_types, rngs=rngs) for _ in range(n_layers)])
        self.norms = nnx.List(
            [nnx.Dict({name: nnx.LayerNorm(width, rngs=rngs) for name in types}) for _ in range(n_layers)]
        )

    def __call__(
        self,
        inputs: Mapping[str, Array],
        layout: HeteroLayout,
        *,
        dropout_key: Array | None = None,
        dropout_rate: ArrayLike = 0.0,
    ) -> HeteroStates:
        """States of all nodes.

        Args:
          inputs: node type → [n, d_in]; of a type with learned embeddings, [n] rows of them.
          layout: of the edges.
          dropout_key: given in training only.
          dropout_rate: of the inputs and of every hidden state but the last.
        """
        state = {}
        for i, (name, values) in enumerate(inputs.items()):
            if name in self.learned:
                state[name] = self.embeddings[name][...][values]
                continue
            if dropout_key is not None:
                values = dropout(values, jax.random.fold_in(dropout_key, i), dropout_rate)
            state[name] = self.project[name](values)
        hidden = [state]
        for layer, (convolution, norms) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            entering = {}
            for i, (name, values) in enumerate(state.items()):
                values = jax.nn.relu(norms[name](values))
                if dropout_key is not None:
                    key = jax.random.fold_in(dropout_key, (layer + 1) * len(inputs) + i)
                    values = dropout(values, key, dropout_rate)
                entering[name] = values
            state = convolution(entering, layout)
            hidden.append(state)
        return HeteroStates(tuple(hidden))
