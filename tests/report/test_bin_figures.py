import numpy as np

from jaxgkd.report.bin_figures import degree_bins, draw_degree
from jaxgkd.report.run_directory import read_run


def test_degree_bins_merge_until_they_are_large_enough():
    degree = np.repeat([0, 1, 2, 3, 4, 7, 40], [30, 5, 30, 10, 15, 50, 3])
    counted = np.ones(len(degree), dtype=int)
    assert degree_bins(degree, counted, 20) == [(0, 0), (1, 2), (3, 4), (7, 40)]
    assert degree_bins(degree, counted, 1000) == []
    counted[degree == 40] = 0
    assert degree_bins(degree, counted, 20)[-1] == (7, 7)


def test_degree_accuracy_by_hand(run_directory):
    n = 200
    degree = np.repeat([1, 2], n // 2)
    labels = np.tile([0, 1], n // 2).astype(np.int16)
    alone, distilled = labels.copy(), labels.copy()
    alone[:50] = 1 - alone[:50]  # half of the nodes of degree 1
    distilled[100:110] = 1 - distilled[100:110]  # a tenth of those of degree 2
    arrays = {
        "labels": labels,
        "degree": degree,
        "split": np.full((1, n), 3, dtype=np.uint8),
        "pred/student_alone": alone[None],
        "pred/student_distilled": distilled[None],
    }
    drawing = draw_degree(read_run(run_directory(predictions=arrays, class_names=["a", "b"])))
    assert drawing is not None
    assert drawing.title == "Distillation helps most at degree 1 (+50.0 points), harms at 2 (−10.0)"
    lines = [np.asarray(line.get_ydata()) for line in drawing.figure.axes[0].lines]
    np.testing.assert_allclose(lines, [[50, 100], [100, 90]])
    # A seed that the distilled student lacks counts for no row.
    twice = {
        "split": np.full((2, n), 3, dtype=np.uint8),
        "pred/student_alone": np.stack([alone, 1 - labels]),
        "pred/student_distilled": np.stack([distilled, np.full(n, -1, np.int16)]),
    }
    fewer = draw_degree(read_run(run_directory("fewer", predictions=arrays | twice, class_names=["a", "b"])))
    assert fewer is not None and fewer.title == drawing.title
    np.testing.assert_allclose([np.asarray(line.get_ydata()) for line in fewer.figure.axes[0].lines], lines)
    assert fewer.figure.axes[0].get_xticklabels()[0].get_text() == "1\nn = 100"
    arrays["pred/student_distilled"], arrays["pred/student_alone"] = alone[None], labels[None]
    drawing = draw_degree(read_run(run_directory("worse", predictions=arrays, class_names=["a", "b"])))
    assert drawing is not None
    assert drawing.title == "Nowhere, by degree, is the distilled student better than alone"


def test_figures_without_data_are_left_out(run_directory, predictions):
    arrays = predictions()
    untested = arrays | {"split": np.ones_like(arrays["split"])}
    for absent in ("degree", "pred/student_distilled"):
        kept = {key: array for key, array in arrays.items() if key != absent}
        assert draw_degree(read_run(run_directory(absent.replace("/", "-"), predictions=kept))) is None
    assert draw_degree(read_run(run_directory("untested", predictions=untested))) is None
