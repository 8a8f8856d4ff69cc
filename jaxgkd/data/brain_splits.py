"""Which subjects train, validate and test: folds stratified by site and label, leave-one-site-out, or as a file says.

Sites differ in scanners and in their share of patients, so a fold that holds other sites than its training part
measures sites as well. Every part of a fold has therefore about the same share of every site × label; such strata with
fewer subjects than folds are pooled over sites, label by label. Subjects without a label are in no part.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from jaxgkd.data.brain_subjects import subject_key
from jaxgkd.data.brains import Brains
from jaxgkd.data.splits import Split, stratified_folds
from jaxgkd.data.tables import read_table
from jaxgkd.errors import ConfigError, DataError, shown

#: Part of the subjects that are not tested which validates.
VALID_FRACTION = 0.15
_PARTS = {"train": 0, "valid": 1, "val": 1, "test": 2}


def site_label_strata(brains: Brains, smallest: int) -> np.ndarray:
    """Numbers [n] int32 of site × label, ordered by label; −1 without a label.

    Args:
      brains: n subjects.
      smallest: strata with fewer subjects are pooled over the sites of their label.
    """
    strata = np.full(brains.n_subjects, -1, np.int32)
    number = 0
    for label in range(len(brains.class_names)):
        of_label = brains.labels == label
        sizes = np.bincount(brains.sites[of_label], minlength=len(brains.site_names))
        pooled = of_label & (sizes < smallest)[brains.sites]
        if pooled.any():
            strata[pooled] = number
            number += 1
        for site in np.flatnonzero(sizes >= max(smallest, 1)):
            strata[of_label & (brains.sites == site)] = number
            number += 1
    return strata


def brain_folds(
    brains: Brains, k: int = 5, *, seeds: Sequence[int] = (0,), valid_fraction: float = VALID_FRACTION
) -> list[Split]:
    """k folds for each of the seeds, one after another: fold i of seed s is split ``s · k + i``.

    Every labelled subject is tested once a seed. What is not tested is divided into training and validation, stratified
    as well. The same seed gives the same folds on every machine.

    Args:
      brains: the cohort.
      k: folds; strata of fewer subjects are pooled.
      seeds: one repeat each.
      valid_fraction: share of the subjects that are not tested which validates.

    Raises:
      ConfigError: a setting does not fit.
      DataError: there are too few labelled subjects.
    """
    _check_fraction(valid_fraction, "valid_fraction")
    strata = site_label_strata(brains, k)
    splits = []
    for seed in seeds:
        folds = stratified_folds(strata, k, seed)
        for fold in range(k):
            train, valid = _carve(brains, np.flatnonzero((folds >= 0) & (folds != fold)), valid_fraction, seed)
            splits.append(_split(train, valid, np.flatnonzero(folds == fold), f"{k} folds, fold {fold}", seed))
    return splits


def leave_one_site_out(brains: Brains, *, seed: int = 0, valid_fraction: float = VALID_FRACTION) -> dict[str, Split]:
    """Site → the split that tests it and trains on all others; validation is drawn from those, stratified.

    Sites with subjects of one class are there too, though they have no area under a ROC.

    Raises:
      ConfigError: the seed is below 0, or the share that validates is none.
      DataError: there is one site only.
    """
    if seed < 0:
        raise ConfigError(f"the seed is {seed}", field="seed", mend="use 0 or more")
    _check_fraction(valid_fraction, "valid_fraction")
    if len(brains.site_names) < 2:
        raise DataError(f"{brains.name} has one site", mend="use folds, or name the sites in a column 'site'")
    splits = {}
    for number, site in enumerate(brains.site_names):
        test = np.flatnonzero((brains.labels >= 0) & (brains.sites == number))
        if len(test):
            others = np.flatnonzero((brains.labels >= 0) & (brains.sites != number))
            train, valid = _carve(brains, others, valid_fraction, seed)
            splits[site] = _split(train, valid, test, f"without {site}", seed)
    return splits


def keep_label_share(split: Split, brains: Brains, share: float, seed: int = 0) -> Split:
    """Keeps the labels of a share of the training subjects, stratified by site and label; the others are unsupervised.

    With the same seed a smaller share keeps a subset of what a larger one keeps. `splits.few_shot` keeps a number of
    subjects a class instead.

    Raises:
      ConfigError: the share is not above 0 and at most 1.
      DataError: a class would lose all its training labels.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"a share of {share} labels cannot be kept", field="share", mend="use more than 0, at most 1")
    order = _dealing_order(brains, split.train, seed)
    # One number a subject, spread evenly within every stratum: a smaller share is always part of a larger one.
    rank = (np.arange(len(order)) * 0.6180339887498949 + 0.5) % 1
    kept = np.sort(order[np.argsort(rank, kind="stable")[: max(int(share * len(order) + 0.5), 1)]])
    missing = set(np.unique(brains.labels[split.train])) - set(np.unique(brains.labels[kept]))
    if missing:
        name = brains.class_names[int(min(missing))]
        raise DataError(f"class '{name}' keeps no training label at a share of {share}", mend="keep more")
    return Split(kept.astype(np.int32), split.valid, split.test, f"{split.name}, {share:g} of the labels", seed)


