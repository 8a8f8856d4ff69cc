"""Takes out what scanners do to features: ComBat with parametric empirical Bayes (Johnson, Li and Rabinovic, 2007).

The model is ``y = α + x β + γ_site + δ_site ε``: after a common mean and covariates, every site shifts and scales every
feature. Shifts and scales of a site are pulled towards their mean over features, the more the fewer subjects it has.
Everything is estimated from training subjects; labels take no part.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxgkd.errors import DataError

# A variance needs two; of two it is hardly one, but the prior holds it.
_SMALLEST_SITE = 2
_ITERATIONS = 30
_TOLERANCE = 1e-4


class Harmonised(NamedTuple):
    """Features without their sites' shifts and scales.

    Attributes:
      values: [n, f] float32.
      unseen: sites of which training had fewer than two subjects: their features keep the pooled shift (0) and scale
        (1), in ascending order.
    """

    values: np.ndarray
    unseen: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ComBat:
    """What was estimated from training subjects with f features.

    Fields:
      mean: [f] α, the mean over sites weighted by their subjects.
      slopes: [p, f] β of covariates that are preserved; covariate_mean: [p] around which they are taken.
      scale: [f] pooled standard deviation, 1 for constant features.
      sites: [s] numbers of the sites, ascending.
      shifts, scales: [s, f] γ* and δ* in units of ``scale``.
    """

    mean: np.ndarray
    slopes: np.ndarray
    covariate_mean: np.ndarray
    scale: np.ndarray
    sites: np.ndarray
    shifts: np.ndarray
    scales: np.ndarray

    def apply(self, features: np.ndarray, sites: np.ndarray, covariates: np.ndarray | None = None) -> Harmonised:
        """Takes the sites out of features [n, f], of training or other subjects alike.

        Args:
          features: [n, f]; sites: [n] numbers as in training.
          covariates: [n, p] those that were preserved in training, none otherwise.

        Raises:
          DataError: shapes differ from training, or a value is missing.
        """
        design = _design(len(features), covariates, self.covariate_mean)
        _check(features, sites, n_features=len(self.mean))
        if design.shape[1] != len(self.slopes):
            what = f"{design.shape[1]} covariates where training preserved {len(self.slopes)}"
            raise DataError(what, mend="give the same ones")
        kept = (self.mean + design @ self.slopes).astype(np.float32)
        standard = (features - kept) / self.scale
        known = np.searchsorted(self.sites, sites).clip(max=max(len(self.sites) - 1, 0))
        seen = self.sites[known] == sites if len(self.sites) else np.zeros(len(sites), bool)
        standard[seen] = (standard[seen] - self.shifts[known[seen]]) / self.scales[known[seen]]
        unseen = tuple(int(site) for site in np.unique(sites[~seen]))
        return Harmonised((standard * self.scale + kept).astype(np.float32), unseen)


def fit_combat(features: np.ndarray, sites: np.ndarray, covariates: np.ndarray | None = None) -> ComBat:
    """Estimates shifts and scales of sites.

    Args:
      features: [n, f] of training subjects.
      sites: [n] numbers; sites with one subject have no scale and take the pooled one.
      covariates: [n, p] whose linear effects are kept, such as age; without them a site with older subjects would be
        moved to the others. Labels do not belong here.

    Raises:
      DataError: shapes do not fit, a value is missing, or there are too few subjects for the sites and covariates.
    """
    _check(features, sites, n_features=None)
    covariate_mean = np.zeros(0) if covariates is None else np.asarray(covariates, np.float64).mean(axis=0)
    design = _design(len(features), covariates, covariate_mean)
    names, site = np.unique(sites, return_inverse=True)
    one_hot = (site[:, None] == np.arange(len(names))).astype(np.float64)
    full = np.concatenate([one_hot, design], axis=1)
    if len(features) <= full.shape[1]:
        what = f"{len(features)} subjects for {len(names)} sites and {design.shape[1]} covariates"
        raise DataError(what, mend="give more subjects, or harmonise without covariates")
    coefficients = np.linalg.lstsq(full, np.asarray(features, np.float64), rcond=None)[0]
    sizes = one_hot.sum(axis=0)
    mean, slopes = sizes @ coefficients[: len(names)] / sizes.sum(), coefficients[len(names) :]
    scale = np.sqrt(np.mean(np.square(features - full @ coefficients), axis=0))
    varies = scale > 1e-6 * np.abs(mean).clip(min=1e-6)
    scale[~varies] = 1.0
    standard = (features - mean - design @ slopes) / scale
    large = np.flatnonzero(sizes >= _SMALLEST_SITE)
    shifts, scales = np.zeros((len(large), len(mean))), np.ones((len(large), len(mean)))
    for i, number in enumerate(large):
        shifts[i, varies], scales[i, varies] = _empirical_bayes(standard[np.ix_(site == number, varies)])
    arrays = (scale, shifts, scales)
    scale, shifts, scales = (array.astype(np.float32) for array in arrays)
    return ComBat(mean, slopes, covariate_mean, scale, names[large], shifts, scales)


def _empirical_bayes(standard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior shift γ* and scale δ* [f] of one site's standardised features [n, f].

    Priors over features: γ normal with mean and variance of the sites' shifts, δ² inverse gamma by its moments. The
    two posterior means depend on each other and are iterated (equations 3.1 and following).
    """
    n = len(standard)
    shift, variance = standard.mean(axis=0), standard.var(axis=0, ddof=1)
    prior_mean, prior_variance = shift.mean(), shift.var(ddof=1) if shift.size > 1 else 0.0
    moment, spread = variance.mean(), variance.var(ddof=1) if variance.size > 1 else 0.0
    if prior_variance <= 1e-12 or spread <= 1e-12:
        # A single feature, or features that all agree, tell nothing of a prior: the site's own estimates stand.
        return shift, np.sqrt(np.where(variance > 1e-12, variance, 1.0))
    a, b = (2 * spread + moment**2) / spread, (moment * spread + moment**3) / spread
    squares = np.square(standard).sum(axis=0)
    total = standard.sum(axis=0)
    old_shift, old_variance = shift, np.maximum(variance, 1e-12)
    for _ in range(_ITERATIONS):
        new_shift = (n * prior_variance * shift + old_variance * prior_mean) / (n * prior_variance + old_variance)
        residual = squares - 2 * new_shift * total + n * new_shift**2
        new_variance = (residual / 2 + b) / (n / 2 + a - 1)
        change = max(np.abs(new_shift - old_shift).max(), np.abs(new_variance / old_variance - 1).max())
        old_shift, old_variance = new_shift, new_variance
        if change < _TOLERANCE:
            break
    return old_shift, np.sqrt(old_variance)


def _design(n: int, covariates: np.ndarray | None, mean: np.ndarray) -> np.ndarray:
    if covariates is None:
        return np.zeros((n, 0))
    design = np.asarray(covariates, np.float64)
    if design.ndim != 2 or len(design) != n or design.shape[1] != len(mean):
        raise DataError(f"covariates are {list(design.shape)}", mend=f"give [{n}, {len(mean)}]")
    if not np.isfinite(design).all():
        row = int(np.argmax(~np.isfinite(design).all(axis=1)))
        raise DataError(f"subject {row} (counted from 0) lacks a covariate", mend="fill it in or leave covariates out")
    return design - mean


def _check(features: np.ndarray, sites: np.ndarray, n_features: int | None) -> None:
    if (
        features.ndim != 2
        or len(features) != len(sites)
        or (n_features is not None and features.shape[1] != n_features)
    ):
        what = f"features are {list(features.shape)} for {len(sites)} sites of subjects"
        raise DataError(what, mend=f"give [{len(sites)}, {n_features or 'f'}]")
    if not np.isfinite(features).all():
        row = int(np.argmax(~np.isfinite(features).all(axis=1)))
        raise DataError(f"subject {row} (counted from 0) has a feature without a number", mend="fill it in")
