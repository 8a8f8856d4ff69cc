"""Large graphs as compressed sparse rows, in memory or memory-mapped: the neighbours of a node lie side by side.

A graph has node types, each with a number of nodes, and relations ``(source type, name, target type)``; a homogeneous
graph is one type with one relation. Of every relation there are three plain arrays, sorted by the node an edge ends in:

    graph.json          number of nodes of every type, and the relations in their order
    0.indptr.npy        [n_receivers + 1] int64; edges ``indptr[i]:indptr[i + 1]`` end in node i
    0.indices.npy       [e] int32 node each edge starts from, ascending within a row
    0.edge_ids.npy      [e] int32 position each edge had where it came from

`write_compressed` builds the folder in bounded memory: one pass over the edges counts them by the node they end in, and
one more pass for each range of such nodes sorts the edges of that range and appends them.
"""

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.errors import DataError, shown
from jaxgkd.graphs.hetero import EdgeType

Edges = tuple[np.ndarray, np.ndarray]
"""senders [e] and receivers [e], counted within their node types."""

#: The node type and the relation of a homogeneous graph.
NODE = "node"
EDGE: EdgeType = (NODE, "edge", NODE)

_FORMAT = 1
_ARRAYS = {"indptr": np.int64, "indices": np.int32, "edge_ids": np.int32}
_MOST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The edges of one relation by the node they end in.

    Attributes:
      indptr: [n_receivers + 1]; indices: [e]; edge_ids: [e]: see the head of this file.
      n_senders: number of nodes edges may start from.
    """

    indptr: np.ndarray
    indices: np.ndarray
    edge_ids: np.ndarray
    n_senders: int

    @property
    def n_receivers(self) -> int:
        """Number of nodes edges may end in."""
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        """Number of edges e."""
        return len(self.indices)

    def positions_of_pairs(self, senders: np.ndarray, receivers: np.ndarray) -> np.ndarray:
        """Where the edges between some pairs of nodes are, found by binary search; pairs without an edge have none.

        Args:
          senders, receivers: [m] nodes.

        Returns:
          [m'] int64 positions in ``indices``, ascending and unique; all of several edges between one pair.
        """
        senders, receivers = np.asarray(senders, np.int64), np.asarray(receivers, np.int64)
        for name, index, size in (("senders", senders, self.n_senders), ("receivers", receivers, self.n_receivers)):
            _check_range(index, size, f"{name} of the pairs")
        start, end = self.indptr[receivers], self.indptr[receivers + 1]
        first = _first_at_least(self.indices, start, end, senders)
        size = _first_at_least(self.indices, start, end, senders + 1) - first
        return np.unique(np.repeat(first - (np.cumsum(size) - size), size) + np.arange(int(size.sum())))

    def positions_of_ids(self, edge_ids: np.ndarray, *, at_a_time: int = 2**22) -> np.ndarray:
        """Where the edges with some ids are, found in one pass over the file.

        Args:
          edge_ids: [m] positions the edges had where they came from.
          at_a_time: edges that are looked at together.

        Returns:
          [m] int64 positions in ``indices``.

        Raises:
          DataError: there is no edge with such an id.
        """
        edge_ids = np.asarray(edge_ids, np.int64)
        _check_range(edge_ids, self.n_edges, "edge ids")
        wanted, place = np.unique(edge_ids, return_inverse=True)
        positions = np.zeros(len(wanted), np.int64)
        if not len(wanted):
            return positions
        for start in range(0, self.n_edges, at_a_time):
            ids = np.asarray(self.edge_ids[start : start + at_a_time])
            slot = np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)
            here = wanted[slot] == ids
            positions[slot[here]] = start + np.flatnonzero(here)
        return positions[place]


@dataclass(frozen=True, eq=False)
class CompressedGraph:
    """A graph of typed nodes and relations.

    Attributes:
      n_node: number of nodes of every type.
      relations: the edges of every relation.
    """

    n_node: Mapping[str, int]
    relations: Mapping[EdgeType, Neighbours]


def compress(n_node: Mapping[str, int], edges: Mapping[EdgeType, Edges]) -> CompressedGraph:
    """A graph in memory; see `write_compressed` for those that have no room there.

    Args:
      n_node: number of nodes of every type.
      edges: senders [e] and receivers [e] of every relation.

    Raises:
      DataError: a relation names a type that is not there, or an edge a node.
    """
    relations = {}
    for relation, (senders, receivers) in edges.items():
        n_senders, n_receivers = _sizes(n_node, relation)
        chunk = _checked((senders, receivers), n_senders, n_receivers, relation)
        indptr = np.zeros(n_receivers + 1, np.int64)
        np.cumsum(np.bincount(chunk[1], minlength=n_receivers), out=indptr[1:])
        ids = np.arange(len(chunk[0]), dtype=np.int32)
        order = _order(*chunk, n_senders)
        relations[relation] = Neighbours(indptr, chunk[0][order].astype(np.int32), ids[order], n_senders)
    return CompressedGraph(dict(n_node), relations)


def compress_homogeneous(senders: np.ndarray, receivers: np.ndarray, n_node: int) -> CompressedGraph:
    """A graph of one type, ``"node"``, and one relation, `EDGE`, in memory.

    Args:
      senders, receivers: [e] node rows.
      n_node: number of nodes.
    """
    return compress({NODE: n_node}, {EDGE: (senders, receivers)})


def write_compressed(
    folder: str | PathLike[str],
    n_node: Mapping[str, int],
    edges: Mapping[EdgeType, Callable[[], Iterable[Edges]]],
    *,
    edges_at_a_time: int = 2**24,
) -> None:
    """Build a graph on disk; the folder appears whole or not at all.

    Memory: three numbers for each node of a target type and ten for each of ``edges_at_a_time`` edges. The edges are
    read ``2 + e / edges_at_a_time`` times at most.

    Args:
      folder: what is written; must not exist.
      n_node: number of nodes of every type.
      edges: for every relation a function that gives its edges in pieces, the same ones whenever it is called.
      edges_at_a_time: edges that are sorted together.

    Raises:
      DataError: the folder exists, a relation names a type that is not there, an edge a node, or edges were given that
        differ from pass to pass.
    """
    folder = Path(folder)
    if folder.exists():
        raise DataError("the folder exists already", file=folder, mend="remove it or choose another one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for number, (relation, pieces) in enumerate(edges.items()):
            _write_relation(temporary, number, relation, pieces, _sizes(n_node, relation), edges_at_a_time)
        content = {"format": _FORMAT, "n_node": dict(n_node), "relations": list(edges)}
        (temporary / "graph.json").write_text(json.dumps(content), encoding="utf-8")
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def open_compressed(folder: str | PathLike[str]) -> CompressedGraph:
    """A graph that `write_compressed` wrote, its arrays memory-mapped.

    Raises:
      DataError: it is missing or damaged.
    """
    folder = Path(folder)
    mend = "build the graph again"
    names = ["graph.json", *(path.name for path in folder.glob("*.npy"))]
    if odd := [name for name in names if not (folder / name).is_file()]:
        what = "is not a file" if (folder / odd[0]).exists() else "is missing"
        raise DataError(what, file=folder / odd[0], mend=mend)
    try:
        content = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
        n_node = {str(name): int(size) for name, size in content["n_node"].items()}
        names = [(str(source), str(name), str(target)) for source, name, target in content["relations"]]
        arrays = [{name: _mapped(folder / f"{number}.{name}.npy") for name in _ARRAYS} for number in range(len(names))]
        known = content["format"] == _FORMAT
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=folder, mend="check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OverflowError, RecursionError) as error:
        raise DataError("is not a compressed graph", file=folder, mend=mend) from error
    if not known:
        raise DataError("was written by another version", file=folder, field="format", mend=mend)
    relations = {}
    for relation, parts in zip(names, arrays, strict=True):
        n_senders, n_receivers = _sizes(n_node, relation)
        right = all(parts[name].dtype == dtype and parts[name].ndim == 1 for name, dtype in _ARRAYS.items())
        right = right and len(parts["indptr"]) == n_receivers + 1
        if not right or not len(parts["indices"]) == len(parts["edge_ids"]) == parts["indptr"][-1]:
            raise DataError(f"arrays of {shown(str(relation))} do not belong together", file=folder, mend=mend)
        # Plain views of the mapped memory: indexing a memmap costs more than what it reads.
        relations[relation] = Neighbours(
            **{name: np.asarray(part) for name, part in parts.items()}, n_senders=n_senders
        )
    return CompressedGraph(n_node, relations)


def _mapped(path: Path) -> np.ndarray:
    """An array on disk. Raises ValueError for whatever is no array."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # NumPy answers damaged headers with nearly every type of exception
        raise ValueError(f"{path.name} is no array") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path.name} is no array")
    return array


