import json

import numpy as np
import pytest

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.report.run_directory import read_run


def test_a_whole_run_is_read(run_directory):
    run = read_run(run_directory())
    assert run.summary["recipe"] == "lingugkd"
    assert run.environment["device"] == "cpu"
    assert run.class_name(0) == "algebra"
    assert run.class_name(99) == "class 99"
    assert run.predictions is not None
    assert set(run.predictions.by_row) == {"teacher", "student_alone", "student_distilled"}
    epochs, values = run.curves("student_distilled", "layer_weight/2")
    assert epochs.tolist() == list(range(5, 301, 5))
    assert values.shape == (5, 60)


def test_only_the_summary_is_needed(run_directory):
    path = run_directory(metrics={}, predictions={})
    for name in ("config.json", "environment.json"):
        (path / name).unlink()
    run = read_run(path)
    assert run.predictions is None
    assert run.class_name(1) == "class 1"
    assert run.curves("student_alone", "valid")[1].shape == (0, 0)


def test_curves_take_the_later_of_two_lines_and_leave_gaps(run_directory):
    path = run_directory(predictions={}, metrics={})
    lines = [
        {"row": "student_alone", "seed": 0, "epoch": 1, "valid": 0.1},
        {"row": "student_alone", "seed": 0, "epoch": 2, "valid": 0.2},
        {"row": "student_alone", "seed": 0, "epoch": 2, "valid": 0.3},
        {"row": "student_alone", "seed": 1, "epoch": 1, "valid": float("nan")},
        {"row": "student_alone", "seed": 1, "epoch": 3, "valid": 0.4},
        {"row": "teacher", "seed": 1, "epoch": 4, "valid": 0.4},
    ]
    (path / "metrics.jsonl").write_text("\n\n".join(map(json.dumps, lines)), encoding="utf-8")
    epochs, values = read_run(path).curves("student_alone", "valid")
    assert epochs.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(values, [[0.1, 0.3, np.nan], [np.nan, np.nan, 0.4]])


def test_folds_of_a_seed_are_curves_of_their_own(run_directory):
    path = run_directory(predictions={}, metrics={})
    lines = [{"row": "teacher", "seed": 0, "fold": fold, "epoch": 1, "valid": 0.1 * fold} for fold in range(5)]
    (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert read_run(path).curves("teacher", "valid")[1].shape == (5, 1)


def test_what_is_no_run_directory_is_refused(tmp_path, run_directory):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, message in (("absent", "does not exist"), ("file", "is not a run dir"), ("empty", "is not a run dir")):
        with pytest.raises(ConfigError, match=f"{name}: {message}"):
            read_run(tmp_path / name)
    unfinished = run_directory()
    (unfinished / "summary.json").unlink()
    with pytest.raises(ConfigError, match="has not finished; continue it with --resume"):
        read_run(unfinished)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", b'{"recipe": ', r"summary\.json: is not JSON from line 1 on"),
        ("summary.json", b"\xff\xfe\x00", r"summary\.json: is not UTF-8 text"),
        ("summary.json", b"[]", r"summary\.json: does not hold a mapping"),
        ("summary.json", b"{}", r"summary\.json, field 'recipe': is missing"),
        ("config.json", b"{,}", r"config\.json: is not JSON"),
        ("config.json", b'{"class_names": "abc"}', r"config\.json, field 'class_names': is not a list"),
        ("environment.json", b"3", r"environment\.json: does not hold a mapping"),
        (
            "metrics.jsonl",
            b'{"row": "a", "seed": 0, "epoch": 1}\n{"row": "a", "se',
            r"metrics\.jsonl, row 2: is not JSON",
        ),
        ("metrics.jsonl", b'{"row": "a", "seed": 0}\n', r"metrics\.jsonl, row 1, field 'epoch': is missing"),
        ("metrics.jsonl", b'{"row": 1, "seed": 0}\n', r"metrics\.jsonl, row 1, field 'row': is not text"),
        ("metrics.jsonl", b"4\n", r"metrics\.jsonl, row 1: does not hold a mapping"),
        ("predictions.npz", b"PK\x03\x04 torn", r"predictions\.npz: cannot be read"),
    ],
)
def test_damaged_files_are_named(run_directory, name, content, message):
    path = run_directory(predictions={}, metrics={})
    (path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_run(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("labels", np.zeros((3, 2), int), r"field 'labels': has shape \[3, 2\]"),
        ("labels", np.zeros((3, 2, 1)), r"field 'labels': has shape \[3, 2, 1\]"),
        ("size", np.zeros((1500, 1)), r"field 'size': has shape \[1500, 1\], not \[1500\]"),
        ("labels", np.array(["a"]), r"field 'labels': has shape \[1\] and type <U1"),
        ("split", np.zeros((5, 3)), r"field 'split': has shape \[5, 3\], not \[seeds, 1500\]"),
        ("degree", np.zeros(3), r"field 'degree': has shape \[3\]"),
        ("pred/teacher", np.zeros(1500), r"field 'pred/teacher': has shape \[1500\], not \[5, 1500\]"),
        ("embedding", np.zeros(1500), r"field 'embedding'"),
        ("labels", None, r"field 'labels': is missing"),
        ("labels", np.array([{}], dtype=object), r"cannot be read as plain arrays"),
    ],
)
def test_predictions_of_the_wrong_shape_are_named(run_directory, predictions, name, array, message):
    arrays = predictions() | {name: array}
    if array is None:
        del arrays[name]
    path = run_directory(predictions=arrays)
    with pytest.raises(DataError, match=message):
        read_run(path)


def test_tested_counts_labelled_predicted_test_items_only(run_directory):
    arrays = {
        "labels": np.array([0, 1, -1, 1, 0], dtype=np.int16),
        "split": np.array([[3, 3, 3, 1, 3]], dtype=np.uint8),
        "pred/teacher": np.array([[0, 0, 1, 1, -1]], dtype=np.int16),
    }
    predictions = read_run(run_directory(predictions=arrays)).predictions
    assert predictions is not None
    assert predictions.tested("teacher").tolist() == [[True, True, False, False, False]]


def test_columns_of_labels_keep_one_form(run_directory):
    """One column may come with or without its axis; NaN is a label or a prediction that is not there."""
    labels = np.array([0.5, np.nan, -2.0, 1.0])
    arrays = {
        "labels": labels,
        "split": np.array([[3, 3, 3, 1]], dtype=np.uint8),
        "pred/teacher": np.array([[0.1, 0.2, np.nan, 0.3]], dtype=np.float32),
    }
    flat = read_run(run_directory("flat", predictions=arrays)).predictions
    arrays |= {"labels": labels[:, None], "pred/teacher": arrays["pred/teacher"][..., None]}
    columns = read_run(run_directory("columns", predictions=arrays)).predictions
    for predictions in (flat, columns):
        assert predictions is not None
        assert not predictions.has_classes
        assert predictions.labels.shape == (4, 1)
        assert predictions.tested("teacher").tolist() == [[[True], [False], [False], [False]]]
    arrays["pred/teacher"] = arrays["pred/teacher"][..., 0]
    with pytest.raises(DataError, match=r"field 'pred/teacher': has shape \[1, 4\], not \[1, 4, 1\]"):
        read_run(run_directory("mixed", predictions=arrays))
