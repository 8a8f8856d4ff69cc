"""Epochs on mini-batches of a graph of ogbn-arxiv's size, and memory: python experiments/benchmarks/node_batches.py

170,000 nodes, 1.2 million edges read in both directions, 128 features, 40 classes; in-degrees are skewed. The teacher's
states, three hops of width 384 in half precision, lie in a memory-mapped store (a temporary folder, which ``--folder``
moves). Batches of 1,024 nodes, fan-outs 10 and 10, a GCN of width 64: alone, and distilled from soft labels and the
alignment of every layer. An epoch passes over all nodes and then computes every node with all its neighbours, for the
validation. Each row runs in a process of its own. Seconds are those of the clock and, where other work of the machine
lengthens these, of the processor; the first epoch, which compiles, is told apart. Memory is the most a process had
resident, with Python, JAX and whatever of the store the system had mapped into it, and, after each epoch, what was its
own.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

CLAIM = "seconds of an epoch and peak memory of students on mini-batches of a large graph, alone and distilled"
N_NODE, N_EDGE, D_IN, CLASSES, WIDTH, HOPS, D_TEACHER = 170_000, 1_200_000, 128, 40, 64, 2, 384
BATCH_NODES, FAN_OUTS, EPOCHS = 1024, [10, 10], 2
ROWS = ("alone", "distilled")
_PIECE = 20_000


def hidden_factors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(CLASSES, D_TEACHER)).astype(np.float32)


def labels_of_nodes() -> np.ndarray:
    return np.random.default_rng(2).integers(0, CLASSES, N_NODE).astype(np.int32)


def build(folder: Path) -> dict:
    """The teacher's store: hop after hop, noise around a direction for each class."""
    from jaxgkd.teachers.manifest import Manifest, item_ids_hash
    from jaxgkd.teachers.store import StoreWriter

    begun = time.perf_counter()
    ids = [f"{node}/hop{hop}" for hop in range(HOPS + 1) for node in range(N_NODE)]
    nothing = hashlib.sha256(b"").hexdigest()
    manifest = Manifest(
        teacher_id="synthetic",
        weights_hash=nothing,
        tokenizer_hash=nothing,
        prompt_hash=nothing,
        data_sha256=nothing,
        item_ids_hash=item_ids_hash(ids),
        n_items=len(ids),
        n_rows=len(ids),
        pooling="mean",
        layers=(6,),
        width=D_TEACHER,
        max_tokens=128,
    )
    directions, labels = hidden_factors(), labels_of_nodes()
    with StoreWriter(folder, manifest, ids) as writer:
        for start in range(0, len(ids), _PIECE):
            rows = np.arange(start, min(start + _PIECE, len(ids)))
            noise = np.random.default_rng([3, start]).normal(size=(len(rows), D_TEACHER))
            writer.write(start, (directions[labels[rows % N_NODE]] + 2 * noise)[:, None])
        writer.finish()
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {"seconds to build": round(time.perf_counter() - begun), "MB on disk": round(size / 1e6)}


def splits_and_inputs():
    from jaxgkd.recipes.node_splits import NodeSplits

    random = np.random.default_rng(4)
    labels = labels_of_nodes()
    one = (N_NODE * np.square(random.random(N_EDGE))).astype(np.int32)
    # Half of the edges stay within a class: the other end is a node of the same class.
    by_class = np.argsort(labels, kind="stable").astype(np.int32)
    start = np.searchsorted(labels[by_class], np.arange(CLASSES + 1))
    like = by_class[(start[labels[one]] + random.random(N_EDGE) * np.diff(start)[labels[one]]).astype(int)]
    other = np.where(random.random(N_EDGE) < 0.5, like, random.integers(0, N_NODE, N_EDGE)).astype(np.int32)
    part = random.random((1, N_NODE))
    splits = NodeSplits(
        seeds=[0],
        splits=(),
        n_classes=CLASSES,
        n_rows=N_NODE,
        labels=labels[None],
        train=part < 0.54,
        valid=(part >= 0.54) & (part < 0.72),
        test=part >= 0.72,
        visible=np.ones((1, N_NODE), bool),
        senders=np.concatenate([one, other]),
        receivers=np.concatenate([other, one]),
        train_layouts=None,
    )
    centres = random.normal(size=(CLASSES, D_IN)).astype(np.float32)
    inputs = random.normal(size=(N_NODE, D_IN)).astype(np.float32)
    inputs += 0.3 * centres[labels]
    right = np.where(random.random(N_NODE) < 0.75, labels, random.integers(0, CLASSES, N_NODE))
    log_probs = np.full((1, N_NODE, CLASSES), np.log(0.1 / (CLASSES - 1)), np.float32)
    log_probs[0, np.arange(N_NODE), right] = np.log(0.9)
    said = {
        "teacher_log_probs": log_probs,
        "taught": splits.visible,
        "aligned_classes": np.where(splits.train, labels, -1).astype(np.int32),
    }
    return splits, inputs, said


