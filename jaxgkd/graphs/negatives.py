"""Targets that edges are set against, and which of them are edges themselves.

All of it runs on a host in numpy, for batches made there, and in JAX inside compiled functions: what draws takes a
NumPy generator or a key of JAX, and arrays of the one kind or the other. Nodes are counted within the target's type.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxgkd.errors import ConfigError
from jaxgkd.graphs.compressed import compress

Host = np.ndarray | Array
Random = np.random.Generator | Array


@partial(jax.tree_util.register_dataclass, data_fields=["indptr", "targets"], meta_fields=["n_steps"])
@dataclass(frozen=True)
class KnownEdges:
    """Which pairs are edges (a pytree: pass it into compiled functions).

    For training these are the edges it sees: to leave out others as negatives would tell that they are there.

    Attributes:
      indptr: [n_source + 1]; targets: [e] ascending for every source, ``targets[indptr[i]:indptr[i + 1]]``.
      n_steps: static, of a binary search among the targets of any source.
    """

    indptr: Int[Array, " rows"]
    targets: Int[Array, " e"]
    n_steps: int

    # As a pytree it is also rebuilt with stacked arrays, axes of vmap and placeholders: no check of fields then.
    __no_type_check__ = True

    @classmethod
    def from_edges(cls, sources: np.ndarray, targets: np.ndarray, n_source: int, n_node: int) -> "KnownEdges":
        """From [e] sources below ``n_source`` and [e] targets below ``n_node``, in any order.

        Raises:
          DataError: an edge names a node that is not there.
        """
        # The rows of the graph turned round: by the node an edge starts from.
        relation = ("target", "edge", "source")
        by_source = compress({"source": n_source, "target": n_node}, {relation: (targets, sources)}).relations[relation]
        largest = int(np.diff(by_source.indptr).max(initial=0))
        return cls(by_source.indptr.astype(np.int32), by_source.indices, largest.bit_length())  # type: ignore[arg-type]

    def contains(self, sources: Int[Host, "..."], targets: Int[Host, "..."]) -> Bool[Host, "..."]:
        """Whether there is an edge from ``sources`` [...] to ``targets`` [...], which broadcast; in numpy if all is."""
        xp: Any = np if all(isinstance(x, np.ndarray) for x in (self.targets, sources, targets)) else jnp
        sources, targets = xp.broadcast_arrays(sources, targets)
        if not self.targets.shape[0]:
            return xp.zeros(sources.shape, bool)
        indptr, known = xp.asarray(self.indptr), xp.asarray(self.targets)
        low, end = indptr[sources], indptr[sources + 1]
        high = end
        for _ in range(self.n_steps):
            middle = low + (high - low) // 2
            searching = low < high
            below = known[xp.minimum(middle, len(known) - 1)] < targets
            low, high = xp.where(searching & below, middle + 1, low), xp.where(searching & ~below, middle, high)
        return (low < end) & (known[xp.minimum(low, len(known) - 1)] == targets)


class Negatives(NamedTuple):
    """Targets that b edges are set against.

    Attributes:
      nodes: [b, k] of every edge its own, or [k] shared by all.
      where: [b, k] False for an edge's own target, for pairs that are edges, and for padding.
    """

    nodes: Any
    where: Any


def uniform_negatives(
    random: Random,
    sources: Int[Host, " b"],
    targets: Int[Host, " b"],
    n_negative: int,
    n_node: int,
    known: KnownEdges | None = None,
) -> Negatives:
    """For every edge k nodes drawn by itself, each uniform and with replacement: nodes [b, k].

    Args:
      random: a key of JAX, or a NumPy generator.
      sources, targets: [b] the edges.
      n_negative: k; n_node: nodes to draw from.
      known: edges that are no negatives.

    Raises:
      ConfigError: there are fewer nodes than negatives, or no negative is asked for.
    """
    nodes = _drawn(random, (len(sources), n_negative), n_node)
    return Negatives(nodes, _no_edges(sources[:, None], targets[:, None], nodes, known))


def joint_negatives(
    random: Random,
    sources: Int[Host, " b"],
    targets: Int[Host, " b"],
    n_negative: int,
    n_node: int,
    known: KnownEdges | None = None,
) -> Negatives:
    """The same k nodes for all edges, each uniform and with replacement: nodes [k], whose states are computed once.

    Scores of [b, 1, d] against [k, d] are then matrix products. Arguments and errors as in `uniform_negatives`.
    """
    nodes = _drawn(random, (n_negative,), n_node)
    return Negatives(nodes, _no_edges(sources[:, None], targets[:, None], nodes[None], known))


def in_batch_negatives(
    sources: Int[Host, " b"],
    targets: Int[Host, " b"],
    known: KnownEdges | None = None,
    where: Bool[Host, " b"] | None = None,
) -> Negatives:
    """For every edge the targets of the others: nodes [b], and where [b, b].

    Nodes come as often as they are targets, so popular ones are set against more edges.

    Args:
      sources, targets: [b] the edges.
      known: edges that are no negatives.
      where: [b] False for padding, which is no one's negative.
    """
    allowed = _no_edges(sources[:, None], targets[:, None], targets[None], known)
    return Negatives(targets, allowed if where is None else allowed & where[None])


def hard_negatives(
    sources: Int[Host, " b"],
    targets: Int[Host, " b"],
    given: Int[Host, "b k"],
    known: KnownEdges | None = None,
) -> Negatives:
    """For every edge the nodes given for it: nodes [b, k].

    Args:
      sources, targets: [b] the edges.
      given: [b, k] nodes, such as those a scorer ranks high; -1 for padding, which becomes node 0 and is masked.
      known: edges that are no negatives.
    """
    nodes = given * (given >= 0)
    return Negatives(nodes, _no_edges(sources[:, None], targets[:, None], nodes, known) & (given >= 0))


def _drawn(random: Random, shape: tuple[int, ...], n_node: int) -> Any:
    n_negative = shape[-1]
    if n_negative < 1:
        raise ConfigError(f"{n_negative} negatives cannot be drawn", field="n_negative", mend="use 1 or more")
    if n_negative > n_node:
        what = f"{n_negative} negatives are more than the {n_node} nodes to draw from"
        raise ConfigError(what, field="n_negative", mend=f"use {n_node} or fewer")
    if isinstance(random, np.random.Generator):
        return random.integers(0, n_node, shape, np.int32)
    return jax.random.randint(random, shape, 0, n_node, jnp.int32)


def _no_edges(sources: Any, targets: Any, nodes: Any, known: KnownEdges | None) -> Any:
    allowed = nodes != targets
    return allowed if known is None else allowed & ~known.contains(sources, nodes)
