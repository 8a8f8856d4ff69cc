import numpy as np
import pytest

from jaxgkd.data.brain_counts import describe_brains
from jaxgkd.data.brain_measures import network_averages
from jaxgkd.data.brain_splits import brain_folds
from jaxgkd.data.simulated_brains import GROUP_EFFECTS, NETWORKS, simulate_brains
from jaxgkd.errors import ConfigError
from jaxgkd.training.metrics import area_under_roc

KNOWN = [0.73156, 0.313508, 1.96841]


@pytest.fixture(scope="module")
def brains():
    return simulate_brains()


def ridge_area(brains):
    areas = []
    for split in brain_folds(brains, 5):
        rows = np.concatenate([split.train, split.valid])
        centred = brains.upper.astype(float) - brains.upper[rows].mean(axis=0)
        kernel = centred @ centred[rows].T
        scale = np.trace(kernel[rows]) / len(rows)
        targets = brains.labels[rows] - brains.labels[rows].mean()
        scores = kernel @ np.linalg.solve(kernel[rows] + scale * np.eye(len(rows)), targets)
        areas.append(area_under_roc(scores[split.test], brains.labels[split.test], np.ones(len(split.test), bool)))
    return np.mean(areas)


def test_what_it_is(brains):
    assert brains.simulated
    assert (brains.n_subjects, brains.n_regions) == (300, 90)
    assert set(brains.networks) == set(NETWORKS)
    for text in (
        brains.name,
        *brains.site_names,
        *brains.class_names,
        *brains.notes,
        *brains.subjects,
        *brains.regions,
    ):
        assert "simulated" in text
    np.testing.assert_array_equal(brains.connectivity, brains.connectivity.swapaxes(1, 2))
    np.testing.assert_allclose(brains.connectivity[5], np.corrcoef(brains.series[5].T.astype(float)), atol=1e-6)
    counts = describe_brains(brains)
    assert counts["simulated"]
    assert min(min(row.values()) for row in counts["sites"].values()) >= 10
    assert 7 <= counts["covariates"]["age"]["min"] < counts["covariates"]["age"]["max"] <= 45


def test_the_seed_decides():
    small = lambda **settings: simulate_brains(40, 14, n_time=20, **settings)  # noqa: E731
    one, again, other = small(), small(), small(seed=1)
    np.testing.assert_array_equal(one.connectivity, again.connectivity)
    assert one.sha256 == again.sha256
    assert one.sha256 != other.sha256
    assert np.abs(one.connectivity - other.connectivity).max() > 0.1
    # Known numbers: the same on every machine.
    np.testing.assert_allclose(one.series[0][0, :3], KNOWN, rtol=1e-4)


def test_a_linear_model_finds_the_groups_but_not_all_of_them(brains):
    assert 0.74 < ridge_area(brains) < 0.86


def test_the_known_networks_differ_most(brains):
    averages = network_averages(brains)
    first, second = (averages.values[brains.labels == label] for label in (0, 1))
    t = (second.mean(axis=0) - first.mean(axis=0)) / np.sqrt(
        first.var(axis=0) / len(first) + second.var(axis=0) / len(second)
    )
    order = np.argsort(-np.abs(t))
    assert {averages.pairs[i] for i in order[:3]} == {tuple(pair) for pair in GROUP_EFFECTS}
    for pair, effect in GROUP_EFFECTS.items():
        assert np.sign(t[averages.pairs.index(pair)]) == np.sign(effect)


def test_too_few():
    with pytest.raises(ConfigError, match="'n_subjects': 10 is too few"):
        simulate_brains(10)
    with pytest.raises(ConfigError, match="below 0"):
        simulate_brains(seed=-1)
