from dataclasses import replace

import numpy as np
import pytest

from jaxgkd.data.simulated_brains import simulate_brains
from jaxgkd.data.splits import Split
from jaxgkd.errors import DataError
from jaxgkd.recipes.brain_baselines import fit_linear, principal_coordinates
from jaxgkd.recipes.brain_views import fold_features, same_width, student_vectors, view_of
from jaxgkd.training.metrics import area_under_roc

N, R = 48, 14
ROWS = np.arange(N, dtype=np.int32)
SPLIT = Split(ROWS[:30], ROWS[30:38], ROWS[38:], "given", None)
SHRINKAGES = (0.05, 0.5, 0.9)


@pytest.fixture(scope="module")
def brains():
    # Correlations alone, as most cohorts come.
    return replace(simulate_brains(N, R, n_time=30), series=None)


def spectral(matrix, function):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(function(values)) @ vectors.T


def test_tangent_features_are_the_logarithm_around_the_mean_of_training_subjects(brains):
    found = fold_features(brains, "tangent", 0.3, SPLIT.train)
    shrunk = 0.7 * brains.connectivity.astype(np.float64) + 0.3 * np.eye(R)
    whitening = spectral(shrunk[SPLIT.train].mean(axis=0), lambda values: values**-0.5)
    for i in (0, 40):
        wanted = spectral(whitening @ shrunk[i] @ whitening, np.log)[np.triu_indices(R, 1)]
        np.testing.assert_allclose(found[i], wanted, atol=1e-5)
    partial = fold_features(brains, "partial", 0.3, SPLIT.train)
    inverse = np.linalg.inv(shrunk[3])
    np.testing.assert_allclose(partial[3, 0], -inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1]), atol=1e-5)


@pytest.mark.parametrize("kind", ["partial", "tangent"])
def test_shrinkage_is_what_ridge_validates_best(brains, kind):
    areas = []
    for shrinkage in SHRINKAGES:
        coordinates = principal_coordinates(fold_features(brains, kind, shrinkage, SPLIT.train), SPLIT.train)
        scores = fit_linear("ridge", coordinates, brains.labels, SPLIT).scores
        areas.append(area_under_roc(scores, brains.labels, np.isin(ROWS, SPLIT.valid)))
    view = view_of(brains, kind, SHRINKAGES, SPLIT, SPLIT.train)
    assert view.shrinkage == SHRINKAGES[int(np.argmax(areas))] and max(areas) > min(areas)
    np.testing.assert_array_equal(view.features, fold_features(brains, kind, view.shrinkage, SPLIT.train))


@pytest.mark.parametrize(("kind", "harmonise"), [("tangent", False), ("tangent", True), ("correlation", True)])
def test_other_subjects_and_their_labels_play_no_part(brains, kind, harmonise):
    def seen(cohort):
        view = view_of(cohort, kind, SHRINKAGES, SPLIT, SPLIT.train, harmonise=harmonise)
        return view, student_vectors(view.features, SPLIT.train)

    view, vectors = seen(brains)
    labels = np.where(np.isin(ROWS, SPLIT.test), 1 - brains.labels, brains.labels)
    connectivity = brains.connectivity.copy()
    connectivity[SPLIT.test[1:]] = np.eye(R)
    changed, other_vectors = seen(replace(brains, labels=labels, connectivity=connectivity))
    kept = np.delete(ROWS, SPLIT.test[1:])
    assert changed.shrinkage == view.shrinkage
    # Products of matrices are summed in an order of their own.
    np.testing.assert_allclose(changed.features[kept], view.features[kept], atol=1e-6)
    np.testing.assert_allclose(np.abs(other_vectors[kept]), np.abs(vectors[kept]), atol=1e-3)


def test_vectors_keep_the_products_of_connections_and_their_widths_are_made_equal(brains):
    vectors = student_vectors(brains.upper, SPLIT.train)
    coordinates = principal_coordinates(brains.upper, SPLIT.train)
    np.testing.assert_allclose(
        vectors / vectors[SPLIT.train].std(), coordinates / coordinates[SPLIT.train].std(), atol=1e-4
    )
    np.testing.assert_allclose(vectors[SPLIT.train].std(), 1, rtol=1e-4)
    wide, narrow = same_width([vectors, vectors[:, :3]])
    assert wide.shape == narrow.shape and not narrow[:, 3:].any()


def test_matrices_without_an_inverse_are_refused(brains):
    with pytest.raises(DataError, match="shrink it more"):
        view_of(replace(brains, connectivity=np.ones((N, R, R), np.float32)), "tangent", [0.0], SPLIT, SPLIT.train)
