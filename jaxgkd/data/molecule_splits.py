"""Which molecules train, validate and test: by scaffold, at random, stratified by label, or as a file says.

A scaffold is the rings of a molecule and what links them (Bemis and Murcko, 1996); a scaffold split never puts
molecules with the same scaffold into two parts. Conventions differ, and so do their test sets: the name of a split says
which one was used.
"""

import json
from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

from jaxgkd.data.molecules import Molecules
from jaxgkd.data.splits import Split
from jaxgkd.data.tables import reading
from jaxgkd.data.workers import map_chunks
from jaxgkd.errors import ConfigError, DataError, shown
from jaxgkd.whole_file import write_whole

MoleculeSplitKind = Literal["scaffold", "scaffold-chiral", "scaffold-balanced", "random", "stratified"]
_PARTS = ("train", "valid", "test")
_CHUNK = 1024
# Molecules of neighbouring labels among which the parts of a stratified regression split are dealt out.
_STRATUM = 10


def make_molecule_split(
    molecules: Molecules,
    kind: MoleculeSplitKind,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    task: str | None = None,
    workers: int | None = None,
) -> Split:
    """Divides molecules.

    - ``"scaffold"``: groups with the same scaffold, without chirality, the largest first (of equal ones that with the
      later molecule first), into training while it has room, then validation, then test: DeepChem's order. ``seed`` is
      not used.
    - ``"scaffold-chiral"``: the same with the chirality of scaffolds kept, as papers after Hu et al., 2020 have it.
    - ``"scaffold-balanced"``: groups larger than half of a held-out part come first, then the others, each in an order
      drawn from ``seed``: chemprop's idea of it.
    - ``"random"``: drawn from ``seed``.
    - ``"stratified"``: so drawn that every part has the same share of positives, or the same spread of a target.

    A molecule that is there twice has both copies in one part: copies share a scaffold, and in drawn parts the later
    ones go where the first one is.

    Args:
      molecules: n of them.
      kind: see above.
      seed: what a drawn split is drawn from; the same on every machine.
      fractions: of training, validation and test.
      task: whose labels stratify; needed where there are several.
      workers: processes that find scaffolds.

    Raises:
      ConfigError: there is no such kind, or a setting does not fit.
      DataError: a part is empty.
    """
    if kind not in get_args(MoleculeSplitKind):
        raise ConfigError(f"there is no split '{kind}'", mend=f"use one of {', '.join(get_args(MoleculeSplitKind))}")
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"fractions {fractions} of a split do not divide it", mend="use three that sum to 1")
    if seed < 0:
        raise ConfigError(f"the seed {seed} is below 0", mend="use 0 or more")
    n = len(molecules)
    if kind == "random":
        parts = np.split(_shuffled(n, seed), [int(_room(fractions[0], n)), int(_room(sum(fractions[:2]), n))])
    elif kind == "stratified":
        parts = _stratified(_strata(molecules, task, seed), fractions)
    else:
        groups = scaffold_groups(scaffolds(molecules, chirality=kind == "scaffold-chiral", workers=workers))
        balanced = kind == "scaffold-balanced"
        parts = _balanced(groups, n, fractions, seed) if balanced else _largest_first(groups, n, fractions)
    if kind in ("random", "stratified"):
        parts = _with_first(parts, molecules)
    drawn = kind in ("scaffold-balanced", "random", "stratified")
    train, valid, test = (np.sort(np.asarray(part)).astype(np.int32) for part in parts)
    return Split(train=train, valid=valid, test=test, name=kind, seed=seed if drawn else None)


def _with_first(parts: Sequence[Sequence[int] | np.ndarray], molecules: Molecules) -> list[np.ndarray]:
    """The parts, every molecule that is there twice in that of its first copy: nobody is tested on what trained."""
    part = np.empty(len(molecules), np.int8)
    for number, rows in enumerate(parts):
        part[np.asarray(rows, int)] = number
    repeats = np.asarray(molecules.repeats)
    part = np.where(repeats >= 0, part[repeats], part)
    return [np.flatnonzero(part == number) for number in range(len(parts))]


def scaffolds(molecules: Molecules, *, chirality: bool, workers: int | None = None) -> list[str]:
    """The SMILES of every molecule's Bemis-Murcko scaffold, "" where it has no ring.

    Args:
      molecules: n of them.
      chirality: whether marks of chirality tell scaffolds apart.
      workers: processes.
    """
    chunks = (
        [molecules.smiles(i) for i in range(start, min(start + _CHUNK, len(molecules)))]
        for start in range(0, len(molecules), _CHUNK)
    )
    found = map_chunks(partial(_scaffolds, chirality=chirality), chunks, workers=workers)
    return [scaffold for chunk in found for scaffold in chunk]


def scaffold_groups(scaffold: Sequence[str]) -> list[list[int]]:
    """Molecules with the same scaffold, each group in ascending order, groups by their first molecule."""
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(scaffold):
        groups.setdefault(name, []).append(i)
    return list(groups.values())


