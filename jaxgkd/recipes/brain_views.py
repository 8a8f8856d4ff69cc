"""What is read of brains in one fold: a kind of connectivity, and coordinates that keep what linear models see of it.

Whatever depends on other subjects is fitted to the fold's training subjects: the reference of a tangent space, the
shifts of sites, the scale and directions of coordinates. Shrinkage is chosen by what ridge regression on the training
labels makes of the validation subjects.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxgkd.data.brains import Brains
from jaxgkd.data.connectivity import connectivity_of, upper_of
from jaxgkd.data.harmonise import fit_combat
from jaxgkd.data.splits import Split
from jaxgkd.recipes.brain_baselines import fit_linear, principal_coordinates
from jaxgkd.training.metrics import area_under_roc

Connectivity = Literal["correlation", "partial", "tangent"]


class View(NamedTuple):
    """The n subjects of a cohort as one fold sees them.

    Fields:
      features: [n, p] float32 one number a pair of regions.
      coordinates: [n, m] float64 of the features, fitted to the labelled training subjects: what linear rows read.
      shrinkage: what was chosen, None where the kind has none.
    """

    features: np.ndarray
    coordinates: np.ndarray
    shrinkage: float | None


def view_of(
    brains: Brains,
    kind: Connectivity,
    shrinkages: Sequence[float],
    split: Split,
    trained: np.ndarray,
    *,
    harmonise: bool = False,
) -> View:
    """The features of a fold, with the shrinkage by which ridge regression validates best.

    Args:
      brains: n subjects; kind: of connectivity; shrinkages: tried in this order, of a tie the first is kept.
      split: labels of its training part fit the ridge, those of its validation part choose.
      trained: rows of all training subjects, those whose labels are hidden among them.
      harmonise: take shifts and scales of sites out of the features.

    Raises:
      DataError: a matrix cannot be inverted with such a shrinkage.
    """
    tried = [None] if kind == "correlation" else list(shrinkages)
    valid = np.isin(np.arange(brains.n_subjects), split.valid)
    best: tuple[float, View] | None = None
    for shrinkage in tried:
        features = fold_features(brains, kind, shrinkage, trained, harmonise=harmonise)
        view = View(features, principal_coordinates(features, split.train), shrinkage)
        if len(tried) == 1:
            return view
        scores = fit_linear("ridge", view.coordinates, brains.labels, split).scores
        area = area_under_roc(scores, brains.labels, valid)
        area = -1.0 if np.isnan(area) else area
        if best is None or area > best[0]:
            best = area, view
    assert best is not None
    return best[1]


def fold_features(
    brains: Brains, kind: Connectivity, shrinkage: float | None, trained: np.ndarray, *, harmonise: bool = False
) -> np.ndarray:
    """[n, p] float32 connectivity of all pairs of regions, row by row above the diagonal.

    Args:
      brains: n subjects; kind: of connectivity.
      shrinkage: of kinds that invert matrices, None for correlation.
      trained: rows of training subjects, to which the reference of tangent space and the shifts of sites are fitted.
      harmonise: take shifts and scales of sites out.
    """
    if shrinkage is None:
        features = brains.upper
    elif kind == "partial":
        features = upper_of(connectivity_of(brains, "partial correlation", shrinkage=shrinkage))
    else:
        # The plain mean of shrunk matrices is near enough to the geometric one, and costs nothing.
        options = {"shrinkage": shrinkage, "reference": "arithmetic"}
        features = upper_of(connectivity_of(brains, "tangent", train=trained, **options))
    if harmonise:
        combat = fit_combat(features[trained], brains.sites[trained])
        features = combat.apply(features, brains.sites).values
    return features.astype(np.float32, copy=False)


def student_vectors(features: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """[n, m] float32 coordinates of the features with a variance of 1 on average, for networks without regions.

    Args:
      features: [n, p]; trained: rows of all training subjects, to which scale and directions are fitted.
    """
    coordinates = principal_coordinates(features, trained)
    return (coordinates / max(float(coordinates[trained].std()), 1e-9)).astype(np.float32)


def same_width(vectors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The vectors [n, m] of several folds with columns of 0 behind the narrower ones."""
    width = max(each.shape[1] for each in vectors)
    return [np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in vectors]
