"""A language model taught which texts of a graph are linked: fine-tuning without a label.

The pairs are the edges that pass messages and join two texts, of all relations alike, both ways. A step reads the
two texts of a few pairs; each has to be nearer to its partner than to those of the other pairs. In the words of
`cotrain`: one type of node, the text, one relation, and no network but the cosine of two embeddings.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgkd.errors import ConfigError
from jaxgkd.graphs import build_hetero_layout
from jaxgkd.graphs.hetero import REVERSE
from jaxgkd.graphs.negatives import KnownEdges
from jaxgkd.nn.hetero_problem import Drawing
from jaxgkd.nn.hetero_tasks import HeteroModel, Links, TextLinkTask
from jaxgkd.recipes.lmgnn_cotraining import CoTrained, CoTraining, cotrain
from jaxgkd.recipes.lmgnn_data import TaskData, ranked_pairs
from jaxgkd.recipes.lmgnn_networks import make_hetero_model
from jaxgkd.recipes.lmgnn_texts import GraphTexts
from jaxgkd.training.candidates import uniform_candidates

_TEXT = "text"
_TASK = TextLinkTask((_TEXT, "linked", _TEXT), "dot", "contrastive")
# Pairs that validate, at most, each ranked among so many other texts.
_VALID, _CANDIDATES = 500, 100


def linked_texts(data: TaskData, texts: GraphTexts) -> np.ndarray:
    """[e, 2] distinct pairs of rows of texts, the lower one first, that an edge joins which passes messages.

    Raises:
      ConfigError: there are fewer than two, or a text is linked to all others.
    """
    found = [np.zeros((0, 2), np.int64)]
    for receiver, edges in data.layout.items():
        if receiver not in texts.first:
            continue
        senders, receivers = edges.senders(), np.asarray(edges.layout.receivers)
        for number, (source, name, _) in enumerate(edges.edge_types):
            if source in texts.first and not name.startswith(REVERSE):
                mine = np.asarray(edges.relation) == number
                ends = senders[mine] + texts.first[source], receivers[mine] + texts.first[receiver]
                found.append(np.sort(np.stack(ends, axis=1).astype(np.int64), axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    mend = "use --supervision task"
    if len(pairs) < 2:
        raise ConfigError(f"{len(pairs)} pairs of texts are linked", field="--supervision", mend=mend)
    if np.bincount(pairs.ravel()).max() >= texts.n_texts - 1:
        raise ConfigError("a text is linked to all others", field="--supervision", mend=mend)
    return pairs


def make_likeness(d: int, n_texts: int) -> Callable[[Array], HeteroModel]:
    """Makes what scores pairs of texts, embeddings of width ``d``, from a key."""
    return partial(make_hetero_model, "sage", {_TEXT: d}, {}, {_TEXT: n_texts}, (), 1, 0, _TASK)


def tune_on_links(
    pairs: np.ndarray,
    texts: GraphTexts,
    embeddings: Array,
    settings: CoTraining,
    *,
    seed: int,
    on_progress: Callable[[int, float], None] | None = None,
) -> CoTrained:
    """Train a language model on pairs, and keep the best state by the MRR of some that it was not shown.

    Args:
      pairs: [e, 2] rows of texts, see `linked_texts`.
      texts: of the graph; embeddings: [texts, d] of all of them by the untouched language model.
      settings: of the training; a step takes ``batch_size`` pairs.
      seed: of batches. The pairs that validate are the same for all seeds.
      on_progress: called with the step and the last MRR.
    """
    n = texts.n_texts
    together = replace(texts, first={_TEXT: 0}, n_node={_TEXT: n})
    shared = {"inputs": {_TEXT: embeddings}, **_asked(pairs, n)}
    make = make_likeness(texts.states.width, n)
    return cotrain(
        make,
        _TASK,
        Drawing(settings.batch_size, "in_batch"),
        together,
        shared,
        settings,
        seed=seed,
        embeddings=embeddings,
        on_progress=on_progress,
    )


def _asked(pairs: np.ndarray, n_texts: int) -> dict[str, Any]:
    """What trains and validates, as `jaxgkd.nn.hetero_problem` wants it."""
    order = np.random.default_rng(0).permutation(len(pairs))
    n_valid = min(_VALID, max(1, len(pairs) // 10))
    valid, train = pairs[order[:n_valid]], pairs[np.sort(order[n_valid:])]
    both_ways = np.concatenate([pairs, pairs[:, ::-1]])
    n_candidates = min(_CANDIDATES, n_texts - 1 - int(np.bincount(pairs.ravel()).max()))
    known = both_ways[:, 0], both_ways[:, 1]
    listed = uniform_candidates(valid[:, 0], valid[:, 1], n_candidates, 0, n_node=n_texts, known=known)
    # From both ends: a text is a partner as often as it has partners.
    senders, receivers = np.concatenate([train, train[:, ::-1]]).T.astype(np.int32)
    none = np.zeros((len(senders), 0), np.int32)
    links = Links(senders, receivers, none, none.astype(bool), np.ones(len(senders), np.float32))  # type: ignore[arg-type]
    return {
        "layout": build_hetero_layout({_TASK.edge_type: (senders, receivers)}, {_TEXT: n_texts}, reverses=False),
        "train": jax.tree.map(jnp.asarray, links),
        "valid": ranked_pairs(listed, n_texts),
        "known": KnownEdges.from_edges(senders, receivers, n_texts, n_texts),
    }