def label_rates(split: Split, molecules: Molecules) -> dict[str, dict[str, dict[str, float]]]:
    """For every part and task: ``labelled`` molecules, and the share of positives, or mean and standard deviation."""
    rates: dict[str, dict[str, dict[str, float]]] = {}
    for part in _PARTS:
        rows = getattr(split, part)
        rates[part] = {}
        for column, task in enumerate(molecules.tasks):
            known = molecules.labels[rows, column]
            known = known[~np.isnan(known)]
            entry: dict[str, float] = {"labelled": len(known)}
            if len(known) and task.kind == "classification":
                entry["positive"] = float(known.mean())
            elif len(known):
                entry |= {"mean": float(known.mean()), "std": float(known.std())}
            rates[part][task.name] = entry
    return rates


def save_molecule_split(split: Split, molecules: Molecules, path: str | PathLike[str]) -> None:
    """Writes a split as JSON: its molecules, their hash and that of the data, RDKit's version and the label rates."""
    content: dict[str, Any] = {
        "name": split.name,
        "seed": split.seed,
        "sha256": split.sha256,
        "data": {"name": molecules.name, "sha256": molecules.sha256, "molecules": len(molecules)},
        "rdkit": rdBase.rdkitVersion,
        "label_rates": label_rates(split, molecules),
    }
    content |= {part: getattr(split, part).tolist() for part in _PARTS}
    write_whole(Path(path), (json.dumps(content) + "\n").encode())


def splits_of_seeds(
    molecules: Molecules, kind: MoleculeSplitKind, seeds: int, file: str | PathLike[str] | None = None
) -> list[Split]:
    """One split for each of the seeds 0, 1, …: drawn, or those of a file, which holds one for all or one a seed.

    Raises:
      DataError: the file cannot be used.
      ConfigError: it holds another number of splits.
    """
    if file is None:
        return [make_molecule_split(molecules, kind, seed=seed) for seed in range(seeds)]
    given = read_splits_file(file, molecules)
    if len(given) not in (1, seeds):
        what = f"the file holds {len(given)} splits for {seeds} seeds"
        raise ConfigError(what, file=file, mend="give one split, one a seed, or set --seeds")
    return [given[seed % len(given)] for seed in range(seeds)]


def read_splits_file(path: str | PathLike[str], molecules: Molecules) -> list[Split]:
    """The splits of a JSON file: one that `save_molecule_split` wrote, or one or a list of others.

    Others are objects with ``train``, ``val`` or ``valid``, and ``test``, each a list of records or a text such as
    ``"0-99, 120"``, both ends included. Records are counted from 0 in the order of the file, those that were left
    out counted too; a record that was left out is left out here.

    Raises:
      DataError: the file cannot be used, does not match its hash or is for other data.
    """
    path = Path(path)
    with reading(path):
        text = path.read_bytes()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("is not readable as JSON", file=path, mend="write the split again") from error
    if isinstance(content, dict) and "sha256" in content:
        return [_saved(content, molecules, path)]
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise DataError("holds no split", file=path, mend="write an object with train, valid and test")
    return [_given(entry, number, molecules, path) for number, entry in enumerate(entries)]


def _saved(content: dict[str, Any], molecules: Molecules, path: Path) -> Split:
    try:
        rows = {part: np.array(content[part], np.int32) for part in _PARTS}
        split = Split(name=str(content["name"]), seed=content["seed"], **rows)
        matches, data = split.sha256 == content["sha256"], content["data"]["sha256"]
    except (ValueError, KeyError, TypeError, OverflowError, DataError) as error:
        raise DataError("is not a saved split", file=path, mend="make the split again") from error
    if not matches:
        raise DataError("does not match its hash, it has been changed", file=path, mend="make the split again")
    if data != molecules.sha256:
        mend = "make the split again, or keep only train, valid and test in the file"
        raise DataError(f"was made for other data than {molecules.name}, or read in another way", file=path, mend=mend)
    return split


def _given(entry: dict[str, Any], number: int, molecules: Molecules, path: Path) -> Split:
    owner = np.full(molecules.n_record, -1, np.int64)
    row_of = np.full(molecules.n_record, -1, np.int64)
    row_of[molecules.record] = np.arange(len(molecules))
    parts = []
    for part, names in enumerate((("train",), ("valid", "val"), ("test",))):
        name = next((name for name in names if name in entry), None)
        if name is None:
            raise DataError(f"split {number} has no part '{names[0]}'", file=path, mend="write all three parts")
        records = _records(entry[name], name, number, path)
        if len(records) and (records.min() < 0 or records.max() >= molecules.n_record):
            odd = int(records[(records < 0) | (records >= molecules.n_record)][0])
            what = f"split {number} names record {odd}, but {molecules.name} has {molecules.n_record}"
            raise DataError(what, file=path, field=name, mend="count records from 0")
        if (owner[records] >= 0).any():
            odd = int(records[owner[records] >= 0][0])
            what = f"record {odd} of split {number} is in two parts"
            raise DataError(what, file=path, field=name, mend="keep it in one of them")
        owner[records] = part
        parts.append(np.sort(row_of[records][row_of[records] >= 0]).astype(np.int32))
        if not len(parts[-1]):
            raise DataError(f"split {number} has an empty part", file=path, field=name, mend="give it molecules")
    train, valid, test = parts
    return Split(train=train, valid=valid, test=test, name=f"given {number}", seed=None)


