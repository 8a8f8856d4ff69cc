"""The fixed candidates that true links are ranked among, drawn once and kept beside the run.

Every scorer is to see the same lists, so they are drawn from a seed before anything is trained, and have a hash.
"""

import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.whole_file import write_whole

# Rounds in which candidates that may not be are drawn again; rows that are still short are then filled one by one.
_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class Candidates:
    """A list of candidates for every link.

    Attributes:
      sources: [n] int32 node each link starts from; targets: [n] int32 node it leads to.
      nodes: [m] int32 candidates instead of the target; those of link i are ``nodes[start[i]:start[i + 1]]``.
      start: [n + 1] int64.
    """

    sources: np.ndarray
    targets: np.ndarray
    nodes: np.ndarray
    start: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def ranked(self) -> np.ndarray:
        """[n] bool, True for links that have a candidate: the others rank first whatever the scorer does."""
        return np.diff(self.start) > 0

    @cached_property
    def sha256(self) -> str:
        """Hash of links and lists."""
        digest = hashlib.sha256()
        for name, array in self._arrays().items():
            digest.update(f"{name} {len(array)} ".encode() + array.astype("<i8").tobytes())
        return digest.hexdigest()

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"sources": self.sources, "targets": self.targets, "nodes": self.nodes, "start": self.start}

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        """The lists as rows: nodes [n, k] int32, 0 for padding, and [n, k] True where a candidate is."""
        size = np.diff(self.start)
        where = np.arange(int(size.max(initial=0))) < size[:, None]
        nodes = np.zeros(where.shape, np.int32)
        nodes[where] = self.nodes
        return nodes, where


def uniform_candidates(
    sources: np.ndarray,
    targets: np.ndarray,
    n_candidate: int,
    seed: int,
    *,
    n_node: int,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    node_types: np.ndarray | None = None,
) -> Candidates:
    """For every link some nodes that it does not lead to: distinct, each such subset alike.

    Args:
      sources, targets: [n] the links.
      n_candidate: k, candidates of a link.
      seed: what they are drawn from; the same on every machine and for every NumPy version.
      n_node: nodes that links may lead to, counted from 0; of a relation, those of its target type.
      known: (sources [e], targets [e]) of all true links, training, validation and test alike: none of them is a
        candidate. A link's own target never is.
      node_types: [n_node] integers; where given, candidates are of the target's type.

    Raises:
      ConfigError: ``n_candidate`` is below 1, the seed below 0, or a link has fewer nodes to draw from.
      DataError: a link leads to a node that is not there.
    """
    sources, targets = _links(sources, targets, n_node)
    if n_candidate < 1 or seed < 0:
        what = f"{n_candidate} candidates with seed {seed} cannot be drawn"
        raise ConfigError(what, field="n_candidate", mend="use at least 1 and a seed from 0 on")
    types = np.zeros(n_node, np.int64) if node_types is None else np.asarray(node_types)
    # Nodes by type: those of a link's type are one range, and candidates are places in it.
    by_type = np.argsort(types, kind="stable")
    first = np.searchsorted(types[by_type], types[targets], side="left")
    pool = np.searchsorted(types[by_type], types[targets], side="right") - first
    taken = _taken_keys(sources, targets, n_node, known)
    random = np.random.PCG64(seed)
    drawn = np.full((len(sources), n_candidate), -1, np.int64)
    fitting = np.zeros(drawn.shape, bool)
    for _ in range(_ROUNDS):
        rows, columns = np.nonzero(~fitting)
        if not len(rows):
            break
        places = (_uniform(random, len(rows)) * pool[rows]).astype(np.int64)
        drawn[rows, columns] = by_type[first[rows] + places]
        unfinished = np.unique(rows)
        fitting[unfinished] = _new_and_free(drawn[unfinished], fitting[unfinished], sources[unfinished], taken, n_node)
    for row in np.flatnonzero(~fitting.all(axis=1)):
        among = by_type[first[row] : first[row] + pool[row]]
        left = among[~_contains(taken, sources[row] * n_node + among) & ~np.isin(among, drawn[row][fitting[row]])]
        missing = int((~fitting[row]).sum())
        if len(left) < missing:
            what = (
                f"link {row} (counted from 0) has {len(left) + int(fitting[row].sum())} nodes that it does not lead to"
            )
            raise ConfigError(what, field="n_candidate", mend=f"draw fewer than {n_candidate} candidates")
        drawn[row, ~fitting[row]] = left[np.argsort(random.random_raw(len(left)), kind="stable")[:missing]]
    start = np.arange(len(sources) + 1, dtype=np.int64) * n_candidate
    return _candidates(sources, targets, np.sort(drawn, axis=1).ravel(), start)