def _sizes(n_node: Mapping[str, int], relation: EdgeType) -> tuple[int, int]:
    for node_type in (relation[0], relation[2]):
        if node_type not in n_node:
            what = f"the relation {shown(str(relation))} names the node type '{shown(node_type)}', which is not there"
            raise DataError(what, mend=f"use one of {shown(', '.join(n_node))}")
    return n_node[relation[0]], n_node[relation[2]]


def _check_range(index: np.ndarray, size: int, what: str) -> None:
    if len(index) and (index.min() < 0 or index.max() >= size):
        what = f"{what} hold {index.min()}..{index.max()}, outside the {size} there are"
        raise DataError(what, mend="count from 0 within the type")


def _checked(chunk: Edges, n_senders: int, n_receivers: int, relation: EdgeType) -> Edges:
    senders, receivers = (np.asarray(index) for index in chunk)
    if senders.shape != receivers.shape or senders.ndim != 1:
        what = f"senders and receivers of {relation} are not two [e] arrays, but {senders.shape} and {receivers.shape}"
        raise DataError(what, mend="give both ends of every edge")
    for end, index, size in (("senders", senders, n_senders), ("receivers", receivers, n_receivers)):
        if index.dtype.kind not in "iu":
            raise DataError(f"{end} of {relation} are {index.dtype}", mend="give integers")
        _check_range(index, size, f"{end} of {relation}")
    return senders, receivers


