import numpy as np

from jaxgkd.training.scaling import Scale


def test_scaled_labels_come_back_and_those_missing_stay_missing():
    labels = np.array([[1980.0, -3.0], [2020.0, np.nan], [2000.0, 1.0]])
    scale = Scale(np.array([2000.0, -1.0]), np.array([20.0, 2.0]))
    np.testing.assert_array_equal(scale.apply(labels), [[-1.0, -1.0], [1.0, np.nan], [0.0, 1.0]])
    np.testing.assert_array_equal(scale.undo(scale.apply(labels)), labels)
    # An offset of every item's own, and several networks at once.
    own = Scale(np.array([[1.0], [5.0]]), np.array([2.0]))
    np.testing.assert_array_equal(own.undo(np.ones((3, 2, 1))), np.tile([[[3.0], [7.0]]], (3, 1, 1)))
