"""A simulated cohort that needs no download: no scanner has seen these brains, and every output calls them simulated.

How a subject s with group y comes about:

1. seven networks have slow signals ``z(t)``, normal with correlations ``L = L₀ + own deviations + effects``;
2. region i follows its network: ``x_i(t) = w_i z_net(i)(t) + v_i · q(t) + u_site,i c(t) + noise``, where v are four
   patterns of the subject alone and u is a pattern of the site's scanner, added to every region through one signal c;
3. the scanner also sets the size of the noise, and what is kept is the correlation of the series over time.

Known differences, in units of one standard deviation between subjects of what they change: group 1 has weaker coherence
within the default mode network, a closer tie of default mode and salience, and a looser one of somatomotor and visual
(`GROUP_EFFECTS`); coherence grows with age; limbic and control are closer in women. Groups overlap, so that a linear
model on all correlations reaches an area under the ROC of about 0.8, not 1. Sites hold different shares of group 1.
"""

import hashlib
import json
from collections.abc import Iterator

import numpy as np
from scipy.special import ndtri

from jaxgkd.data.brains import Brains
from jaxgkd.data.connectivity import correlation
from jaxgkd.errors import ConfigError

#: Networks and their shares of the regions, about as in an atlas of the cortex.
NETWORKS = {"Vis": 13, "SomMot": 16, "DorsAttn": 12, "SalVentAttn": 11, "Limbic": 6, "Cont": 13, "Default": 19}
#: Pair of networks → what group 1 has more of, in standard deviations between subjects.
GROUP_EFFECTS = {("Default", "Default"): -1.2, ("SalVentAttn", "Default"): 1.2, ("Vis", "SomMot"): -1.0}
SITES = ("simulated A", "simulated B", "simulated C", "simulated D")
GROUPS = ("simulated control", "simulated patient")
_SITE_SHARES = (0.4, 0.3, 0.2, 0.1)
_SITE_PATIENTS = (0.45, 0.55, 0.5, 0.4)
_SITE_NOISE = (1.0, 1.2, 0.9, 1.1)
# Counts up when the same settings give other brains.
_FORMAT = 1
_TIE_STD = 0.12
_COHERENCE_STD = 0.08


def simulate_brains(
    n_subjects: int = 300, n_regions: int = 90, *, n_time: int = 120, effect: float = 1.0, seed: int = 0
) -> Brains:
    """A cohort of two groups at four sites.

    Args:
      n_subjects: at least 40; n_regions: at least 14.
      n_time: time points of a series, at least 20.
      effect: what all differences between the groups are multiplied by; 0 gives groups that do not differ.
      seed: of everything drawn; the same one gives the same cohort for every NumPy version.

    Raises:
      ConfigError: a number is too small.
    """
    for name, value, least in (("n_subjects", n_subjects, 40), ("n_regions", n_regions, 14), ("n_time", n_time, 20)):
        if value < least:
            raise ConfigError(f"{value} is too few to simulate", field=name, mend=f"use {least} or more")
    if seed < 0:
        raise ConfigError(f"the seed {seed} is below 0", field="seed", mend="use 0 or more")
    drawn = _Normal(seed)
    regions, network = _regions(n_regions)
    sites, groups = _sites_and_groups(n_subjects, drawn)
    age = np.round(np.clip(16 + 6 * drawn(n_subjects), 7, 45), 1)
    sex = (drawn(n_subjects) < 0.6).astype(np.float64)  # ndtri(0.73): about three quarters are male
    base = _base_ties(drawn)
    follows = 0.8 + 0.1 * drawn(n_regions)
    scanner = 0.35 * drawn(len(SITES), n_regions)
    series = []
    for s in range(n_subjects):
        ties, coherence = _subject_networks(base, groups[s] * effect, age[s], sex[s], drawn)
        signals = drawn(n_time, len(NETWORKS)) @ _root(ties)
        own = drawn(n_time, 4) @ (0.3 * drawn(4, n_regions))
        values = (follows * coherence[network]) * signals[:, network] + own
        values += np.outer(drawn(n_time), scanner[sites[s]])
        series.append((values + _SITE_NOISE[sites[s]] * drawn(n_time, n_regions)).astype(np.float32))
    settings = [_FORMAT, n_subjects, n_regions, n_time, effect, seed]
    return Brains(
        name="simulated",
        sha256=hashlib.sha256(json.dumps(["simulated brains", *settings]).encode()).hexdigest(),
        subjects=tuple(f"simulated-{s + 1:04d}" for s in range(n_subjects)),
        connectivity=np.stack([correlation(values) for values in series]).astype(np.float32),
        kind="correlation",
        labels=groups.astype(np.int32),
        class_names=GROUPS,
        sites=sites.astype(np.int32),
        site_names=SITES,
        regions=regions,
        networks=tuple(list(NETWORKS)[i] for i in network),
        covariates={"age": age.astype(np.float32), "sex": sex.astype(np.float32)},
        series=tuple(series),
        simulated=True,
        notes=("simulated: no scanner has seen these brains",),
    )


