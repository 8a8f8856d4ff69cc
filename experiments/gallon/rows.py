"""The runs of the GALLON tables: a name and the flags of ``jaxgkd run gallon`` that make it.

    python experiments/gallon/rows.py                  # the runs of the tables, one after another, some two hours
    python experiments/gallon/rows.py --only bbbp      # some of them, or of the further ones
    python experiments/gallon/rows.py --list           # the commands, without running them

A run that is finished is not run again, one that was interrupted goes on; what a teacher or a forest said is kept and
read again by the runs that differ in their students. Summaries are copied to ``results/``, which ``tables.py`` turns
into the README.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from run_rows import main

COUNTS = ["--student", "fragments"]
# Drug-like molecules of a screen, whose labels nobody reads.
SCREEN = ["--unlabelled", "$JAXGKD_DATA/molecules/hiv.csv"]
BESIDE = [*COUNTS, *SCREEN, "--n-unlabelled", "4000"]
FIXED = [*BESIDE, "--split", "scaffold-chiral"]
TEXTS = ["--descriptions", "$JAXGKD_DATA/molecules/clintox_descriptions.jsonl.gz"]
# A forest over twelve tasks takes longer than all else.
NO_FOREST = ["--baselines", "mean", "composition"]

TABLES: dict[str, list[str]] = {
    "bbbp-counts-beside": ["--data", "bbbp", *BESIDE],
    "clintox-counts-beside": ["--data", "clintox", *TEXTS, *BESIDE],
    "esol-counts-beside": ["--data", "esol", *BESIDE],
    "lipo-counts-beside": ["--data", "lipo", *BESIDE],
    "tox21-counts-beside": ["--data", "tox21", *BESIDE, *NO_FOREST],
    "bbbp-fixed": ["--data", "bbbp", *FIXED],
    "clintox-fixed": ["--data", "clintox", *TEXTS, *FIXED],
    "esol-fixed": ["--data", "esol", *FIXED],
    "lipo-fixed": ["--data", "lipo", *FIXED],
    "tox21-fixed": ["--data", "tox21", *FIXED, *NO_FOREST],
    # Over atoms, the default.
    "clintox": ["--data", "clintox", *TEXTS],
    "clintox-template": ["--data", "clintox"],
    # Language models that see no atoms beside what they read: what each part of a prompt is worth by itself.
    "esol-modalities": ["--data", "esol", "--teachers", "gnn", "lm", "drawing", "--modalities", "--no-lm-reads-atoms"],
}
FURTHER: dict[str, list[str]] = {
    "default": [],
    "bbbp": ["--data", "bbbp"],
    "esol": ["--data", "esol"],
    "lipo": ["--data", "lipo"],
    "tox21": ["--data", "tox21", *NO_FOREST],
    "lipo-counts-beside-20000": ["--data", "lipo", *COUNTS, *SCREEN, "--n-unlabelled", "20000"],
    # A graph network takes a hundred times as long as a bag of atoms, so fewer settings are tried for its rows.
    "esol-gnn": ["--data", "esol", "--student", "gnn", "--search", "2"],
}


if __name__ == "__main__":
    main(__file__, __doc__, "gallon", TABLES | FURTHER, large=list(FURTHER))
