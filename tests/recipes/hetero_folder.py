"""A small folder of films, with texts on two of three node types and all kinds of tasks, and small runs on it."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas

from jaxgkd import cli
from jaxgkd.training.summary import check_summary

TOPICS = {
    "graph": ("graph", "neural", "network"),
    "student": ("student", "teacher", "learns"),
    "molecules": ("molecules", "links", "papers"),
}
ACTS, DIRECTS = ("actor", "acts_in", "movie"), ("director", "directs", "movie")
METADATA = {
    "node_types": {
        "movie": {"text": ["title"], "label": "genre", "split": "part"},
        "actor": {"text": ["name"]},
        "director": {},
    },
    "edge_types": [list(ACTS), list(DIRECTS), ["actor", "known_for", "movie"]],
    "tasks": {
        "node_classification": {"node_type": "movie"},
        "edge_classification": {"edge_type": list(ACTS), "label": "lead", "split": "part"},
        "link_prediction": {"edge_type": list(ACTS), "split": "part"},
    },
}


def write_films(folder: Path, *, n=36, change=None, seed=0) -> Path:
    """Films of three genres; actors and directors keep to a genre, but not always.

    Args:
      folder: made; n: films; seed: of all that is drawn.
      change: edits the metadata and the tables (name → list of rows) before they are written.
    """
    random = np.random.default_rng(seed)
    genres = list(TOPICS)
    part = ("train",) * 4 + ("valid",) * 2 + ("test",) * 2
    words = [word for topic in TOPICS.values() for word in topic]
    movies, acts, directs, known = [], [], [], []
    for i in range(n):
        own = [*random.choice(TOPICS[genres[i % 3]], 3), *random.choice(words, 2)]
        movies.append({"node": f"m{i}", "title": " ".join(own), "genre": genres[i % 3], "part": part[i // 3 % 8]})
        for actor in random.choice(n // 3, 3, replace=False):
            actor = 3 * actor // 3 * 3 + i % 3 if random.random() < 0.8 else actor
            pair = {"src": f"a{actor % n}", "dst": f"m{i}"}
            if pair not in [{key: edge[key] for key in pair} for edge in acts]:
                acts.append(pair | {"lead": "yes" if actor % 2 else "no", "part": random.choice(part)})
                known.append(pair)
        known.append({"src": f"a{random.integers(n)}", "dst": f"m{i}"})
        directs.append({"src": f"d{i % 3 + 3 * random.integers(2)}", "dst": f"m{i}"})
    tables = {
        "nodes_movie": movies,
        "nodes_actor": [{"node": f"a{i}", "name": " ".join(random.choice(TOPICS[genres[i % 3]], 2))} for i in range(n)],
        "nodes_director": [{"node": f"d{i}"} for i in range(6)],
        "edges_actor__acts_in__movie": acts,
        "edges_director__directs__movie": directs,
        "edges_actor__known_for__movie": known,
    }
    metadata = json.loads(json.dumps(METADATA))
    if change is not None:
        change(metadata, tables)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    for name, rows in tables.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return folder


def with_features(folder: Path, seed=0) -> Path:
    """The folder, in which films have two features beside their titles."""
    n = len((folder / "nodes_movie.csv").read_text().splitlines()) - 1
    features = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    np.savez(folder / "features_movie.npz", features=features)
    return folder


#: Settings of a run that takes seconds.
SMALL = {
    "seeds": 2,
    "lm_seeds": 1,
    "max_tokens": 12,
    "tuned_layers": 1,
    "lm_steps": 2,
    "cotrain_steps": 2,
    "lm_batch_size": 4,
    "lm_nodes_per_batch": 4,
    "batch_size": 8,
    "epochs": 5,
    "width": 8,
    "layers": 1,
    "encoder": "sage",
    "n_candidates": 5,
    "n_negatives": 3,
    "edges_per_step": 8,
}


def run_films(data, out, teacher, *flags, **settings) -> int:
    """The exit code of a run on the command line."""
    words = ["run", "lmgnn", "--smoke", "--data", str(data), "--out", str(out), "--teacher", str(teacher)]
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return cli.main([*words, *flags])


def summary_of(folder):
    summary = json.loads((folder / "summary.json").read_text())
    check_summary(summary, folder / "summary.json")
    return summary


def predicted(run, data, out, *flags) -> pandas.DataFrame:
    assert cli.main(["predict", str(run), "--data", str(data), "--out", str(out), *flags]) == 0
    return pandas.read_csv(out)


def without_asked_edges(folder):
    """The films again, of the relation that is asked about the edges that train alone; and all that was asked."""
    asked = []

    def change(metadata, tables):
        asked.extend(tables["edges_actor__acts_in__movie"])
        tables["edges_actor__acts_in__movie"] = [edge for edge in asked if edge["part"] == "train"]

    return write_films(folder, change=change), pandas.DataFrame(asked)
