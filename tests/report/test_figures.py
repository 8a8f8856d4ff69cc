import json

import numpy as np
import pytest

from jaxgkd.report.figures import (
    FIGURES,
    draw_layer_weights,
    draw_learning_curves,
    draw_loss_terms,
    draw_results,
    write_figures,
)
from jaxgkd.report.run_directory import read_run
from jaxgkd.report.style import house_style


def log(path, lines) -> None:
    (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


@pytest.mark.parametrize(
    "case", ["seven classes", "twenty long names", "hard names", "regression", "many rows", "one heap"]
)
def test_every_figure_is_readable(run_directory, summary, predictions, names, readable, case):
    match case:
        case "seven classes":
            path = run_directory()
        case "twenty long names":
            path = run_directory(class_names=names(20), predictions=predictions(classes=20), metrics={"layers": 6})
        case "hard names":
            path = run_directory(
                class_names=["$x$", "日本語のとても長いクラス名の例", "W" * 60], predictions=predictions(classes=3)
            )
        case "regression":
            given = summary(seeds=1, metric="rmse", higher_is_better=False, teacher=6.1, alone=7.4, distilled=7.1)
            path = run_directory(summary=given, predictions=predictions(seeds=1, regression=True))
        case "many rows":
            baselines = {f"baseline_{i}_with_quite_a_long_name": 0.5 + 0.03 * i for i in range(9)}
            path = run_directory(summary=summary(baselines=baselines), metrics={"layers": 13, "gain": 0.0})
        case "one heap":
            arrays = predictions()
            arrays["embedding"] = np.random.default_rng(0).normal(size=(1500, 16)).astype(np.float16)
            path = run_directory(class_names=[f"{name} {name}" for name in names(7)], predictions=arrays)
    run = read_run(path)
    with house_style():
        drawings = {name: drawing for name, draw in FIGURES.items() if (drawing := draw(run)) is not None}
        for drawing in drawings.values():
            readable(drawing.figure)
    expected = {"results", "learning_curves", "layer_weights", "embedding"}
    assert set(drawings) == expected | (set() if case == "regression" else {"confusion", "degree"})


def test_figures_are_png_files_and_stale_ones_go(run_directory):
    path = run_directory()
    titles = write_figures(read_run(path), path / "figures")
    assert set(titles) == set(FIGURES) - {"loss_terms", "size", "errors", "roc", "calibration", "sites", "connections"}
    assert all((path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in titles)
    first = (path / "figures" / "results.png").read_bytes()
    for name in ("predictions.npz", "metrics.jsonl"):
        (path / name).unlink()
    assert set(write_figures(read_run(path), path / "figures")) == {"results"}
    assert [file.name for file in (path / "figures").iterdir()] == ["results.png"]
    assert (path / "figures" / "results.png").read_bytes() == first


def test_the_results_title_follows_sign_and_p_value(run_directory, summary):
    for name, settings, start in (
        ("up", {}, "Distillation improves accuracy: 82."),
        ("down", {"distilled": 0.75}, "Distillation worsens accuracy"),
        ("same", {"distilled": 0.832}, "No clear difference with distillation"),
        ("one", {"seeds": 1}, "A single pair: accuracy"),
    ):
        run = read_run(run_directory(name, summary=summary(**settings), predictions={}))
        drawing = draw_results(run)
        assert drawing is not None
        assert drawing.title.startswith(start)


def test_the_curves_title_names_the_epoch_of_the_crossing(run_directory):
    path = run_directory(predictions={}, metrics={})
    alone = [0.1, 0.4, 0.6, 0.5]
    lines = [{"row": "student_alone", "seed": 0, "epoch": 10 * i, "valid": v} for i, v in enumerate(alone)]
    faster = [
        {"row": "student_distilled", "seed": 0, "epoch": 7 * i, "valid": v} for i, v in enumerate([0.3, 0.6, 0.8])
    ]
    log(path, lines + faster)
    drawing = draw_learning_curves(read_run(path))
    assert drawing is not None
    assert drawing.title == "Distilled for 7 epochs, the student matches its best alone (epoch 20)"
    log(path, lines + [line | {"valid": line["valid"] / 2} for line in faster])
    drawing = draw_learning_curves(read_run(path))
    assert drawing is not None
    assert drawing.title.startswith("Distilled, the student does not reach")


def test_the_mean_is_drawn_only_where_all_seeds_train(run_directory):
    path = run_directory(predictions={}, metrics={})
    log(
        path,
        [
            {"row": row, "seed": seed, "epoch": epoch, "valid": 0.5 + 0.1 * seed + 0.01 * epoch}
            for row in ("student_alone", "student_distilled")
            for seed in range(3)
            for epoch in range(1, 6 + seed)
        ],
    )
    drawing = draw_learning_curves(read_run(path))
    assert drawing is not None
    longest = [line.get_xdata() for line in drawing.figure.axes[0].lines if line.get_linewidth() > 1]
    assert [list(x) for x in longest] == [[1, 2, 3, 4, 5]] * 2
    means = [line.get_ydata() for line in drawing.figure.axes[0].lines if line.get_linewidth() > 1]
    np.testing.assert_allclose(means[0], 100 * (0.6 + 0.01 * np.arange(1, 6)))
    # Bands and single runs lie within the frame: ± 0.1 around the mean, and up to the end of the third run.
    bottom, top = drawing.figure.axes[0].get_ylim()
    assert bottom < 100 * (0.6 + 0.01 - 0.1) and top > 100 * (0.7 + 0.01 * 7)


def test_layer_weights_say_when_they_hardly_move(run_directory):
    path = run_directory(predictions={}, metrics={})

    def title(first: float, second: float) -> str:
        log(
            path,
            [
                {
                    "row": "student_distilled",
                    "seed": 0,
                    "epoch": epoch,
                    "layer_weight/0": first,
                    "layer_weight/1": second,
                }
                for epoch in (1, 2, 3)
            ],
        )
        drawing = draw_layer_weights(read_run(path))
        assert drawing is not None
        return drawing.title

    assert title(0.505, 0.495) == "The layer weights stay nearly equal: 0.495 to 0.505 at the end"
    assert title(0.3, 0.7) == "Layer 1 ends with the largest weight (0.70), layer 0 with the smallest (0.30)"


def test_a_row_that_is_far_off_leaves_the_frame_to_the_others(run_directory, summary):
    given = summary(metric="mae", higher_is_better=False, baselines={"mean": 180.0, "near": 1.0, "zero": -30.0})
    drawing = draw_results(read_run(run_directory(summary=given, predictions={}, metrics={})))
    assert drawing is not None
    low, high = drawing.figure.axes[0].get_xlim()
    near = given["results"]["near"]["test"]
    assert -5 < low < min(near) <= max(near) < high < 5
    assert [line.get_marker() for line in drawing.figure.axes[0].lines if line.get_marker() in "<>"] == [">", "<"]


def test_loss_terms_say_what_is_left_of_them(run_directory):
    path = run_directory(predictions={}, metrics={})
    line = {"row": "student_distilled", "seed": 0}
    terms = [{"loss/task": 8.0 / 2**i, "loss/global": 3.0 - i, "loss/never": 0.0} for i in range(3)]
    log(path, [line | {"epoch": i + 1} | values for i, values in enumerate(terms)])
    drawing = draw_loss_terms(read_run(path))
    assert drawing is not None
    assert drawing.title == "What is left of each loss at the end of training: task 25 %, global 33 %"
    log(path, [line | {"epoch": i + 1, "loss/task": 1.0} for i in range(3)])
    assert draw_loss_terms(read_run(path)) is None


def test_figures_without_data_are_left_out(run_directory, summary):
    path = run_directory(predictions={}, metrics={"layers": 1})
    run = read_run(path)
    assert draw_layer_weights(run) is None
    log(path, [{"row": "student_alone", "seed": 0, "epoch": 1, "valid": 0.5}])
    assert draw_learning_curves(read_run(path)) is None
    given = summary(seeds=1)
    for row in given["results"].values():
        row["test"] = [None]
    given["difference"] = {"mean": None, "std": None, "p_value": None}
    assert draw_results(read_run(run_directory("empty", summary=given))) is None
