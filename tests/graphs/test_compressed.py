import json
import re

import numpy as np
import pytest

from jaxgkd.errors import DataError
from jaxgkd.graphs.compressed import EDGE, NODE, compress, compress_homogeneous, open_compressed, write_compressed
from tests.graphs.sampled_graphs import CITES, HAS, N_NODE, WRITES, random_edges, typed_graph


def pieces(edges, size):
    """Functions that give the edges of every relation some at a time."""
    return {
        relation: lambda s=s, r=r: ((s[i : i + size], r[i : i + size]) for i in range(0, len(s), size))
        for relation, (s, r) in edges.items()
    }


def test_rows_hold_the_edges_that_end_in_a_node():
    edges = random_edges()
    for relation, neighbours in compress(N_NODE, edges).relations.items():
        senders, receivers = edges[relation]
        assert neighbours.n_receivers == N_NODE[relation[2]] and neighbours.n_senders == N_NODE[relation[0]]
        np.testing.assert_array_equal(np.sort(neighbours.edge_ids), np.arange(len(senders)))
        for node in range(neighbours.n_receivers):
            here = slice(*neighbours.indptr[node : node + 2])
            ids = neighbours.edge_ids[here]
            np.testing.assert_array_equal(receivers[ids], node)
            np.testing.assert_array_equal(senders[ids], neighbours.indices[here])
            assert np.all(np.diff(neighbours.indices[here]) >= 0)


@pytest.mark.parametrize(("piece", "at_a_time"), [(7, 10), (1000, 1), (50, 10**6)])
def test_a_graph_on_disk_is_the_one_in_memory(tmp_path, piece, at_a_time):
    """Whatever the size of pieces and ranges; one edge at a time is less than some nodes have."""
    edges = random_edges()
    write_compressed(tmp_path / "graph", N_NODE, pieces(edges, piece), edges_at_a_time=at_a_time)
    opened, wanted = open_compressed(tmp_path / "graph"), compress(N_NODE, edges)
    assert opened.n_node == wanted.n_node and list(opened.relations) == list(wanted.relations)
    for relation, neighbours in wanted.relations.items():
        got = opened.relations[relation]
        assert got.n_senders == neighbours.n_senders
        for name in ("indptr", "indices", "edge_ids"):
            assert getattr(got, name).dtype == getattr(neighbours, name).dtype
            np.testing.assert_array_equal(getattr(got, name), getattr(neighbours, name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph"]


def test_edges_are_found_by_their_ends_and_by_their_ids():
    edges = random_edges()
    for relation, neighbours in typed_graph().relations.items():
        senders, receivers = edges[relation]
        asked = np.arange(0, len(senders), 3)
        found = neighbours.positions_of_pairs(senders[asked], receivers[asked])
        pairs = {(senders[i], receivers[i]) for i in asked}
        wanted = [i for i in range(len(senders)) if (senders[i], receivers[i]) in pairs]
        assert sorted(neighbours.edge_ids[found]) == wanted
        np.testing.assert_array_equal(
            neighbours.edge_ids[neighbours.positions_of_ids(asked[::-1], at_a_time=9)], asked[::-1]
        )
    nothing = np.zeros(0, int)
    assert not len(neighbours.positions_of_pairs(nothing, nothing)) and not len(neighbours.positions_of_ids(nothing))
    # The last paper is cited by none.
    assert not len(typed_graph().relations[CITES].positions_of_pairs(np.arange(40), np.full(40, 39)))


def test_a_homogeneous_graph_is_one_type_with_one_relation():
    graph = compress_homogeneous(np.array([1, 0, 2]), np.array([0, 2, 0]), 3)
    assert graph.n_node == {NODE: 3}
    np.testing.assert_array_equal(graph.relations[EDGE].indptr, [0, 2, 2, 3])
    np.testing.assert_array_equal(graph.relations[EDGE].indices, [1, 2, 0])
    with pytest.raises(DataError, match="edge ids hold 3"):
        graph.relations[EDGE].positions_of_ids(np.array([3]))
    with pytest.raises(DataError, match="senders of the pairs hold -1"):
        graph.relations[EDGE].positions_of_pairs(np.array([-1]), np.array([0]))


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ({WRITES: ([25], [0])}, "senders of .*writes.* hold 25..25, outside the 25"),
        ({WRITES: ([0], [-1])}, "receivers of .*writes.* hold -1"),
        ({("author", "in", "town"): ([0], [0])}, "names the node type 'town'"),
        ({WRITES: ([0, 1], [0])}, "not two"),
        ({WRITES: ([0.0], [0.0])}, "float64; give integers"),
    ],
)
def test_bad_edges_leave_nothing_behind(tmp_path, edges, message):
    edges = {relation: tuple(map(np.array, ends)) for relation, ends in edges.items()}
    with pytest.raises(DataError, match=message):
        compress(N_NODE, edges)
    with pytest.raises(DataError, match=message):
        write_compressed(tmp_path / "graph", N_NODE, pieces(edges, 5))
    assert not list(tmp_path.iterdir())


def test_edges_that_change_between_passes_are_refused(tmp_path):
    counts = iter([5, 3])

    def shrinking():
        n = next(counts)
        yield np.zeros(n, int), np.zeros(n, int)

    with pytest.raises(DataError, match="differ from pass to pass"):
        write_compressed(tmp_path / "graph", N_NODE, {HAS: shrinking})


def test_damaged_folders_are_refused(tmp_path):
    folder = tmp_path / "graph"
    with pytest.raises(DataError, match="is missing"):
        open_compressed(folder)
    write_compressed(folder, N_NODE, pieces(random_edges(), 100))
    with pytest.raises(DataError, match="exists already"):
        write_compressed(folder, N_NODE, {})
    described = json.loads((folder / "graph.json").read_text())
    for change, message in (
        ({"format": 7}, "another version"),
        ({"n_node": N_NODE | {"paper": 41}}, "do not belong together"),
        ({"n_node": {"paper": 40}}, "'author', which is not there"),
        ({"relations": [["author"]]}, "not a compressed graph"),
    ):
        (folder / "graph.json").write_text(json.dumps(described | change))
        with pytest.raises(DataError, match=re.escape(message)):
            open_compressed(folder)
    (folder / "graph.json").write_text(json.dumps(described))
    np.save(folder / "0.indices.npy", np.zeros(3, np.int32))
    with pytest.raises(DataError, match="do not belong together"):
        open_compressed(folder)
    (folder / "0.indices.npy").write_bytes(b"nothing")
    with pytest.raises(DataError):
        open_compressed(folder)
