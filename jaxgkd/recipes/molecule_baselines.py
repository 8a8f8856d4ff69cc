"""Rows that stand in every table of molecules: what is reached without a graph, and mostly without learning.

A student is worth its training only where it beats these. On the energies of QM7 the counts of elements alone come to
15 kcal/mol, which many a network does not.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdFingerprintGenerator
from scipy.optimize import minimize
from scipy.special import expit

from jaxgkd.data.atom_fields import ATOM_FIELDS
from jaxgkd.data.molecules import Molecules, TaskKind
from jaxgkd.data.splits import Split
from jaxgkd.training.compilation import cache_folder
from jaxgkd.training.metrics import area_under_roc, mean_absolute_error
from jaxgkd.training.stage import once

# Strengths of the ridge a training molecule, for counts of unit variance.
_STRENGTHS = 10.0 ** np.arange(-7, 2)
_TREES, _TREES_OF_A_TRIAL = 500, 100
_LEAVES = (1, 3, 10)
# The bits that every split of a tree chooses from. A third of them is usual for regression, but takes three times as
# long as a tenth and is hardly better (a mean absolute error of .668 against .673 on lipophilicity).
_BITS_OF_A_SPLIT: Mapping[TaskKind, Any] = {"classification": "sqrt", "regression": 0.1}
_RADIUS = 2
#: Of a fingerprint.
BITS = 2048

NotRun = dict[str, str]
Baseline = Callable[[Molecules, Split, np.ndarray, int], np.ndarray | NotRun]


def mean(molecules: Molecules, split: Split, labels: np.ndarray, seed: int) -> np.ndarray:
    """The mean of the training labels for every molecule; of classes, that is the share of positives.

    Args:
      molecules: n of them.
      split: what trains and what validates.
      labels: [n, t], a column for each of ``molecules.tasks``, NaN where missing.
      seed: not used.

    Returns:
      Predictions [n, t] float64; NaN for a task without a training label.
    """
    return _by_task(molecules, split, labels, lambda kind, y, train, valid: np.full(len(y), y[train].mean()))


def composition(molecules: Molecules, split: Split, labels: np.ndarray, seed: int) -> np.ndarray:
    """Ridge regression on how many atoms of every element a molecule has; logistic for classes.

    The strength of the ridge is the best of nine on validation, by mean absolute error or area under the ROC curve.

    Args:
      molecules: n of them.
      split: what trains and what validates.
      labels: [n, t], a column for each of ``molecules.tasks``, NaN where missing.
      seed: not used.

    Returns:
      Predictions [n, t] float64, of classes the probability of a positive; NaN for a task without a training label.
    """
    return _by_composition(molecules, split, labels, element_counts(molecules))


def composition_weights(molecules: Molecules, split: Split, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `composition` says of numbers as a function of a molecule's elements: ``counts @ weights + intercept``.

    Returns:
      weights [119, t] and intercept [t] float64, in the unit of the labels.
    """
    counts = element_counts(molecules)
    # A linear function is known by what it says of nothing and of a single atom of each element.
    n_element = counts.shape[1]
    probes = np.concatenate([np.zeros((1, n_element)), np.eye(n_element)])
    unknown = np.full((len(probes), labels.shape[1]), np.nan)
    found = _by_composition(molecules, split, np.concatenate([labels, unknown]), np.concatenate([counts, probes]))
    intercept, single = found[len(counts)], found[len(counts) + 1 :]
    return single - intercept, intercept