class _Normal:
    """Standard normal numbers from raw bits: NumPy promises to keep their stream, but not its own normal numbers."""

    def __init__(self, seed: int):
        self._bits = np.random.PCG64(seed)

    def __call__(self, *shape: int) -> np.ndarray:
        uniform = (self._bits.random_raw(int(np.prod(shape))) >> np.uint64(11)).astype(np.float64)
        return ndtri((uniform + 0.5) * 2.0**-53).reshape(shape)


def _regions(n_regions: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and network numbers: all networks of the left side, then all of the right one."""
    shares = np.array(list(NETWORKS.values())) / sum(NETWORKS.values())
    names, network = [], []
    for side, count in (("LH", n_regions - n_regions // 2), ("RH", n_regions // 2)):
        ends = np.maximum(np.floor(np.cumsum(shares) * count + 0.5).astype(int), np.arange(1, len(shares) + 1))
        ends[-1] = count
        for number, (start, end) in enumerate(_pairs(ends)):
            names += [f"simulated_{side}_{list(NETWORKS)[number]}_{i + 1}" for i in range(end - start)]
            network += [number] * (end - start)
    return tuple(names), np.array(network)


def _pairs(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    yield from zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)


def _sites_and_groups(n: int, drawn: _Normal) -> tuple[np.ndarray, np.ndarray]:
    ends = np.floor(np.cumsum(_SITE_SHARES) * n + 0.5).astype(int)
    sites = np.searchsorted(ends, np.arange(n), side="right").clip(max=len(SITES) - 1)
    groups = np.zeros(n, int)
    for site, share in enumerate(_SITE_PATIENTS):
        members = np.flatnonzero(sites == site)
        order = members[np.argsort(drawn(len(members)), kind="stable")]
        groups[order[: int(share * len(members) + 0.5)]] = 1
    return sites, groups


def _base_ties(drawn: _Normal) -> np.ndarray:
    k = len(NETWORKS)
    upper = np.triu(0.15 + 0.12 * drawn(k, k), 1)
    return upper + upper.T + np.eye(k)


def _subject_networks(
    base: np.ndarray, group: float, age: float, sex: float, drawn: _Normal
) -> tuple[np.ndarray, np.ndarray]:
    """Ties between the networks [7, 7] and coherence within them [7] of one subject."""
    k = len(NETWORKS)
    names = list(NETWORKS)
    upper = np.triu(_TIE_STD * drawn(k, k), 1)
    coherence = 1 + _COHERENCE_STD * (drawn(k) + 0.5 * (age - 16) / 6)
    limbic, control = names.index("Limbic"), names.index("Cont")
    upper[limbic, control] += 0.5 * _TIE_STD * (1 - sex)
    for (one, other), size in GROUP_EFFECTS.items():
        a, b = names.index(one), names.index(other)
        if a == b:
            coherence[a] += group * size * _COHERENCE_STD
        else:
            upper[a, b] += group * size * _TIE_STD
    return base + upper + upper.T, np.maximum(coherence, 0.1)


def _root(ties: np.ndarray) -> np.ndarray:
    """Square root of the nearest matrix of correlations that has no eigenvalue below 0.05."""
    values, vectors = np.linalg.eigh(ties)
    root = (vectors * np.sqrt(np.maximum(values, 0.05))) @ vectors.T
    return root / np.sqrt((root**2).sum(axis=0))
