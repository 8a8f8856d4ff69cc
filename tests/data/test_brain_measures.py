import dataclasses
from itertools import combinations

import numpy as np
import pytest
import scipy.sparse.csgraph

from jaxgkd.data.brain_graphs import brain_graphs
from jaxgkd.data.brain_measures import MEASURES, graph_measures, network_averages, profiles
from jaxgkd.data.simulated_brains import simulate_brains

BRAINS = simulate_brains(40, 21, n_time=30)


def measure(name):
    return graph_measures(BRAINS)[:, MEASURES.index(name)]


def test_network_averages():
    averages = network_averages(BRAINS)
    networks = np.array(BRAINS.networks)
    for j, (one, other) in enumerate(averages.pairs):
        pairs = [
            (a, b)
            for a, b in combinations(range(21), 2)
            if {networks[a], networks[b]} == {one, other} and (one != other or networks[a] == networks[b])
        ]
        expected = np.mean([BRAINS.connectivity[:, a, b] for a, b in pairs], axis=0)
        np.testing.assert_allclose(averages.values[:, j], expected, atol=1e-6)
    limbic = np.sum(networks == "Limbic")
    assert len(averages.pairs) == (28 if limbic > 1 else 27)
    assert averages.words()[:2] == ("within visual", "between visual and somatomotor")


def test_regions_without_networks():
    brains = dataclasses.replace(BRAINS, networks=("",) * 21)
    averages = network_averages(brains)
    assert averages.words() == ("across all regions",)
    np.testing.assert_allclose(averages.values[:, 0], BRAINS.upper.mean(axis=1), atol=1e-6)
    assert (graph_measures(brains)[:, MEASURES.index("modularity")] == 0).all()
    # A network of one region has no average within.
    single = dataclasses.replace(BRAINS, networks=("a", *("b",) * 20))
    assert network_averages(single).pairs == (("a", "b"), ("b", "b"))


def test_connectivity():
    np.testing.assert_allclose(measure("mean connectivity"), BRAINS.upper.mean(axis=1), atol=1e-6)
    left = np.array(["_LH_" in region for region in BRAINS.regions])
    expected = [matrix[left][:, ~left].mean() for matrix in BRAINS.connectivity]
    np.testing.assert_allclose(measure("connectivity between the sides"), expected, atol=1e-6)


def test_clustering_and_efficiency_and_hubs():
    graphs = brain_graphs(BRAINS.connectivity)
    for i, graph in enumerate(graphs[:5]):
        neighbours = [np.flatnonzero(row) for row in graph]
        shares = [graph[np.ix_(n, n)].sum() / (len(n) * (len(n) - 1)) if len(n) > 1 else 0 for n in neighbours]
        assert measure("clustering")[i] == pytest.approx(np.mean(shares), abs=1e-6)
        lengths = scipy.sparse.csgraph.shortest_path(graph, unweighted=True)
        inverse = np.where(lengths > 0, 1 / np.maximum(lengths, 1), 0)
        assert measure("global efficiency")[i] == pytest.approx(inverse.sum() / (21 * 20), abs=2e-3)
        degrees = graph.sum(axis=1)
        assert measure("hubs")[i] == pytest.approx(degrees.std() / degrees.mean(), rel=1e-5)


def test_modularity():
    graph = brain_graphs(BRAINS.connectivity)[0]
    degrees, total = graph.sum(axis=1), graph.sum()
    expected = sum(
        graph[a, b] / total - degrees[a] * degrees[b] / total**2
        for a in range(21)
        for b in range(21)
        if BRAINS.networks[a] == BRAINS.networks[b]
    )
    assert measure("modularity")[0] == pytest.approx(expected, abs=1e-6)


def test_one_subject_does_not_depend_on_others():
    fields = ("connectivity", "labels", "sites")
    alone = dataclasses.replace(
        BRAINS, subjects=BRAINS.subjects[7:8], **{name: getattr(BRAINS, name)[7:8] for name in fields}
    )
    one, all_of_them = profiles(alone), profiles(BRAINS)
    np.testing.assert_array_equal(one.measures[0], all_of_them.measures[7])
    np.testing.assert_array_equal(one.averages.values[0], all_of_them.averages.values[7])
