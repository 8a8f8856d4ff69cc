"""New molecules as a trained student reads them: no label is looked at, no record is lost, nothing stays in a cache."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxgkd.data.featurise import Hydrogens
from jaxgkd.data.molecule_files import is_sdf
from jaxgkd.data.molecule_sets import load_molecule_set
from jaxgkd.data.molecules import Molecules
from jaxgkd.data.table_stream import read_header, stream_table


@dataclass(frozen=True, eq=False)
class NewMolecules:
    """All records of a file, molecules or not.

    Fields:
      molecules: n of them; their arrays lie in a folder that whoever reads them removes.
      rows: [records] row of the table (header: row 1), or record of the SD file counted from 1.
      smiles: [records] of the table, or written for an SD file, None for one of its records that is no molecule.
      place: [records] position among the molecules, -1 where a record is none.
      problems: record → why it is none.
    """

    molecules: Molecules
    rows: list[int]
    smiles: list[str | None]
    place: np.ndarray
    problems: dict[int, str]


def read_new_molecules(source: Path | Molecules, *, hydrogens: Hydrogens, scratch: Path) -> NewMolecules:
    """Read a table of SMILES, an SD file, or a folder with one of them.

    Args:
      source: the path; or molecules that are embedded.
      hydrogens: whether they are atoms of the graphs, as the student learned it.
      scratch: where arrays are written.

    Raises:
      DataError: the file cannot be read, or no record of it is a molecule.
    """
    if isinstance(source, Molecules):
        molecules = source
    else:
        molecules = load_molecule_set(source, hydrogens=hydrogens, labelled=False, root=scratch)
    place = np.full(molecules.n_record, -1)
    place[np.asarray(molecules.record)] = np.arange(len(molecules))
    left_out = [problem for problem in molecules.problems if not problem.kept]
    rows = np.zeros(molecules.n_record, int)
    rows[np.asarray(molecules.record)] = np.asarray(molecules.rows)
    rows[place < 0] = [problem.row for problem in left_out]
    smiles: list[str | None] = [molecules.smiles(at) if at >= 0 else None for at in place.tolist()]
    if not isinstance(source, Molecules):
        _as_given(smiles, rows, source)
    records = np.flatnonzero(place < 0).tolist()
    reasons = [problem.reason for problem in left_out]
    return NewMolecules(molecules, rows.tolist(), smiles, place, dict(zip(records, reasons, strict=True)))


def _as_given(smiles: list[str | None], rows: np.ndarray, source: Path) -> None:
    """Put in the SMILES of a table, where there is one, instead of those written for an SD file or missing."""
    if source.is_dir():
        source = next((path for path in sorted(source.iterdir()) if path.name.endswith((".csv", ".csv.gz"))), source)
    if source.is_dir() or is_sdf(source):
        return
    if columns := [name for name in read_header(source).columns if name.lower() == "smiles"]:
        record_of = {row: record for record, row in enumerate(rows.tolist())}
        for table in stream_table(source, columns[:1]):
            for row, cell in zip(table.rows, table.column(columns[0]), strict=True):
                if row in record_of:
                    smiles[record_of[row]] = cell.strip()
