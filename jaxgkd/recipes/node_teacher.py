"""The teacher of a run over a text graph: a language model's features, heads on them, and what both say of every node.

What is fitted is kept in the user's cache under a hash of all it depends on, so that students of every kind that share
splits share the teacher.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jraph import GraphsTuple
from rich.console import Console

from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.graphs import MixedRows, SparseRows, build_layout, from_edges
from jaxgkd.recipes.node_splits import NodeSplits
from jaxgkd.teachers.heads import HeadEnsemble, HeadOutput, HeadSettings, fit_heads
from jaxgkd.teachers.hops import HopFeatures, TextEncoder, hop_prompts, leading_directions
from jaxgkd.teachers.instruct import InstructSettings, instruct_on_splits
from jaxgkd.teachers.text_tuning import TuneSettings
from jaxgkd.teachers.tune import tune_on_splits
from jaxgkd.training.compilation import cache_folder
from jaxgkd.training.progress import progress_bar
from jaxgkd.training.stage import once

#: Directions of the hop features that heads read: nearly all of their variance at a quarter of the cost.
HEAD_DIRECTIONS = 256
#: What heads of each kind are tried with, on the first seeds: few classes with long texts want more dropout, many
#: classes less.
HEAD_CHOICES = ({"dropout": 0.6, "learning_rate": 0.01}, {"dropout": 0.8, "learning_rate": 0.003})
_TRIED_SEEDS = 2


@dataclass(frozen=True)
class TaughtSplits:
    """What the teacher says of every split, and the graph that its first seed's heads read.

    Fields:
      heads: with log probabilities [seeds, n, classes].
      graph: the heads' inputs of the first seed.
    """

    heads: HeadEnsemble
    graph: GraphsTuple


@dataclass(frozen=True, eq=False)
class TunedTeacher:
    """What language models that were tuned on each split's labels say.

    Fields:
      states: [seeds, n, k, d] float32 of length 1, which take the place of the frozen model's first k hops.
      log_probs: [seeds, n, classes] of a causal model's answers, or None of an encoder.
    """

    states: np.ndarray
    log_probs: np.ndarray | None = None


def teach(
    splits: NodeSplits,
    features: HopFeatures,
    inputs: SparseRows,
    kinds: Sequence[str],
    settings: HeadSettings,
    console: Console,
    *,
    tuned: TunedTeacher | None = None,
) -> TaughtSplits:
    """Fit heads of every kind to every split, or read them.

    Args:
      splits: of all seeds.
      features: of the language model; heads read their leading directions beside ``inputs``.
      inputs: what the student sees.
      kinds: of heads, whose probabilities are averaged.
      settings: of one kind; its own kind is not read, nor what `HEAD_CHOICES` vary, which validation nodes decide.
      console: for progress.
      tuned: from `tuned_encoders` or `instructed_models`.
    """
    states = None if tuned is None else tuned.states
    graph = _head_graph(splits, features, inputs, None if states is None else states[0])

    def heads(of_kind: HeadSettings, seeds: int) -> HeadOutput:
        """Of the first seeds, read from the user's cache or fitted and put there."""

        def fitted() -> dict[str, Any]:
            output = _fit(splits, seeds, features, inputs, graph, of_kind, states, console)
            return {"log_probs": output.log_probs, "first_heads": output.first_heads}

        saved = once(cache_folder() / "heads" / _key(splits, seeds, features, inputs, of_kind, states), fitted)
        return HeadOutput(saved["log_probs"], saved["first_heads"], of_kind)

    n_seeds = len(splits.seeds)
    members = []
    for kind in kinds:
        trials = [heads(replace(settings, kind=kind, **choice), min(_TRIED_SEEDS, n_seeds)) for choice in HEAD_CHOICES]
        best = max(trials, key=lambda trial: _validation_likelihood(splits, trial))
        members.append(heads(best.settings, n_seeds))
    return TaughtSplits(HeadEnsemble(tuple(members), None if tuned is None else _answers(splits, tuned)), graph)


def _answers(splits: NodeSplits, tuned: TunedTeacher) -> np.ndarray | None:
    """[seeds, n_rows, classes]; the extra row of inductive splits is of no class."""
    if tuned.log_probs is None:
        return None
    extra = [(0, 0), (0, splits.n_rows - splits.n_node), (0, 0)]
    return np.pad(tuned.log_probs, extra, constant_values=-np.log(splits.n_classes))


def _validation_likelihood(splits: NodeSplits, output: HeadOutput) -> float:
    """Mean log-likelihood of the validation labels of the seeds that were fitted."""
    seeds = len(output.log_probs)
    labels = np.maximum(splits.labels[:seeds], 0)
    likelihood = np.take_along_axis(output.log_probs, labels[..., None], axis=-1)[..., 0]
    return float(likelihood[splits.valid[:seeds]].mean())


