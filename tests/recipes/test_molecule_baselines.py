import sys

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem, rdFingerprintGenerator
from scipy.special import expit

from jaxgkd.data.molecules import load_molecules
from jaxgkd.data.splits import Split
from jaxgkd.recipes import molecule_baselines
from jaxgkd.recipes.molecule_baselines import (
    BASELINES,
    composition_weights,
    ecfp4,
    ecfp_forest,
    element_counts,
    fingerprints,
    fragment_counts,
    ridge,
    ridge_logistic,
)

# Chains and rings of carbon, nitrogen and oxygen; the last two have a charge and a hydrogen that is written out.
SMILES = [
    *("C" * n + end for n in range(1, 9) for end in ("", "O", "N", "OC", "=O", "c1ccccc1")),
    *("C[NH3+]", "[H]OC"),
]
N = len(SMILES)

pytestmark = pytest.mark.usefixtures("own_cache")


def heat(smiles):
    """A number that is linear in the elements."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    worth = {"H": -4.0, "C": 2.5, "N": 7.0, "O": -30.0}
    return 100.0 + sum(worth[atom.GetSymbol()] for atom in molecule.GetAtoms())


def load(folder, labels, hydrogens="implicit"):
    names = [f"task_{i}" for i in range(labels.shape[1])]
    cells = [[smiles, *("" if np.isnan(y) else repr(y) for y in row)] for smiles, row in zip(SMILES, labels.tolist())]  # noqa: B905
    folder.mkdir(exist_ok=True)
    (folder / "a.csv").write_text("\n".join(",".join(row) for row in [["smiles", *names], *cells]) + "\n")
    return load_molecules(folder / "a.csv", labels=names, hydrogens=hydrogens, root=folder / "cache", workers=1)


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    """A regression that elements explain, with gaps, and a classification, whether there is an oxygen."""
    values = np.array([heat(smiles) for smiles in SMILES])
    values[::7] = np.nan
    oxygen = np.array([float("O" in smiles) for smiles in SMILES])
    return load(tmp_path_factory.mktemp("molecules"), np.stack([values, oxygen], axis=1))


@pytest.fixture(scope="module")
def split():
    order = np.random.default_rng(0).permutation(N)
    parts = (np.sort(part).astype(np.int32) for part in np.split(order, [30, 40]))
    return Split(*parts, name="random", seed=0)


def test_elements_are_counted_with_their_hydrogens(molecules, tmp_path):
    counts = element_counts(molecules)
    for i, smiles in enumerate(SMILES):
        expected = np.zeros(119, int)
        for atom in Chem.AddHs(Chem.MolFromSmiles(smiles)).GetAtoms():
            expected[atom.GetAtomicNum() - 1] += 1
        np.testing.assert_array_equal(counts[i], expected)
    explicit = load(tmp_path, molecules.labels, hydrogens="explicit")
    np.testing.assert_array_equal(element_counts(explicit), counts)


def test_the_mean_is_that_of_the_training_labels(molecules, split):
    predictions = BASELINES["mean"](molecules, split, molecules.labels, 0)
    known = [y for y in molecules.labels[split.train, 0].tolist() if y == y]
    np.testing.assert_allclose(predictions[:, 0], sum(known) / len(known))
    np.testing.assert_allclose(predictions[:, 1], molecules.labels[split.train, 1].mean())


def test_composition_finds_what_is_linear_in_the_elements(molecules, split):
    predictions = BASELINES["composition"](molecules, split, molecules.labels, 0)
    expected = np.array([heat(smiles) for smiles in SMILES])
    np.testing.assert_allclose(predictions[:, 0], expected, atol=0.01)
    oxygen = molecules.labels[:, 1] == 1
    assert predictions[oxygen, 1].min() > 0.5 > predictions[~oxygen, 1].max()
    assert np.all((predictions[:, 1] >= 0) & (predictions[:, 1] <= 1))


def test_a_ridge_on_elements_is_its_weights_and_intercept(molecules, split):
    weights, intercept = composition_weights(molecules, split, molecules.labels)
    said = BASELINES["composition"](molecules, split, molecules.labels, 0)
    np.testing.assert_allclose((element_counts(molecules) @ weights + intercept)[:, 0], said[:, 0], rtol=1e-8)
    assert weights.shape == (119, 2) and not weights[52].any()


@pytest.mark.parametrize("name", ["mean", "composition", "ecfp_forest"])
def test_only_labels_of_training_and_validation_are_read(name, molecules, split, monkeypatch):
    if name == "ecfp_forest":
        pytest.importorskip("sklearn")
        monkeypatch.setattr(molecule_baselines, "_TREES", 20)
        monkeypatch.setattr(molecule_baselines, "_TREES_OF_A_TRIAL", 5)
    rest = np.ones(N, bool)
    rest[split.train] = rest[split.valid] = False
    hidden = np.where(rest[:, None], np.nan, molecules.labels)
    predictions = BASELINES[name](molecules, split, molecules.labels, 3)
    assert predictions.shape == (N, 2)
    assert np.isfinite(predictions).all()
    np.testing.assert_array_equal(BASELINES[name](molecules, split, hidden, 3), predictions)
    # A task without a training label has no prediction, one without a validation label has.
    hidden[split.train, 0] = np.nan
    hidden[split.valid, 1] = np.nan
    predictions = BASELINES[name](molecules, split, hidden, 3)
    assert np.isnan(predictions[:, 0]).all()
    assert np.isfinite(predictions[:, 1]).all()


def test_ridge_is_the_solution_of_its_normal_equations():
    random = np.random.default_rng(0)
    inputs, labels = 5 + random.normal(size=(20, 4)), random.normal(size=20)
    weights = (predict := ridge(inputs, labels, 3.0))(np.eye(4)) - predict(np.zeros((1, 4)))
    centred = inputs - inputs.mean(axis=0)
    expected = np.linalg.solve(centred.T @ centred + 3.0 * np.eye(4), centred.T @ (labels - labels.mean()))
    np.testing.assert_allclose(weights, expected)
    np.testing.assert_allclose(predict(inputs).mean(), labels.mean())
    # The same element counted twice leaves nothing singular.
    twice = np.concatenate([inputs, inputs], axis=1)
    np.testing.assert_allclose(ridge(twice, labels, 6.0)(twice), predict(inputs))


def test_ridge_logistic_has_gradient_zero():
    random = np.random.default_rng(1)
    inputs = random.normal(size=(40, 3))
    labels = (inputs[:, 0] + random.normal(size=40) > 0).astype(float)
    predict = ridge_logistic(inputs, labels, 2.0)
    score = lambda rows: np.log(predict(rows) / (1 - predict(rows)))  # noqa: E731
    intercept = score(np.zeros((1, 3)))
    weights = score(np.eye(3)) - intercept
    np.testing.assert_allclose(predict(inputs), expit(inputs @ weights + intercept))
    wrong = predict(inputs) - labels
    np.testing.assert_allclose(inputs.T @ wrong + 2.0 * weights, 0, atol=1e-3)
    np.testing.assert_allclose(wrong.sum(), 0, atol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fingerprints_do_not_see_hydrogens(molecules, tmp_path):
    explicit = load(tmp_path, molecules.labels, hydrogens="explicit")
    np.testing.assert_array_equal(ecfp4(explicit), ecfp4(molecules))
    first = np.zeros(2048)
    DataStructs.ConvertToNumpyArray(
        AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(SMILES[5]), 2, 2048), first
    )
    np.testing.assert_array_equal(ecfp4(molecules)[5], first)


def test_fragments_are_counted_where_a_fingerprint_has_bits(molecules):
    rows = range(2, 6)
    counts, bits = fragment_counts(molecules, rows), fingerprints(molecules, rows)
    np.testing.assert_array_equal(counts > 0, bits > 0)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    found = generator.GetCountFingerprint(Chem.MolFromSmiles(SMILES[5])).GetNonzeroElements()
    there = np.flatnonzero(counts[3])
    assert dict(zip(there.tolist(), counts[3][there].tolist(), strict=True)) == found
    assert max(found.values()) > 1


def test_the_forest_says_what_it_lacks(molecules, split, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    row = BASELINES["ecfp_forest"](molecules, split, molecules.labels, 0)
    assert row == {"not_run": "install jaxgkd[baselines]"}


def test_the_forest_is_the_same_every_time_and_learns(molecules, split, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(molecule_baselines, "_TREES", 60)
    monkeypatch.setattr(molecule_baselines, "_TREES_OF_A_TRIAL", 10)
    first, again, other = (BASELINES["ecfp_forest"](molecules, split, molecules.labels, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    known = split.test[~np.isnan(molecules.labels[split.test, 0])]
    mean = BASELINES["mean"](molecules, split, molecules.labels, 1)
    error, of_mean = (np.abs(p - molecules.labels)[known, 0].mean() for p in (first, mean))
    assert error < 0.8 * of_mean
    assert np.all((first[:, 1] >= 0) & (first[:, 1] <= 1))


def test_what_a_forest_said_is_kept_until_anything_differs(molecules, split, monkeypatch, own_cache):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(molecule_baselines, "_TREES", 5)
    monkeypatch.setattr(molecule_baselines, "_TREES_OF_A_TRIAL", 2)
    first = BASELINES["ecfp_forest"](molecules, split, molecules.labels, 0)
    np.testing.assert_array_equal(first, ecfp_forest(molecules, split, molecules.labels, 0))
    monkeypatch.setattr(molecule_baselines, "ecfp_forest", lambda *_: np.zeros(molecules.labels.shape))
    np.testing.assert_array_equal(first, BASELINES["ecfp_forest"](molecules, split, molecules.labels, 0))
    others = molecules.labels.copy()
    others[0] = 1 - others[0]
    for labels, seed in ((molecules.labels, 1), (others, 0)):
        assert not BASELINES["ecfp_forest"](molecules, split, labels, seed).any()