def train(row: str, folder: Path) -> dict:
    from jaxgkd.graphs.input_rows import DenseInputs
    from jaxgkd.nn.alignment import Alignment
    from jaxgkd.nn.block_problem import block_problem
    from jaxgkd.nn.distilled import DistilledStudent, Objective, distillation_loss
    from jaxgkd.nn.encoders import make_student
    from jaxgkd.nn.layerwise import LayerwiseStudent
    from jaxgkd.nn.node_problem import label_loss
    from jaxgkd.recipes.batched_rows import validated
    from jaxgkd.recipes.node_batches import NodeBatches
    from jaxgkd.teachers.hop_states import HopStates
    from jaxgkd.teachers.store import Store
    from jaxgkd.training.memory import keep_freed_memory
    from jaxgkd.training.stream_loop import fit_stream

    keep_freed_memory()
    splits, values, said = splits_and_inputs()
    inputs = DenseInputs(values)
    alone = row == "alone"
    teacher = None if alone else HopStates(Store.open(folder), N_NODE)
    begun = time.perf_counter()
    batches = NodeBatches(splits, said, teacher, batch_nodes=BATCH_NODES, fan_outs=FAN_OUTS)

    def student(key):
        return make_student("gcn", D_IN, WIDTH, HOPS, CLASSES, key, norm="batch")

    def distilled(key):
        alignment = Alignment(D_TEACHER, WIDTH, HOPS + 1, 3, rngs=nnx.Rngs(0))
        return DistilledStudent(student(key), alignment)

    objective = Objective(terms=("soft", "local"), aligned_nodes=256)
    make, counted, total_loss = (
        (student, lambda model: model, label_loss)
        if alone
        else (distilled, lambda model: model.student, distillation_loss(objective))
    )
    layerwise = LayerwiseStudent(make, counted, batches.training_edges(0), inputs)
    settings = {"learning_rate": 0.01, "weight_decay": 0.0, "dropout": 0.2, "temperature": 1.0}
    settings |= {"align_temperature": 0.07, "label": 1.0, "soft": 1.0, "local": 0.1}
    run_data = {
        "split": jnp.zeros(1, int),
        "class_weights": jnp.ones((1, CLASSES)),
        "settings": {name: jnp.full(1, value) for name, value in settings.items()},
    }
    clocks, own, scores = [(time.perf_counter(), time.process_time())], [], []
    prepared = clocks[0][0] - begun

    def after_epoch(epoch: int, score: float) -> None:
        del epoch
        clocks.append((time.perf_counter(), time.process_time()))
        own.append(own_memory())
        scores.append(round(score, 4))

    fit_stream(
        block_problem(make, total_loss),
        jnp.stack([jax.random.key(0)]),
        run_data,
        partial(batches.epoch, 0, inputs),
        partial(validated, layerwise, splits, np.zeros(1, int)),
        epochs=EPOCHS,
        on_progress=after_epoch,
    )
    seconds, processor = np.diff(clocks, axis=0).T
    return {
        "row": row,
        "steps an epoch": batches.n_batch(0),
        "seconds to prepare": round(prepared, 1),
        "seconds of the first epoch": round(float(seconds[0]), 1),
        "seconds of an epoch": round(float(np.median(seconds[1:])), 1),
        "processor seconds of an epoch": round(float(np.median(processor[1:])), 1),
        "validation accuracy": scores,
        "MB of its own": max(own),
    }


def own_memory() -> int:
    """Megabytes resident that are not files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e6)


def alone(task: str, folder: Path) -> dict:
    """A task in a process of its own."""
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(parent: Path | None) -> list[dict]:
    with tempfile.TemporaryDirectory(dir=parent) as temporary:
        store = Path(temporary) / "store"
        rows = [alone("build", store)]
        for row in ROWS:
            rows.append(alone(row, store))
            print(json.dumps(rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--task", choices=("build", *ROWS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task is None:
        from sides import record

        record("node_batches", CLAIM, [], counted=measured(given.folder))
    else:
        result = build(given.folder) if given.task == "build" else train(given.task, given.folder)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps(result | {"MB at its peak": round(1024 * most / 1e6)}))
