from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.training.candidates import (
    Candidates,
    given_candidates,
    load_candidates,
    save_candidates,
    uniform_candidates,
)

RANDOM = np.random.default_rng(0)
SOURCES, TARGETS = RANDOM.integers(0, 12, 60), RANDOM.integers(0, 30, 60)
KNOWN = RANDOM.integers(0, 12, 80), RANDOM.integers(0, 30, 80)
ALL = set(zip(np.r_[SOURCES, KNOWN[0]], np.r_[TARGETS, KNOWN[1]], strict=True))
TYPES = np.arange(30) % 2


def lists(candidates):
    return [row for row in np.split(candidates.nodes, candidates.start[1:-1])]


@pytest.mark.parametrize(("n_candidate", "node_types"), [(1, None), (7, None), (13, None), (1, TYPES), (4, TYPES)])
def test_uniform_candidates_are_distinct_and_no_links(n_candidate, node_types):
    drawn = uniform_candidates(SOURCES, TARGETS, n_candidate, 3, n_node=30, known=KNOWN, node_types=node_types)
    assert len(drawn) == 60 and drawn.ranked.all()
    for source, target, row in zip(SOURCES, TARGETS, lists(drawn), strict=True):
        assert len(row) == len(set(row)) == n_candidate
        assert not {(source, node) for node in row} & ALL
        if node_types is not None:
            assert np.all(node_types[row] == node_types[target])
    again = uniform_candidates(SOURCES, TARGETS, n_candidate, 3, n_node=30, known=KNOWN, node_types=node_types)
    other = uniform_candidates(SOURCES, TARGETS, n_candidate, 4, n_node=30, known=KNOWN, node_types=node_types)
    assert drawn.sha256 == again.sha256 != other.sha256


@pytest.mark.parametrize("k", [2, 4])
def test_every_subset_is_drawn_alike(k):
    """Six nodes may be drawn, of eight; with 4 of 6 many rows are filled one by one."""
    n = 6000
    drawn = uniform_candidates(
        np.zeros(n, int), np.full(n, 3), k, 0, n_node=8, known=(np.array([0, 1]), np.array([5, 0]))
    )
    counts = {subset: 0 for subset in combinations([0, 1, 2, 4, 6, 7], k)}
    for row in lists(drawn):
        counts[tuple(row.tolist())] += 1
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_all_nodes_that_are_left_and_no_more():
    arguments = np.zeros(1, int), np.array([2])
    np.testing.assert_array_equal(uniform_candidates(*arguments, 4, 0, n_node=5).nodes, [0, 1, 3, 4])
    with pytest.raises(ConfigError, match=r"link 0 .* has 4 nodes that it does not lead to; draw fewer than 5"):
        uniform_candidates(*arguments, 5, 0, n_node=5)
    for n_candidate, seed in ((0, 0), (1, -1)):
        with pytest.raises(ConfigError, match="cannot be drawn"):
            uniform_candidates(*arguments, n_candidate, seed, n_node=5)
    for sources, targets in (([0], [5]), ([-1], [0]), ([0, 1], [0])):
        with pytest.raises(DataError):
            uniform_candidates(np.array(sources), np.array(targets), 1, 0, n_node=5)


def test_given_candidates_are_what_else_is_named_for_the_source():
    given = RANDOM.integers(0, 12, 150), RANDOM.integers(0, 30, 150)
    given = tuple(np.r_[one, two] for one, two in zip(given, (SOURCES, TARGETS), strict=True))
    for known in (None, KNOWN):
        drawn = given_candidates(SOURCES, TARGETS, given, n_node=30, known=known)
        links = ALL if known else set(zip(SOURCES, TARGETS, strict=True))
        for source, row in zip(SOURCES, lists(drawn), strict=True):
            wanted = sorted({t for s, t in zip(*given, strict=True) if s == source and (s, t) not in links})
            assert row.tolist() == wanted
    lonely = given_candidates(np.array([3, 0]), np.array([1, 1]), (np.array([3, 0, 0]), np.array([1, 1, 2])), n_node=4)
    np.testing.assert_array_equal(lonely.ranked, [False, True])


def test_rows_are_the_lists_with_padding():
    candidates = Candidates(np.zeros(3, int), np.ones(3, int), np.array([4, 5, 6]), np.array([0, 2, 2, 3]))
    nodes, where = candidates.padded()
    np.testing.assert_array_equal(nodes, [[4, 5], [0, 0], [6, 0]])
    np.testing.assert_array_equal(where, [[True, True], [False, False], [True, False]])


def test_what_is_kept_is_what_was_drawn(tmp_path):
    drawn = uniform_candidates(SOURCES, TARGETS, 5, 0, n_node=30)
    save_candidates(drawn, tmp_path / "candidates.npz")
    loaded = load_candidates(tmp_path / "candidates.npz")
    assert loaded.sha256 == drawn.sha256
    for name in ("sources", "targets", "nodes", "start"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(drawn, name))
        assert getattr(loaded, name).dtype == getattr(drawn, name).dtype

    changed = Candidates(drawn.sources, drawn.targets, drawn.nodes[::-1], drawn.start)
    np.savez(tmp_path / "changed.npz", sha256=drawn.sha256, **changed._arrays())
    (tmp_path / "broken.npz").write_bytes((tmp_path / "candidates.npz").read_bytes()[:300])
    np.savez(tmp_path / "other.npz", sources=drawn.sources)
    for name, message in (
        ("changed", "does not match its hash"),
        ("broken", "no file of candidates"),
        ("other", "no file of candidates"),
        ("missing", "cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            load_candidates(tmp_path / f"{name}.npz")
