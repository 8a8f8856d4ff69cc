"""How the atoms of a molecule lie to each other, as what attention adds to its scores: by bonds, or in space.

Ying et al., Do Transformers Really Perform Bad for Graph Representation?, arXiv 2106.05234 (paths, Graphormer), and
Shi et al., Benchmarking Graphormer on Large-Scale Molecular Modeling Datasets, arXiv 2203.04810 (distances).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.graphs.batching import ManyGraphs
from jaxgkd.graphs.paths import FARTHEST, Paths
from jaxgkd.graphs.rows import RowBatch
from jaxgkd.nn.row_linear import RowLinear


class Relations(NamedTuple):
    """What is known of the pairs of atoms.

    Fields:
      bias: [g, heads, L, L] added to the score of atom i for atom j at (i, j); anything finite where one is padding.
      atoms: [g, L, k] what an atom's relations to all others sum up to, part of its first state; None for nothing.
    """

    bias: Array
    atoms: Array | None


class RelationEncoding(Protocol):
    """A module that says how the atoms of a batch lie to each other; ``n_summary`` is the k of `Relations`, or 0."""

    n_summary: int

    def __call__(self, rows: RowBatch) -> Relations:
        """Relations of a batch."""
        ...


class PathRelations(nnx.Module):
    """A learned vector for the length of the shortest path, plus the mean of one vector per edge along it.

    The edge's vector depends on what the edge is and on how many edges lie before it. A path's numbers are computed
    once a step for each kind of path there is in the data, and looked up for each pair.
    """

    n_summary = 0

    def __init__(self, paths: Paths, n_heads: int, *, n_bond_kinds: int, rngs: nnx.Rngs):
        """One number a head.

        The parameters do not depend on ``paths``: they fit the kinds of paths of other molecules as well, where a
        path's first edges are told apart up to the same number.

        Args:
          paths: what joins the pairs of the molecules that will be seen.
          n_heads: of the attention; n_bond_kinds: edges of paths are below it.
          rngs: random streams of the initial weights.

        Raises:
          ValueError: a path has an edge of another kind.
        """
        n_hop = paths.hops.shape[1]
        if int(paths.hops.max(initial=0)) > n_bond_kinds:
            raise ValueError(f"a path has an edge of kind {paths.hops.max() - 1}, but there are {n_bond_kinds}")
        initializer = nnx.initializers.normal(0.02)
        self.distance = nnx.Param(initializer(rngs.params(), (FARTHEST + 2, n_heads)))
        self.hops = nnx.Param(initializer(rngs.params(), (n_hop, n_bond_kinds, n_heads)))
        self._shares = _shares(paths, n_bond_kinds)

    def __call__(self, rows: RowBatch) -> Relations:
        """Relations of a batch with the integers ``path`` [g, L, L] among its pairs."""
        distance, hops = self.distance[...], self.hops[...]
        shares = self._shares
        vectors = jnp.concatenate([distance, hops.reshape(-1, hops.shape[-1])])[shares.columns]
        table = jnp.asarray(shares.values) @ vectors
        return Relations(table[rows.pairs["path"]].transpose(0, 3, 1, 2), None)


class OpenPathRelations(nnx.Module):
    """`PathRelations` for molecules whose kinds of paths are not known beforehand, with the same parameters.

    Every pair brings its own distance and edges, which costs as much as there are pairs: for prediction.
    """

    n_summary = 0

    def __init__(self, n_hop: int, n_heads: int, *, n_bond_kinds: int, rngs: nnx.Rngs):
        """One number a head; ``n_hop`` edges of a path are told apart, of kinds below ``n_bond_kinds``."""
        initializer = nnx.initializers.normal(0.02)
        self.distance = nnx.Param(initializer(rngs.params(), (FARTHEST + 2, n_heads)))
        self.hops = nnx.Param(initializer(rngs.params(), (n_hop, n_bond_kinds, n_heads)))

    def __call__(self, rows: RowBatch) -> Relations:
        """Relations of a batch with ``distance`` [g, L, L] and ``hops`` [g, L, L, h] of `Paths` among its pairs."""
        distance, hops = (rows.pairs[name].astype(jnp.int32) for name in ("distance", "hops"))
        there = (hops > 0).astype(jnp.float32)
        # One hop after another: all at once would hold pairs × hops × heads.
        along = sum(self.hops[...][hop][hops[..., hop] - 1] * there[..., hop, None] for hop in range(hops.shape[-1]))
        bias = self.distance[...][distance] + along / jnp.maximum(jnp.sum(there, axis=-1), 1.0)[..., None]
        return Relations(bias.transpose(0, 3, 1, 2), None)


@dataclass(frozen=True, eq=False)
class _Shares:
    """With which weights learned vectors enter the sum of a path: values [u, c] for the vectors ``columns`` [c].

    Compared by identity, so that it counts as structure of the module that holds it, not as its state.
    """

    columns: np.ndarray
    values: np.ndarray


def _shares(paths: Paths, n_bond_kinds: int) -> _Shares:
    n_path, n_hop = paths.hops.shape
    there = paths.hops > 0
    column = FARTHEST + 2 + np.arange(n_hop) * n_bond_kinds + paths.hops - 1
    columns = np.union1d(paths.distance, column[there])
    values = np.zeros((n_path, len(columns)), np.float32)
    values[np.arange(n_path), np.searchsorted(columns, paths.distance)] = 1.0
    path, hop = np.nonzero(there)
    values[path, np.searchsorted(columns, column[path, hop])] = 1.0 / there.sum(axis=1)[path]
    return _Shares(columns, values)


class DistanceRelations(nnx.Module):
    """Gaussians of an affine function of the distance that is learned for every two elements, and an MLP on top.

    ``φ_k(i, j) = exp(-((γ d_ij + β - μ_k) / σ_k)² / 2) / (σ_k √(2π))`` with γ and β of the elements of i and j,
    μ and σ learned. An atom's own summary is the sum of its ``φ`` over all atoms j of its molecule.
    """

    def __init__(self, n_elements: int, n_heads: int, n_kernels: int = 32, *, longest: float = 9.0, rngs: nnx.Rngs):
        """One number a head.

        Args:
          n_elements: categories of the first atom field.
          n_heads: of the attention; n_kernels: Gaussians.
          longest: Å up to which their centres are spread at first.
          rngs: random streams of the initial weights.
        """
        self.n_summary = n_kernels
        self.scale = nnx.Param(jnp.ones((n_elements, n_elements)))
        self.shift = nnx.Param(jnp.zeros((n_elements, n_elements)))
        self.centre = nnx.Param(jnp.linspace(0.0, longest, n_kernels))
        self.width = nnx.Param(jnp.full(n_kernels, longest / n_kernels))
        self.first = RowLinear(n_kernels, n_kernels, rngs=rngs)
        self.second = RowLinear(n_kernels, n_heads, rngs=rngs)

    def __call__(self, rows: RowBatch) -> Relations:
        """Relations of a batch with ``fields`` [g, L, …], the element first, and ``coordinates`` [g, L, 3] in Å."""
        element = rows.nodes["fields"][..., 0].astype(jnp.int32)
        g, n = element.shape
        # Entry (j, i) is the pair from atom i to atom j: the sum over j is then a product of [1, n] with [n, n · k].
        pair = element[:, None, :] * self.scale[...].shape[1] + element[:, :, None]
        scale, shift = self.scale[...].reshape(-1)[pair], self.shift[...].reshape(-1)[pair]
        # Kernels are quicker computed again in the backward pass than kept.
        stretched = scale * distances(rows.nodes["coordinates"]) + shift
        kernels = jax.checkpoint(_gaussians)(stretched, self.centre[...], self.width[...])
        hidden = jax.checkpoint(jax.nn.gelu)(self.first(kernels.reshape(g * n * n, -1)))
        bias = self.second(hidden).reshape(g, n, n, -1)
        real = rows.node_mask[:, None, :].astype(kernels.dtype)
        summary = (real @ kernels.reshape(g, n, -1)).reshape(g, n, -1)
        return Relations(bias.transpose(0, 3, 2, 1), summary)


def _gaussians(values: Array, centre: Array, width: Array) -> Array:
    """Values [...] → normal densities [..., k]; a width is taken without its sign and never quite 0."""
    width = jnp.abs(width) + 1e-2
    return jnp.exp(-0.5 * ((values[..., None] - centre) / width) ** 2) / (width * (2 * np.pi) ** 0.5)


def distances(coordinates: Array) -> Array:
    """Between all points of each row, [g, L, 3] → [g, L, L], with gradient 0 where two points are the same."""
    squared = jnp.sum((coordinates[:, :, None] - coordinates[:, None]) ** 2, axis=-1)
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def bond_counts(graphs: ManyGraphs, sizes: Sequence[int] = (5, 6, 2)) -> np.ndarray:
    """How many bonds of each value of each field an atom has: [N, Σ sizes] uint8, field by field.

    Args:
      graphs: molecules whose edges hold ``fields`` [E, fields], each bond as two edges.
      sizes: categories of each bond field.
    """
    receiver = graphs.receivers.astype(np.int64) + np.repeat(graphs.node_start[:-1], graphs.n_edge)
    fields = graphs.edges["fields"]
    n_node = int(graphs.node_start[-1])
    values = [(fields[:, i], value) for i, size in enumerate(sizes) for value in range(size)]
    counts = [np.bincount(receiver[field == value], minlength=n_node) for field, value in values]
    return np.stack(counts, axis=1).astype(np.uint8)


def bond_kinds(fields: np.ndarray, sizes: Sequence[int] = (5, 6, 2)) -> np.ndarray:
    """One number a bond from its fields [E, fields], the first counting fastest: integers [E] below their product."""
    steps = np.cumprod([1, *sizes[:-1]])
    return fields.astype(np.int64) @ steps
