"""What connectivity looks like from further away: averages within and between networks, and measures of graphs."""

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from jaxgkd.data.brain_graphs import TOP_FRACTION, brain_graphs
from jaxgkd.data.brain_words import network_words
from jaxgkd.data.brains import Brains

#: Names of the columns of `graph_measures`.
MEASURES = (
    "mean connectivity",
    "connectivity between the sides",
    "clustering",
    "global efficiency",
    "hubs",
    "modularity",
)
# Paths in a brain's graph have hardly ever more steps.
_LONGEST_PATH = 8


@dataclass(frozen=True, eq=False)
class NetworkAverages:
    """Mean connectivity of pairs of networks.

    Fields:
      pairs: [q] two names each, the same twice for a network with itself; "" where an atlas names no networks.
      values: [n, q] float32.
    """

    pairs: tuple[tuple[str, str], ...]
    values: np.ndarray

    def words(self) -> tuple[str, ...]:
        """[q] such as "within visual" and "between visual and limbic"."""
        return tuple(map(_pair_words, self.pairs))


def network_averages(brains: Brains) -> NetworkAverages:
    """Mean of the connectivity of every pair of networks, the diagonal left out; networks of one region have no own."""
    names = tuple(dict.fromkeys(brains.networks))
    member = np.array([[network == name for network in brains.networks] for name in names], np.float32)
    r = brains.n_regions
    off = brains.connectivity.copy()
    off[:, np.arange(r), np.arange(r)] = 0
    sums = member @ off @ member.T
    sizes = member.sum(axis=1)
    counts = np.outer(sizes, sizes) - np.diag(sizes)
    chosen = [(a, b) for a, b in combinations_with_replacement(range(len(names)), 2) if counts[a, b] > 0]
    rows, columns = (np.array(part, int) for part in zip(*chosen, strict=True))
    values = sums[:, rows, columns] / counts[rows, columns]
    return NetworkAverages(tuple((names[a], names[b]) for a, b in chosen), values.astype(np.float32))


def graph_measures(brains: Brains, fraction: float = TOP_FRACTION) -> np.ndarray:
    """[n, 6] float32 measures of every subject, in the order of `MEASURES`.

    Mean connectivity is over all pairs of regions, or over pairs of one region each of the left and the right side
    where names tell the sides. The others are of the binary graph of the strongest ``fraction`` of connections: the
    share of triangles among the pairs of neighbours of a region, averaged; the mean of 1 / length of the shortest
    path, 0 where there is none; the standard deviation of degrees over their mean; and Newman's modularity for the
    atlas's networks, 0 where it names none.
    """
    sides = np.array([_side(region) for region in brains.regions])
    across = np.outer(sides == "left", sides == "right")
    if not across.any():
        across = np.triu(np.ones(across.shape, bool), 1)
    same = np.array([[a == b and a != "" for b in brains.networks] for a in brains.networks], np.float32)
    graphs = brain_graphs(brains.connectivity, "top", fraction)
    upper = brains.upper
    # One subject at a time: graphs fit into the cache, and nothing can depend on how many others there are.
    rows = [
        (upper[i].mean(), matrix[across].mean(), *_of_graph(graph, same))
        for i, (matrix, graph) in enumerate(zip(brains.connectivity, graphs, strict=True))
    ]
    return np.array(rows, np.float32).reshape(len(graphs), len(MEASURES))


def _of_graph(graph: np.ndarray, same: np.ndarray) -> tuple[float, float, float, float]:
    """Clustering, efficiency, hubs and modularity of a binary graph [r, r] with ``same`` [r, r] for equal networks."""
    r = len(graph)
    degrees = graph.sum(axis=1)
    total = degrees.sum()
    paths = graph @ graph
    possible = degrees * (degrees - 1)
    triangles = (paths * graph).sum(axis=1)
    clustering = np.divide(triangles, possible, out=np.zeros_like(triangles), where=possible > 0).mean()
    efficiency = _inverse_distances(graph, paths).sum() / (r * (r - 1))
    modularity = (graph * same).sum() / total - degrees @ same @ degrees / total**2
    return clustering, efficiency, degrees.std() / degrees.mean(), modularity


def _inverse_distances(graph: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """[r, r] 1 / length of the shortest path between two regions, 0 where there is none and on the diagonal."""
    reached = graph > 0
    np.fill_diagonal(reached, True)
    found = graph.copy()
    for length in range(2, _LONGEST_PATH + 1):
        new = (paths > 0) & ~reached
        if not new.any():
            break
        found[new] = 1 / length
        reached |= new
        paths = new.astype(np.float32) @ graph
    return found


@dataclass(frozen=True, eq=False)
class Profiles:
    """What texts say of every subject beside single connections; a row depends on its own subject alone.

    Fields:
      averages: of network pairs [n, q].
      measures: [n, 6] in the order of `MEASURES`.
    """

    averages: NetworkAverages
    measures: np.ndarray


def profiles(brains: Brains) -> Profiles:
    """Averages and measures of all subjects, to be computed once for all folds."""
    return Profiles(network_averages(brains), graph_measures(brains))


def _side(region: str) -> str:
    marks = region.split(" ")[0].split("_")
    return "left" if {"LH", "L"} & set(marks) else "right" if {"RH", "R"} & set(marks) else ""


def _pair_words(pair: tuple[str, str]) -> str:
    one, other = (network_words(name) if name else "other regions" for name in pair)
    if pair == ("", ""):
        return "across all regions"
    return f"within {one}" if one == other else f"between {one} and {other}"
