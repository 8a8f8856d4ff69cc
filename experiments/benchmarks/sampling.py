"""Edges a second that one core samples, and memory, up to 100 million edges: python experiments/benchmarks/sampling.py

Graphs are built on disk (0.9 GB for the larger one, in a temporary folder, which ``--folder`` moves) and sampled from
there. In-degrees are skewed: the node most edges end in has thousands. Batches of 1,024 seeds, fan-outs 10 and 10.
Building and sampling run in processes of their own on one core. Seconds are those of the processor, which other work of
the machine does not lengthen; memory is the most that such a process had resident, with Python, JAX and whatever of the
files the system had mapped into it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLAIM = "edges that one core samples in a second, drawn alone and made into blocks, and memory at its peak"
CASES = {"small": (200_000, 2_000_000), "large": (10_000_000, 100_000_000)}
BATCH, FAN_OUTS, BATCHES = 1024, [10, 10], 60
_PIECE = 4_000_000


def pieces(n_node: int, n_edge: int):
    """The same random edges in every pass, some at a time."""
    for number, start in enumerate(range(0, n_edge, _PIECE)):
        random = np.random.default_rng([number])
        size = min(_PIECE, n_edge - start)
        receivers = (n_node * np.square(random.random(size))).astype(np.int32)
        yield random.integers(0, n_node, size, np.int32), receivers


def build(folder: Path, n_node: int, n_edge: int) -> dict:
    from jaxgkd.graphs.compressed import EDGE, NODE, write_compressed

    begun = time.process_time()
    write_compressed(folder, {NODE: n_node}, {EDGE: lambda: pieces(n_node, n_edge)})
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {"seconds to build": round(time.process_time() - begun), "MB on disk": round(size / 1e6)}


def sample(folder: Path, n_node: int, n_edge: int) -> dict:
    from jaxgkd.graphs.block_batches import BlockBatches, ask_nodes
    from jaxgkd.graphs.compressed import EDGE, NODE, open_compressed
    from jaxgkd.graphs.sampling import NeighbourSampler

    sampler = NeighbourSampler(open_compressed(folder), FAN_OUTS)
    items = np.random.default_rng(0).permutation(n_node)[: n_node // 2]
    batches = BlockBatches(sampler, ask_nodes(NODE, items), len(items), BATCH)
    batches.sample(0, BATCHES)
    begun = time.process_time()
    drawn = sum(batches.sample(0, number).n_edges for number in range(BATCHES))
    drawing = time.process_time() - begun
    # Another epoch, so that nothing of a batch is in the caches yet; its order is drawn before the clock starts.
    batches.batch(1, BATCHES)
    begun = time.process_time()
    blocks = [batches.batch(1, number) for number in range(BATCHES)]
    making = time.process_time() - begun
    masks = [mask for block in blocks for mask in (block.node_mask[NODE], block.edge_mask[EDGE])]
    return {
        "edges/s drawn": round(drawn / drawing),
        "edges/s in blocks": round(sum(int(mask.sum()) for mask in masks[1::2]) / making),
        "edges a batch": round(drawn / BATCHES),
        "padding": 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks),
        "shapes": len({(block.node_mask[NODE].size, block.edge_mask[EDGE].size) for block in blocks}),
    }


def alone(task: str, name: str, folder: Path) -> dict:
    """A task in a process of its own, on one core."""
    command = [sys.executable, __file__, "--task", task, "--case", name, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(parent: Path | None) -> list[dict]:
    rows = []
    for name, (n_node, n_edge) in CASES.items():
        with tempfile.TemporaryDirectory(dir=parent) as temporary:
            built = alone("build", name, Path(temporary) / "graph")
            sampled = alone("sample", name, Path(temporary) / "graph")
        memory = {"MB building": built.pop("memory"), "MB sampling": sampled.pop("memory")}
        rows.append({"nodes": n_node, "edges": n_edge, **built, **sampled, **memory})
        print(json.dumps(rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="where temporary folders are made")
    parser.add_argument("--task", choices=("build", "sample"), help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task is None:
        from sides import record

        record("sampling", CLAIM, [], counted=measured(given.folder))
    else:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        result = {"build": build, "sample": sample}[given.task](given.folder, *CASES[given.case])
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps(result | {"memory": round(1024 * most / 1e6)}))
