"""The public citation graphs out of their archives: Cora, CiteSeer and PubMed of LINQS, ogbn-arxiv of OGB."""

import gzip
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse

from jaxgkd.data.archives import Limits, Readable, read_gzip, read_members
from jaxgkd.data.text_graphs import TextGraph, make_text_graph
from jaxgkd.errors import DataError, shown

_SMALL = Limits(size=200 << 20, files=100)
# Cora's papers lie one a file: 52,906 of them, most of them elsewhere cited alone.
_CORA_TEXTS = Limits(size=2 << 30, files=200_000)
_ARXIV = Limits(size=4 << 30, files=200)
_KEYWORDS = 40
_HEADER = re.compile(r"([A-Z][A-Za-z-]*): ?(.*)")


def read_cora(graph: Path, texts: Path) -> TextGraph:
    """LINQS's Cora, with titles and abstracts out of the papers as McCallum published them.

    Args:
      graph: cora.tgz; texts: cora-classify.tar.gz, whose papers have the same ids.

    Raises:
      DataError: a file is missing or of another layout.
    """
    ids, features, labels, classes, ends = _linqs(graph, "cora")
    found = _cora_texts(texts, set(ids))
    pairs = [found.get(node, ("", "")) for node in ids]
    return _graph("cora", ids, features, labels, classes, ends, [pair[0] for pair in pairs], [p[1] for p in pairs])


def read_citeseer(graph: Path) -> TextGraph:
    """LINQS's CiteSeer, which has no texts; links to papers that are not in it are dropped with a note."""
    ids, features, labels, classes, ends = _linqs(graph, "citeseer")
    return _graph("citeseer", ids, features, labels, classes, ends, [""] * len(ids), [""] * len(ids))


def read_pubmed(graph: Path) -> TextGraph:
    """LINQS's PubMed; a paper's text is its words, the weightiest by TF-IDF first."""
    names = ("Pubmed-Diabetes.NODE.paper.tab", "Pubmed-Diabetes.DIRECTED.cites.tab")
    lines = _files(graph, names, _SMALL)
    nodes, edges = ([line.split("\t") for line in lines[name][2:] if line.strip()] for name in names)
    vocabulary: dict[str, int] = {}
    ids, entries, keywords = [], [], []
    labels: list[str] = []
    for row, cells in enumerate(nodes, start=3):
        words = [cell.partition("=")[::2] for cell in cells[1:]]
        label = next((value for word, value in words if word == "label"), None)
        weights = {word: _number(value, graph, names[0], row) for word, value in words if word.startswith("w-")}
        if label is None:
            raise _odd(graph, names[0], row, "has no label")
        ids.append(cells[0])
        labels.append(label)
        ranked = sorted(weights, key=lambda word: -weights[word])
        keywords.append(" ".join(word.removeprefix("w-") for word in ranked[:_KEYWORDS]))
        entries += [(len(ids) - 1, vocabulary.setdefault(word, len(vocabulary)), w) for word, w in weights.items()]
    ends = []
    for row, cells in enumerate(edges, start=3):
        papers = [cell.strip().removeprefix("paper:") for cell in cells if cell.startswith("paper:")]
        if len(papers) != 2:
            raise _odd(graph, names[1], row, "names no two papers")
        ends.append((papers[0], papers[1]))
    rows, columns, values = np.array(entries).T if entries else np.zeros((3, 0))
    shape = (len(ids), max(len(vocabulary), 1))
    cells = (values.astype(np.float32), (rows.astype(np.int64), columns.astype(np.int64)))
    features = scipy.sparse.csr_array(scipy.sparse.coo_array(cells, shape=shape))
    # What the file calls 1, 2 and 3.
    named = {"1": "Diabetes Mellitus, Experimental", "2": "Diabetes Mellitus Type 1", "3": "Diabetes Mellitus Type 2"}
    return _graph("pubmed", ids, features, [named.get(x, x) for x in labels], None, ends, [""] * len(ids), keywords)