def given_candidates(
    sources: np.ndarray,
    targets: np.ndarray,
    given: tuple[np.ndarray, np.ndarray],
    *,
    n_node: int,
    known: tuple[np.ndarray, np.ndarray] | None = None,
) -> Candidates:
    """For every link the other nodes that a list names for its source, such as the other hyperlinks of a page.

    Args:
      sources, targets: [n] the links.
      given: (sources [e], targets [e]): what is named for which source.
      n_node: nodes that links may lead to.
      known: (sources [e], targets [e]) of all true links: none of them is a candidate.

    Returns:
      lists of different length, each ascending and without repetition; `Candidates.ranked` says which are not empty.

    Raises:
      DataError: a link or a given pair leads to a node that is not there.
    """
    sources, targets = _links(sources, targets, n_node)
    named = np.unique(_keys(*_links(*given, n_node), n_node))
    taken = _taken_keys(sources, targets, n_node, known)
    low = np.searchsorted(named, sources * n_node)
    size = np.searchsorted(named, (sources + 1) * n_node) - low
    owner = np.repeat(np.arange(len(sources)), size)
    keys = named[np.repeat(low - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))]
    free = ~_contains(taken, keys)
    start = np.concatenate([[0], np.cumsum(np.bincount(owner[free], minlength=len(sources)))]).astype(np.int64)
    return _candidates(sources, targets, keys[free] % n_node, start)


def save_candidates(candidates: Candidates, path: str | PathLike[str]) -> None:
    """Write links, lists and hash as a NumPy archive."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"sha256": np.array(candidates.sha256), **candidates._arrays()}
    np.savez_compressed(buffer, **arrays)
    write_whole(Path(path), buffer.getvalue())


def load_candidates(path: str | PathLike[str]) -> Candidates:
    """Read what `save_candidates` wrote.

    Raises:
      DataError: it is missing or damaged, or does not match its hash.
    """
    mend = "draw the candidates again"
    try:
        content = io.BytesIO(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=path, mend="check the path") from error
    try:
        with np.load(content, allow_pickle=False) as file:
            candidates = Candidates(file["sources"], file["targets"], file["nodes"], file["start"])
            expected = str(file["sha256"])
            found = candidates.sha256
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError("is no file of candidates", file=path, mend=mend) from error
    if found != expected:
        raise DataError("does not match its hash, it has been changed or damaged", file=path, mend=mend)
    return candidates


def _candidates(sources: np.ndarray, targets: np.ndarray, nodes: np.ndarray, start: np.ndarray) -> Candidates:
    return Candidates(sources.astype(np.int32), targets.astype(np.int32), nodes.astype(np.int32), start)


def _links(sources: np.ndarray, targets: np.ndarray, n_node: int) -> tuple[np.ndarray, np.ndarray]:
    sources, targets = np.asarray(sources, np.int64), np.asarray(targets, np.int64)
    if sources.shape != targets.shape or sources.ndim != 1:
        what = f"sources and targets are not two [n] arrays, but {sources.shape} and {targets.shape}"
        raise DataError(what, mend="give both ends of every link")
    if len(targets) and (targets.min() < 0 or targets.max() >= n_node or sources.min() < 0):
        what = f"links from {sources.min()} on lead to {targets.min()}..{targets.max()}, outside the {n_node} nodes"
        raise DataError(what, mend="count nodes from 0 within their type")
    return sources, targets


def _keys(sources: np.ndarray, targets: np.ndarray, n_node: int) -> np.ndarray:
    return sources * n_node + targets


def _taken_keys(
    sources: np.ndarray, targets: np.ndarray, n_node: int, known: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """Ascending keys of the pairs that may not be candidates."""
    keys = [_keys(sources, targets, n_node)]
    if known is not None:
        keys.append(_keys(*_links(*known, n_node), n_node))
    return np.unique(np.concatenate(keys))


def _contains(ascending: np.ndarray, keys: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return ascending[place] == keys if len(ascending) else np.zeros(keys.shape, bool)


def _uniform(random: np.random.PCG64, n: int) -> np.ndarray:
    """[n] in [0, 1), from raw bits: NumPy promises to keep those."""
    return (random.random_raw(n) >> np.uint64(11)) * 2.0**-53


def _new_and_free(
    drawn: np.ndarray, fitting: np.ndarray, sources: np.ndarray, taken: np.ndarray, n_node: int
) -> np.ndarray:
    """Which candidates stay: those that did before, and the first of each node that is not taken."""
    # Sorted by node, those that stayed before others, equal nodes lie side by side.
    order = np.lexsort((~fitting, drawn), axis=1)
    ascending = np.take_along_axis(drawn, order, axis=1)
    first = np.ones(drawn.shape, bool)
    first[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    new = np.empty_like(first)
    np.put_along_axis(new, order, first, axis=1)
    return new & ~_contains(taken, sources[:, None] * n_node + drawn)
