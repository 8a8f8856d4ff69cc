"""The teacher of a run over a text graph: a language model's features, heads on them, and what both say of every node.

What is fitted is kept in the user's cache under a hash of all it depends on, so that students of every kind that share
splits share the teacher.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from jaxgkd.teachers.text_classifier import TuneSettings
from jaxgkd.teachers.tune import tune_on_splits
from jaxgkd.training.checkpoint import load_tree, save_tree
from jaxgkd.training.compilation import cache_folder
from jaxgkd.training.progress import progress_bar

#: Directions of the hop features that heads read: nearly all of their variance at a quarter of the cost.
HEAD_DIRECTIONS = 256


@dataclass(frozen=True)
class TaughtSplits:
    """What the teacher says of every split, and the graph that its first seed's heads read.

    Fields:
      heads: with log probabilities [seeds, n, classes].
      graph: the heads' inputs of the first seed.
      tuned: (seed, hop 0) features [seeds, n, d] of tuned encoders, or None where the encoder is frozen.
    """

    heads: HeadEnsemble
    graph: GraphsTuple
    tuned: np.ndarray | None


def teach(
    splits: NodeSplits,
    features: HopFeatures,
    inputs: SparseRows,
    kinds: Sequence[str],
    settings: HeadSettings,
    console: Console,
    *,
    tuned: np.ndarray | None = None,
) -> TaughtSplits:
    """Fit heads of every kind to every split, or read them.

    Args:
      splits: of all seeds.
      features: of the language model; heads read their leading directions beside ``inputs``.
      inputs: what the student sees.
      kinds: of heads, whose probabilities are averaged.
      settings: of one kind; its own kind is not read.
      console: for progress.
      tuned: [seeds, n, d] hop 0 features that differ by seed, from `tuned_features`.
    """
    graphs = [_head_graph(splits, features, inputs, None if tuned is None else tuned[0])]
    members = []
    for kind in kinds:
        of_kind = replace(settings, kind=kind)
        folder = cache_folder() / "heads" / _key(splits, features, inputs, of_kind, tuned)
        if not folder.is_dir():
            title = f"teacher heads ({kind}): {settings.folds} folds × {len(splits.seeds)} seeds"
            if tuned is None:
                output = _fit(splits, slice(None), graphs[0], of_kind, console, title)
                log_probs, first_heads = output.log_probs, output.first_heads
            else:
                outputs = [
                    _fit(splits, slice(i, i + 1), _head_graph(splits, features, inputs, own), of_kind, console, title)
                    for i, own in enumerate(tuned)
                ]
                log_probs = np.concatenate([output.log_probs for output in outputs])
                first_heads = outputs[0].first_heads
            save_tree(folder, {"log_probs": log_probs, "first_heads": first_heads})
        saved = load_tree(folder)
        members.append(HeadOutput(saved["log_probs"], saved["first_heads"], of_kind))
    return TaughtSplits(HeadEnsemble(tuple(members)), graphs[0], tuned)


def tuned_features(
    graph: TextGraph,
    encoder: TextEncoder,
    splits: NodeSplits,
    settings: TuneSettings,
    console: Console,
) -> np.ndarray:
    """Hop 0 features [seeds, n, d], of length 1, from encoders whose upper layers were tuned on each split's labels.

    No node's features come from an encoder that saw its label, unless ``settings.folds`` is 1.
    """
    prompts = hop_prompts(graph, encoder.tokenizer, hops=0, max_tokens=settings.max_tokens)[0]
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
    values = np.stack([output.features for output in outputs])
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def _head_graph(
    splits: NodeSplits, features: HopFeatures, inputs: SparseRows, own_text: np.ndarray | None
) -> GraphsTuple:
    states = features.states
    if own_text is not None:
        states = states.copy()
        states[:, 0] = own_text
    rows = MixedRows(jnp.asarray(splits.pad(leading_directions(states, HEAD_DIRECTIONS))), inputs)
    return from_edges(rows, splits.senders, splits.receivers, splits.n_rows)[0]


def _fit(
    splits: NodeSplits, chosen: slice, graph: GraphsTuple, settings: HeadSettings, console: Console, title: str
) -> HeadOutput:
    """Heads of one kind for the chosen seeds."""
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
    splits: NodeSplits, features: HopFeatures, inputs: SparseRows, settings: HeadSettings, tuned: np.ndarray | None
) -> str:
    """Name of what heads were fitted to and how."""
    digest = hashlib.sha256(f"4 {features.folder.name} {settings} {splits.seeds}".encode())
    arrays = [splits.labels, splits.train, splits.valid, splits.visible, inputs.layout.senders, inputs.values]
    for array in [*arrays, *([] if tuned is None else [tuned])]:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]
