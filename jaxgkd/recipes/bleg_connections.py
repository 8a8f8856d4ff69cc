"""Which connections go along with what a student says of a brain, whatever kind of network it is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import logit

from jaxgkd.data.brains import Brains
from jaxgkd.data.splits import Split

MOST = 40


def telling_connections(
    brains: Brains, probabilities: np.ndarray, splits: Sequence[Split], most: int = MOST
) -> list[dict[str, Any]]:
    """The connections whose strength correlates most with a student's answer, over test subjects.

    A fold's correlations are taken over the subjects it tests, which its student has not seen, and averaged over folds.
    They say what goes along with the answer, not what causes it: neighbours of a telling connection tell as well.

    Args:
      brains: n subjects.
      probabilities: [f, n] of group 1, fold by fold.
      splits: [f].
      most: connections.

    Returns:
      The strongest first, each with its two ``regions``, their ``networks`` and the ``correlation``: positive where a
      stronger connection goes with group 1.
    """
    total, counted = np.zeros(brains.upper.shape[1]), 0
    for said, split in zip(probabilities, splits, strict=True):
        strengths = brains.upper[split.test].astype(np.float64)
        answers = logit(np.clip(said[split.test].astype(np.float64), 1e-6, 1 - 1e-6))
        strengths -= strengths.mean(axis=0)
        answers -= answers.mean()
        spread = np.sqrt((strengths**2).sum(axis=0) * (answers**2).sum())
        if len(answers) < 3 or not answers.any():
            continue
        # A connection that is the same in all subjects tells nothing.
        total += np.divide(answers @ strengths, spread, out=np.zeros_like(total), where=spread > 1e-12)
        counted += 1
    if not counted:
        return []
    mean = total / counted
    first, second = np.triu_indices(brains.n_regions, 1)
    strongest = np.argsort(-np.abs(mean), kind="stable")[:most]
    return [
        {
            "regions": [brains.regions[first[i]], brains.regions[second[i]]],
            "networks": [brains.networks[first[i]], brains.networks[second[i]]],
            "correlation": float(mean[i]),
        }
        for i in strongest.tolist()
        if mean[i]
    ]
