"""The runs of the BLEG tables: a name and the flags of ``jaxgkd run bleg`` that make it.

    python experiments/bleg/rows.py                       # every run, one after another, about an hour on two cores
    python experiments/bleg/rows.py --only abide-gcn      # some of them
    python experiments/bleg/rows.py --list                # the commands, without running them

``abide-large`` has the published widths and passes, and is for an accelerator.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from run_rows import main

ABIDE = ["--data", "abide"]
TANGENT = ["--connectivity", "tangent", "--shrinkage", "0.5", "0.7"]
MLP = [*ABIDE, "--student", "mlp", "--learning-rate", "0.003", "--dropout", "0.7", "--weight-decay", "3"]
MLP += ["--search", "12"]
#: The details of the texts make MiniLM's states say less of the group, see experiments/LOG.md.
SHORT = ["--texts", "conclusion"]
GCN = [*ABIDE, "--search", "1", "--baselines", "ridge", "--student", "gcn", "--width", "32", "--epochs", "16"]
GCN += ["--answer-strength", "3", "--state-strength", "0.3"]
LINEAR = ["--baselines", "ridge", "logistic", "svm"]

ROWS: dict[str, list[str]] = {
    "default": [],
    "abide-mlp-tangent": [*MLP, *TANGENT, *SHORT, *LINEAR, "--seeds", "3"],
    "abide-mlp-tangent-shuffled": [*MLP, *TANGENT, *SHORT, "--shuffle-texts"],
    "abide-mlp-tangent-details": [*MLP, *TANGENT],
    "abide-mlp": [*MLP, *SHORT, *LINEAR, "--seeds", "3"],
    "abide-gcn": GCN,
    "abide-gcn-shuffled": [*GCN, "--shuffle-texts"],
    "abide-large": [*ABIDE, *TANGENT, "--student", "gcn", "--width", "256", "--epochs", "300", "--seeds", "5"],
}

if __name__ == "__main__":
    main(__file__, __doc__, "bleg", ROWS, large=["abide-large"])
