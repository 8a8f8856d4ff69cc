"""Kinds of connectivity between regions: correlation, covariance, precision, partial correlation, Fisher's z, tangent.

All but correlation and Fisher's z need matrices that can be inverted. Scans have often fewer time points than regions,
so matrices are first pulled towards a multiple of the identity: ``(1 − α) S + α tr(S) / r · I`` with a fixed α.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Literal, get_args

import numpy as np

from jaxgkd.data.brains import Brains
from jaxgkd.errors import ConfigError, DataError

ConnectivityKind = Literal["correlation", "fisher-z", "covariance", "precision", "partial correlation", "tangent"]
Reference = Literal["geometric", "log-euclidean", "arithmetic"]
# Above it Fisher's z grows without bounds: 0.99999 is 6.1.
_LARGEST = 0.99999


def covariance(series: np.ndarray) -> np.ndarray:
    """[r, r] float64 sample covariance of a series [time, r], divided by time − 1."""
    centred = np.asarray(series, np.float64) - np.mean(series, axis=0, dtype=np.float64)
    return centred.T @ centred / (len(centred) - 1)


def correlation(series: np.ndarray) -> np.ndarray:
    """[r, r] float64 Pearson correlation of a series [time, r]; a constant region has 0 with all others."""
    constant = np.ptp(series, axis=0) == 0
    found = covariance(series)
    scale = np.sqrt(np.diagonal(found)).copy()
    scale[constant | (scale == 0)] = np.inf
    found = np.clip(found / np.outer(scale, scale), -1, 1)
    np.fill_diagonal(found, 1.0)
    return found


def fisher_z(correlations: np.ndarray) -> np.ndarray:
    """arctanh of correlations [..., r, r], 0 on the diagonal; beyond ±0.99999 it grows no more."""
    z = np.arctanh(np.clip(correlations, -_LARGEST, _LARGEST))
    diagonal = np.arange(z.shape[-1])
    z[..., diagonal, diagonal] = 0.0
    return z


def shrunk(matrices: np.ndarray, shrinkage: float) -> np.ndarray:
    """``(1 − α) S + α tr(S) / r · I`` for symmetric matrices [..., r, r] and α = ``shrinkage`` in [0, 1]."""
    if not 0 <= shrinkage <= 1:
        raise ConfigError(f"a shrinkage of {shrinkage} is none", field="shrinkage", mend="use 0 to 1")
    r = matrices.shape[-1]
    scale = np.trace(matrices, axis1=-2, axis2=-1)[..., None, None] / r
    return (1 - shrinkage) * matrices + shrinkage * scale * np.eye(r, dtype=matrices.dtype)


def precision(matrices: np.ndarray) -> np.ndarray:
    """Inverses of symmetric matrices [..., r, r], symmetric to the last bit.

    Raises:
      DataError: one has no inverse.
    """
    try:
        inverse = np.linalg.inv(matrices)
    except np.linalg.LinAlgError as error:
        what = "a matrix of covariances has no inverse, as scans shorter than the number of regions have none"
        raise DataError(what, mend="shrink it more") from error
    return (inverse + inverse.swapaxes(-1, -2)) / 2


def partial_correlation(matrices: np.ndarray) -> np.ndarray:
    """−P_ij / √(P_ii P_jj) for the precision P of covariances or correlations [..., r, r], with 1 on the diagonal."""
    inverse = precision(matrices)
    scale = np.sqrt(np.diagonal(inverse, axis1=-2, axis2=-1))
    found = -inverse / (scale[..., :, None] * scale[..., None, :])
    diagonal = np.arange(found.shape[-1])
    found[..., diagonal, diagonal] = 1.0
    return found


@dataclass(frozen=True, eq=False)
class TangentSpace:
    """A mean of covariances, from which others are looked at (Varoquaux et al., 2010).

    Fields:
      reference: [r, r] the mean G.
      whitening: [r, r] its inverse square root.
    """

    reference: np.ndarray
    whitening: np.ndarray

    def apply(self, matrices: np.ndarray) -> np.ndarray:
        """log(G^-½ S G^-½) of positive definite matrices S [..., r, r]: 0 for the mean itself."""
        return _spectral(self.whitening @ matrices @ self.whitening, np.log)


def fit_tangent(
    matrices: np.ndarray, *, reference: Reference = "geometric", iterations: int = 20, tolerance: float = 1e-6
) -> TangentSpace:
    """The mean of positive definite matrices [n, r, r] that belong to training subjects.

    Args:
      matrices: the covariances or correlations.
      reference: "geometric" minimises the squared distances along the cone of such matrices, step by step;
        "log-euclidean" is the exponential of the mean logarithm, "arithmetic" the plain mean, which costs nothing.
      iterations: the most steps of the geometric mean.
      tolerance: largest entry of the mean in its own tangent space, relative to √r, at which it stops.

    Raises:
      ConfigError: there is no such reference.
      DataError: a matrix is not positive definite.
    """
    if reference not in get_args(Reference):
        mend = f"use {', '.join(get_args(Reference))}"
        raise ConfigError(f"there is no reference '{reference}'", field="reference", mend=mend)
    if reference == "log-euclidean":
        mean = _spectral(_spectral(matrices, np.log).mean(axis=0), np.exp)
    else:
        mean = matrices.mean(axis=0)
    if reference == "geometric":
        for _ in range(iterations):
            root, inverse_root = _spectral(mean, np.sqrt), _spectral(mean, lambda values: 1 / np.sqrt(values))
            step = _spectral(inverse_root @ matrices @ inverse_root, np.log).mean(axis=0)
            mean = root @ _spectral(step, np.exp) @ root
            if np.abs(step).max() <= tolerance * np.sqrt(len(mean)):
                break
    return TangentSpace(mean, _spectral(mean, lambda values: 1 / np.sqrt(values)))


def shrunk_matrices(brains: Brains, kind: ConnectivityKind, shrinkage: float) -> np.ndarray:
    """[n, r, r] float64 covariances or correlations of a cohort that ``kind`` inverts, with `shrunk`'s shrinkage."""
    if brains.series is None or kind == "partial correlation":
        # Partial correlations do not depend on scale, and shrinking is fairer to regions of the same scale.
        return shrunk(brains.connectivity.astype(np.float64), shrinkage)
    return shrunk(_covariances(brains.series), shrinkage)


