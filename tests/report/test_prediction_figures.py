import numpy as np
import pytest

from jaxgkd.report.prediction_figures import (
    confusion_counts,
    draw_confusion,
    draw_embedding,
    principal_map,
    same_class_neighbours,
)
from jaxgkd.report.run_directory import read_run


def test_confusion_counts_by_hand(run_directory):
    arrays = {
        "labels": np.array([0, 1, 1, -1, 0], dtype=np.int16),
        "split": np.array([[3, 3, 3, 3, 1], [3, 1, 3, 3, 3]], dtype=np.uint8),
        "pred/student_distilled": np.array([[0, 2, 1, 0, 0], [1, 1, 1, 1, 0]], dtype=np.int16),
    }
    run = read_run(run_directory(predictions=arrays, class_names=["first", "second", "third"]))
    assert run.predictions is not None
    expected = [[2, 1, 0], [0, 2, 1], [0, 0, 0]]
    np.testing.assert_array_equal(confusion_counts(run.predictions, "student_distilled"), expected)
    drawing = draw_confusion(run)
    assert drawing is not None
    # Both classes have one mistake among three: the first found is named. Class "second" has 2 of 3 right, as "first".
    assert drawing.title == "Most frequent mistake: 33 % of “first” is taken for “second”"


def test_confusion_rows_add_up(run_directory):
    drawing = draw_confusion(read_run(run_directory()))
    assert drawing is not None
    shares = np.asarray(drawing.figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shares.sum(axis=1), 100)
    assert (np.diff(np.diag(shares)) <= 0).all()


def test_confusion_without_a_mistake(run_directory, predictions):
    arrays = predictions()
    arrays["pred/student_distilled"] = np.tile(arrays["labels"], (5, 1))
    drawing = draw_confusion(read_run(run_directory(predictions=arrays)))
    assert drawing is not None
    assert drawing.title == "No test prediction of the distilled student is wrong"


def test_many_classes_show_the_largest(run_directory, predictions, names, readable):
    arrays = predictions(classes=40, n=4000)
    drawing = draw_confusion(read_run(run_directory(class_names=names(40), predictions=arrays)))
    assert drawing is not None
    assert np.asarray(drawing.figure.axes[0].images[0].get_array()).shape == (24, 24)


def test_principal_map_is_the_best_plane():
    random = np.random.default_rng(0)
    embedding = random.normal(size=(60, 5)) * [5.0, 3.0, 1.0, 0.5, 0.1]
    points, share = principal_map(embedding)
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(unit.T)))[::-1]
    np.testing.assert_allclose(share, eigenvalues[:2] / eigenvalues.sum(), rtol=1e-9)
    np.testing.assert_allclose(points.var(axis=0, ddof=1), eigenvalues[:2], rtol=1e-9)
    # A rotation of the embedding, or its scale, does not change the map.
    rotation, _ = np.linalg.qr(random.normal(size=(5, 5)))
    np.testing.assert_allclose(principal_map(3 * embedding @ rotation)[0], points, atol=1e-9)


def test_neighbours_of_the_same_class_by_hand():
    embedding = np.array([[1, 0], [2, 0.1], [0, 1], [0.2, 1], [-1, 0.0]])
    assert same_class_neighbours(embedding, np.array([0, 0, 1, 1, 0])) == pytest.approx(4 / 5)


def test_the_map_shows_labelled_test_items_of_the_first_seed(run_directory, predictions):
    arrays = predictions()
    arrays["labels"][:100] = -1
    arrays["embedding"][200:210] = np.inf
    expected = (arrays["split"][0] == 3) & (arrays["labels"] >= 0) & np.isfinite(arrays["embedding"]).all(axis=1)
    drawing = draw_embedding(read_run(run_directory(predictions=arrays)))
    assert drawing is not None
    drawn = sum(len(np.asarray(points.get_offsets())) for points in drawing.figure.axes[0].collections)
    assert drawn == expected.sum()


def test_figures_without_data_are_left_out(run_directory, predictions):
    arrays = predictions()
    for name, absent in (("degree", "degree"), ("split", "split"), ("row", "pred/student_distilled")):
        kept = {key: array for key, array in arrays.items() if key != absent}
        if absent == "split":
            kept["split"] = np.ones_like(arrays["split"])
        run = read_run(run_directory(name, predictions=kept))
        assert (draw_confusion(run) is None) == (absent != "degree")
        assert (draw_embedding(run) is None) == (absent == "split")
    constant = arrays | {"embedding": np.ones((1500, 4), dtype=np.float16)}
    assert draw_embedding(read_run(run_directory("constant", predictions=constant))) is None