def _order(senders: np.ndarray, receivers: np.ndarray, n_senders: int) -> np.ndarray:
    """Positions of edges by receiver and then sender; equal ones stay in order."""
    return np.argsort(receivers.astype(np.int64) * n_senders + senders, kind="stable")


def _first_at_least(indices: np.ndarray, start: np.ndarray, end: np.ndarray, values: np.ndarray) -> np.ndarray:
    """First position in ``indices[start[i]:end[i]]``, ascending, that is ``values[i]`` or more; ``end[i]`` if none."""
    low, high = start.copy(), end.copy()
    while (searching := np.flatnonzero(low < high)).size:
        middle = (low[searching] + high[searching]) // 2
        below = indices[middle] < values[searching]
        low[searching] = np.where(below, middle + 1, low[searching])
        high[searching] = np.where(below, high[searching], middle)
    return low


def _write_relation(
    folder: Path,
    number: int,
    relation: EdgeType,
    pieces: Callable[[], Iterable[Edges]],
    sizes: tuple[int, int],
    edges_at_a_time: int,
) -> None:
    n_senders, n_receivers = sizes
    indptr = np.zeros(n_receivers + 1, np.int64)
    for chunk in pieces():
        np.add.at(indptr, _checked(chunk, n_senders, n_receivers, relation)[1].astype(np.int64) + 1, 1)
    np.cumsum(indptr, out=indptr)
    n_edge = int(indptr[-1])
    if n_edge > _MOST:
        raise DataError(f"{relation} has {n_edge} edges, more than {_MOST}", mend="cut it into several relations")
    np.save(folder / f"{number}.indptr.npy", indptr)
    with open(folder / f"{number}.indices.npy", "wb") as indices, open(folder / f"{number}.edge_ids.npy", "wb") as ids:
        for file in (indices, ids):
            header: dict[str, Any] = {"descr": "<i4", "fortran_order": False, "shape": (n_edge,)}
            np.lib.format.write_array_header_1_0(file, header)
        for first, last in _node_ranges(indptr, edges_at_a_time):
            senders, receivers, edge_ids = _edges_into(pieces(), first, last)
            if len(senders) != indptr[last] - indptr[first]:
                raise DataError(f"edges of {relation} differ from pass to pass", mend="give the same ones every time")
            order = _order(senders, receivers, n_senders)
            indices.write(senders[order].tobytes())
            ids.write(edge_ids[order].tobytes())


def _node_ranges(indptr: np.ndarray, edges_at_a_time: int) -> Iterator[tuple[int, int]]:
    """Ranges of nodes with at most so many edges, or of one node that has more."""
    first, n = 0, len(indptr) - 1
    while first < n:
        last = int(np.searchsorted(indptr, indptr[first] + edges_at_a_time, side="right")) - 1
        last = min(max(last, first + 1), n)
        yield first, last
        first = last


def _edges_into(pieces: Iterable[Edges], first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Senders, receivers less ``first``, and ids of the edges that end in the nodes ``first:last``, all int32."""
    parts: list[list[np.ndarray]] = [[], [], []]
    before = 0
    for senders, receivers in pieces:
        senders, receivers = np.asarray(senders), np.asarray(receivers)
        here = np.flatnonzero((receivers >= first) & (receivers < last))
        for part, array in zip(parts, (senders[here], receivers[here] - first, here + before), strict=True):
            part.append(array.astype(np.int32))
        before += len(senders)
    senders, receivers, ids = (np.concatenate(part) if part else np.zeros(0, np.int32) for part in parts)
    return senders, receivers, ids