def connectivity_of(
    brains: Brains,
    kind: ConnectivityKind,
    *,
    train: np.ndarray | None = None,
    shrinkage: float = 0.1,
    reference: Reference = "geometric",
) -> np.ndarray:
    """Connectivity of another kind for all subjects of a cohort.

    Covariances come from the series, each region scaled as it was measured; where a cohort has correlations only,
    precision, partial correlation and tangent start from them, and covariance is refused.

    Args:
      brains: n subjects with r regions.
      kind: see the module.
      train: rows of the training subjects; "tangent" fits its reference on them alone and needs them.
      shrinkage: α of the module's formula, for all kinds that invert.
      reference: of "tangent".

    Returns:
      [n, r, r] float32.

    Raises:
      ConfigError: there is no such kind, or "tangent" comes without training subjects.
      DataError: the cohort has no series where they are needed, or a matrix cannot be inverted.
    """
    if kind not in get_args(ConnectivityKind):
        raise ConfigError(
            f"there is no connectivity '{kind}'", mend=f"use one of {', '.join(get_args(ConnectivityKind))}"
        )
    if brains.kind != "correlation":
        raise DataError(f"{brains.name} holds {brains.kind}", mend="start from correlations")
    if kind == "correlation":
        return brains.connectivity
    if kind == "fisher-z":
        return fisher_z(brains.connectivity)
    if kind == "covariance":
        if brains.series is None:
            mend = "use correlation, or read the series of the regions"
            raise DataError(f"{brains.name} has correlations only, which tell no covariance", mend=mend)
        return _covariances(brains.series).astype(np.float32)
    matrices = shrunk_matrices(brains, kind, shrinkage)
    if kind == "precision":
        return precision(matrices).astype(np.float32)
    if kind == "partial correlation":
        return partial_correlation(matrices).astype(np.float32)
    if train is None or not len(train):
        raise ConfigError("tangent space has no reference", field="train", mend="give the rows of training subjects")
    return fit_tangent(matrices[train], reference=reference).apply(matrices).astype(np.float32)


def from_upper(upper: np.ndarray, *, field: str | None = None, file: str | PathLike[str] | None = None) -> np.ndarray:
    """Symmetric matrices [n, r, r] with 1 on the diagonal from entries above it, row by row [n, r (r − 1) / 2].

    Raises:
      DataError: no matrix has that many entries above its diagonal.
    """
    r = int((1 + np.sqrt(1 + 8 * upper.shape[1])) / 2)
    if r * (r - 1) // 2 != upper.shape[1] or r < 2:
        what = f"has {upper.shape[1]:,} columns, and no matrix has that many entries above its diagonal"
        raise DataError(what, file=file, field=field, mend="save r (r − 1) / 2 of them for r regions")
    rows, columns = np.triu_indices(r, 1)
    matrices = np.empty((len(upper), r, r), upper.dtype)
    matrices[:, rows, columns] = upper
    matrices[:, columns, rows] = upper
    diagonal = np.arange(r)
    matrices[:, diagonal, diagonal] = 1
    return matrices


def upper_of(matrices: np.ndarray) -> np.ndarray:
    """Entries above the diagonal, row by row: [n, r, r] → [n, r (r − 1) / 2]."""
    return matrices[(..., *np.triu_indices(matrices.shape[-1], 1))]


def _spectral(matrices: np.ndarray, function) -> np.ndarray:
    """A function of the eigenvalues of symmetric matrices that are to be positive, but for the exponential."""
    symmetric = (matrices + matrices.swapaxes(-1, -2)) / 2
    values, vectors = np.linalg.eigh(symmetric)
    if function is not np.exp and values.min() <= 1e-12 * values.max():
        raise DataError("a matrix of covariances is not positive definite", mend="shrink it more")
    return (vectors * function(values)[..., None, :]) @ vectors.swapaxes(-1, -2)


def _covariances(series: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([covariance(values) for values in series])
