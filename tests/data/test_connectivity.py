import dataclasses

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.data import connectivity
from jaxgkd.data.simulated_brains import simulate_brains
from jaxgkd.errors import ConfigError, DataError

BRAINS = simulate_brains(40, 14, n_time=30)


def covariances(n=6, r=5, seed=0):
    series = np.random.default_rng(seed).normal(size=(n, 40, r))
    return np.stack([np.cov(one.T) for one in series])


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 30), st.integers(2, 6), st.integers(0, 99))
def test_correlation_and_covariance(time, r, seed):
    series = np.random.default_rng(seed).normal(size=(time, r)).astype(np.float32)
    np.testing.assert_allclose(connectivity.covariance(series), np.cov(series.T.astype(float)), atol=1e-10)
    np.testing.assert_allclose(connectivity.correlation(series), np.corrcoef(series.T.astype(float)), atol=1e-10)


def test_a_constant_region_has_no_correlation():
    series = np.random.default_rng(0).normal(size=(20, 3))
    series[:, 1] = 0.1  # no mean of it is exactly 0.1
    found = connectivity.correlation(series)
    np.testing.assert_array_equal(found[1], [0, 1, 0])
    assert found[0, 2] == pytest.approx(np.corrcoef(series[:, [0, 2]].T)[0, 1])


def test_fisher_z():
    z = connectivity.fisher_z(np.array([[1, 0.5], [0.5, 1]]))
    np.testing.assert_allclose(z, [[0, np.arctanh(0.5)], [np.arctanh(0.5), 0]])
    assert np.isfinite(connectivity.fisher_z(np.array([[1, -1.0], [-1, 1]]))).all()


def test_shrinking_keeps_the_trace():
    matrices = covariances()
    found = connectivity.shrunk(matrices, 0.3)
    np.testing.assert_allclose(np.trace(found, axis1=1, axis2=2), np.trace(matrices, axis1=1, axis2=2))
    np.testing.assert_allclose(found[0, 0, 1], 0.7 * matrices[0, 0, 1])
    with pytest.raises(ConfigError, match="use 0 to 1"):
        connectivity.shrunk(matrices, 1.1)


def test_partial_correlation_is_that_of_residuals():
    series = np.random.default_rng(1).normal(size=(200, 4)) @ np.random.default_rng(2).normal(size=(4, 4))
    found = connectivity.partial_correlation(np.cov(series.T))
    others = np.column_stack([series[:, 2:], np.ones(200)])
    residual = series[:, :2] - others @ np.linalg.lstsq(others, series[:, :2], rcond=None)[0]
    assert found[0, 1] == pytest.approx(np.corrcoef(residual.T)[0, 1], abs=1e-10)
    np.testing.assert_array_equal(np.diagonal(found), 1)


def test_precision():
    matrices = covariances()
    np.testing.assert_allclose(connectivity.precision(matrices) @ matrices, np.tile(np.eye(5), (6, 1, 1)), atol=1e-10)
    with pytest.raises(DataError, match=r"has no inverse.*shrink it more"):
        connectivity.precision(np.zeros((1, 2, 2)))


def test_tangent_space_agrees_with_matrix_functions():
    matrices = covariances()
    space = connectivity.fit_tangent(matrices, reference="arithmetic")
    mean = matrices.mean(axis=0)
    root = np.linalg.inv(scipy.linalg.sqrtm(mean))
    np.testing.assert_allclose(space.apply(matrices[:1])[0], scipy.linalg.logm(root @ matrices[0] @ root), atol=1e-8)
    np.testing.assert_allclose(space.apply(mean), 0, atol=1e-10)


def test_the_geometric_mean_is_the_centre():
    matrices = covariances()
    space = connectivity.fit_tangent(matrices, tolerance=1e-9)
    np.testing.assert_allclose(space.apply(matrices).mean(axis=0), 0, atol=1e-7)
    # The mean goes along with any change of coordinates; the arithmetic one would too, the log-Euclidean would not.
    change = np.random.default_rng(3).normal(size=(5, 5))
    moved = connectivity.fit_tangent(change @ matrices @ change.T, tolerance=1e-9).reference
    np.testing.assert_allclose(moved, change @ space.reference @ change.T, rtol=1e-5, atol=1e-8)


def test_the_log_euclidean_mean_of_matrices_that_commute():
    matrices = np.stack([np.diag([1.0, 4.0]), np.diag([9.0, 1.0])])
    for reference in ("log-euclidean", "geometric"):
        found = connectivity.fit_tangent(matrices, reference=reference).reference
        np.testing.assert_allclose(found, np.diag([3.0, 2.0]), atol=1e-7)


def test_tangent_space_refuses():
    with pytest.raises(DataError, match="not positive definite; shrink it more"):
        connectivity.fit_tangent(np.ones((2, 3, 3)))
    with pytest.raises(ConfigError, match="no reference 'mean'"):
        connectivity.fit_tangent(covariances(), reference="mean")


def test_kinds_of_a_cohort():
    assert connectivity.connectivity_of(BRAINS, "correlation") is BRAINS.connectivity
    found = connectivity.connectivity_of(BRAINS, "covariance")
    np.testing.assert_allclose(found[3], np.cov(BRAINS.series[3].T.astype(float)), rtol=1e-5)
    z = connectivity.connectivity_of(BRAINS, "fisher-z")
    np.testing.assert_allclose(np.tanh(z[0, 0, 1]), BRAINS.connectivity[0, 0, 1], rtol=1e-5)
    shrunk = connectivity.shrunk(BRAINS.connectivity.astype(float), 0.2)
    partial = connectivity.connectivity_of(BRAINS, "partial correlation", shrinkage=0.2)
    np.testing.assert_allclose(partial, connectivity.partial_correlation(shrunk), atol=1e-6)
    precision = connectivity.connectivity_of(BRAINS, "precision", shrinkage=0.2)
    expected = np.linalg.inv(connectivity.shrunk(np.cov(BRAINS.series[0].T.astype(float)), 0.2))
    np.testing.assert_allclose(precision[0], expected, rtol=1e-4, atol=1e-4)
    without = dataclasses.replace(BRAINS, series=None)
    with pytest.raises(DataError, match="correlations only, which tell no covariance"):
        connectivity.connectivity_of(without, "covariance")
    tangent = connectivity.connectivity_of(without, "tangent", train=np.arange(30))
    assert tangent.shape == BRAINS.connectivity.shape
    assert tangent.dtype == np.float32
    with pytest.raises(ConfigError, match=r"'train'.*has no reference"):
        connectivity.connectivity_of(without, "tangent")
    with pytest.raises(ConfigError, match="no connectivity 'pearson'"):
        connectivity.connectivity_of(without, "pearson")


def test_the_tangent_of_training_subjects_knows_no_others():
    train = np.arange(25)
    changed = BRAINS.connectivity.copy()
    changed[30:] = np.eye(14)
    other = dataclasses.replace(BRAINS, series=None, connectivity=changed)
    one = connectivity.connectivity_of(dataclasses.replace(BRAINS, series=None), "tangent", train=train)
    np.testing.assert_array_equal(one[:30], connectivity.connectivity_of(other, "tangent", train=train)[:30])


def test_upper_triangles():
    matrices = BRAINS.connectivity[:3]
    upper = connectivity.upper_of(matrices)
    np.testing.assert_array_equal(upper[0, :13], matrices[0, 0, 1:])
    np.testing.assert_array_equal(connectivity.from_upper(upper), matrices)
    with pytest.raises(DataError, match="has 5 columns"):
        connectivity.from_upper(np.zeros((2, 5)))