def _by_composition(molecules: Molecules, split: Split, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    counts = counts.astype(np.float64)

    def predict(kind: TaskKind, y: np.ndarray, train: np.ndarray, valid: np.ndarray) -> np.ndarray:
        deviation = counts[train].std(axis=0)
        varies = deviation > 0
        inputs = (counts[:, varies] - counts[train][:, varies].mean(axis=0)) / deviation[varies]
        fit = ridge_logistic if kind == "classification" else ridge
        trials = (fit(inputs[train], y[train], strength * len(train))(inputs) for strength in _STRENGTHS)
        return _best(trials, kind, y, valid)

    return _by_task(molecules, split, labels, predict)


def ecfp_forest(molecules: Molecules, split: Split, labels: np.ndarray, seed: int) -> np.ndarray | NotRun:
    """A random forest of 500 trees on circular fingerprints (ECFP4, 2,048 bits), in all cores.

    The fewest molecules of a leaf are the best of 1, 3 and 10 on validation, tried with 100 trees.

    Args:
      molecules: n of them.
      split: what trains and what validates.
      labels: [n, t], a column for each of ``molecules.tasks``, NaN where missing.
      seed: what the trees are drawn from.

    Returns:
      Predictions [n, t] float64, of classes the probability of a positive; NaN for a task without a training label.
      Where scikit-learn is not installed, why the row has no values.

    Source:
      Rogers and Hahn, Extended-Connectivity Fingerprints, 2010; Breiman, Random Forests, 2001.
    """
    try:
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    except ImportError:
        return {"not_run": "install jaxgkd[baselines]"}
    bits = ecfp4(molecules).astype(np.float32)

    def predict(kind: TaskKind, y: np.ndarray, train: np.ndarray, valid: np.ndarray) -> np.ndarray:
        def grow(trees: int, leaf: int):
            forest = (RandomForestClassifier if kind == "classification" else RandomForestRegressor)(
                trees, min_samples_leaf=leaf, max_features=_BITS_OF_A_SPLIT[kind], n_jobs=-1, random_state=seed
            )
            forest.fit(bits[train], y[train])
            # Threads add the trees up in the order they happen to end in, and the last digits with it.
            return forest.set_params(n_jobs=1)

        def predictions(forest, rows: np.ndarray) -> np.ndarray:
            if kind == "regression":
                return forest.predict(rows)
            return forest.predict_proba(rows) @ (forest.classes_ == 1)

        def score(leaf: int) -> float:
            return _score(kind, predictions(grow(_TREES_OF_A_TRIAL, leaf), bits[valid]), y[valid])

        leaf = max(_LEAVES, key=score) if len(valid) else _LEAVES[0]
        return predictions(grow(_TREES, leaf), bits)

    return _by_task(molecules, split, labels, predict)


def kept_forest(molecules: Molecules, split: Split, labels: np.ndarray, seed: int) -> np.ndarray | NotRun:
    """`ecfp_forest`, from the user's cache where it has spoken before: of many tasks it takes longer than all students.

    Raises:
      CheckpointError: what is kept is damaged, or cannot be written.
    """
    try:
        import sklearn.ensemble  # noqa: F401
    except ImportError:
        return ecfp_forest(molecules, split, labels, seed)
    grown = [_TREES, _TREES_OF_A_TRIAL, _LEAVES, sorted(_BITS_OF_A_SPLIT.items()), BITS, _RADIUS]
    made_by = [version("scikit-learn"), rdBase.rdkitVersion]
    learned = [molecules.structure_sha256, split.sha256, [task.kind for task in molecules.tasks], labels.shape]
    digest = hashlib.sha256(json.dumps([*grown, *made_by, *learned, seed]).encode())
    digest.update(np.ascontiguousarray(labels, np.float64).tobytes())
    folder = cache_folder() / "forests" / digest.hexdigest()[:32]
    return once(folder, lambda: {"said": np.asarray(ecfp_forest(molecules, split, labels, seed))})["said"]


BASELINES: Mapping[str, Baseline] = {"mean": mean, "composition": composition, "ecfp_forest": kept_forest}


def element_counts(molecules: Molecules) -> np.ndarray:
    """Atoms of every element, hydrogens counted whether or not they are atoms of the graphs, [n, 119] int64."""
    names, n = list(ATOM_FIELDS), len(molecules)
    molecule = np.repeat(np.arange(n), molecules.n_atom)
    element = molecules.atoms[:, names.index("atomic_number")]
    n_element = ATOM_FIELDS["atomic_number"]
    counts = np.bincount(molecule * n_element + element, minlength=n * n_element).reshape(n, n_element)
    if molecules.hydrogens == "implicit":
        implied = molecules.atoms[:, names.index("hydrogens")]
        counts[:, 0] += np.bincount(molecule, weights=implied, minlength=n).astype(np.int64)
    return counts


@lru_cache(maxsize=1)
def ecfp4(molecules: Molecules) -> np.ndarray:
    """`fingerprints` of all molecules, kept, as every seed asks again."""
    return fingerprints(molecules, range(len(molecules)))


def fingerprints(molecules: Molecules, rows: range) -> np.ndarray:
    """Morgan fingerprints of radius 2 without hydrogens, [rows, 2048] uint8 of 0 and 1."""
    return (fragment_counts(molecules, rows) > 0).astype(np.uint8)


def fragment_counts(molecules: Molecules, rows: range) -> np.ndarray:
    """How often each fragment that a bit of `fingerprints` stands for is there, [rows, 2048] uint16."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=_RADIUS, fpSize=BITS)
    counts = np.empty((len(rows), BITS), np.uint16)
    # Hydrogens that cannot be removed, as in H2, are no reason for a warning a molecule.
    with rdBase.BlockLogs():
        for at, i in enumerate(rows):
            counts[at] = generator.GetCountFingerprintAsNumPy(Chem.RemoveHs(molecules.rdkit_molecule(i)))
    return counts


def ridge(inputs: np.ndarray, labels: np.ndarray, strength: float) -> Callable[[np.ndarray], np.ndarray]:
    """The function of inputs that minimises ``Σ (y - w·x - b)² + strength · |w|²``.

    Args:
      inputs: [n, f] float64; labels: [n] float64.
      strength: of the penalty, which leaves b alone.
    """
    shift = inputs.mean(axis=0)
    # The penalty as f more rows with label 0: solved without squaring the condition of the inputs.
    rows = np.concatenate([inputs - shift, np.sqrt(strength) * np.eye(inputs.shape[1])])
    targets = np.concatenate([labels - labels.mean(), np.zeros(inputs.shape[1])])
    weights, *_ = np.linalg.lstsq(rows, targets, rcond=None)
    intercept = labels.mean() - shift @ weights
    return lambda inputs: inputs @ weights + intercept


def ridge_logistic(inputs: np.ndarray, labels: np.ndarray, strength: float) -> Callable[[np.ndarray], np.ndarray]:
    """The probability that minimises ``Σ log(1 + exp(-s (w·x + b))) + strength/2 · |w|²``, with s = ±1, by L-BFGS.

    Args:
      inputs: [n, f] float64; labels: [n] of 0 and 1.
      strength: of the penalty, which leaves b alone.
    """
    sign = np.where(labels == 1, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercept = parameters[:-1], parameters[-1]
        margin = sign * (inputs @ weights + intercept)
        slope = -sign * expit(-margin)
        value = np.logaddexp(0, -margin).sum() + strength / 2 * weights @ weights
        return value, np.append(inputs.T @ slope + strength * weights, slope.sum())

    found = minimize(loss, np.zeros(inputs.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    return lambda inputs: expit(inputs @ found[:-1] + found[-1])


def _by_task(
    molecules: Molecules,
    split: Split,
    labels: np.ndarray,
    predict: Callable[[TaskKind, np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """``predict`` of a task's kind, labels [n], and labelled rows that train and that validate, for every task."""
    predictions = np.full(labels.shape, np.nan)
    for column, task in enumerate(molecules.tasks):
        y = labels[:, column]
        train, valid = (rows[~np.isnan(y[rows])] for rows in (split.train, split.valid))
        if len(train):
            predictions[:, column] = predict(task.kind, y, train, valid)
    return predictions


def _best(trials: Iterable[np.ndarray], kind: TaskKind, y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return max(trials, key=lambda predictions: _score(kind, predictions[valid], y[valid]))


def _score(kind: TaskKind, predictions: np.ndarray, labels: np.ndarray) -> float:
    """Higher is better; the lowest of all where validation cannot tell."""
    where = np.ones(len(labels), bool)
    if kind == "classification":
        return float(np.nan_to_num(area_under_roc(predictions, labels, where), nan=-np.inf))
    return -float(np.nan_to_num(mean_absolute_error(predictions, labels, where), nan=np.inf))
