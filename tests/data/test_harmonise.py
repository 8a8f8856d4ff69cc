import numpy as np
import pytest

from jaxgkd.data.harmonise import fit_combat
from jaxgkd.errors import DataError


def shifted(n=120, f=40, seed=0):
    """Features of three sites with a shift and a scale each, and an effect of age that differs between the sites."""
    draw = np.random.default_rng(seed)
    sites = np.arange(n) % 3
    age = draw.normal(size=n) + sites
    clean = draw.normal(size=(n, f)) + 0.5 * age[:, None]
    shift, scale = draw.normal(size=(3, f)), draw.uniform(0.5, 2, size=(3, 1))
    return (clean * scale[sites] + shift[sites]).astype(np.float32), sites, age[:, None]


def oracle(features, sites):
    """ComBat without covariates, feature by feature and in float64, as the paper writes it."""
    features = features.astype(float)
    names = np.unique(sites)
    means = np.stack([features[sites == site].mean(axis=0) for site in names])
    sizes = np.array([(sites == site).sum() for site in names])
    grand = sizes @ means / sizes.sum()
    pooled = np.sqrt(np.mean((features - means[sites]) ** 2, axis=0))
    z = (features - grand) / pooled
    found = np.empty_like(z)
    for site in names:
        rows = z[sites == site]
        n, gamma, delta = len(rows), rows.mean(axis=0), rows.var(axis=0, ddof=1)
        bar, tau, m, s = gamma.mean(), gamma.var(ddof=1), delta.mean(), delta.var(ddof=1)
        a, b = (2 * s + m**2) / s, (m * s + m**3) / s
        g, d = gamma.copy(), delta.copy()
        for j in range(len(gamma)):
            for _ in range(200):
                g[j] = (n * tau * gamma[j] + d[j] * bar) / (n * tau + d[j])
                d[j] = (0.5 * np.sum((rows[:, j] - g[j]) ** 2) + b) / (n / 2 + a - 1)
        found[sites == site] = (rows - g) / np.sqrt(d)
    return found * pooled + grand


def test_it_is_combat():
    features, sites, _ = shifted()
    found = fit_combat(features, sites).apply(features, sites)
    np.testing.assert_allclose(found.values, oracle(features, sites), atol=2e-3)
    assert found.values.dtype == np.float32
    assert found.unseen == ()


def test_sites_come_together():
    features, sites, _ = shifted()
    values = fit_combat(features, sites).apply(features, sites).values
    before, after = ([each[sites == site] for site in range(3)] for each in (features, values))
    gap = lambda parts: np.std([part.mean(axis=0) for part in parts], axis=0).mean()  # noqa: E731
    width = lambda parts: np.std([part.std(axis=0) for part in parts], axis=0).mean()  # noqa: E731
    assert gap(after) < 0.1 * gap(before)
    assert width(after) < 0.3 * width(before)


def test_covariates_are_kept():
    features, sites, age = shifted()
    slope = lambda values: np.polyfit(age[:, 0], values.mean(axis=1), 1)[0]  # noqa: E731
    kept = fit_combat(features, sites, age).apply(features, sites, age).values
    lost = fit_combat(features, sites).apply(features, sites).values
    assert slope(kept) > slope(lost) + 0.1
    with pytest.raises(DataError, match="0 covariates where training preserved 1"):
        fit_combat(features, sites, age).apply(features, sites)


def test_training_subjects_alone_are_used_and_others_are_mapped():
    features, sites, _ = shifted()
    combat = fit_combat(features[:90], sites[:90])
    together, alone = combat.apply(features[80:], sites[80:]), combat.apply(features[100:101], sites[100:101])
    np.testing.assert_allclose(together.values[20], alone.values[0], rtol=1e-6)


def test_a_site_that_training_has_not_seen():
    features, sites, _ = shifted()
    combat = fit_combat(features, sites)
    found = combat.apply(features[:4], np.array([0, 7, 5, 0]))
    assert found.unseen == (5, 7)
    np.testing.assert_allclose(found.values[1:3], features[1:3], atol=1e-5)
    # One subject tells no scale.
    lonely = sites.copy()
    lonely[3] = 9
    assert fit_combat(features, lonely).apply(features, lonely).unseen == (9,)


def test_constant_features_stay():
    features, sites, _ = shifted()
    features[:, 5] = 2.5
    values = fit_combat(features, sites).apply(features, sites).values
    np.testing.assert_allclose(values[:, 5], 2.5, atol=1e-5)
    assert np.isfinite(values).all()


def test_bad_input():
    features, sites, age = shifted()
    with pytest.raises(DataError, match="for 100 sites of subjects"):
        fit_combat(features, sites[:100])
    with pytest.raises(DataError, match="4 subjects for 3 sites and 1 covariates"):
        fit_combat(features[:4], sites[:4], age[:4])
    age[7] = np.nan
    with pytest.raises(DataError, match=r"subject 7 .* lacks a covariate"):
        fit_combat(features, sites, age)
    features[3, 2] = np.nan
    with pytest.raises(DataError, match=r"subject 3 .* has a feature without a number"):
        fit_combat(features, sites)
