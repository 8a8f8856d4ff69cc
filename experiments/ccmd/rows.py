"""The runs of the CCMD tables: a name and the flags of ``jaxgkd run ccmd`` that make it.

    python experiments/ccmd/rows.py                  # every run, one after another, some two hours on two cores
    python experiments/ccmd/rows.py --only qm7       # some of them
    python experiments/ccmd/rows.py --list           # the commands, without running them

A run that is finished is not run again, one that was interrupted goes on. Summaries are copied to ``results/``, which
``tables.py`` turns into the README.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from run_rows import main

# Energies are nearly sums over atoms.
QM7 = ["--data", "qm7", "--offset", "composition"]

ROWS: dict[str, list[str]] = {
    "default": [],
    # The teacher trains until space is worth what it can be; students as long as all others.
    "qm7": [*QM7, "--teacher-epochs", "120", "--ablation"],
    "esol": ["--data", "esol"],
    "lipo": ["--data", "lipo", "--seeds", "3"],
    "qm7-rdkit": [*QM7, "--conformers", "rdkit"],
    "qm7-mixed": [*QM7, "--conformers", "mixed"],
    "qm7-gine": [*QM7, "--student", "gine", "--teacher", "schnet"],
    # For an accelerator.
    "qm7-large": [*QM7, "--ablation", "--layers", "6", "--width", "128", "--seeds", "10", "--epochs", "200"],
}
LARGE = ("qm7-large",)


if __name__ == "__main__":
    main(__file__, __doc__, "ccmd", ROWS, large=LARGE)
