"""The rows of the LinguGKD tables: a name and the flags of ``jaxgkd run lingugkd`` that make it.

    python experiments/lingugkd/rows.py                     # every row, one after another, about two hours on two cores
    python experiments/lingugkd/rows.py --only cora-gcn …   # some of them
    python experiments/lingugkd/rows.py --list              # the commands, without running them

A row that is finished is not run again, one that was interrupted goes on. Summaries are copied to ``results/``, which
``tables.py`` turns into the README.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from run_rows import main

COMMON = ["--seeds", "10", "--search", "8"]
# On Cora the plain GCN is better without normalisation, and the distilled one is as good.
CORA = ["--data", "cora", "--norm", "none"]
MLP = ["--student", "mlp"]
PUBLIC = ["--split", "public"]

STUDENTS = ("gcn", "gat", "sage", "gin", "mlp")

#: Every student on every data set.
MAIN: dict[str, list[str]] = {
    "default": [],
    "cora-gcn": [*CORA, "--reference"],
    "cora-gat": [*CORA, "--student", "gat"],
    "cora-sage": [*CORA, "--student", "sage"],
    "cora-gin": ["--data", "cora", "--student", "gin"],
    "cora-mlp": ["--data", "cora", *MLP],
    "cora-public-gcn": [*CORA, *PUBLIC],
    "cora-public-gat": [*CORA, *PUBLIC, "--student", "gat"],
    "cora-public-sage": [*CORA, *PUBLIC, "--student", "sage"],
    "cora-public-gin": ["--data", "cora", *PUBLIC, "--student", "gin"],
    "cora-public-mlp": ["--data", "cora", *PUBLIC, *MLP],
    **{f"scipy-docs-{kind}": ["--data", "scipy-docs", "--student", kind] for kind in STUDENTS},
    **{f"wikispeedia-{kind}": ["--data", "wikispeedia", "--student", kind] for kind in STUDENTS},
}
#: What parts of the method are worth, and other splits.
ABLATIONS: dict[str, list[str]] = {
    "cora-gcn-all-layers": [*CORA, "--readout", "all"],
    "cora-gcn-soft-only": [*CORA, "--terms", "soft"],
    "cora-gcn-alignment-only": [*CORA, "--terms", "local", "global"],
    "cora-gcn-without-local": [*CORA, "--terms", "soft", "global"],
    "cora-gcn-without-global": [*CORA, "--terms", "soft", "local"],
    "cora-gcn-fixed-layers": [*CORA, "--layer-weighting", "fixed"],
    "cora-gcn-no-cross-fitting": [*CORA, "--folds", "1"],
    "cora-gcn-5-shots": [*CORA, "--shots", "5"],
    "cora-gcn-10-shots": [*CORA, "--shots", "10"],
    "cora-gcn-20-shots": [*CORA, "--shots", "20"],
    "cora-gcn-50-shots": [*CORA, "--shots", "50"],
    "cora-gcn-label-free": [*CORA, "--label-free"],
    "cora-gcn-inductive": [*CORA, "--split", "inductive"],
    "cora-mlp-inductive": ["--data", "cora", "--split", "inductive", *MLP],
}

# The default row is the command of the project's README, as it stands.
COMMANDS = {name: [*flags, *COMMON] if flags else [] for name, flags in (MAIN | ABLATIONS).items()}

if __name__ == "__main__":
    main(__file__, __doc__, "lingugkd", COMMANDS)
