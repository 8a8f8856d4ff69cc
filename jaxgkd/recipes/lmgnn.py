"""LM-GNN: language models and graph networks trained together on heterogeneous graphs (Ioannidis et al., 2022).

    jaxgkd run lmgnn                                             # SciPy's own documentation
    jaxgkd run lmgnn --data wikispeedia --task link_prediction

1. The language model is fine-tuned on the task, on which texts are linked, or on both, from texts alone (stage 1).
2. A GNN learns on what the language model says of every node, frozen as it was, and fine-tuned (stage 2).
3. Both are trained together, a few texts a step (stage 3); or each learns what the other says of nodes without labels.
4. A language model that reads a node alone learns to say what the GNN says of it, for nodes without links.

Every row has the same split and is scored once on what the test part holds. The rows that learn on embeddings try the
same number of settings. Those that train the language model try none: they take what was given, or what the GNN on the
tuned one chose, and may have fewer seeds.
"""

import json
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxgkd.data import registry
from jaxgkd.data.hetero_graphs import HeteroGraph, describe_hetero
from jaxgkd.data.mentions import with_mentions
from jaxgkd.errors import ConfigError, DataError
from jaxgkd.nn.hetero_problem import Drawing
from jaxgkd.nn.hetero_tasks import LinkTask, NodeTask
from jaxgkd.recipes.lmgnn_config import LMGNN, SPACE, check, resolved, shrunk
from jaxgkd.recipes.lmgnn_data import TaskData, task_data
from jaxgkd.recipes.lmgnn_linking import linked_texts
from jaxgkd.recipes.lmgnn_networks import Workplace
from jaxgkd.recipes.lmgnn_stages import Stages
from jaxgkd.recipes.lmgnn_summary import write_hetero_run
from jaxgkd.recipes.lmgnn_texts import graph_texts
from jaxgkd.recipes.searched_fit import Budget
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.training.candidates import save_candidates
from jaxgkd.training.checkpoint import load_tree
from jaxgkd.training.run_dir import RunDirectory, check_folder, read_json
from jaxgkd.training.search import read_sweep

__all__ = ["LMGNN", "run"]

# What settings of a start are called that differ, where their values say nothing.
_OTHER = {
    "data_facts": "other data",
    "split_sha256": "another split",
    "teacher_sha256": "a language model with other weights",
}
# Settings that say nothing of a GNN on the frozen language model, or on the tuned one that is taken from a start.
_OF_OTHER_STAGES = {
    *("start", "stages", "task", "data", "teacher", "supervision", "lm_steps", "lm_batch_size", "lm_learning_rate"),
    *("lora_rank", "rematerialise", "cotrain_steps", "batch_size", "lm_nodes_per_batch", "cotrain_learning_rate"),
    *("freeze_steps", "refresh_every", "refresh_texts", "pseudo_weight"),
}


