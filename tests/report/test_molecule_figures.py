import json
import re

import numpy as np
import pytest

from jaxgkd.report import write_report
from jaxgkd.report.figures import FIGURES
from jaxgkd.report.molecule_figures import draw_errors, draw_roc, draw_size, roc_curve
from jaxgkd.report.run_directory import read_run
from jaxgkd.report.style import house_style
from jaxgkd.training.metrics import area_under_roc

OF_ALL = {"results", "learning_curves", "loss_terms", "size", "embedding"}


@pytest.mark.parametrize(
    ("metric", "tasks", "seeds"), [("mae", 1, 3), ("rmse", 3, 1), ("auroc", 1, 3), ("auroc", 4, 1)]
)
def test_every_figure_is_readable(molecule_run, readable, metric, tasks, seeds):
    run = read_run(molecule_run(metric, tasks=tasks, seeds=seeds))
    with house_style():
        drawings = {name: drawing for name, draw in FIGURES.items() if (drawing := draw(run)) is not None}
        for drawing in drawings.values():
            readable(drawing.figure)
    assert set(drawings) == OF_ALL | {"roc" if metric == "auroc" else "errors"}


def test_the_report_of_a_regression(molecule_run):
    path = molecule_run("mae")
    page = write_report(path).read_text(encoding="utf-8")
    figures = re.findall(r"figures/([a-z_]+)\.png", page)
    assert figures == ["results", "learning_curves", "loss_terms", "size", "errors", "embedding"]
    assert all((path / "figures" / f"{name}.png").is_file() for name in figures)
    assert "test MAE (kcal/mol) | validation MAE (kcal/mol) |" in page
    assert "Lower is better" in page
    assert "**Distillation lowered test MAE from" in page
    rows = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in page.splitlines() if line[:1] == "|"}
    results = json.loads((path / "summary.json").read_text(encoding="utf-8"))["results"]
    test = results["composition"]["test"]
    # Three digits of the students' values, and one more in tables, however far off a baseline is.
    assert rows["ridge on counts of elements"] == f"{np.mean(test):.3f} ± {np.std(test, ddof=1):.3f}"
    assert rows["random forest on ECFP4"] == "not run: install jaxgkd\\[baselines\\]"


def test_the_report_of_a_classification(molecule_run):
    page = write_report(molecule_run("auroc", tasks=2)).read_text(encoding="utf-8")
    assert re.findall(r"figures/([a-z_]+)\.png", page)[-3:] == ["size", "roc", "embedding"]
    assert "| test AUROC | validation AUROC |" in page
    assert "Higher is better" in page


def rewrite(path, **changes):
    with np.load(path / "predictions.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays |= changes
    np.savez(path / "predictions.npz", **{name: array for name, array in arrays.items() if array is not None})


def test_the_metric_by_size_by_hand(molecule_run):
    path = molecule_run("mae", seeds=1)
    n = 200
    size, labels = np.repeat([5, 9], n // 2), np.linspace(-1, 1, n)[:, None]
    worse = np.where(size == 5, 4.0, 1.0)[:, None]
    rewrite(
        path,
        labels=labels,
        size=size,
        split=np.full((1, n), 3, np.uint8),
        embedding=None,
        **{f"pred/{row}": None for row in ("teacher", "composition", "mean")},
        **{"pred/student_alone": (labels + worse)[None], "pred/student_distilled": (labels - 2.0)[None]},
    )
    drawing = draw_size(read_run(path))
    assert drawing is not None
    lines = [np.asarray(line.get_ydata()) for line in drawing.figure.axes[0].lines]
    np.testing.assert_allclose(lines, [[4, 1], [2, 2]], rtol=1e-6)
    assert drawing.title == "Distillation helps most at 5 atoms (−2.00 kcal/mol), harms at 9 (+1.00)"


def test_groups_of_one_class_have_no_area_under_the_curve(molecule_run):
    path = molecule_run("auroc", seeds=1)
    arrays = np.load(path / "predictions.npz")
    labels = np.where(arrays["size"][:, None] >= 17, 0.0, arrays["labels"])
    rewrite(path, labels=labels)
    drawing = draw_size(read_run(path))
    assert drawing is not None
    names = [text.get_text() for text in drawing.figure.axes[0].get_xticklabels()]
    assert names
    assert all(int(re.split(r"[–\n]", name)[0]) < 17 for name in names)
    rewrite(path, labels=np.zeros_like(labels))
    run = read_run(path)
    assert draw_size(run) is None
    assert draw_roc(run) is None


def test_errors_are_those_of_the_tests(molecule_run):
    path = molecule_run("mae", seeds=2)
    drawing = draw_errors(run := read_run(path))
    assert drawing is not None
    assert run.predictions is not None
    for axes, row in zip(drawing.figure.axes, ("student_alone", "student_distilled"), strict=True):
        tested = run.predictions.tested(row)[..., 0]
        labels = np.broadcast_to(run.predictions.labels[:, 0], tested.shape)[tested]
        errors = run.predictions.by_row[row][..., 0][tested] - labels
        inside, above, below = (np.asarray(points.get_offsets()) for points in axes.collections)
        limit = axes.get_ylim()[1]
        np.testing.assert_allclose(inside, np.stack([labels, errors], axis=1)[np.abs(errors) <= limit])
        np.testing.assert_allclose(above[:, 0], labels[errors > limit])
        np.testing.assert_allclose(below[:, 0], labels[errors < -limit])
        assert f"{np.median(np.abs(errors)):.2f} kcal/mol" in drawing.title
    assert draw_roc(run) is None


def test_the_area_below_the_curve_is_the_metric():
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 12, size=80).astype(float), random.integers(0, 2, size=80)
    false, true = roc_curve(scores + labels, labels)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    expected = area_under_roc(scores + labels, labels, np.ones(80, bool))
    assert np.trapezoid(true, false) == pytest.approx(expected)


def test_the_roc_of_a_perfect_student(molecule_run):
    path = molecule_run("auroc", seeds=1)
    labels = np.load(path / "predictions.npz")["labels"]
    rewrite(path, **{"pred/student_distilled": np.nan_to_num(labels)[None], "pred/student_alone": None})
    drawing = draw_roc(read_run(path))
    assert drawing is not None
    assert drawing.title == "With 10 % false positives the distilled student finds 100 % of the positives"


def test_runs_without_molecules_have_no_such_figures(run_directory, molecule_run):
    for path in (run_directory(), run_directory("bare", predictions={})):
        run = read_run(path)
        assert [draw(run) for draw in (draw_size, draw_errors, draw_roc)] == [None] * 3
    path = molecule_run("mae")
    rewrite(path, size=None, **{"pred/student_alone": None})
    run = read_run(path)
    assert [draw(run) for draw in (draw_size, draw_errors, draw_roc)] == [None] * 3
