"""What padding costs on three molecule data sets, in every way to group them: python experiments/benchmarks/padding.py

JAXGKD_DATA names the folder with molecules/*.csv and molecules/qm7.sdf.gz. Batches of 128 over ten epochs: the share of
node and edge slots that are padding, the same of nodes where every graph has a row of its own, and the number of
shapes, each of which is compiled once. QM7 comes with its hydrogens from the SD file, as a model of its geometry reads
it. Nothing is timed.
"""

import os
import tempfile
from pathlib import Path
from typing import get_args

from sides import record

CLAIM = "slots that are padding, and shapes that are compiled, over ten epochs in batches of 128"
BATCH, EPOCHS = 128, 10


def graphs_of(name: str, cache: Path):
    from jaxgkd.data.molecules import load_molecules

    folder = Path(os.environ["JAXGKD_DATA"]) / "molecules"
    with_atoms = {"sdf": folder / "qm7.sdf.gz", "labels": ["hof_kcal_mol"], "hydrogens": "explicit"}
    return load_molecules(folder / f"{name}.csv", root=cache, **(with_atoms if name == "qm7" else {})).graphs()


def counted() -> list[dict]:
    from jaxgkd.graphs.batching import Batches, Mode

    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for name in ("qm7", "lipo", "bbbp"):
            graphs = graphs_of(name, Path(cache))
            for mode in get_args(Mode):
                report = Batches(graphs, BATCH, mode=mode).report(EPOCHS)
                rows.append(
                    {
                        "data set": name,
                        "graphs": len(graphs),
                        "grouping": mode,
                        "padded slots": report.padded_share,
                        "padded rows": report.padded_rows,
                        "shapes": report.shapes,
                    }
                )
    return rows


if __name__ == "__main__":
    record("padding", CLAIM, [], counted=counted())
