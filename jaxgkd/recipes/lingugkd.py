"""LinguGKD: a language model teaches a graph network on a text-attributed graph (Hu et al., AAAI 2025).

    jaxgkd run lingugkd                          # SciPy's own documentation, in a few minutes on two cores
    jaxgkd run lingugkd --data cora --search 12

1. The language model reads every node's text, alone (hop 0) and with its neighbours' titles (hop 1, 2, …).
2. Heads on these features, none of which saw the label of the node it describes, say how likely each class is.
3. A student on shallow inputs learns the labels alone, and another one the same labels and the teacher: its class
   probabilities on all nodes, its hop features layer by layer, node by node and part by part of the graph.
4. Both are scored once on the test nodes: same splits, seeds, inputs and number of settings tried.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from rich.console import Console

from jaxgkd.data import registry
from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.errors import ConfigError
from jaxgkd.graphs import from_edges
from jaxgkd.language import TuningSettings
from jaxgkd.nn.alignment import Alignment
from jaxgkd.nn.distilled import TERMS, DistilledStudent, Objective, distillation_loss, part_means
from jaxgkd.nn.encoders import Student, make_student
from jaxgkd.recipes.batched_rows import batched, train_batched_row, without_parts
from jaxgkd.recipes.kept_nodes import keep_node_student
from jaxgkd.recipes.lingugkd_config import SETTINGS, SPACE, TEACHER_SPACE, LinguGKD, check, shrunk
from jaxgkd.recipes.node_rows import Row, train_row
from jaxgkd.recipes.node_splits import NodeSplits, draw_splits, pseudo_labelled
from jaxgkd.recipes.node_summary import milliseconds_of_heads, write_run
from jaxgkd.recipes.node_teacher import instructed_models, teach, tuned_encoders
from jaxgkd.recipes.searched_fit import Budget
from jaxgkd.recipes.student_inputs import student_inputs
from jaxgkd.teachers.heads import HeadSettings
from jaxgkd.teachers.hops import (
    HopFeatures,
    TextEncoder,
    hop_features,
    hop_prompts,
    milliseconds_per_node,
)
from jaxgkd.teachers.instruct import InstructSettings
from jaxgkd.teachers.text_tuning import TuneSettings
from jaxgkd.teachers.zero_shot import zero_shot_probabilities
from jaxgkd.training.run_dir import RunDirectory, check_folder
from jaxgkd.training.search import Choice, read_sweep
from jaxgkd.training.student_folder import write_student


def run(config: LinguGKD, console: Console, optimizer=None) -> Path:
    """All steps; returns the folder of the run.

    Args:
      config: the settings.
      console: for progress.
      optimizer: a function from a dict with ``learning_rate`` and ``weight_decay`` to any
        ``optax.GradientTransformation``, used for every student.

    Raises:
      JaxgkdError: the data, the teacher, a setting or the folder cannot be used.
    """
    started = time.perf_counter()
    config = shrunk(config) if config.smoke else config
    check(config)
    config = without_parts(config) if config.batch_nodes else config
    graph = registry.load(config.data, recipe="lingugkd", **registry.column_options(config.text_columns, config.label))
    console.print(f"{graph.name}: {graph.n_node:,} nodes, {graph.n_edge:,} edges, {len(graph.class_names)} classes")
    splits = draw_splits(graph, config.split, list(range(config.seeds)), shots=config.shots, protocol=config.protocol)
    out = config.out or Path("runs") / f"lingugkd-{graph.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    settings = _identity(config, graph)
    if check_folder(out, resume=config.resume) and RunDirectory(out, settings, resume=True).finished:
        return out

    encoder = TextEncoder.load(config.teacher)
    if config.base_bits and not encoder.is_causal:
        what = "the upper layers of an encoder are tuned in full precision"
        raise ConfigError(what, field="--base-bits", mend="leave it out, or choose a causal --teacher")
    if config.smoke and not encoder.is_causal:
        # Instructions and class names would not fit into prompts as short as this.
        config = replace(config, max_tokens=min(config.max_tokens, 32))
    features = hop_features(
        graph,
        encoder,
        # The prompt of a neighbour would name nodes that inductive training must not know of.
        hops=0 if config.split == "inductive" else config.hops,
        max_tokens=config.max_tokens,
        progress=console.is_terminal,
        on_line=console.print,
    )
    console.print(f"teacher features: {features.report['seconds']:.1f} s, kept in {features.folder}")
    if config.label_free:
        splits = pseudo_labelled(
            splits, zero_shot_probabilities(graph, features, encoder, max_tokens=config.max_tokens)
        )
    inputs, vocabulary = student_inputs(graph, splits, positions=config.positions)
    folds, tuning_folds = (1, 1) if config.protocol == "paper" else (config.folds, 2)
    tuned = None
    if config.tune == "lm":
        epochs = 1 if config.smoke else 3
        if encoder.is_causal:
            instructing = InstructSettings(
                config.max_tokens, tuning_folds, TuningSettings(epochs=epochs), base_bits=config.base_bits
            )
            hops = features.states.shape[1] - 1
            tuned = instructed_models(graph, encoder, splits, instructing, console, hops=hops)
        else:
            tuning = TuneSettings(max_tokens=config.max_tokens, folds=tuning_folds, epochs=epochs)
            tuned = tuned_encoders(graph, encoder, splits, tuning, console)
    head_settings = HeadSettings(folds=folds, epochs=min(100, config.epochs))
    taught = teach(splits, features, inputs, config.heads, head_settings, console, tuned=tuned)
    heads = taught.heads

    # Made as late as this, data or a teacher that cannot be used leave nothing behind; what the teacher said is cached.
    run_dir = RunDirectory(out, settings, resume=config.resume)
    splits.save(run_dir.path)
    if vocabulary is not None:
        vocabulary.save(run_dir.path / "vocabulary.json")
    student_graph, layout = from_edges(inputs, splits.senders, splits.receivers, splits.n_rows)
    said = _said(config, splits, heads.log_probs)
    if config.batch_nodes:
        train, (run_data, shared) = train_batched_row, batched(config, splits, said, features.folder)
        if not config.reference:
            # The heads have read them all; steps read theirs from the store.
            features = replace(features, states=features.states[:1].copy())
    else:
        train, (run_data, shared) = train_row, _whole(config, splits, said, features.states)
    shared |= {"graph": student_graph, "layout": layout}
    sweep = {SETTINGS[field]: choice for field, choice in read_sweep(config.sweep, list(SETTINGS)).items()}
    budget = Budget(config.epochs, config.patience or None, config.search, config.search_seeds, sweep=sweep)
    common = {"learning_rate": config.learning_rate, "weight_decay": config.weight_decay, "dropout": config.dropout}
    strengths = {
        "label": config.label_strength,
        "temperature": config.temperature,
        "align_temperature": config.align_temperature,
        **{term: getattr(config, f"{term}_strength") for term in TERMS},
    }
    used = {"label", "temperature", *config.terms}
    teacher_space = {name: choice for name, choice in TEACHER_SPACE.items() if name in used}
    objective = Objective(config.terms, config.layer_weighting, config.term_weighting, config.aligned_nodes)
    classes = len(graph.class_names)

    def student(d_in: int) -> Callable[[Array], Student]:
        sizes = (config.student, d_in, config.width, config.hops, classes)
        return partial(make_student, *sizes, norm=config.norm, readout=config.readout)

    alone = student(inputs.shape[1])
    sizes = (features.states.shape[2], config.width, config.hops + 1, len(config.terms) + 1)

    def row(name: str, make: Any, space: dict[str, Choice], default: dict[str, float], **changed: Any) -> Row:
        arguments = {"run_data": run_data, "shared": shared, "budget": budget, "run_dir": run_dir, "console": console}
        if optimizer is not None:
            arguments["optimizer"] = optimizer
        return train(name, make, seeds=splits.seeds, default=default, space=space, **(arguments | changed))

    rows = {
        "student_alone": row("student_alone", alone, SPACE, common),
        "student_distilled": row(
            "student_distilled",
            partial(_distilled, alone, sizes),
            SPACE | teacher_space,
            common | strengths,
            total_loss=distillation_loss(objective),
            counted=lambda model: model.student,
        ),
    }
    if config.reference:
        dense = jnp.asarray(splits.pad(features.states[:, 0]))
        rows["student_on_embeddings"] = row(
            "student_on_embeddings",
            student(dense.shape[1]),
            SPACE,
            common,
            shared=shared | {"graph": student_graph._replace(nodes=dense)},
        )
    write_student(
        run_dir.path,
        keep_node_student(
            rows["student_distilled"],
            splits.seeds,
            kind=config.student,
            d_in=inputs.shape[1],
            width=config.width,
            layers=config.hops,
            norm=config.norm,
            readout=config.readout,
            class_names=graph.class_names,
            text_columns=config.text_columns,
            label=config.label,
            vocabulary=vocabulary,
            positions=config.positions,
        ),
    )
    prompts = hop_prompts(graph, encoder, hops=features.states.shape[1] - 1, max_tokens=config.max_tokens)
    head_ms = milliseconds_of_heads(heads, taught.graph, layout) / graph.n_node
    language_ms = milliseconds_per_node(encoder, prompts, max_tokens=config.max_tokens)
    write_run(
        run_dir,
        graph=graph,
        splits=splits,
        rows=rows,
        labels=_labels(config, encoder.name),
        heads=heads,
        describe={
            "recipe": "lingugkd",
            "protocol": config.protocol,
            "teacher": {
                "name": _labels(config, encoder.name)["teacher"],
                "weights_sha256": encoder.weights_hash,
            },
            "student": {"name": config.student.upper(), "width": config.width, "layers": config.hops},
            "split": _split_name(config),
        },
        cost={
            "teacher_parameters": encoder.model.n_parameters + heads.parameters,
            "teacher_ms_per_item": language_ms + head_ms,
            "extract_seconds": features.report["seconds"],
        },
        notes=_notes(config, graph, features, time.perf_counter() - started),
    )
    return out


def _distilled(student: Callable[[Array], Student], sizes: tuple[int, int, int, int], key: Array) -> DistilledStudent:
    """A student beside its alignment of the given `Alignment` sizes."""
    student_key, alignment_key = jax.random.split(key)
    return DistilledStudent(student(student_key), Alignment(*sizes, rngs=nnx.Rngs(params=alignment_key)))


def _labels(config: LinguGKD, teacher: str) -> dict[str, str]:
    kind = config.student.upper()
    return {
        "teacher": f"{teacher} + {' and '.join(kind.upper() for kind in config.heads)}",
        "student_alone": f"{kind} alone",
        "student_distilled": f"{kind} distilled",
        "student_on_embeddings": f"{kind} on the teacher's features",
    }


def _split_name(config: LinguGKD) -> str:
    shots = f", {config.shots} labels a class" if config.shots else ""
    return f"{config.split}{shots}{', no labels' if config.label_free else ''}"


def _notes(config: LinguGKD, graph: TextGraph, features: HopFeatures, seconds: float) -> list[str]:
    notes = list(graph.notes)
    cut = features.report["n_truncated"]
    if cut:
        notes.append(f"{cut:,} prompts were longer than {config.max_tokens} tokens and were cut")
    if config.protocol == "paper":
        notes.append(
            "The published protocol selects on the test nodes and lets heads describe nodes whose labels they saw: "
            "its figures are too high"
        )
    if graph.features is None:
        notes.append("The vocabulary of the student's inputs counts the words of all nodes, labels play no part in it")
    if config.split == "inductive":
        notes.append(
            "Test nodes and their edges are absent while the heads and the students train; only the vocabulary and the "
            "leading directions of the language model's features, which need no labels, count all nodes"
        )
    if config.batch_nodes:
        notes.append(
            f"Students were trained on batches of {config.batch_nodes:,} nodes; the alignment of parts of the graph, "
            "which needs all nodes at once, was left out"
        )
    notes.append(f"The run took {seconds:.0f} s since it was last started")
    return notes


def _identity(config: LinguGKD, graph: TextGraph) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(config).items() if key not in ("out", "resume")}
    return settings | {
        "recipe": "lingugkd",
        "class_names": list(graph.class_names),
        "data_facts": registry.describe(graph),
    }


def _said(config: LinguGKD, splits: NodeSplits, log_probs: np.ndarray) -> dict[str, np.ndarray]:
    """Where and what the student is taught: arrays with the seeds first."""
    described = splits.visible
    if config.split == "inductive":
        # Else validation would reward imitation on nodes the teacher has described, and say little about new ones.
        described = described & ~splits.valid
    chosen = {"all": described, "labelled": splits.train, "unlabelled": described & ~splits.train}[config.taught]
    certain = np.where(log_probs.max(axis=-1) >= np.log(config.confidence), log_probs.argmax(axis=-1), -1)
    return {
        "teacher_log_probs": log_probs,
        "taught": chosen,
        "aligned_classes": np.where(splits.train, splits.labels, certain).astype(np.int32),
    }


def _whole(
    config: LinguGKD, splits: NodeSplits, said: dict[str, np.ndarray], features: np.ndarray
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What steps over the whole graph read: of every seed, and what all share."""
    by_hop = (len(features), config.hops + 1, features.shape[2])
    states, chosen = jnp.asarray(splits.pad(np.broadcast_to(features, by_hop))), said["taught"]
    parts = splits.part_layout(config.parts)
    of_parts = [part_means(states.reshape(len(states), -1), jnp.asarray(taught), parts)[0] for taught in chosen]
    run_data = splits.run_data(config.class_weights) | {name: jnp.asarray(values) for name, values in said.items()}
    run_data |= {
        "taught_nodes": jnp.asarray(np.argsort(~chosen, axis=1, kind="stable"), jnp.int32),
        "part_features": jnp.stack(of_parts).reshape(len(chosen), -1, *states.shape[1:]),
    }
    return run_data, {"part_layout": parts, "teacher_states": states}
