"""The runs of the GALLON tables: a name and the flags of ``jaxgkd run gallon`` that make it.

    python experiments/gallon/rows.py                  # every run, one after another, some ten hours on two cores
    python experiments/gallon/rows.py --only bbbp      # some of them
    python experiments/gallon/rows.py --list           # the commands, without running them

A run that is finished is not run again, one that was interrupted goes on; what a teacher said is kept and read again by
the runs that differ in their students. Summaries are copied to ``results/``, which ``tables.py`` turns into the README.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from run_rows import main

BONDS = ["--student", "neighbours"]
BITS = ["--student", "fingerprint"]
COUNTS = ["--student", "fragments"]
# A graph network takes a hundred times as long as a bag of atoms, so fewer settings are tried for its rows.
GRAPH = ["--student", "gnn", "--search", "2"]
# Drug-like molecules of a screen, whose labels nobody reads.
SCREEN = ["--unlabelled", "$JAXGKD_DATA/molecules/hiv.csv"]
BESIDE = [*SCREEN, "--n-unlabelled", "4000"]
MANY = [*SCREEN, "--n-unlabelled", "20000"]
FIXED = ["--split", "scaffold-chiral"]
TEXTS = ["--descriptions", "$JAXGKD_DATA/molecules/clintox_descriptions.jsonl.gz"]

ROWS: dict[str, list[str]] = {
    "default": [],
    "bbbp": ["--data", "bbbp"],
    "clintox": ["--data", "clintox", *TEXTS],
    "clintox-template": ["--data", "clintox"],
    "esol": ["--data", "esol"],
    "lipo": ["--data", "lipo"],
    "tox21": ["--data", "tox21"],
    "bbbp-bonds": ["--data", "bbbp", *BONDS],
    "clintox-bonds": ["--data", "clintox", *TEXTS, *BONDS],
    "esol-bonds": ["--data", "esol", *BONDS],
    "lipo-bonds": ["--data", "lipo", *BONDS],
    "tox21-bonds": ["--data", "tox21", *BONDS],
    "bbbp-bits": ["--data", "bbbp", *BITS],
    "clintox-bits": ["--data", "clintox", *TEXTS, *BITS],
    "esol-bits": ["--data", "esol", *BITS],
    "lipo-bits": ["--data", "lipo", *BITS],
    "bbbp-gnn": ["--data", "bbbp", *GRAPH],
    "clintox-gnn": ["--data", "clintox", *TEXTS, *GRAPH],
    "esol-gnn": ["--data", "esol", *GRAPH],
    # Language models that see no atoms beside what they read: what each part of a prompt is worth by itself.
    "bbbp-drawings": ["--data", "bbbp", "--teachers", "gnn", "lm", "drawing", "--modalities", "--no-lm-reads-atoms"],
    "bbbp-bits-beside": ["--data", "bbbp", *BITS, *BESIDE],
    "clintox-bits-beside": ["--data", "clintox", *TEXTS, *BITS, *BESIDE],
    "esol-bits-beside": ["--data", "esol", *BITS, *BESIDE],
    "lipo-bits-beside": ["--data", "lipo", *BITS, *BESIDE],
    "tox21-bits-beside": ["--data", "tox21", *BITS, *BESIDE],
    "bbbp-counts-beside": ["--data", "bbbp", *COUNTS, *BESIDE],
    "clintox-counts-beside": ["--data", "clintox", *TEXTS, *COUNTS, *BESIDE],
    "esol-counts-beside": ["--data", "esol", *COUNTS, *BESIDE],
    "lipo-counts-beside": ["--data", "lipo", *COUNTS, *BESIDE],
    # The forest, of twelve tasks and five splits, is the one of tox21-bits-beside.
    "tox21-counts-beside": ["--data", "tox21", *COUNTS, *BESIDE, "--baselines", "mean", "composition"],
    "bbbp-bits-beside-20000": ["--data", "bbbp", *BITS, *MANY],
    "clintox-bits-beside-20000": ["--data", "clintox", *TEXTS, *BITS, *MANY],
    "esol-bits-beside-20000": ["--data", "esol", *BITS, *MANY],
    "lipo-bits-beside-20000": ["--data", "lipo", *BITS, *MANY],
    "bbbp-fixed": ["--data", "bbbp", *COUNTS, *BESIDE, *FIXED],
    "clintox-fixed": ["--data", "clintox", *TEXTS, *COUNTS, *BESIDE, *FIXED],
    "esol-fixed": ["--data", "esol", *COUNTS, *BESIDE, *FIXED],
    "lipo-fixed": ["--data", "lipo", *COUNTS, *BESIDE, *FIXED],
    "tox21-fixed": ["--data", "tox21", *COUNTS, *BESIDE, *FIXED, "--baselines", "mean", "composition"],
}


if __name__ == "__main__":
    main(__file__, __doc__, "gallon", ROWS)
