"""New nodes as a trained student reads them: some rows of the node table at a time, and the edges between them.

Where training refuses a folder for one bad row, here the row is kept with the reason, so that everyone has a line in
what comes out. No label is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxgkd.data.table_stream import read_header, stream_table
from jaxgkd.data.tables import Table, find_table
from jaxgkd.data.text_graphs import LONGEST_ID, TextGraph, choose_text_columns, joined_texts, read_end
from jaxgkd.errors import DataError


@dataclass(frozen=True)
class NodeChunk:
    """Some nodes, in the order of the table.

    Fields:
      rows: of the table, the header being row 1.
      ids: as in the file.
      texts: what is read of every node; None where no text is read.
      problems: position in the chunk → why there can be no prediction.
    """

    rows: list[int]
    ids: list[str]
    texts: list[str] | None
    problems: dict[int, str]


class NewNodes:
    """The nodes and edges of a folder, of a node table alone, or of a graph in memory."""

    def __init__(self, source: Path | TextGraph, *, text_columns: Sequence[str] | None, hidden: str, with_text: bool):
        """Find the files and the columns.

        Args:
          source: a folder with nodes and, where edges are read, edges; the table of nodes alone; or a graph.
          text_columns: to read as text; None takes the usual ones that there are.
          hidden: a column that is never text: that of the labels.
          with_text: whether texts are read.

        Raises:
          DataError: a file or a column is missing.
        """
        self.source, self._columns = source, ()
        self._row_of: dict[str, int] = {}
        if isinstance(source, TextGraph):
            self.path = Path(source.name)
            self._texts = source.student_texts if with_text else None
            return
        self.path = find_table(source, "nodes") if not source.is_file() else source
        header = read_header(self.path)
        header.column("node")
        if with_text:
            self._columns = choose_text_columns(header, text_columns, hidden, "split")
        self._with_text = with_text

    @property
    def features_path(self) -> Path:
        """Where features of the nodes would lie."""
        return self.path.parent / "features.npz"

    def count(self) -> int:
        """How many nodes there are, in one pass over the table."""
        if isinstance(self.source, TextGraph):
            return self.source.n_node
        return sum(len(chunk) for chunk in stream_table(self.path, ["node"]))

    def chunks(self, *, at_a_time: int = 2**15) -> Iterator[NodeChunk]:
        """All nodes, so many at a time; raises DataError where the table is damaged."""
        if isinstance(self.source, TextGraph):
            ids = [str(node) for node in self.source.node_ids]
            for start in range(0, len(ids), at_a_time):
                part = slice(start, start + at_a_time)
                texts = None if self._texts is None else list(self._texts[part])
                yield NodeChunk(list(range(start, start + len(ids[part]))), ids[part], texts, {})
            return
        self._row_of, before = {}, 0
        for table in stream_table(self.path, list(dict.fromkeys(["node", *self._columns])), at_a_time=at_a_time):
            ids = [cell.strip() for cell in table.column("node")]
            cells = [[cell.strip() for cell in table.column(name)] for name in self._columns]
            texts = joined_texts(cells, len(table)) if self._with_text else None
            yield NodeChunk(table.rows, ids, texts, self._bad_ids(ids, before))
            before += len(ids)

    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Senders and receivers [e] int32 as given, once all chunks were read.

        Raises:
          DataError: there is no table of edges, or an edge leads to a node that is not there.
        """
        if isinstance(self.source, TextGraph):
            return self.source.senders, self.source.receivers
        if self.source.is_file():
            what = "the student reads edges, and this is a table of nodes alone"
            raise DataError(what, file=self.source, mend="give the folder that holds nodes and edges")
        nodes = Table(self.path, {}, [])
        chunks = stream_table(find_table(self.source, "edges"), ["src", "dst"], at_a_time=2**18)
        ends = [[read_end(table, end, self._row_of, nodes) for end in ("src", "dst")] for table in chunks]
        empty = np.zeros(0, np.int32)
        senders, receivers = (np.concatenate([empty, *(pair[end] for pair in ends)]) for end in (0, 1))
        return senders, receivers

    def _bad_ids(self, ids: list[str], before: int) -> dict[int, str]:
        """Position → what is wrong with an id; notes the position of all others, ``before`` of which came earlier."""
        problems = {}
        for i, node in enumerate(ids):
            if not node:
                problems[i] = "the node has no id"
            elif len(node) > LONGEST_ID:
                problems[i] = f"the id has {len(node)} characters, more than {LONGEST_ID}"
            elif node in self._row_of:
                problems[i] = "an earlier node has the same id"
            else:
                self._row_of[node] = before + i
        return problems
