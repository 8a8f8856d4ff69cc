"""``jaxgkd predict`` on a million nodes: the seconds it takes and the most memory the process holds.

    python experiments/benchmarks/predict.py            # an MLP and a GCN; some minutes on two cores
    python experiments/benchmarks/predict.py --nodes 50000

The nodes are made up: each has a text of 10 to 20 words out of 5,000, and there are 5 links a node. The students have
the size of those of ``jaxgkd run lingugkd`` on Cora and weights that nothing has trained, which changes no time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow
import pyarrow.csv
from flax import nnx
from sides import record

from jaxgkd.data.bag_of_words import Vocabulary
from jaxgkd.nn.encoders import make_student
from jaxgkd.nn.named_weights import student_weights
from jaxgkd.recipes.kept_nodes import VOCABULARY
from jaxgkd.training.student_folder import KeptStudent, write_student

WORDS, WIDTH, LAYERS, CLASSES = 5000, 64, 2, 40
LIMIT_GIB = 4


def write_graph(folder: Path, n_node: int, links: int, seed: int = 0) -> None:
    """A folder of ``n_node`` nodes and ``links`` edges a node, written in pieces."""
    random = np.random.default_rng(seed)
    words = np.array([f"word{i}" for i in range(WORDS)])
    for name, header, rows in (("nodes", ("node", "text"), n_node), ("edges", ("src", "dst"), links * n_node)):
        schema = pyarrow.schema([(field, pyarrow.string()) for field in header])
        with pyarrow.csv.CSVWriter(folder / f"{name}.csv", schema) as writer:
            for start in range(0, rows, 2**16):
                size = min(2**16, rows - start)
                if name == "nodes":
                    # Words are as unequal as those of a language: the square makes small numbers frequent.
                    drawn = (WORDS * random.random((size, 20)) ** 2).astype(int)
                    lengths = random.integers(10, 21, size)
                    texts = [" ".join(words[row[:k]]) for row, k in zip(drawn, lengths, strict=True)]
                    columns = [[f"n{i}" for i in range(start, start + size)], texts]
                else:
                    columns = [[f"n{i}" for i in random.integers(n_node, size=size)] for _ in header]
                writer.write(pyarrow.record_batch(columns, schema=schema))


def write_run(folder: Path, kind: str) -> None:
    """A folder that looks like a finished run with a student of ``kind``."""
    model = make_student(kind, WORDS, WIDTH, LAYERS, CLASSES, jax.random.key(0), norm="batch")
    weights = student_weights(*nnx.split(model, nnx.Param, ...)[1:])
    folder.mkdir()
    for name in ("config.json", "summary.json"):
        (folder / name).write_text("{}")
    vocabulary = Vocabulary(tuple(sorted(f"word{i}" for i in range(WORDS))), (1.0,) * WORDS)
    write_student(
        folder,
        KeptStudent(
            recipe="lingugkd",
            reads={
                "data": "text graph",
                "inputs": "words",
                "width": WORDS,
                "edges": kind != "mlp",
                "text_columns": [],
                "label": "label",
                "positions": 0,
            },
            model={
                "kind": kind,
                "d_in": WORDS,
                "width": WIDTH,
                "layers": LAYERS,
                "norm": "batch",
                "readout": "last",
                "classes": CLASSES,
            },
            says={"kind": "classes", "names": [f"class {i}" for i in range(CLASSES)]},
            members=[{"seed": 0, "valid": 0.5}],
            chosen=[0],
            why="the only one",
            weights={name: leaf[None] for name, leaf in weights.items()},
            files={VOCABULARY: vocabulary.to_json().encode()},
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--links", type=int, default=5)
    options = parser.parse_args()
    measured = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "graph"
        data.mkdir()
        write_graph(data, options.nodes, options.links)
        for kind in ("mlp", "gcn"):
            folder, out = Path(scratch) / kind, Path(scratch) / f"{kind}.parquet"
            write_run(folder, kind)
            command = [sys.executable, "-m", "jaxgkd.cli", "predict", str(folder), "--data", str(data)]
            begun = time.perf_counter()
            process = subprocess.Popen([*command, "--out", str(out)])
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begun
            if status:
                raise SystemExit(f"the {kind} ended with {status}")
            scale = 2**20 if sys.platform == "linux" else 2**30
            entry = {
                "case": {"student": kind, "nodes": options.nodes, "edges": options.links * options.nodes},
                "seconds": {"jaxgkd": [seconds]},
                "peak_gib": usage.ru_maxrss / scale,
                "output_mib": out.stat().st_size / 2**20,
            }
            print(json.dumps(entry))
            measured.append(entry)
    peak = {entry["case"]["student"]: entry["peak_gib"] for entry in measured}
    if options.nodes == parser.get_default("nodes"):
        claim = f"a million nodes are predicted in less than {LIMIT_GIB} GiB, reading and writing included"
        record("predict", claim, measured, peak_gib=peak, load_average=os.getloadavg()[0])
    worst = max(peak.values())
    print(f"at most {worst:.2f} GiB")
    raise SystemExit(worst >= LIMIT_GIB)


if __name__ == "__main__":
    main()