def run(config: LMGNN, console: Console) -> Path:
    """All steps; returns the folder of the run.

    Raises:
      JaxgkdError: the data, the teacher, a setting or the folder cannot be used.
    """
    started = time.perf_counter()
    config = shrunk(config) if config.smoke else config
    check(config)
    config = resolved(config)
    graph: HeteroGraph = registry.load(config.data, recipe="lmgnn")
    graph = with_mentions(graph) if config.mentions else graph
    if not graph.tasks:
        raise ConfigError(f"{graph.name} sets no task", field="--data", mend="add tasks to metadata.json")
    name = next(iter(graph.tasks)) if config.task == "auto" else config.task
    console.print(f"{graph.name}: {sum(graph.n_node.values()):,} nodes, {name}")
    data = task_data(
        graph,
        name,
        candidates=config.candidates,
        n_candidates=config.n_candidates,
        score=config.score,
        loss=config.loss,
        left_out=config.without,
    )
    if not isinstance(data.task, NodeTask) or data.task.kind == "regression":
        # A node's label is what one says for the other, and what the text alone is to say.
        config = replace(config, stages=tuple(stage for stage in config.stages if stage in ("lm", "cotrain")))
    if isinstance(data.task, LinkTask) and config.n_negatives > graph.n_node[data.task.edge_type[2]]:
        n_node = graph.n_node[data.task.edge_type[2]]
        what = f"{config.n_negatives} negatives are more than the {n_node} nodes there are"
        raise ConfigError(what, field="--n-negatives", mend=f"use {n_node} or fewer")
    drawing = Drawing(
        # The edges a step asks about pass no messages in it: were it all, the relation would never be trained.
        min(config.edges_per_step, max(1, len(data.rows["train"]) // 2)),
        _negatives(config, data),
        config.n_negatives,
    )
    _check_texts(config, data)
    out = config.out or Path("runs") / f"lmgnn-{graph.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    identity = _identity(config, data)
    if check_folder(out, resume=config.resume) and RunDirectory(out, identity, resume=True).finished:
        return out

    encoder = TextEncoder.load(config.teacher)
    identity["teacher_sha256"] = encoder.weights_hash
    if config.start is not None:
        _check_start(config.start, identity, data.task)
    texts = graph_texts(
        graph, encoder, tuned_layers=config.tuned_layers, max_tokens=config.max_tokens, on_line=console.print
    )
    by_links = bool(config.stages) and config.start is None and config.supervision != "task"
    links = linked_texts(data, texts) if by_links else None
    begun = time.perf_counter()
    table = jnp.asarray(texts.read(texts.weights))
    read_seconds = time.perf_counter() - begun
    run_dir = RunDirectory(out, identity, resume=config.resume)
    if config.start is not None:
        _take_over(config.start, run_dir, identity)
    for part, listed in data.candidates.items():
        save_candidates(listed, run_dir.path / f"candidates-{part}.npz")
    place = Workplace(data, texts, drawing, config.encoder, config.width, config.layers, _others(graph))
    stages = Stages(
        config=config,
        place=place,
        table=table,
        budget=Budget(
            config.epochs,
            config.patience or None,
            config.search,
            config.search_seeds,
            sweep=read_sweep(config.sweep, list(SPACE)),
            evaluate_every=5,
        ),
        run_dir=run_dir,
        start=config.start,
        links=links,
        console=console,
    )
    rows = stages.run()
    write_hetero_run(
        run_dir,
        config=config,
        place=place,
        rows=rows,
        encoder=encoder,
        table=np.asarray(table),
        read_seconds=read_seconds,
        n_links=None if links is None else len(links),
        started=started,
    )
    return out


def _check_texts(config: LMGNN, data: TaskData) -> None:
    """Raises an error where there is nothing for the language model to read, or nothing of what is asked for."""
    task, graph = data.task, data.graph
    if all(nodes.texts is None for nodes in graph.nodes.values()):
        raise DataError(f"{graph.name} has no node with a text", mend="name columns of text in metadata.json")
    ends = (task.node_type,) if isinstance(task, NodeTask) else (task.edge_type[0], task.edge_type[2])
    if config.stages and all(graph.nodes[name].texts is None for name in ends):
        what = f"nodes of type {' and '.join(dict.fromkeys(ends))} have no text to train a language model on"
        raise ConfigError(what, field="--stages", mend="name no stage, or give them texts")


def _negatives(config: LMGNN, data: TaskData) -> Any:
    if config.negatives == "auto":
        return "uniform" if data.negatives is None else "candidates"
    if config.negatives == "candidates" and data.negatives is None:
        what = "there are no candidates given"
        raise ConfigError(what, field="--negatives", mend="name a relation with --candidates, or use uniform")
    return config.negatives


def _others(graph: HeteroGraph) -> dict[str, jax.Array]:
    """What enters beside texts: features, and of nodes that have neither their rows."""
    others = {}
    for name, nodes in graph.nodes.items():
        if nodes.features is not None:
            others[name] = jnp.asarray(nodes.features.toarray())
        elif nodes.texts is None:
            others[name] = jnp.arange(len(nodes), dtype=jnp.int32)
    return others


def _identity(config: LMGNN, data: TaskData) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(config).items() if key not in ("out", "resume", "start")}
    graph = data.graph
    task = data.task
    of = graph.nodes[task.node_type] if isinstance(task, NodeTask) else graph.edges[task.edge_type]
    names = of.class_names
    return settings | {
        "recipe": "lmgnn",
        "start": None if config.start is None else str(config.start),
        "class_names": list(names),
        "data_facts": describe_hetero(graph),
        "split_sha256": data.split_sha256,
    }


def _check_start(folder: Path, identity: dict[str, Any], task: Any) -> None:
    """Raises ConfigError where the fine-tuned language models of a run, or the heads on them, cannot be used."""
    if not (folder / "config.json").exists():
        raise ConfigError("there is no run", file=folder, field="--start", mend="give the folder of a run")
    found = read_json(folder / "config.json")
    if not isinstance(found, dict) or found.get("recipe") != "lmgnn":
        raise ConfigError("is no run of lmgnn", file=folder, field="--start", mend="give the folder of one")
    for seed in range(identity["lm_seeds"] if identity["stages"] else 0):
        if not (folder / "checkpoints" / f"lm-{seed}").is_dir():
            what = f"there is no language model lm-{seed}"
            raise ConfigError(what, file=folder, field="--start", mend="give a run with as many --lm-seeds")
    wanted = json.loads(json.dumps(identity))
    flags = {"task": "--task", "data_facts": "--data", "split_sha256": "--data"}
    # The same weights may lie in two places, and others come to lie in the same one.
    flags["teacher_sha256" if "teacher_sha256" in found else "teacher"] = "--teacher"
    flags |= {name: f"--{name.replace('_', '-')}" for name in ("max_tokens", "tuned_layers", "width")}
    if isinstance(task, LinkTask):
        flags["score"] = "--score"
    for name, flag in flags.items():
        before, now = (_resolved_task(each) if name == "task" else each.get(name) for each in (found, wanted))
        if before != now:
            what = f"the run in --start had {_OTHER.get(name) or f'{before}, not {now}'}"
            raise ConfigError(what, file=folder / "config.json", field=flag, mend=f"give {flag} as it had it")


def _take_over(start: Path, run_dir: RunDirectory, identity: dict[str, Any]) -> None:
    """What stages 1 and 2 trained in the run to start from, where all that they go by is the same."""
    wanted, found = json.loads(json.dumps(identity)), read_json(start / "config.json")
    if all(found.get(name) == value for name, value in wanted.items() if name not in _OF_OTHER_STAGES):
        for name in ("text_only", "student_alone", "fine_tuned"):
            if (start / "checkpoints" / name).is_dir():
                run_dir.stage(name, partial(load_tree, start / "checkpoints" / name))


def _resolved_task(identity: dict[str, Any]) -> Any:
    """The first task of the graph where none was named."""
    return next(iter(identity["data_facts"]["tasks"])) if identity["task"] == "auto" else identity["task"]
