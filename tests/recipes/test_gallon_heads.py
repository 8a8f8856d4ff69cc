import numpy as np
import pytest

from jaxgkd.data.molecules import load_molecules
from jaxgkd.data.splits import Split
from jaxgkd.recipes import gallon_heads
from jaxgkd.recipes.gallon_heads import FOLDS, principal_components, read_beside_atoms
from jaxgkd.recipes.gallon_teachers import Lesson, Said
from jaxgkd.recipes.molecule_targets import Targets

SMILES = [f"{'C' * n}{end}" for n in range(1, 16) for end in ("", "O", "N", "=O")]


@pytest.fixture(scope="module")
def lesson(tmp_path_factory, own_cache):
    """Sixty chains; the label is something that only the text tells, and the number of atoms."""
    folder = tmp_path_factory.mktemp("heads")
    random = np.random.default_rng(0)
    told = random.normal(size=len(SMILES))
    lines = [f"{smiles},{word + 0.3 * len(smiles):.4f}" for smiles, word in zip(SMILES, told, strict=True)]
    (folder / "m.csv").write_text("smiles,y\n" + "\n".join(lines) + "\n")
    molecules = load_molecules(folder / "m.csv", root=folder, workers=1)
    targets = Targets.of(molecules, "rmse")
    order = random.permutation(len(SMILES)).astype(np.int32)
    split = Split(train=np.sort(order[:40]), valid=np.sort(order[40:50]), test=np.sort(order[50:]), name="x", seed=0)
    states = np.stack([told, *random.normal(size=(3, len(SMILES)))], axis=1).astype(np.float32)
    said = Said(np.zeros((len(SMILES), 1)), states, 1, 2.0)
    return Lesson(molecules, targets, targets.scale(split.train), split, 0, 1), said


@pytest.mark.thorough
def test_heads_know_what_the_text_says_and_what_atoms_there_are(lesson):
    lesson, said = lesson
    found = read_beside_atoms(lesson, said)
    test = lesson.split.test
    error = lesson.score(found.outputs, test)
    # Each half of the label alone leaves an error of about the other half.
    assert error < 0.6 < lesson.targets.labels[test].std()
    np.testing.assert_array_equal(found.states, said.states)
    assert found.best_epoch == 1 and found.seconds > 2.0


@pytest.mark.thorough
def test_a_training_molecule_is_described_by_heads_that_did_not_see_its_label(lesson, monkeypatch):
    """Another label changes what its own fold's heads say of the others, and not what they say of it."""
    monkeypatch.setattr(gallon_heads, "_EPOCHS", 20)
    lesson, said = lesson
    fold = lesson.fold_of(FOLDS)
    one = int(lesson.split.train[0])
    labels = lesson.targets.labels.copy()
    labels[one] += 5.0
    targets = Targets(labels, lesson.targets.kind, lesson.targets.metric)
    other = Lesson(lesson.molecules, targets, lesson.scale, lesson.split, 0, 1)
    before, after = (read_beside_atoms(each, said).outputs for each in (lesson, other))
    mine = fold == fold[one]
    np.testing.assert_allclose(before[mine], after[mine], atol=1e-5)
    assert np.abs(before - after)[(fold >= 0) & ~mine].max() > 1e-3


def test_components_are_those_of_the_rows_that_decide():
    states = np.random.default_rng(0).normal(size=(30, 5)) * [9, 5, 1, 0.1, 0.1]
    rows = np.arange(20)
    found = principal_components(states, rows, 2)
    centred = states - states[rows].mean(axis=0)
    _, _, directions = np.linalg.svd(centred[rows], full_matrices=False)
    wanted = centred @ directions[:2].T
    wanted /= wanted[rows].std()
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), rtol=1e-3, atol=1e-4)
    assert principal_components(states, rows, 99).shape == (30, 5)
