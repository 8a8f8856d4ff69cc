"""Small text graphs, written as users write theirs."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

TOPICS = {
    "graph": ("graph", "neural", "network"),
    "student": ("student", "teacher", "learns"),
    "molecules": ("molecules", "links", "papers"),
}


def write_text_graph(
    folder: Path,
    *,
    n_per_class: int = 20,
    split: bool = False,
    features: bool = False,
    change: Callable[[list[dict[str, str]], list[tuple[str, str]]], None] | None = None,
    seed: int = 0,
) -> Path:
    """A folder with a graph of three classes whose texts and links tell them apart, but not without fail.

    Args:
      split: add a column with 8 training, 6 validation and 6 test nodes of every 20 of a class.
      features: add ``features.npz``, counts of words.
      change: edits the rows of both tables before they are written.
    """
    random = np.random.default_rng(seed)
    everything = [word for topic in TOPICS.values() for word in topic]
    nodes, edges = [], []
    for i in range(3 * n_per_class):
        label = list(TOPICS)[i % 3]
        own = random.choice(TOPICS[label], size=4).tolist() + random.choice(everything, size=3).tolist()
        part = ("train",) * 8 + ("valid",) * 6 + ("test",) * 6
        row = {
            "node": f"n{i}",
            "title": " ".join(own[:2]),
            "abstract": " ".join(random.permutation(own)),
            "label": label,
        }
        nodes.append(row | ({"split": part[i // 3 % 20]} if split else {}))
        for _ in range(2):
            same = 3 * int(random.integers(n_per_class)) + i % 3
            other = same if random.random() < 0.8 else int(random.integers(3 * n_per_class))
            edges.append((f"n{i}", f"n{other}"))
    if change is not None:
        change(nodes, edges)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "nodes.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(nodes[0]))
        writer.writeheader()
        writer.writerows(nodes)
    with open(folder / "edges.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("src", "dst"), *edges])
    if features:
        counts = [[row["abstract"].split().count(word) for word in everything] for row in nodes]
        np.savez(folder / "features.npz", features=np.array(counts, np.float32))
    return folder


@pytest.fixture(scope="session")
def text_graph_folder() -> Callable[..., Path]:
    """Writes a text graph: ``text_graph_folder(folder, split=True, …)``."""
    return write_text_graph
