"""The runs of the BLEG tables: a name and the flags of ``jaxgkd run bleg`` that make it.

    python experiments/bleg/rows.py                       # every run, one after another, about two hours on two cores
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
MLP = [*ABIDE, "--student", "mlp", "--search", "12"]
#: The details of the texts make MiniLM's states say less of the group, see experiments/LOG.md.
SHORT = ["--texts", "conclusion"]
GCN = [*ABIDE, *SHORT, "--baselines", "ridge"]
# Attention over 200 regions, and filters along their rows, take minutes a pass for all folds and settings.
FEWER = ["--search", "2", "--epochs", "10"]
LINEAR = ["--baselines", "ridge", "logistic", "svm"]
FIVE = ["--seeds", "5"]
#: One setting, the one an MLP likes best, for all weights of the teacher.
ONE = ["--search", "1", "--learning-rate", "0.003", "--dropout", "0.7", "--weight-decay", "3", "--baselines", "ridge"]
WEIGHTS = ("0.1", "1", "10")

ROWS: dict[str, list[str]] = {
    "default": [],
    "abide-mlp-tangent": [*MLP, *TANGENT, *SHORT, *LINEAR, *FIVE],
    "abide-mlp": [*MLP, *SHORT, *LINEAR, *FIVE],
    "abide-gcn": [*GCN, *FIVE],
    "abide-mlp-shuffled": [*MLP, *SHORT, "--shuffle-texts", *FIVE],
    "abide-gcn-shuffled": [*GCN, "--shuffle-texts"],
    "abide-mlp-tangent-shuffled": [*MLP, *TANGENT, *SHORT, "--shuffle-texts"],
    "abide-brainnetcnn": [*GCN, "--student", "brainnetcnn", *FEWER],
    "abide-bnt": [*GCN, "--student", "bnt", *FEWER],
    "abide-gcn-2+3": [*GCN, "--stages", "2+3"],
    "abide-mlp-details": [*MLP],
    "abide-mlp-states": [*MLP, *SHORT, "--teaches", "states"],
    "abide-mlp-answers": [*MLP, *SHORT, "--teaches", "answers", *FIVE],
    **{
        f"abide-mlp-weight-{weight}": [
            *("--data", "abide", "--student", "mlp", *SHORT, *ONE, *FIVE),
            *("--state-strength", weight, "--answer-strength", weight),
        ]
        for weight in WEIGHTS
    },
    "abide-mlp-10-shots": [*MLP, *SHORT, "--k-shot", "10", *FIVE],
    "abide-mlp-50-shots": [*MLP, *SHORT, "--k-shot", "50", *FIVE],
    "abide-mlp-30-percent": [*MLP, *SHORT, "--label-ratio", "0.3", *FIVE],
    "abide-mlp-sites": [*MLP, *SHORT, "--leave-one-site-out", *FIVE],
    "abide-large": [*ABIDE, *TANGENT, "--student", "gcn", "--width", "256", "--epochs", "300", *FIVE],
}

if __name__ == "__main__":
    main(__file__, __doc__, "bleg", ROWS, large=["abide-large"])
