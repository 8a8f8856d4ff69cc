"""Pairs of nodes that a student is asked about: a table with the columns ``src`` and ``dst``."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgkd.data.hetero_graphs import NodeSet
from jaxgkd.data.tables import read_table
from jaxgkd.errors import DataError, shown


class AskedPairs(NamedTuple):
    """p pairs in the order of a table.

    Fields:
      senders, receivers: [p] int32 rows of the nodes; 0 where there is none.
      ids: ``src`` and ``dst``, each [p], as they are written.
      rows: of the table, its header being row 1.
      problems: position of a pair → why it cannot be asked about.
    """

    senders: np.ndarray
    receivers: np.ndarray
    ids: dict[str, list[str]]
    rows: list[int]
    problems: dict[int, str]


def read_pairs(file: Path, ends: Sequence[tuple[str, NodeSet]]) -> AskedPairs:
    """Read a table of pairs.

    Args:
      file: .csv, .csv.gz or .parquet; other columns are passed over.
      ends: the node type that ``src`` names and its nodes, and those of ``dst``.

    Raises:
      DataError: the file cannot be read, a column is missing, or there is no row.
    """
    table = read_table(file)
    if not len(table):
        raise DataError("there are no pairs", file=file, mend="add a row for every pair")
    rows, ids, problems = [], {}, {}
    for column, (name, nodes) in zip(("src", "dst"), ends, strict=True):
        row_of = {str(key): row for row, key in enumerate(nodes.ids)}
        ids[column] = [cell.strip() for cell in table.column(column)]
        found = [row_of.get(key, -1) for key in ids[column]]
        for i, key in enumerate(ids[column]):
            if found[i] < 0:
                problem = f"{column}: there is no {name} '{shown(key)}'" if key else f"{column}: the node id is empty"
                problems.setdefault(i, problem)
        rows.append(np.maximum(np.array(found, np.int32), 0))
    return AskedPairs(rows[0], rows[1], ids, table.rows, problems)
