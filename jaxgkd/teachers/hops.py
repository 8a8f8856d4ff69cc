"""What a language model says about every node at every hop: prompts, extraction and the store, in one call."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgkd import language
from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.graphs import undirected
from jaxgkd.teachers.extract import extract
from jaxgkd.teachers.prompts import HopPrompts, encoder_prompts, instruction_prompts
from jaxgkd.teachers.rings import distance_rings
from jaxgkd.training.by_value import jitted
from jaxgkd.training.devices import weights_sharding
from jaxgkd.training.execution import execution
from jaxgkd.training.timing import median_milliseconds

TIMED_NODES = 32


@dataclass(frozen=True)
class TextEncoder:
    """A language model that reads prompts, with its tokenizer.

    Fields:
      name: for people; model: of `jaxgkd.language`; tokenizer: its own.
      weights_hash: over its weights and configuration.

    An encoder is given bare texts, and its states are averaged over them. A causal model is given an instruction with
    the candidate classes, and its state at the last token is read, where its answer would begin.
    """

    name: str
    model: language.LanguageModel
    tokenizer: language.Tokenizer
    weights_hash: str

    @property
    def is_causal(self) -> bool:
        """Whether the model continues texts."""
        return isinstance(self.model, language.Decoder)

    @property
    def pooling(self) -> language.Pooling:
        """How the states of a prompt's tokens become one."""
        return "last" if self.is_causal else "mean"

    @classmethod
    def load(cls, path_or_id: str) -> "TextEncoder":
        """From a folder, an installed package, the Hugging Face cache or the hub."""
        folder, mesh = language.resolve(path_or_id), execution().language_mesh
        return cls(
            name=Path(path_or_id).name,
            model=language.load(folder, placement=None if mesh is None else partial(weights_sharding, mesh)),
            tokenizer=language.load_tokenizer(folder),
            weights_hash=language.weights_hash(folder),
        )


@dataclass(frozen=True)
class HopFeatures:
    """States of a frozen language model.

    Fields:
      states: [n, hops + 1, d] float32 of length 1; hop 0 is the node's own text, hop h adds what lies within h links.
      folder: of the store they are in.
      report: what the extraction cost (``seconds``, ``tokens_per_second``, …) and what was cut.
      prompts: the hop prompts of the first nodes, for a report.
    """

    states: np.ndarray
    folder: Path
    report: dict[str, Any]
    prompts: tuple[tuple[str, ...], ...]


def hop_features(
    graph: TextGraph,
    encoder: TextEncoder,
    *,
    hops: int,
    max_tokens: int,
    max_neighbours: int = 10,
    root: Path | None = None,
    progress: bool = True,
    on_line: Callable[[str], None] | None = None,
) -> HopFeatures:
    """Ask a language model about every node at hops 0..``hops``, or read what it said before.

    Args:
      graph: texts, titles and edges.
      encoder: the language model.
      hops: largest hop; every hop costs one prompt a node.
      max_tokens: of a prompt.
      max_neighbours: sampled per hop; the same for every run.
      root: folder of stores; the user's cache by default.
      progress: show a bar.
      on_line: called with lines about the progress where there is no terminal.

    Raises:
      StoreError: the store cannot be written or is damaged.
    """
    made = _prompts(graph, encoder, hops, max_tokens, max_neighbours)
    prompts = [of_hop.texts for of_hop in made]
    store = extract(
        encoder.model,
        encoder.tokenizer,
        [text for of_hop in prompts for text in of_hop],
        item_ids=[f"{node}/hop{hop}" for hop in range(hops + 1) for node in graph.node_ids],
        data_sha256=graph.sha256,
        teacher_id=encoder.name,
        weights_hash=encoder.weights_hash,
        layers=(encoder.model.n_layers,),
        pooling=encoder.pooling,
        max_tokens=max_tokens,
        root=root,
        progress=progress,
        on_line=on_line,
    )
    states = store.as_array()[:, 0].reshape(hops + 1, graph.n_node, encoder.model.width).swapaxes(0, 1)
    # Sentence encoders are trained on cosines: the length of a state says more about the text's length than its topic.
    states = states / np.maximum(np.linalg.norm(states, axis=-1, keepdims=True), 1e-12)
    return HopFeatures(
        states=np.ascontiguousarray(states),
        folder=store.folder,
        # Prompts are cut to their limit before the encoder sees them, so what was cut is counted here.
        report={**store.report, "n_truncated": sum(of_hop.n_truncated for of_hop in made)},
        prompts=tuple(tuple(of_hop[i] for of_hop in prompts) for i in range(min(3, graph.n_node))),
    )


def hop_prompts(
    graph: TextGraph, encoder: TextEncoder, *, hops: int, max_tokens: int, max_neighbours: int = 10
) -> list[tuple[str, ...]]:
    """One prompt per hop 0..``hops`` and node."""
    return [of_hop.texts for of_hop in _prompts(graph, encoder, hops, max_tokens, max_neighbours)]


def _prompts(graph: TextGraph, encoder: TextEncoder, hops: int, max_tokens: int, max_neighbours: int):
    senders, receivers = undirected(graph.senders, graph.receivers)
    rings = distance_rings(senders, receivers, graph.n_node, hops=hops, max_neighbours=max_neighbours)
    ask = instruction_prompts if encoder.is_causal else encoder_prompts
    asked: list[HopPrompts] = [
        ask(graph, encoder.tokenizer, hop=hop, rings=rings, max_tokens=max_tokens) for hop in range(hops + 1)
    ]
    return asked


def leading_directions(states: np.ndarray, width: int) -> np.ndarray:
    """Principal components of hop features, computed once for all heads that read them.

    Args:
      states: [n, hops, d].
      width: number of components; all that there are when it is larger.

    Returns:
      [n, min(width, hops · d)] float32, rows of about unit length as the states of one hop have.
    """
    flat = states.reshape(len(states), -1)
    centred = flat - flat.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    scores = centred @ directions[:, ::-1][:, :width]
    return (scores / np.sqrt(np.mean(np.sum(scores**2, axis=1)))).astype(np.float32)


def milliseconds_per_node(encoder: TextEncoder, prompts: list[tuple[str, ...]], *, max_tokens: int) -> float:
    """What the language model costs per node, measured now on a few nodes: median of three passes, compiled before.

    Args:
      encoder: the language model.
      prompts: one tuple a hop, as from `hop_prompts`; nodes evenly spread over them are timed, at their own lengths.
      max_tokens: of a prompt.
    """
    graphdef, state = nnx.split(encoder.model)
    options = {"layers": (encoder.model.n_layers,), "pooling": encoder.pooling}
    pooled = jitted(lambda state, *batch: nnx.merge(graphdef, state).pooled_states(*batch, **options))

    rows = np.unique(np.linspace(0, len(prompts[0]) - 1, TIMED_NODES).astype(int))
    batches = [encoder.tokenizer.batch([of_hop[i] for i in rows], max_tokens=max_tokens) for of_hop in prompts]

    def read() -> list[jax.Array]:
        return [pooled(state, jnp.asarray(batch.input_ids), jnp.asarray(batch.attention_mask)) for batch in batches]

    return median_milliseconds(read, passes=3) / len(rows)