def _records(value: Any, name: str, number: int, path: Path) -> np.ndarray:
    mend = 'write a list of numbers, or text such as "0-99, 120"'
    try:
        if isinstance(value, str):
            found: list[int] = []
            for piece in filter(None, (piece.strip() for piece in value.split(","))):
                first, _, last = piece.partition("-")
                numbers = range(int(first), int(last or first) + 1)
                if not numbers:
                    what = f"split {number} has the range '{shown(piece)}', which ends before it begins"
                    raise DataError(what, file=path, field=name, mend=mend)
                found.extend(numbers)
            return np.unique(np.array(found, np.int64))
        if isinstance(value, list) and all(type(record) is int for record in value):
            return np.unique(np.array(value, np.int64))
    except (ValueError, OverflowError) as error:
        raise DataError(f"split {number} holds no records", file=path, field=name, mend=mend) from error
    raise DataError(f"split {number} holds no records", file=path, field=name, mend=mend)


def _scaffolds(smiles: list[str], *, chirality: bool) -> list[str]:
    with rdBase.BlockLogs():
        return [MurckoScaffoldSmiles(mol=Chem.MolFromSmiles(text), includeChirality=chirality) for text in smiles]


def _largest_first(groups: list[list[int]], n: int, fractions: tuple[float, float, float]) -> list[list[int]]:
    train, valid, test = [], [], []
    room, room_of_both = _room(fractions[0], n), _room(sum(fractions[:2]), n)
    for group in sorted(groups, key=lambda group: (len(group), group[0]), reverse=True):
        if len(train) + len(group) <= room:
            train += group
        elif len(train) + len(valid) + len(group) <= room_of_both:
            valid += group
        else:
            test += group
    return [train, valid, test]


def _balanced(groups: list[list[int]], n: int, fractions: tuple[float, float, float], seed: int) -> list[list[int]]:
    room = [_room(fraction, n) for fraction in fractions]
    drawn = [groups[i] for i in _shuffled(len(groups), seed)]
    is_large = lambda group: len(group) > min(room[1:]) / 2  # noqa: E731
    parts: list[list[int]] = [[], [], []]
    for group in [*filter(is_large, drawn), *(group for group in drawn if not is_large(group))]:
        part = next((i for i in (0, 1) if len(parts[i]) + len(group) <= room[i]), 2)
        parts[part] += group
    return parts


def _room(fraction: float, n: int) -> float:
    # 0.7 + 0.1 is a little less than 0.8, which must not cost a molecule its place.
    return round(fraction * n, 6)


def _strata(molecules: Molecules, task: str | None, seed: int) -> list[np.ndarray]:
    """Molecules with alike labels, each in an order drawn from the seed; those without a label are one stratum."""
    names = [entry.name for entry in molecules.tasks]
    if task is None and len(names) != 1:
        mend = f"name one of {', '.join(names[:20])}" if names else "use random"
        raise ConfigError(f"{len(names)} labels cannot all stratify a split", field="task", mend=mend)
    if task is not None and task not in names:
        raise ConfigError(f"there is no label '{task}'", field="task", mend=f"name one of {', '.join(names[:20])}")
    column = 0 if task is None else names.index(task)
    labels = molecules.labels[:, column]
    order = _shuffled(len(molecules), seed)
    order = order[np.argsort(labels[order], kind="stable")]
    known = order[~np.isnan(labels[order])]
    if molecules.tasks[column].kind == "classification":
        strata = [known[labels[known] == value] for value in (0, 1)]
    else:
        strata = []
        for start in range(0, len(known), _STRATUM):
            block = known[start : start + _STRATUM]
            strata.append(block[_shuffled(len(block), seed, start)])
    return [*strata, order[len(known) :]]


def _stratified(strata: list[np.ndarray], fractions: tuple[float, float, float]) -> list[list[int]]:
    """Deals every stratum out in turn, always to the part that is furthest below its share."""
    parts: list[list[int]] = [[], [], []]
    dealt = 0
    for stratum in strata:
        for i in stratum.tolist():
            dealt += 1
            behind = [fraction * dealt - len(part) for fraction, part in zip(fractions, parts, strict=True)]
            parts[behind.index(max(behind))].append(i)
    return parts


def _shuffled(n: int, *seed: int) -> np.ndarray:
    """A permutation of range(n), from raw bits: NumPy promises to keep their stream, but not its own permutations."""
    return np.argsort(np.random.PCG64(list(seed)).random_raw(n), kind="stable")
