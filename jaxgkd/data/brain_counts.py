"""Counts of a cohort: for a report, and what ``jaxgkd data check`` says of one."""

from typing import Any

import numpy as np

from jaxgkd.data.brains import Brains


def describe_brains(brains: Brains) -> dict[str, Any]:
    """Counts for a report.

    ``sites`` is site → class → subjects, ``networks`` network → regions; for age ``covariates`` has least, mean and
    greatest value in years, for every covariate how many subjects lack it; ``connections`` are pairs of regions.
    """
    labelled = brains.labels >= 0
    sites = {
        site: {
            name: int(((brains.sites == i) & (brains.labels == label)).sum())
            for label, name in enumerate(brains.class_names)
        }
        for i, site in enumerate(brains.site_names)
    }
    networks = {network: brains.networks.count(network) for network in dict.fromkeys(brains.networks) if network}
    covariates = {}
    for name, values in brains.covariates.items():
        known = values[np.isfinite(values)]
        covariates[name] = {"missing": len(values) - len(known)}
        if len(known) and name == "sex":
            covariates[name] |= {"male": int((known == 1).sum()), "female": int((known == 0).sum())}
        elif len(known):
            covariates[name] |= {"min": float(known.min()), "mean": float(known.mean()), "max": float(known.max())}
    lengths = None if brains.series is None else [len(values) for values in brains.series]
    sizes = np.bincount(brains.labels[labelled], minlength=len(brains.class_names))
    return {
        "name": brains.name,
        "sha256": brains.sha256,
        "simulated": brains.simulated,
        "subjects": brains.n_subjects,
        "labelled": int(labelled.sum()),
        "classes": len(brains.class_names),
        "class_sizes": dict(zip(brains.class_names, sizes.tolist(), strict=True)),
        "sites": sites,
        "regions": brains.n_regions,
        "networks": networks,
        "connections": brains.n_regions * (brains.n_regions - 1) // 2,
        "kind": brains.kind,
        "time_points": None if lengths is None else {"min": min(lengths), "max": max(lengths)},
        "covariates": covariates,
        "notes": list(brains.notes),
    }


def check_brains(brains: Brains) -> dict[str, Any]:
    """`describe_brains`, and how far the site alone gives the label away.

    ``site_guess`` is the accuracy of naming every subject's class by the largest class of its site, ``largest_class``
    that of always naming the largest one: where the two differ much, a model can look good by knowing the scanner.
    """
    facts = describe_brains(brains)
    counts = np.array([list(of_site.values()) for of_site in facts["sites"].values()])
    total = max(int(counts.sum()), 1)
    notes = facts.pop("notes")
    facts["largest_class"] = float(counts.sum(axis=0).max() / total)
    facts["site_guess"] = float(counts.max(axis=1).sum() / total)
    upper = brains.upper
    facts["connection"] = {"least": float(upper.min()), "mean": float(upper.mean()), "greatest": float(upper.max())}
    return facts | {"notes": notes}
