import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.data.atom_fields import BOND_FIELDS
from jaxgkd.graphs.paths import FARTHEST
from jaxgkd.nn.molecule_relations import (
    DistanceRelations,
    OpenPathRelations,
    PathRelations,
    bond_counts,
    bond_kinds,
    distances,
)
from tests.nn.molecule_rows import ATOM_SIZES, BOND_SIZES, N_BOND_KINDS, in_rows, molecules, moved

HEADS = 3


@pytest.fixture(scope="module")
def made():
    graphs, paths = molecules([5, 1, 4, 2])
    return graphs, paths, in_rows(graphs, paths, [0, 1, 2, 3], 6, n_row=5)


def test_bonds_are_counted_atom_by_atom(made):
    graphs, _, _ = made
    counts = bond_counts(graphs, BOND_SIZES)
    expected = np.zeros((12, sum(BOND_SIZES)), int)
    for i in range(4):
        for edge in range(graphs.edge_start[i], graphs.edge_start[i + 1]):
            atom = graphs.node_start[i] + graphs.receivers[edge]
            expected[atom, graphs.edges["fields"][edge, 0]] += 1
            expected[atom, BOND_SIZES[0] + graphs.edges["fields"][edge, 1]] += 1
    assert counts.dtype == np.uint8
    np.testing.assert_array_equal(counts, expected)


def test_every_bond_has_a_number_of_its_own():
    sizes = tuple(BOND_FIELDS.values())
    fields = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1).reshape(-1, 3).astype(np.uint8)
    kinds = bond_kinds(fields)
    assert sorted(kinds) == list(range(60))
    np.testing.assert_array_equal(kinds, fields[:, 0] + 5 * fields[:, 1].astype(int) + 30 * fields[:, 2])


def test_the_bias_of_a_path_is_that_of_its_length_and_the_mean_of_its_bonds(made):
    graphs, paths, batch = made
    relations = PathRelations(paths, HEADS, n_bond_kinds=N_BOND_KINDS, rngs=nnx.Rngs(0))
    bias = relations(batch).bias
    distance, hops = np.asarray(relations.distance[...], np.float64), np.asarray(relations.hops[...], np.float64)
    start = np.concatenate([[0], np.cumsum(graphs.n_node**2)])
    longest = 0
    for row, n in enumerate(graphs.n_node):
        for i, j in np.ndindex(n, n):
            kind = paths.kind[start[row] + i * n + j]
            expected = distance[paths.distance[kind]].copy()
            along = [hop for hop in paths.hops[kind] if hop > 0]
            for step, hop in enumerate(along):
                expected += hops[step, hop - 1] / len(along)
            longest = max(longest, len(along))
            np.testing.assert_allclose(bias[row, :, i, j], expected, atol=1e-6)
    assert longest > 1


def test_pairs_that_bring_their_own_path_have_the_bias_of_its_kind(made):
    _, paths, batch = made
    known = PathRelations(paths, HEADS, n_bond_kinds=N_BOND_KINDS, rngs=nnx.Rngs(0))
    open_ = OpenPathRelations(paths.hops.shape[1], HEADS, n_bond_kinds=N_BOND_KINDS, rngs=nnx.Rngs(1))
    nnx.update(open_, nnx.state(known))
    kind = batch.pairs["path"]
    pairs = {"distance": paths.distance[kind], "hops": paths.hops[kind].astype(np.uint8)}
    found = open_(dataclasses.replace(batch, pairs=pairs)).bias
    np.testing.assert_allclose(found, known(batch).bias, atol=1e-6)


def test_parameters_of_paths_fit_other_molecules(made):
    _, paths, _ = made
    _, others = molecules([6, 3], seed=8)
    shapes = [
        jax.tree.map(jnp.shape, nnx.state(PathRelations(each, HEADS, n_bond_kinds=N_BOND_KINDS, rngs=nnx.Rngs(0))))
        for each in (paths, others)
    ]
    assert len(paths.distance) != len(others.distance)
    assert shapes[0] == shapes[1]
    assert shapes[0]["distance"].get_value() == (FARTHEST + 2, HEADS)


def test_a_bond_of_an_unknown_kind_is_refused(made):
    _, paths, _ = made
    with pytest.raises(ValueError, match="a path has an edge of kind"):
        PathRelations(paths, HEADS, n_bond_kinds=1, rngs=nnx.Rngs(0))


def gaussians(relations, batch):
    """Kernels [g, L, L, k] in float64, pair by pair."""
    scale, shift = (np.asarray(p[...], np.float64) for p in (relations.scale, relations.shift))
    centre, width = (np.asarray(p[...], np.float64) for p in (relations.centre, relations.width))
    element, places = batch.nodes["fields"][..., 0].astype(int), batch.nodes["coordinates"].astype(np.float64)
    g, n = element.shape
    kernels = np.zeros((g, n, n, len(centre)))
    for row, i, j in np.ndindex(g, n, n):
        pair = element[row, i], element[row, j]
        stretched = scale[pair] * np.linalg.norm(places[row, i] - places[row, j]) + shift[pair]
        deviation = np.abs(width) + 1e-2
        kernels[row, i, j] = np.exp(-0.5 * ((stretched - centre) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    return kernels


def test_the_bias_of_a_distance_is_an_mlp_over_gaussians_of_it(made):
    _, _, batch = made
    relations = DistanceRelations(ATOM_SIZES[0], HEADS, 5, rngs=nnx.Rngs(0))
    random = np.random.default_rng(0)
    for parameter in (relations.scale, relations.shift):
        parameter[...] = jnp.asarray(random.normal(1.0, 0.3, parameter[...].shape), jnp.float32)
    got = relations(batch)
    kernels = gaussians(relations, batch)
    hidden = jax.nn.gelu(relations.first(jnp.asarray(kernels, jnp.float32)))
    expected = np.asarray(relations.second(hidden)).transpose(0, 3, 1, 2)
    real = batch.node_mask[:, None, :, None] & batch.node_mask[:, None, None, :]
    np.testing.assert_allclose(np.where(real, got.bias, 0), np.where(real, expected, 0), atol=1e-5)
    summed = (kernels * batch.node_mask[:, None, :, None]).sum(axis=2)
    mask = batch.node_mask[..., None]
    np.testing.assert_allclose(np.where(mask, got.atoms, 0), np.where(mask, summed, 0), atol=1e-5)


def test_distances_do_not_change_when_molecules_are_moved(made):
    _, _, batch = made
    relations = DistanceRelations(ATOM_SIZES[0], HEADS, 5, rngs=nnx.Rngs(0))
    here, there = relations(batch), relations(moved(batch))
    real = batch.node_mask[:, None, :, None] & batch.node_mask[:, None, None, :]
    np.testing.assert_allclose(np.where(real, here.bias, 0), np.where(real, there.bias, 0), atol=1e-4)


def test_atoms_in_the_same_place_have_a_finite_gradient():
    places = jnp.asarray([[[0.0, 0, 0], [0, 0, 0], [3, 4, 0]]])
    np.testing.assert_allclose(distances(places)[0], [[0, 0, 5], [0, 0, 5], [5, 5, 0]], rtol=1e-6)
    gradient = jax.grad(lambda p: jnp.sum(distances(p)))(places)
    np.testing.assert_allclose(gradient[0], [[-1.2, -1.6, 0], [-1.2, -1.6, 0], [2.4, 3.2, 0]], rtol=1e-5)
