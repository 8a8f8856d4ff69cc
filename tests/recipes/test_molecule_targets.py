from types import SimpleNamespace

import numpy as np
import pytest

from jaxgkd.data.molecules import Task
from jaxgkd.data.splits import Split
from jaxgkd.errors import ConfigError
from jaxgkd.recipes.molecule_targets import Targets

LABELS = np.array([[1.0, 10.0], [3.0, np.nan], [5.0, 30.0], [np.nan, 50.0]])


def molecules(*kinds):
    return SimpleNamespace(tasks=tuple(Task(f"t{i}", kind) for i, kind in enumerate(kinds)), labels=LABELS)


def split(train, valid, test):
    rows = [np.array(part, np.int32) for part in (train, valid, test)]
    return Split(*rows, name="random", seed=0)


def test_labels_are_scaled_by_what_trains_and_back():
    targets = Targets.of(molecules("regression", "regression"))
    scale = targets.scale(np.array([0, 1, 2]))
    np.testing.assert_allclose(scale.mean, [3.0, 20.0])
    np.testing.assert_allclose(scale.std, [np.sqrt(8 / 3), 10.0])
    np.testing.assert_allclose(scale.undo(scale.apply(LABELS)), LABELS)
    alike = targets.scale(np.array([0]))
    np.testing.assert_array_equal(alike.std, [1.0, 1.0])


def test_labels_may_be_counted_from_an_offset_of_every_molecule():
    targets = Targets.of(molecules("regression", "regression"))
    offset = np.array([[0.0, 9.0], [2.0, 0.0], [2.0, 31.0], [1.0, 50.0]])
    scale = targets.scale(np.array([0, 1, 2]), offset)
    # What is left of the first task is 1, 1 and 3, of the second 1 and -1.
    np.testing.assert_allclose(scale.mean, offset + np.array([5 / 3, 0.0]))
    np.testing.assert_allclose(scale.std, [np.std([1, 1, 3]), 1.0])
    np.testing.assert_allclose(scale.undo(scale.apply(LABELS)[None]), LABELS[None])


def test_classes_are_not_scaled():
    targets = Targets(np.array([[0.0], [1.0], [1.0]]), "classification", "auroc")
    np.testing.assert_array_equal(targets.scale(np.arange(3)).apply(targets.labels), targets.labels)


def test_a_score_is_the_mean_over_tasks_of_what_is_known():
    targets = Targets.of(molecules("regression", "regression"))
    predictions = np.array([[2.0, 14.0], [3.0, 0.0], [8.0, np.nan], [0.0, 45.0]])
    # |1|, |0|, |3| of the first task, |4| and |5| of the second.
    assert targets.score(predictions, np.arange(4)) == pytest.approx((4 / 3 + 9 / 2) / 2)
    assert targets.score(predictions, np.array([1])) == 0.0
    assert np.isnan(targets.score(np.full((4, 2), np.nan), np.arange(4)))
    rmse = Targets.of(molecules("regression", "regression"), "rmse")
    assert rmse.score(predictions, np.arange(4)) == pytest.approx((np.sqrt(10 / 3) + np.sqrt(41 / 2)) / 2)


def test_kinds_and_metrics_have_to_fit():
    with pytest.raises(ConfigError, match="some labels are classes and others are numbers"):
        Targets.of(molecules("regression", "classification"))
    with pytest.raises(ConfigError, match="auroc does not score regression; use mae or rmse"):
        Targets.of(molecules("regression", "regression"), "auroc")
    assert Targets.of(molecules("classification", "classification")).higher_is_better


def test_a_part_without_both_classes_or_without_labels_is_refused():
    targets = Targets(np.array([[0.0], [1.0], [0.0], [1.0], [1.0], [0.0]]), "classification", "auroc")
    targets.check([split([0, 1], [2, 3], [4, 5])])
    with pytest.raises(ConfigError, match=r"test part of split 0 \(random\) has no task with labels of both classes"):
        targets.check([split([0, 1], [2, 3], [4])])
    some = Targets(np.array([[1.0], [np.nan], [2.0], [3.0], [4.0]]), "regression", "mae")
    with pytest.raises(ConfigError, match=r"the valid part of split 1 \(random\) has no task with a label"):
        some.check([split([0, 2], [3], [4]), split([0, 2], [1], [3])])
    with pytest.raises(ConfigError, match=r"the train part of split 0 \(random\) has no task with labels that differ"):
        some.check([split([0, 1], [2], [3])])
