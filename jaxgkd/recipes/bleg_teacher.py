"""The teacher of BLEG in one fold: a frozen language model that reads texts, and heads that read its states.

A training subject is described by the heads' member that never saw its label, everyone else by the mean of all: a
student that imitates a head on the subjects it was fitted to learns the labels a second time.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from scipy.special import expit

from jaxgkd.data.splits import Split, stratified_folds
from jaxgkd.recipes.brain_baselines import logistic_weights
from jaxgkd.teachers.extract import extract
from jaxgkd.teachers.hops import TextEncoder

#: Components that the heads read.
_READ = 128
#: Of the heads, in units of the training subjects; the states have a variance of 1 together.
_PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)


class Read(NamedTuple):
    """What a language model makes of texts: ``states`` [f, n, d] float32; ``n_truncated`` texts; ``seconds``."""

    states: np.ndarray
    n_truncated: int
    seconds: float


class Taught(NamedTuple):
    """What the teacher says of n subjects in one fold.

    Fields:
      states: [n, k] float32 leading principal components, of unit variance a component on average.
      answers: [n, 2] float32 logits of the groups.
      penalty: of the heads; parameters: of all of them.
    """

    states: np.ndarray
    answers: np.ndarray
    penalty: float
    parameters: int

    @property
    def probabilities(self) -> np.ndarray:
        """[n] of group 1."""
        return expit(self.answers[:, 1] - self.answers[:, 0])


def read(
    encoder: TextEncoder,
    texts: Sequence[Sequence[str]],
    data_sha256: str,
    max_tokens: int,
    console: Console | None = None,
) -> Read:
    """States of the texts from the last layer, or what was kept of them; equal texts are read once.

    Args:
      encoder: the language model.
      texts: [f, n].
      data_sha256: hash of what the texts are about.
      max_tokens: of a text.
      console: told of the progress of a long extraction, or None.
    """
    begun = time.perf_counter()
    # In an order of their own: whoever is given whose text, the store is the same.
    distinct = sorted({text for of_fold in texts for text in of_fold})
    store = extract(
        encoder.model,
        encoder.tokenizer,
        distinct,
        item_ids=[str(i) for i in range(len(distinct))],
        data_sha256=data_sha256,
        teacher_id=encoder.name,
        weights_hash=encoder.weights_hash,
        layers=(encoder.model.n_layers,),
        pooling=encoder.pooling,
        max_tokens=max_tokens,
        on_line=None if console is None else console.print,
    )
    row = {text: i for i, text in enumerate(distinct)}
    index = np.array([[row[text] for text in of_fold] for of_fold in texts])
    states = store.as_array()[:, 0].astype(np.float32)[index]
    return Read(states, int(store.report["n_truncated"]), max(store.report["seconds"], time.perf_counter() - begun))


def components_of(states: np.ndarray, trained: np.ndarray, most: int) -> np.ndarray:
    """The leading principal components [n, k] float32, k ≤ most, in the order and proportion of their variances.

    They are scaled so that all there are have a variance of 1 together over the training subjects.

    Args:
      states: [n, d]; trained: rows of training subjects; most: components.
    """
    centred = states.astype(np.float64) - states[trained].mean(axis=0, dtype=np.float64)
    _, sizes, directions = np.linalg.svd(centred[trained], full_matrices=False)
    kept = (sizes > 1e-6 * max(float(sizes.max(initial=0.0)), 1e-12))[:most]
    # Where all texts are the same there is one component, of zeros.
    kept[:1] = True
    found = centred @ directions[:most][kept].T
    return (found / max(float(np.sqrt(np.square(sizes).sum() / len(trained))), 1e-9)).astype(np.float32)


def teach(
    states: np.ndarray, labels: np.ndarray, split: Split, trained: np.ndarray, *, components: int, folds: int
) -> Taught:
    """Fit the heads: logistic regression with the penalty whose members describe best whom they did not see.

    Args:
      states: [n, d] of the language model.
      labels: [n] 0 or 1, read where ``split.train`` says.
      split: of the fold; trained: rows of all training subjects, also of those without a label to train on.
      components: of the states that students are held against; the heads read more.
      folds: parts of the training subjects, fewer where there are not as many of each group.
    """
    inputs = components_of(states, trained, _READ)
    train = split.train
    known = np.full(len(labels), -1)
    known[train] = labels[train]
    folds = min(folds, int(np.bincount(labels[train], minlength=2).min()))
    if folds < 2:
        # One label of a group: there is no head that has seen both groups and not that subject.
        part = np.full(len(labels), -1)
        members = [train]
    else:
        part = stratified_folds(known, folds, 0)
        members = [train[part[train] != k] for k in range(folds)]
    signs = np.where(labels == 1, 1.0, -1.0)
    best: tuple[float, np.ndarray, float] | None = None
    for penalty in _PENALTIES:
        fitted = [logistic_weights(inputs[rows], signs[rows], penalty * len(rows)) for rows in members]
        scores = np.stack([inputs @ weights + bias for weights, bias in fitted])
        said = scores.mean(axis=0)
        inside = np.flatnonzero(part >= 0)
        said[inside] = scores[part[inside], inside]
        loss = float(np.logaddexp(0, -signs[train] * said[train]).mean())
        if folds < 2:
            loss = -penalty  # nothing tells the penalties apart: the largest is the safest
        if best is None or loss < best[0]:
            best = loss, said, penalty
    assert best is not None
    answers = np.stack([-best[1] / 2, best[1] / 2], axis=1).astype(np.float32)
    shown = inputs[:, :components]
    shown = shown / max(float(shown[trained].std()), 1e-9)
    return Taught(shown.astype(np.float32), answers, best[2], len(members) * (inputs.shape[1] + 1))