def tuned_encoders(
    graph: TextGraph,
    encoder: TextEncoder,
    splits: NodeSplits,
    settings: TuneSettings,
    console: Console,
) -> TunedTeacher:
    """Hop 0 of encoders whose upper layers were tuned on each split's labels.

    No node's features come from an encoder that saw its label, unless ``settings.folds`` is 1.
    """
    prompts = hop_prompts(graph, encoder, hops=0, max_tokens=settings.max_tokens)[0]
    n, passes = graph.n_node, settings.folds * settings.epochs * len(splits.seeds)
    with progress_bar(console, "tuning the language model", passes) as tick:
        outputs = tune_on_splits(
            encoder,
            prompts,
            splits.labels[:, :n],
            splits.train[:, :n],
            splits.valid[:, :n],
            splits.n_classes,
            settings,
            splits.seeds,
            on_progress=tick,
            on_line=console.print,
        )
    return TunedTeacher(_unit(np.stack([output.features for output in outputs])[:, :, None]))


def instructed_models(
    graph: TextGraph,
    encoder: TextEncoder,
    splits: NodeSplits,
    settings: InstructSettings,
    console: Console,
    *,
    hops: int,
) -> TunedTeacher:
    """All hops of causal models that were instructed with each split's labels, and the answers they give.

    No node is described by a model that saw its label, unless ``settings.folds`` is 1.
    """
    prompts = hop_prompts(graph, encoder, hops=hops, max_tokens=settings.max_tokens)
    n, passes = graph.n_node, settings.folds * settings.tuning.epochs * len(splits.seeds)
    with progress_bar(console, "tuning the language model", passes) as tick:
        outputs = instruct_on_splits(
            encoder,
            prompts,
            splits.labels[:, :n],
            splits.train[:, :n],
            splits.valid[:, :n],
            graph.class_names,
            settings,
            splits.seeds,
            on_progress=tick,
            on_line=console.print,
        )
    return TunedTeacher(
        _unit(np.stack([output.features for output in outputs])), np.stack([output.log_probs for output in outputs])
    )


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def _head_graph(splits: NodeSplits, features: HopFeatures, inputs: SparseRows, tuned: np.ndarray | None) -> GraphsTuple:
    states = features.states
    if tuned is not None:
        states = np.concatenate([tuned, states[:, tuned.shape[1] :]], axis=1)
    rows = MixedRows(jnp.asarray(splits.pad(leading_directions(states, HEAD_DIRECTIONS))), inputs)
    return from_edges(rows, splits.senders, splits.receivers, splits.n_rows)[0]


def _fit(
    splits: NodeSplits,
    seeds: int,
    features: HopFeatures,
    inputs: SparseRows,
    graph: GraphsTuple,
    settings: HeadSettings,
    tuned: np.ndarray | None,
    console: Console,
) -> HeadOutput:
    """Heads of one kind for the first seeds: all at once where they read the same inputs."""
    title = f"teacher heads ({settings.kind}, dropout {settings.dropout}): {settings.folds} folds × {seeds} seeds"
    if tuned is None:
        return _fit_together(splits, slice(0, seeds), graph, settings, console, title)
    outputs = [
        _fit_together(
            splits, slice(i, i + 1), _head_graph(splits, features, inputs, tuned[i]), settings, console, title
        )
        for i in range(seeds)
    ]
    log_probs = np.concatenate([output.log_probs for output in outputs])
    return HeadOutput(log_probs, outputs[0].first_heads, settings)


def _fit_together(
    splits: NodeSplits, chosen: slice, graph: GraphsTuple, settings: HeadSettings, console: Console, title: str
) -> HeadOutput:
    """Heads of one kind for the chosen seeds, which read the same graph."""
    layouts = splits.train_layouts
    with progress_bar(console, title, settings.epochs) as tick:
        return fit_heads(
            graph,
            build_layout(splits.senders, splits.receivers, splits.n_rows),
            splits.labels[chosen],
            splits.train[chosen],
            splits.valid[chosen],
            splits.n_classes,
            settings,
            splits.seeds[chosen],
            train_layouts=None if layouts is None else jax.tree.map(lambda leaf: leaf[chosen], layouts),
            train_nodes=None if layouts is None else splits.visible[chosen],
            on_progress=tick,
        )


def _key(
    splits: NodeSplits,
    seeds: int,
    features: HopFeatures,
    inputs: SparseRows,
    settings: HeadSettings,
    tuned: np.ndarray | None,
) -> str:
    """Name of what heads were fitted to and how."""
    digest = hashlib.sha256(f"4 {features.folder.name} {settings} {splits.seeds[:seeds]}".encode())
    by_seed = [splits.labels, splits.train, splits.valid, splits.visible, *([] if tuned is None else [tuned])]
    for array in [*(each[:seeds] for each in by_seed), inputs.layout.senders, inputs.values]:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]
