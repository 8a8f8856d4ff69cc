"""Brains in words against the two groups: how one subject lies in what sets the groups of the training subjects apart.

Every connection has a weight: the t statistic of the difference between the classes, for those with the largest ones,
or the weight of a ridge regression on all of them. A subject's deviations times the weights add up to a lean towards
one side or the other: over all, and for every pair of networks. Sides are called first and second; no label is named,
and that of the subject takes no part: what is said of a training subject comes from the other training subjects
(cross-fitting), as it does for a test subject. Otherwise texts of training subjects would know their labels, and
readers would learn to trust what no text of a test subject holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from jaxgkd.data.brain_measures import Profiles
from jaxgkd.data.brain_texts import (
    Description,
    Spread,
    TextReference,
    comparative,
    first,
    fit_text_reference,
    most,
    spread,
)
from jaxgkd.data.brains import Brains
from jaxgkd.data.splits import stratified_folds
from jaxgkd.errors import ConfigError, DataError

Weighting = Literal["t", "ridge"]
# Of t statistics; on real cohorts fewer or more connections tell the groups apart less well.
_CONNECTIONS = 1000
# Of ridge regression, in mean variances of a subject: weak enough for 20,000 connections of some hundred subjects.
_PENALTY = 1.0
_LEANS = ((0.2, ""), (0.7, "slightly"), (1.3, "clearly"), (2.0, "strongly"), (np.inf, "very strongly"))
_FEWEST = 3
_TELLING = 20


@dataclass(frozen=True)
class ContrastLength:
    """How many pairs of networks and how many connections are named."""

    networks: int = 3
    connections: int = 1


@dataclass(frozen=True, eq=False)
class Contrast:
    """How two groups of training subjects differ.

    Fields:
      usual: what is usual among both groups together.
      centre: [p] means of the features.
      weights: [p] of the features, above 0 where more of one speaks for the second group.
      pair_of: [p] the pair of networks each connection belongs to.
      n_pairs: q.
      telling: connections in the order of their weights in standard deviations, the largest first.
    """

    usual: TextReference
    centre: np.ndarray
    weights: np.ndarray
    pair_of: np.ndarray
    n_pairs: int
    telling: tuple[int, ...]

    def leans(self, features: np.ndarray) -> np.ndarray:
        """[n, 1 + q] leans of subjects [n, p] towards the second group, over all and by pair of networks."""
        parts = (features - self.centre) * self.weights
        pairs = [np.bincount(self.pair_of, row, minlength=self.n_pairs) for row in parts]
        return np.stack([np.array([pair.sum(), *pair]) for pair in pairs])


def fit_contrast(
    brains: Brains,
    profiles: Profiles,
    train: np.ndarray,
    weighting: Weighting = "ridge",
    features: np.ndarray | None = None,
) -> Contrast:
    """The contrast of two groups, from the labels of training subjects alone.

    Args:
      brains: the cohort; profiles: of all its subjects.
      train: rows of training subjects, all with labels.
      weighting: what weighs connections, see the module.
      features: [n, p] what is weighed, one number a connection; by default its correlation. Whatever was fitted for
        them, such as the reference of a tangent space, was fitted on training subjects.

    Raises:
      ConfigError: there are not two classes, or no such weighting.
      DataError: features do not fit, or a class has fewer than three training subjects.
    """
    if weighting not in get_args(Weighting):
        raise ConfigError(f"there is no weighting '{weighting}'", mend=f"use {' or '.join(get_args(Weighting))}")
    if len(brains.class_names) != 2:
        what = f"{brains.name} has {len(brains.class_names)} classes, and a contrast is between two"
        raise ConfigError(what, mend="describe the subjects without a contrast")
    sizes = np.bincount(brains.labels[train], minlength=2)
    if sizes.min() < _FEWEST:
        name = brains.class_names[int(sizes.argmin())]
        what = f"class '{name}' has {int(sizes.min())} training subjects, which tell nothing of what sets it apart"
        raise DataError(what, mend=f"label {_FEWEST} or more, or describe the subjects without a contrast")
    usual = fit_text_reference(brains, profiles, train)
    values, labels = _features(brains, features)[train].astype(np.float64), brains.labels[train]
    weights = _ridge_weights(values, labels) if weighting == "ridge" else _t_weights(values, labels)
    pairs = {pair: number for number, pair in enumerate(profiles.averages.pairs)}
    pairs |= {(other, one): number for (one, other), number in pairs.items()}
    numbers = {name: i for i, name in enumerate(dict.fromkeys(brains.networks))}
    table = np.zeros((len(numbers), len(numbers)), np.int64)
    for (one, other), number in pairs.items():
        table[numbers[one], numbers[other]] = number
    network = np.array([numbers[name] for name in brains.networks])
    pair_of = table[network[usual.ends[0]], network[usual.ends[1]]]
    telling = tuple(most(weights * values.std(axis=0), _TELLING))
    return Contrast(usual, values.mean(axis=0), weights, pair_of, len(profiles.averages.pairs), telling)


def _features(brains: Brains, features: np.ndarray | None) -> np.ndarray:
    if features is None:
        return brains.upper
    if features.shape != brains.upper.shape:
        n, p = brains.upper.shape
        what = f"features are {list(features.shape)} for {n} subjects with {p} connections"
        raise DataError(what, mend="give one number a connection, above the diagonal row by row")
    return features


def _t_weights(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """t / std of the connections with the largest |t| (equal variances), 0 for the others."""
    groups = [values[labels == label] for label in (0, 1)]
    pooled = sum((len(group) - 1) * group.var(axis=0, ddof=1) for group in groups) / (len(values) - 2)
    std = np.sqrt(np.maximum(pooled, 1e-6))
    t = (groups[1].mean(axis=0) - groups[0].mean(axis=0)) / (std * np.sqrt(sum(1 / len(group) for group in groups)))
    weights = np.zeros(len(t))
    chosen = most(t, _CONNECTIONS)
    weights[chosen] = t[chosen] / std[chosen]
    return weights


def _ridge_weights(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights of ridge regression on the labels, solved among subjects."""
    centred = values - values.mean(axis=0)
    kernel = centred @ centred.T
    penalty = _PENALTY * max(np.trace(kernel) / len(kernel), 1e-12)
    return centred.T @ np.linalg.solve(kernel + penalty * np.eye(len(kernel)), labels - labels.mean())


