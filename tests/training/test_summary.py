import json
from pathlib import Path

import numpy as np
import pytest

from jaxgkd.errors import DataError
from jaxgkd.training.statistics import paired_difference
from jaxgkd.training.summary import check_summary, write_summary


def write_over(path: Path, summary: dict, field: str, value) -> None:
    """Write the summary with one field replaced; the value ... removes it."""
    holder = summary
    *parents, name = field.split(".")
    for parent in parents:
        holder = holder[parent]
    if value is ...:
        del holder[name]
    else:
        holder[name] = value
    write_summary(path, summary)


def test_values_keep_every_digit_and_measurements_do_not(tmp_path, summary):
    given = summary()
    given["results"]["student_alone"]["ms_per_item"] = np.float32(0.021312345)
    write_summary(tmp_path, given)
    read = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert read["results"]["teacher"]["test"] == given["results"]["teacher"]["test"]
    assert read["difference"] == given["difference"]
    assert read["cost"]["teacher_ms_per_item"] == 12.346
    assert read["results"]["student_alone"]["ms_per_item"] == 0.021312
    check_summary(read, "summary.json")


def test_arrays_and_numpy_numbers_become_json(tmp_path, summary):
    given = summary()
    given["seeds"] = np.arange(5)
    given["results"]["student_alone"]["test"] = np.array(given["results"]["student_alone"]["test"])
    given["out"] = Path("runs/first")
    write_summary(tmp_path / "summary.json", given)
    read = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert read["seeds"] == [0, 1, 2, 3, 4]
    assert read["out"] == str(Path("runs/first"))


def test_a_seed_that_gave_no_value_is_null(tmp_path, summary):
    given = summary()
    given["results"]["student_distilled"]["test"][1] = float("nan")
    given["difference"] = paired_difference(
        given["results"]["student_distilled"]["test"], given["results"]["student_alone"]["test"]
    )
    write_summary(tmp_path, given)
    text = (tmp_path / "summary.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text)["results"]["student_distilled"]["test"][1] is None
    assert json.loads(text)["difference"]["n"] == 4


def test_folds_give_several_values_a_seed(tmp_path, summary):
    given = summary(seeds=10)
    given["seeds"] = [0, 1]
    write_summary(tmp_path, given)
    with pytest.raises(DataError, match=r"results.teacher.valid'.*10 values for 3 seeds"):
        write_over(tmp_path, given, "seeds", [0, 1, 2])


def test_a_row_that_was_not_run(tmp_path, summary):
    given = summary()
    given["results"]["forest"] = {"not_run": "install jaxgkd[baselines]"}
    given["results"]["teacher"] = {"not_run": "the teacher describes and predicts nothing"}
    write_summary(tmp_path, given)
    with pytest.raises(DataError, match=r"results.student_alone'.*not run"):
        write_over(tmp_path, given, "results.student_alone", {"not_run": "no time"})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("protocol", ..., r"field 'protocol': is missing; it has to be text or a mapping\.$"),
        ("difference.p_value", ..., r"field 'difference.p_value': is missing"),
        ("cost.extract_seconds", ..., r"field 'cost.extract_seconds': is missing"),
        ("cost.peak_memory_mb", -1, r"field 'cost.peak_memory_mb': is -1"),
        ("data.sha256", "", r"field 'data.sha256': is \"\""),
        ("higher_is_better", 1, r"field 'higher_is_better': is 1"),
        ("seeds", [1, 1], r"field 'seeds': is \[1, 1\]"),
        ("results.student_alone", ..., r"field 'results.student_alone': is missing"),
        ("results.teacher.test", ..., r"field 'results.teacher.test': is missing"),
        ("results.teacher.test", [0.5] * 4, r"field 'results.teacher.test': has 4 values for 5 seeds"),
        ("results.teacher.test", [87.1] * 5, r"field 'results.teacher.test': has values outside 0 to 1"),
        ("results.teacher.test", ["a"] * 5, r"field 'results.teacher.test': is \[\"a\""),
        ("results.teacher.parameters", "many", r"field 'results.teacher.parameters': is \"many\""),
        ("results.teacher.per_class", [[0.5, 0.6], [0.5]], r"field 'results.teacher.per_class'"),
        ("difference.mean", 0.5, r"field 'difference.mean': is 0.5 where the test values give"),
        ("difference.p_value", 1.5, r"field 'difference.p_value': is 1.5"),
        (
            "treatment",
            "pruning",
            r"field 'treatment': is \"pruning\"; it has to be a mapping of text for name, student",
        ),
        ("treatment", {"verb": "prunes"}, r"field 'treatment': is \{\"verb\": \"prunes\"\}"),
        ("student", {"model": object()}, r"field 'student.model': cannot be written as JSON"),
    ],
)
def test_a_broken_contract_is_named_and_nothing_is_written(tmp_path, summary, field, value, message):
    with pytest.raises(DataError, match=message) as error:
        write_over(tmp_path, summary(), field, value)
    assert "\n" not in str(error.value)
    assert "summary.json" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_sign_of_the_difference_is_checked(tmp_path, summary):
    given = summary()
    rows = given["results"]
    with pytest.raises(DataError, match="use paired_difference\\(distilled, alone\\)"):
        write_over(
            tmp_path,
            given,
            "difference",
            paired_difference(rows["student_alone"]["test"], rows["student_distilled"]["test"]),
        )


def test_an_earlier_summary_survives_a_failed_write(tmp_path, summary):
    write_summary(tmp_path, summary())
    before = (tmp_path / "summary.json").read_bytes()
    with pytest.raises(DataError):
        write_over(tmp_path, summary(), "command", ...)
    assert (tmp_path / "summary.json").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_metrics_without_bounds_take_any_value(tmp_path, summary):
    write_summary(tmp_path, summary(metric="rmse", higher_is_better=False, teacher=3.1, alone=7.0, distilled=5.0))
