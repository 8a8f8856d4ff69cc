"""From the SMILES of HIV to graphs on disk: python experiments/benchmarks/featurisation.py

JAXGKD_DATA names the folder with molecules/hiv.csv. Ours is ``load_molecules`` from an empty cache: read the table,
parse, the fields of atoms and bonds, a key of every molecule's identity and a look for repeats, everything written as
memory-mapped arrays, with all cores or one. The peer is OGB's ``smiles2graph`` in a loop, as its data sets call it: the
table's strings are read beforehand, those that RDKit cannot parse are left out, its graphs stay in memory. *Parsing
alone* is RDKit's share, without which nobody has a molecule. Every side is warmed up on its first thousand rows.
"""

import csv
import os
import tempfile
from pathlib import Path

from sides import record, take_turns

CLAIM = "the molecules of HIV from SMILES to the Open Graph Benchmark's fields"
WARM = 1_000


def smiles_of(case: dict) -> list[str]:
    with open(Path(os.environ["JAXGKD_DATA"]) / "molecules" / "hiv.csv", newline="") as file:
        return [row["smiles"] for row in csv.DictReader(file)][: case["molecules"]]


def _loads(case: dict, workers: int | None):
    from jaxgkd.data.molecules import load_molecules

    path = Path(os.environ["JAXGKD_DATA"]) / "molecules" / "hiv.csv"
    few = Path(tempfile.mkdtemp()) / "few.csv"
    few.write_text("\n".join(["smiles", *smiles_of(case)[:WARM]]) + "\n")

    def load(file: Path, count: int, **options) -> None:
        with tempfile.TemporaryDirectory() as root:
            molecules = load_molecules(file, workers=workers, root=Path(root), **options)
            assert molecules.n_record == count

    def work():
        load(path, case["molecules"])

    work.warm = lambda: load(few, WARM, labels=())  # type: ignore[attr-defined]
    return work


def jaxgkd(case: dict):
    return _loads(case, None)


def jaxgkd_one_core(case: dict):
    return _loads(case, 1)


def _loop(case: dict, convert):
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        smiles = [text for text in smiles_of(case) if Chem.MolFromSmiles(text) is not None]

    def over(texts):
        with rdBase.BlockLogs():
            return [convert(text) for text in texts]

    def work():
        over(smiles)

    work.warm = lambda: over(smiles[:WARM])  # type: ignore[attr-defined]
    return work


def ogb(case: dict):
    from ogb.utils.mol import smiles2graph

    return _loop(case, smiles2graph)


def parsing_alone(case: dict):
    from rdkit import Chem

    return _loop(case, Chem.MolFromSmiles)


if __name__ == "__main__":
    case = {"molecules": 41_127}
    sides = {"jaxgkd": jaxgkd, "jaxgkd, one core": jaxgkd_one_core, "ogb": ogb, "parsing alone": parsing_alone}
    seconds = take_turns(sides, case, repetitions=3)
    record("featurisation", CLAIM, [{"case": case, "seconds": seconds}])
