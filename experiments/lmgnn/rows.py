"""The runs of the LM-GNN tables: a name and the flags of ``jaxgkd run lmgnn`` that make it.

    python experiments/lmgnn/rows.py                    # the five tasks, one after another, some two hours on two cores
    python experiments/lmgnn/rows.py --only imdb        # some of them, or of the further ones
    python experiments/lmgnn/rows.py --list             # the commands, without running them

Five seeds for rows with a frozen language model; for those that train one three on See Also and in ``clicks-task``, and
five or ten elsewhere. Further runs are those on negatives, scores, losses and encoders, some five minutes each, on what
stage 1 asks for, two of them with ten seeds (an hour each), and ``wikispeedia-…-large`` for an accelerator: longer
texts, all layers trained, more steps.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from run_rows import main

WIKI = ["--data", "wikispeedia", "--mentions", "--task"]
CLICKS = [*WIKI, "link_prediction"]
FROZEN = ["--stages"]
# Chosen on validation subjects, two seeds: 300 steps at 5e-5 are worth 0.3 points to the GNN there, these 1.9.
TUNED = ["--lm-steps", "450", "--lm-learning-rate", "1e-4"]
# Chosen on validation too: of clicks the GNN's MRR is .340 where stage 1 asks which texts are linked and .338 where it
# asks for clicks, of clicks taken back the AUROC .633 and .631.
LINKED = [*TUNED, "--supervision", "links"]
# An epoch is six steps.
BLOCKS = ["--batch-nodes", "512", "--epochs", "40", "--patience", "12"]
# Dropout is chosen on validation, by one seed, for every row alike.
LONGER = ["--epochs", "600", "--patience", "100", "--sweep", "dropout=0.1,0.3"]
LARGE_SETTING = ["--max-tokens", "256", "--tuned-layers", "6", "--lm-steps", "3000", "--cotrain-steps", "3000"]

TABLES: dict[str, list[str]] = {
    "default": ["--lm-learning-rate", "1e-5"],
    "imdb": ["--data", "imdb", "--task", "node_classification", "--lm-seeds", "5"],
    "wikispeedia-subjects": [*WIKI, "node_classification", "--lm-seeds", "5", *TUNED],
    "wikispeedia-undone": [*WIKI, "edge_classification", "--lm-seeds", "5", *TUNED],
    "wikispeedia-clicks": [*CLICKS, "--lm-seeds", "5", *LINKED],
}
FURTHER: dict[str, list[str]] = {
    # Where stage 1 asks for the task itself.
    "clicks-task": [*CLICKS, *TUNED],
    # The GNN trained for longer, with less dropout where that validates better.
    "clicks-longer": [*CLICKS, "--stages", "lm", *LINKED, *LONGER],
    # Five seeds left it open whether fine-tuned texts help the GNN (p .19).
    "undone-ten": [*WIKI, "edge_classification", "--seeds", "10", "--lm-seeds", "10", "--stages", "lm", *TUNED],
    "undone-linked": [*WIKI, "edge_classification", "--seeds", "10", "--lm-seeds", "10", "--stages", "lm", *LINKED],
    # Without training the language model: what negatives and scores are worth.
    "clicks-uniform": [*CLICKS, *FROZEN, "--negatives", "uniform"],
    "clicks-joint": [*CLICKS, *FROZEN, "--negatives", "joint"],
    "clicks-in-batch": [*CLICKS, *FROZEN, "--negatives", "in_batch", "--edges-per-step", "512"],
    "clicks-dot": [*CLICKS, *FROZEN, "--score", "dot"],
    "clicks-rotate": [*CLICKS, *FROZEN, "--score", "rotate"],
    "clicks-transe-l1": [*CLICKS, *FROZEN, "--score", "transe_l1"],
    "clicks-transe-l2": [*CLICKS, *FROZEN, "--score", "transe_l2"],
    "clicks-cross-entropy": [*CLICKS, *FROZEN, "--loss", "cross_entropy"],
    "clicks-bpr": [*CLICKS, *FROZEN, "--loss", "bpr"],
    "subjects-hgt": [*WIKI, "node_classification", *FROZEN, "--encoder", "hgt"],
    "subjects-rgat": [*WIKI, "node_classification", *FROZEN, "--encoder", "rgat"],
    "subjects-sage": [*WIKI, "node_classification", *FROZEN, "--encoder", "sage"],
    "subjects-blocks": [*WIKI, "node_classification", *FROZEN, *BLOCKS],
    "wikispeedia-subjects-large": [*WIKI, "node_classification", *LARGE_SETTING],
    "wikispeedia-clicks-large": [*CLICKS, *LARGE_SETTING],
}

if __name__ == "__main__":
    main(__file__, __doc__, "lmgnn", TABLES | FURTHER, large=list(FURTHER))
