"""Which nodes train, validate and test: splits that come with the data, drawn from a seed, few-shot, and inductive."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np

from jaxgkd.data.tables import reading
from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.errors import ConfigError, DataError
from jaxgkd.whole_file import write_whole

SplitKind = Literal["public", "60-20-20", "inductive"]
_PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a graph by what they are used for. Rows in no part are not supervised; a student may still see them.

    Attributes:
      train: sorted int32 rows whose labels train.
      valid: sorted int32 rows whose labels choose between models.
      test: sorted int32 rows whose labels are only scored.
      name: its kind, for reports.
      seed: what it was drawn from, or None where the data gives it.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    name: str
    seed: int | None

    def __post_init__(self):
        """Raises DataError unless the parts are disjoint rows in ascending order and none is empty."""
        for part in _PARTS:
            rows = getattr(self, part)
            if not isinstance(rows, np.ndarray) or rows.dtype != np.int32 or rows.ndim != 1:
                raise DataError(f"the {part} part of the split is not a list of rows", mend="give it as int32 [n]")
            if not len(rows):
                raise DataError(f"the {part} part of the split is empty", mend="use another split or label more items")
            if rows[0] < 0 or (np.diff(rows) <= 0).any():
                raise DataError(f"the {part} rows of the split are not sorted and unique", mend="sort them")
        for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
            shared = np.intersect1d(getattr(self, one), getattr(self, other))
            if len(shared):
                what = f"row {shared[0]} (counted from 0) is in the {one} and the {other} part of the split"
                raise DataError(what, mend="keep it in one of them")

    @property
    def inductive(self) -> bool:
        """Whether the test nodes are to be absent from the training graph."""
        return self.name.startswith("inductive")

    @property
    def sha256(self) -> str:
        """Hash of the rows of the three parts."""
        digest = hashlib.sha256()
        for part in _PARTS:
            rows = getattr(self, part)
            digest.update(f"{part} {len(rows)} ".encode() + rows.astype("<i4").tobytes())
        return digest.hexdigest()


def make_split(graph: TextGraph, kind: SplitKind, seed: int = 0) -> Split:
    """Draws the split ``kind`` of a graph.

    - ``"public"``: the split that the data gives; ``seed`` is not used. Unlabelled rows are left out.
    - ``"60-20-20"``: of the labelled nodes of every class 60 % train, 20 % validate and 20 % test, rounded, but at
      least one each. Of a class of two items one trains and one tests, a single item trains.
    - ``"inductive"``: the same rows, but the test nodes are absent while training: see ``training_edges``.

    The same seed gives the same split on every machine and for every NumPy version.

    Raises:
      ConfigError: there is no such kind.
      DataError: the data gives no split, or a class has no training item.
    """
    if kind == "public":
        if graph.given_split is None:
            mend = "add a column 'split', or draw a split with 60-20-20 or inductive"
            raise DataError(f"{graph.name} comes without a split", field="split", mend=mend)
        labelled = graph.labels >= 0
        rows = [np.flatnonzero((graph.given_split == part) & labelled) for part in _PARTS]
        seed_used = None
    elif kind in ("60-20-20", "inductive"):
        rows = _draw(graph.labels, seed)
        seed_used = seed
    else:
        raise ConfigError(f"there is no split '{kind}'", mend="use public, 60-20-20 or inductive")
    trained = np.bincount(graph.labels[rows[0]], minlength=len(graph.class_names))
    if 0 in trained.tolist():
        missing = graph.class_names[int(np.argmin(trained))]
        mend = "label some of its items for training, or remove the class"
        raise DataError(f"class '{missing}' of {graph.name} has no training item", mend=mend)
    train, valid, test = (np.sort(part).astype(np.int32) for part in rows)
    return Split(train=train, valid=valid, test=test, name=kind, seed=seed_used)


def few_shot(split: Split, labels: np.ndarray, k: int, seed: int, class_names: Sequence[str] | None = None) -> Split:
    """Keeps the labels of ``k`` training items a class; the other training rows become unsupervised.

    With the same seed a smaller ``k`` keeps a subset of what a larger one keeps.

    Args:
      split: the split whose training part is thinned out.
      labels: [n] class numbers.
      k: training labels a class.
      seed: which of them.
      class_names: names for errors, by default the class numbers.

    Raises:
      DataError: a class has fewer than ``k`` training items, since "k a class" would then not be true.
    """
    if k < 1:
        raise ConfigError(f"{k} labels a class cannot train", mend="keep at least 1")
    order = _shuffled(len(labels), seed)
    in_train = np.zeros(len(labels), bool)
    in_train[split.train] = True
    order = order[in_train[order]]
    kept = []
    for label in np.unique(labels[split.train]):
        items = order[labels[order] == label]
        if len(items) < k:
            name = str(label) if class_names is None else class_names[int(label)]
            raise DataError(
                f"class '{name}' has {len(items)} training items", mend=f"keep fewer than {k} labels a class"
            )
        kept.append(items[:k])
    train = np.sort(np.concatenate(kept)).astype(np.int32)
    return Split(train=train, valid=split.valid, test=split.test, name=f"{split.name}, {k} a class", seed=seed)


def training_edges(graph: TextGraph, split: Split) -> np.ndarray:
    """Mask [e] of the edges that touch no test node: those a student sees while it trains inductively.

    Validation and unlabelled nodes stay in the training graph. Whether the mask is to be used says ``split.inductive``.
    """
    is_test = np.zeros(graph.n_node, bool)
    is_test[split.test] = True
    return ~(is_test[graph.senders] | is_test[graph.receivers])


def stratified_folds(labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Fold numbers [n] int32 from 0 to k - 1, every class spread evenly; -1 where the label is below 0.

    Fold sizes, and the items of a class in two folds, differ by at most one. Used to let a teacher speak about items it
    has not been trained on.

    Raises:
      DataError: there are fewer labelled items than folds, or fewer than two folds.
    """
    labels = np.asarray(labels)
    n_labelled = int((labels >= 0).sum())
    if k < 2 or n_labelled < k:
        raise DataError(
            f"{n_labelled} labelled items cannot be divided into {k} folds", mend="use 2 or more, but fewer"
        )
    order = _shuffled(len(labels), seed)
    order = order[labels[order] >= 0]
    # Dealt out like cards, class after class without starting over, so that both classes and folds come out even.
    by_class = order[np.argsort(labels[order], kind="stable")]
    folds = np.full(len(labels), -1, np.int32)
    folds[by_class] = np.arange(n_labelled) % k
    return folds


