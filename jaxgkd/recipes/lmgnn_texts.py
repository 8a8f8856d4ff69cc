"""Texts of a heterogeneous graph in a language model whose upper layers are trained, from the states of those below."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.data.hetero_graphs import HeteroGraph
from jaxgkd.language import Encoder, pool
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.token_states import TokenStates, token_states, upper_part

Tree = Any


@dataclass(frozen=True, eq=False)
class GraphTexts:
    """Texts of all nodes that have any, one below the other.

    Fields:
      states: of their tokens, below the layers that are trained.
      graphdef, weights: the layers above, as `nnx.merge` takes them, before any training.
      first: node type → where its texts begin; n_node: node type → how many there are.
    """

    states: TokenStates
    graphdef: Any
    weights: Tree
    first: dict[str, int]
    n_node: dict[str, int]

    @property
    def n_texts(self) -> int:
        """Number of texts, those that come twice counted twice."""
        return len(self.states.tokens.rows)

    def by_type(self, table: Array) -> dict[str, Array]:
        """Node type → [n, d] rows of a table [texts, d]."""
        return {name: table[start : start + self.n_node[name]] for name, start in self.first.items()}

    def read(self, weights: Tree, rows: np.ndarray | None = None) -> np.ndarray:
        """[m, d] embeddings of texts ``rows``, by default all, by a language model with these weights."""
        wanted = self.states.tokens.rows if rows is None else self.states.tokens.rows[rows]
        if not len(wanted):
            return np.zeros((0, self.states.width), np.float32)
        distinct, place = np.unique(wanted, return_inverse=True)
        parts = [
            np.asarray(embed(self.graphdef, weights, *batch))[: end - first]
            for first, end, batch in self.states.batches(distinct)
        ]
        return np.concatenate(parts)[place]

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States [b, t, d] and mask [b, t] of texts ``rows`` [b], in the shortest of few shapes."""
        sequences = self.states.tokens.rows[rows]
        tops = np.array([top for _, top in self.states.shapes])
        top = int(tops[np.searchsorted(tops, self.states.tokens.lengths[sequences].max())])
        return self.states.batch(sequences, (len(rows), top))


def graph_texts(
    graph: HeteroGraph,
    encoder: TextEncoder,
    *,
    tuned_layers: int,
    max_tokens: int,
    on_line: Callable[[str], None],
) -> GraphTexts:
    """Run the lower layers over all texts, or read what they said before.

    Args:
      graph: of which node types with texts are read.
      encoder: the language model; tuned_layers: the uppermost ones, left to be trained.
      max_tokens: of a text; longer ones are cut.
      on_line: called with a line before the model is run.

    Raises:
      ConfigError: ``max_tokens`` does not fit the model.
      StoreError: the states cannot be kept.
      UnsupportedModelError: the model is no post-norm encoder.
    """
    layer = frozen_layers(encoder.model, tuned_layers)
    upper = upper_part(encoder.model, layer)
    first, texts = {}, []
    for name, nodes in graph.nodes.items():
        if nodes.texts is not None:
            first[name] = len(texts)
            texts += nodes.texts
    states = token_states(encoder, texts, layer=layer, max_tokens=max_tokens, on_line=on_line)
    graphdef, weights = nnx.split(upper)
    return GraphTexts(states, graphdef, weights, first, {name: len(graph.nodes[name]) for name in first})


def frozen_layers(model: object, tuned_layers: int) -> int:
    """How many layers lie below the uppermost ``tuned_layers``; none where the model has no more than these."""
    return max(0, getattr(model, "n_layers", 0) - tuned_layers)


def embedding(upper: Encoder, states: Array, mask: Array) -> Array:
    """[b, d] of length 1: the mean over the tokens of the last layer."""
    return unit_mean(upper.states_from(states, mask, 0)[-1], mask)


def embedding_again(upper: Encoder, states: Array, mask: Array) -> Array:
    """`embedding`, whose gradient computes every layer once more instead of keeping what is inside of it."""
    for layer in range(upper.n_layers):
        states = jax.checkpoint(partial(_one_layer, upper, layer))(states, mask)
    return unit_mean(states, mask)


def _one_layer(upper: Encoder, layer: int, states: Array, mask: Array) -> Array:
    stacks = upper.weights()["layers"]
    alone = Encoder(
        replace(upper.config, n_layers=1),
        {"embeddings": {}, "layers": {name: stack[layer : layer + 1] for name, stack in stacks.items()}},
    )
    return alone.states_from(states, mask, 0)[-1]


def unit_mean(states: Array, mask: Array) -> Array:
    """[b, d] of length 1: the mean of states [b, t, d] over tokens that are there."""
    pooled = pool(states, mask, "mean")
    return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-9)


@partial(jax.jit, static_argnames="graphdef")
def embed(graphdef: Any, weights: Tree, states: Array, mask: Array) -> Array:
    """`embedding`, compiled."""
    return embedding(nnx.merge(graphdef, weights), states, mask)