def describe_contrasts(
    brains: Brains,
    profiles: Profiles,
    train: np.ndarray,
    rows: Sequence[int] | np.ndarray,
    *,
    length: ContrastLength | None = None,
    weighting: Weighting = "ridge",
    features: np.ndarray | None = None,
    folds: int = 5,
    seed: int = 0,
) -> list[Description]:
    """Descriptions of some subjects against the groups of the training subjects.

    Args:
      brains: the cohort; profiles: of all its subjects.
      train: rows of the training subjects.
      rows: whom to describe, of training or not; nothing depends on other subjects that are not of training.
      length: how much is named.
      weighting: what weighs connections, see the module.
      features: [n, p] what is weighed, by default correlations; see `fit_contrast`.
      folds: parts of the training subjects; those of one are described from the others.
      seed: of the parts.

    Raises:
      ConfigError: there are not two classes.
      DataError: a class has too few training subjects for the folds.
    """
    train = np.asarray(train, np.int64)
    length = length or ContrastLength()
    values = _features(brains, features)
    fold_of = stratified_folds(brains.labels[train], folds, seed)
    of_fold = [fit_contrast(brains, profiles, train[fold_of != fold], weighting, features) for fold in range(folds)]
    whole = fit_contrast(brains, profiles, train, weighting, features)
    leans = np.empty((len(train), 1 + whole.n_pairs))
    for fold, contrast in enumerate(of_fold):
        leans[fold_of == fold] = contrast.leans(values[train[fold_of == fold]])
    usual_leans = spread(leans)
    words = profiles.averages.words()
    fold_of_row = dict(zip(train.tolist(), fold_of.tolist(), strict=True))
    found = []
    for row in np.asarray(rows, np.int64).tolist():
        contrast = of_fold[fold_of_row[row]] if row in fold_of_row else whole
        found.append(_describe(values[row], brains.upper[row], contrast, usual_leans, words, length))
    return found


def _describe(
    values: np.ndarray,
    upper: np.ndarray,
    contrast: Contrast,
    usual_leans: Spread,
    words: Sequence[str],
    length: ContrastLength,
) -> Description:
    z = usual_leans.z(contrast.leans(values[None])[0])
    overall, pairs = z[0], z[1:]
    degree, side = _lean(abs(overall)), "second" if overall > 0 else "first"
    # Only what speaks for the side as a whole: a text that names both sides is read as neither.
    towards = pairs if overall > 0 else -pairs
    order = [j for j in first(-towards, length.networks) if degree and _lean(towards[j])]
    features = [f"On the {side} side most of all: {'; '.join(f'{words[j]} {_lean(towards[j])}' for j in order)}."]
    features = features if order else []
    usual = contrast.usual
    deviations = usual.connections.z(upper.astype(np.float64)).tolist()
    parts = [
        f"{usual.connection(j)} {comparative(deviations[j])} ({upper[j]:.2f} for {usual.connections.mean[j]:.2f})"
        for j in contrast.telling[: length.connections]
    ]
    features += [f"Telling: {'; '.join(parts)}."] if parts else []
    conclusion = f"Overall {degree} on the {side} side." if degree else "Overall between the sides."
    return Description(tuple(features), conclusion)


def _lean(z: float) -> str:
    """How far something leans to the side where z is above 0, "" where it hardly does."""
    return next(word for limit, word in _LEANS if z < limit)