def read_ogbn_arxiv(graph: Path, texts: Path) -> TextGraph:
    """OGB's ogbn-arxiv with titles and abstracts, in OGB's order and with its split by year.

    Args:
      graph: arxiv.zip; texts: titleabs.tsv.gz.

    Raises:
      DataError: a file is missing or of another layout.
    """
    wanted = {
        "raw/edge.csv.gz": "edges",
        "raw/node-label.csv.gz": "labels",
        "raw/node-feat.csv.gz": "features",
        "mapping/nodeidx2paperid.csv.gz": "papers",
        "mapping/labelidx2arxivcategeory.csv.gz": "classes",
        **{f"split/time/{part}.csv.gz": part for part in ("train", "valid", "test")},
    }
    content: dict[str, list[str]] = {}
    features = None
    ends_of = lambda name: next((key for key in wanted if name.endswith("/" + key)), None)  # noqa: E731
    for name, file in read_members(graph, lambda name: ends_of(name) is not None, _ARXIV):
        key = wanted[ends_of(name) or ""]
        unpacked = gzip.GzipFile(fileobj=_Seekless(file))  # type: ignore[arg-type]
        if key == "features":
            rows = [np.fromstring(line.decode(), np.float32, sep=",") for line in unpacked]
            features = scipy.sparse.csr_array(np.stack(rows))
        else:
            content[key] = unpacked.read(_ARXIV.size).decode().splitlines()
    if missing := [name for name, key in wanted.items() if key not in content and key != "features"]:
        raise DataError(f"holds no {missing[0]}", file=graph, mend="delete it and fetch it again")
    papers = [line.split(",")[1] for line in content["papers"][1:]]
    titles, abstracts = _titles_and_abstracts(texts, papers)
    labels = [int(float(line)) for line in content["labels"]]
    classes = [line.split(",")[1] for line in content["classes"][1:]]
    split = np.full(len(papers), "", "<U5")
    for part in ("train", "valid", "test"):
        split[[int(line) for line in content[part]]] = part
    ends = np.array([line.split(",") for line in content["edges"]], np.int64)
    joined = ["\n".join(filter(None, pair)) for pair in zip(titles, abstracts, strict=True)]
    return make_text_graph(
        name="ogbn-arxiv",
        node_ids=np.arange(len(papers)),
        texts=joined,
        titles=[title or text[:80] for title, text in zip(titles, joined, strict=True)],
        labels=np.array(labels, np.int32),
        class_names=classes,
        senders=ends[:, 0],
        receivers=ends[:, 1],
        features=features,
        given_split=split,
    )


class _Seekless:
    """A member of an archive, for the gzip module, which reads and never seeks."""

    def __init__(self, file: Readable):
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


def _titles_and_abstracts(texts: Path, papers: Sequence[str]) -> tuple[list[str], list[str]]:
    row_of = {paper: row for row, paper in enumerate(papers)}
    titles, abstracts = [""] * len(papers), [""] * len(papers)
    for line in read_gzip(texts, _ARXIV):
        paper, _, rest = line.decode("utf-8", "replace").rstrip("\r\n").partition("\t")
        if (row := row_of.get(paper.strip())) is not None:
            titles[row], _, abstracts[row] = (part.strip() for part in rest.partition("\t"))
    if not any(titles):
        raise DataError("holds no title of a paper of the graph", file=texts, mend="delete it and fetch it again")
    return titles, abstracts


def _linqs(path: Path, name: str):
    """Ids, words [n, f], labels, classes and links of NAME.content and NAME.cites."""
    lines = _files(path, (f"{name}.content", f"{name}.cites"), _SMALL)
    ids, rows, labels = [], [], []
    for row, line in enumerate(lines[f"{name}.content"], start=1):
        cells = line.split("\t")
        if len(cells) < 3 or (rows and len(cells) - 2 != len(rows[0])):
            raise _odd(path, f"{name}.content", row, f"has {len(cells)} columns")
        ids.append(cells[0].strip())
        rows.append(np.array(cells[1:-1], np.float32))
        labels.append(cells[-1].strip())
    ends = []
    for row, line in enumerate(lines[f"{name}.cites"], start=1):
        cells = line.split()
        if len(cells) != 2:
            raise _odd(path, f"{name}.cites", row, "names no two papers")
        # The first paper is cited by the second.
        ends.append((cells[1], cells[0]))
    return ids, scipy.sparse.csr_array(np.stack(rows)), labels, None, ends