def save_split(split: Split, path: str | PathLike[str]) -> None:
    """Writes the split as JSON with its hash."""
    content = {"name": split.name, "seed": split.seed, "sha256": split.sha256}
    content |= {part: getattr(split, part).tolist() for part in _PARTS}
    write_whole(Path(path), json.dumps(content).encode())


def load_split(path: str | PathLike[str], n_node: int | None = None) -> Split:
    """Reads a split that ``save_split`` wrote.

    Args:
      path: the file.
      n_node: number of nodes of the graph it is for; rows beyond are refused.

    Raises:
      DataError: it is missing or damaged, does not match its hash, or is for a larger graph.
    """
    mend = "make the split again"
    try:
        with reading(Path(path)):
            content = json.loads(Path(path).read_bytes())
        rows = {part: np.array(content[part], np.int32) for part in _PARTS}
        split = Split(name=str(content["name"]), seed=content["seed"], **rows)
        expected = content["sha256"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError("is not a saved split", file=path, mend=mend) from error
    if split.sha256 != expected:
        raise DataError("does not match its hash, it has been changed or damaged", file=path, mend=mend)
    if n_node is not None and max(getattr(split, part)[-1] for part in _PARTS) >= n_node:
        raise DataError(f"has rows beyond the {n_node} nodes of the graph", file=path, mend="use the graph it is for")
    return split


def _draw(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    order = _shuffled(len(labels), seed)
    rows: list[list[np.ndarray]] = [[], [], []]
    for label in range(int(labels.max(initial=-1)) + 1):
        items = order[labels[order] == label]
        n = len(items)
        n_train = n if n < 2 else max(1, min(int(0.6 * n + 0.5), n - 2))
        # The odd one of what remains is tested, so that a class of two items is scored.
        n_valid = (n - n_train) // 2
        for part, chosen in zip(rows, np.split(items, [n_train, n_train + n_valid]), strict=True):
            part.append(chosen)
    return [np.concatenate(part) if part else np.zeros(0, np.int64) for part in rows]


def _shuffled(n: int, seed: int) -> np.ndarray:
    """A permutation of range(n), from raw bits: NumPy promises to keep their stream, but not its own permutations."""
    if seed < 0:
        raise ConfigError(f"the seed {seed} is below 0", mend="use 0 or more")
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")