def read_subject_split(path: str | PathLike[str], brains: Brains) -> Split:
    """The split of a table with the columns ``subject`` and ``split`` (train, valid, test or nothing).

    Subjects of the table that the cohort does not have are passed over, and so are those without a label.

    Raises:
      DataError: the table cannot be read, names a subject twice, has another word for a part, or a part is empty.
    """
    path = Path(path).expanduser()
    table = read_table(path)
    row_of = {subject_key(subject): row for row, subject in enumerate(brains.subjects)}
    part = np.full(brains.n_subjects, -1)
    seen: dict[str, int] = {}
    for subject, name, row in zip(table.column("subject"), table.column("split"), table.rows, strict=True):
        key, name = subject_key(subject), name.strip().lower()
        if key in seen:
            what = f"subject '{shown(subject)}' is also in row {seen[key]}"
            raise DataError(what, file=path, row=row, field="subject", mend="keep one row for every subject")
        seen[key] = row
        if name and name not in _PARTS:
            what = f"'{shown(name)}' is not a part of a split"
            raise DataError(what, file=path, row=row, field="split", mend="write train, valid, test or nothing")
        if name and key in row_of:
            part[row_of[key]] = _PARTS[name]
    part[brains.labels < 0] = -1
    for number, name in enumerate(("train", "valid", "test")):
        if not (part == number).any():
            what = f"no labelled subject of {brains.name} is in the {name} part"
            raise DataError(what, file=path, field="split", mend="give all three parts subjects of the cohort")
    train, valid, test = (np.flatnonzero(part == number) for number in range(3))
    return _split(train, valid, test, f"given by {path.name}", None)


def _carve(brains: Brains, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows: of every stratum about ``fraction`` validates."""
    order = _dealing_order(brains, rows, seed)
    # Every 1/fraction-th of the subjects in the order of their strata.
    count = np.floor((np.arange(len(order) + 1) + 0.5) * fraction)
    is_valid = np.diff(count) > 0
    return order[~is_valid], order[is_valid]


def _dealing_order(brains: Brains, rows: np.ndarray, seed: int) -> np.ndarray:
    """Rows stratum after stratum, in an order within each that is drawn from ``seed``."""
    strata = site_label_strata(brains, 1)[rows]
    drawn = np.random.PCG64([seed, 1]).random_raw(brains.n_subjects)[rows]
    return rows[np.lexsort((drawn, strata))]


def _split(train: np.ndarray, valid: np.ndarray, test: np.ndarray, name: str, seed: int | None) -> Split:
    train, valid, test = (np.sort(part).astype(np.int32) for part in (train, valid, test))
    return Split(train=train, valid=valid, test=test, name=name, seed=seed)


def _check_fraction(fraction: float, field: str) -> None:
    if not 0 < fraction < 1:
        raise ConfigError(f"a share of {fraction} cannot validate", field=field, mend="use 0 to 1, such as 0.15")