def _cora_texts(path: Path, wanted: set[str]) -> dict[str, tuple[str, str]]:
    """Paper → title and abstract, of the file of a paper that has the longest abstract."""
    file_of: dict[str, list[str]] = {}
    found: dict[str, tuple[str, str]] = {}
    for _, file in read_members(path, lambda name: name.endswith("/papers"), _CORA_TEXTS):
        for line in file:
            cells = line.decode("latin-1").rstrip("\n").split("\t")
            if len(cells) > 1 and cells[0] in wanted:
                file_of.setdefault(cells[1], []).append(cells[0])
                title = re.search(r"<title>(.*?)</title>", cells[2]) if len(cells) > 2 else None
                found.setdefault(cells[0], (_plain(title[1]) if title else "", ""))
    if not file_of:
        raise DataError("names none of the graph's papers", file=path, mend="delete it and fetch it again")
    taken = lambda name: "/extractions/" in name and name.rpartition("/")[2] in file_of  # noqa: E731
    for name, file in read_members(path, taken, _CORA_TEXTS):
        title, abstract = _fields(file.read(1 << 20).decode("latin-1").splitlines())
        for paper in file_of[name.rpartition("/")[2]]:
            before = found[paper]
            if (bool(abstract), len(abstract)) >= (bool(before[1]), len(before[1])):
                found[paper] = title or before[0], abstract
    return found


def _fields(lines: Iterable[str]) -> tuple[str, str]:
    """Title and abstract of a file with ``Title: …`` and further fields, which may go on over lines."""
    found: dict[str, str] = {}
    field = ""
    for line in lines:
        match = _HEADER.match(line)
        if match:
            field = match[1]
            found.setdefault(field, match[2])
        elif field in ("Title", "Abstract"):
            found[field] += f" {line}"
    return _plain(found.get("Title", "")), _plain(found.get("Abstract", ""))


def _plain(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())


def _graph(
    name: str,
    ids: Sequence[str],
    features: scipy.sparse.csr_array,
    labels: Sequence[str],
    classes: Sequence[str] | None,
    ends: Sequence[tuple[str, str]],
    titles: Sequence[str],
    bodies: Sequence[str],
) -> TextGraph:
    row_of = {node: row for row, node in enumerate(ids)}
    if len(row_of) < len(ids):
        raise DataError("names a paper twice", file=name, mend="delete it and fetch it again")
    known = [(row_of[a], row_of[b]) for a, b in ends if a in row_of and b in row_of]
    classes = sorted(set(labels)) if classes is None else classes
    texts = ["\n".join(filter(None, pair)) for pair in zip(titles, bodies, strict=True)]
    lost = len(ends) - len(known)
    senders, receivers = np.array(known, np.int64).reshape(-1, 2).T
    return make_text_graph(
        name=name,
        node_ids=np.array(ids),
        texts=texts,
        titles=[title or text[:80] for title, text in zip(titles, texts, strict=True)],
        labels=np.array([classes.index(label) for label in labels], np.int32),
        class_names=classes,
        senders=senders,
        receivers=receivers,
        features=features,
        notes=[f"{lost:,} links to papers that are not in the graph dropped"] if lost else [],
    )


def _files(path: Path, names: Sequence[str], limits: Limits) -> dict[str, list[str]]:
    """The lines of the files with these names in an archive, wherever they lie in it."""
    found = {}
    for name, file in read_members(path, lambda name: name.rpartition("/")[2] in names, limits):
        found[name.rpartition("/")[2]] = file.read().decode("utf-8", "replace").splitlines()
    if missing := [name for name in names if name not in found]:
        raise DataError(f"holds no {missing[0]}", file=path, mend="delete it and fetch it again")
    return found


def _number(text: str, path: Path, name: str, row: int) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise _odd(path, name, row, f"'{shown(text)}' is no number") from error


def _odd(path: Path, name: str, row: int, what: str) -> DataError:
    return DataError(f"{name} {what}", file=path, row=row, mend="delete it and fetch it again")
