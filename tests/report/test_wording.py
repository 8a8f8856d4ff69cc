import pytest

from jaxgkd.report.wording import (
    against_teacher,
    count,
    described,
    duration,
    measured,
    p_of_difference,
    p_phrase,
    runs_phrase,
    scale_of,
    verdict,
)
from jaxgkd.training.statistics import paired_difference


def with_test(summary: dict, **rows) -> dict:
    for row, values in rows.items():
        summary["results"][row] = {"valid": values, "test": values}
    summary["difference"] = paired_difference(
        summary["results"]["student_distilled"]["test"], summary["results"]["student_alone"]["test"]
    )
    summary["seeds"] = list(range(len(summary["results"]["student_alone"]["test"])))
    return summary


def test_accuracy_is_written_in_percent_and_points(summary):
    scale = scale_of(summary())
    assert scale.label == "accuracy (%)"
    assert scale.value(0.87654) == "87.7 %"
    assert scale.change(0.0123) == "+1.2"
    assert scale.change(-0.0123, 1) == "−1.23"
    assert scale.change(-0.0001) == "0.0"
    assert scale.change_unit == "points"
    assert scale.mean_and_std([0.5, 0.7]) == "60.0 ± 14.1"
    assert scale.mean_and_std([0.5]) == "50.0"
    assert scale.mean_and_std([float("nan")]) == "–"


@pytest.mark.parametrize(
    ("metric", "name", "value"),
    [
        ("macro_f1", "macro F1", "70.0 %"),
        ("hits@10", "hits@10", "70.0 %"),
        ("roc_auc", "ROC AUC", "0.700"),
        ("rmse", "RMSE", "0.700 eV"),
    ],
)
def test_metrics_have_names_and_units(summary, metric, name, value):
    given = with_test(summary(metric=metric), student_alone=[0.7] * 5, student_distilled=[0.7] * 5, teacher=[0.7] * 5)
    if metric == "rmse":
        given["unit"] = "eV"
    scale = scale_of(given)
    assert scale.name == name
    assert scale.value(0.7) == value


def test_digits_follow_the_size_of_the_values(summary):
    given = with_test(summary(metric="mae"), teacher=[432.1], student_alone=[512.3], student_distilled=[499.0])
    assert scale_of(given).value(432.1) == "432"
    given = with_test(given, teacher=[0.0], student_alone=[0.0], student_distilled=[0.0])
    assert scale_of(given).value(0.0) == "0.000"


def test_the_verdict_says_when_distillation_helped(summary):
    given = with_test(summary(), student_alone=[0.80, 0.82, 0.81], student_distilled=[0.85, 0.865, 0.86])
    p = given["difference"]["p_value"]
    assert p < 0.05
    assert verdict(given) == (
        f"Distillation raised test accuracy from 81.0 % to 85.8 % (+4.8 ± 0.3 points over 3 seeds, "
        f"paired t-test p = {p:.2g})."
    )


def test_the_verdict_of_folds_goes_by_the_corrected_test(summary):
    given = with_test(summary(), student_alone=[0.80, 0.82, 0.81], student_distilled=[0.85, 0.865, 0.86])
    given["corrected_difference"] = {**given["difference"], "p_value": 0.15, "n": 2}
    assert p_of_difference(given) == 0.15 and given["difference"]["p_value"] < 0.05
    assert verdict(given) == (
        "Distillation did not clearly help: test accuracy is 85.8 % distilled and 81.0 % alone (+4.8 ± 0.3 points over "
        "2 test parts in 3 seeds, paired t-test corrected for shared training items p = 0.15)."
    )


def test_the_verdict_says_when_distillation_harmed(summary):
    given = with_test(summary(), student_distilled=[0.80, 0.82, 0.81], student_alone=[0.85, 0.865, 0.86])
    assert verdict(given).startswith("Distillation did harm: test accuracy fell from 85.8 % to 81.0 % (−4.8 ± 0.3")


def test_the_verdict_knows_when_lower_is_better(summary):
    given = summary(metric="rmse", higher_is_better=False)
    given = with_test(given, student_alone=[0.80, 0.82, 0.81], student_distilled=[0.75, 0.765, 0.76])
    assert verdict(given).startswith("Distillation lowered test RMSE from 0.810 to 0.758 (−0.052 ± 0.003 over")
    given = with_test(given, student_alone=[0.75, 0.765, 0.76], student_distilled=[0.80, 0.82, 0.81])
    assert verdict(given).startswith("Distillation did harm: test RMSE rose from 0.758 to 0.810")


def test_the_verdict_says_when_nothing_is_shown(summary):
    given = with_test(summary(), student_alone=[0.80, 0.82, 0.81], student_distilled=[0.81, 0.81, 0.82])
    assert verdict(given).startswith("Distillation did not clearly help: test accuracy is 81.3 % distilled and 81.0 %")
    given = with_test(summary(), student_alone=[0.8, 0.7], student_distilled=[0.8, 0.7])
    assert "did not clearly help" in verdict(given)
    given = with_test(summary(), student_alone=[0.8], student_distilled=[0.9])
    assert verdict(given).endswith("(+10.0 points); one pair of values cannot tell this from chance.")
    given = with_test(summary(), student_alone=[None], student_distilled=[0.9])
    assert verdict(given).startswith("No seed gave a value for both")


def test_the_verdict_uses_complete_pairs_only(summary):
    given = with_test(
        summary(), student_alone=[0.80, 0.82, 0.81, 0.1], student_distilled=[0.85, 0.865, 0.86, None], teacher=[0.9] * 4
    )
    assert "from 81.0 % to 85.8 % (+4.8 ± 0.3 points over 3 of 4 seeds" in verdict(given)


def test_the_teacher_is_compared_by_numbers(summary):
    given = with_test(summary(), teacher=[0.9], student_alone=[0.8], student_distilled=[0.88])
    assert against_teacher(given) == (
        "The distilled student is 2.0 points worse than its teacher (90.0 %), "
        "with 1/440 of the parameters and 1/580 of the time per item."
    )
    given["cost"] |= {"teacher_parameters": 100, "student_parameters": 250, "student_ms_per_item": None}
    given = with_test(given, student_distilled=[0.9])
    assert against_teacher(given) == (
        "The distilled student is level with its teacher (90.0 %), with 2.5 times the parameters."
    )
    given["results"]["teacher"] = {"not_run": "it only describes"}
    assert against_teacher(given) == ""


def test_a_run_that_does_not_distil_says_what_it_does(summary):
    given = with_test(
        summary(), teacher=[0.9] * 3, student_alone=[0.8, 0.82, 0.81], student_distilled=[0.81, 0.8, 0.82]
    )
    given["treatment"] = {
        "name": "Pruning the network",
        "student": "The pruned one",
        "having": "pruned",
        "lacking": "whole",
    }
    given["results"]["teacher"]["label"] = "forest"
    assert verdict(given).startswith(
        "Pruning the network did not clearly help: test accuracy is 81.0 % pruned and 81.0"
    )
    assert against_teacher(given) == "The pruned one is 9.0 points worse than “forest” (90.0 %)."
    given = with_test(given, student_alone=[0.8], student_distilled=[0.9])
    assert verdict(given).startswith("The pruned one has a test accuracy of 90.0 %, whole it has 80.0 %")
    given = with_test(given, student_alone=[None], student_distilled=[0.9])
    assert verdict(given).endswith("nothing can be said about pruning the network.")
    assert "istil" not in verdict(given)
    given = with_test(given, student_alone=[0.8], student_distilled=[0.8])
    given["treatment"] = {"missing": "Nothing was pruned", "student": "The network"}
    assert verdict(given) == "Nothing was pruned: test accuracy is 80.0 %."
    assert against_teacher(given) == "The network is 10.0 points worse than “forest” (90.0 %)."


def test_repeats_are_seeds_or_folds(summary):
    given = summary(seeds=10)
    assert runs_phrase(given) == "10 seeds"
    given["seeds"] = [0, 1]
    assert runs_phrase(given) == "10 folds"
    assert runs_phrase(summary(seeds=1)) == "one seed"


def test_numbers_in_words():
    assert [count(n) for n in (None, 0, 812, 9_999, 33_400, 22_713_216, 7.24e9)] == [
        "–", "0", "812", "9 999", "33.4 k", "22.7 M", "7.24 B",
    ]  # fmt: skip
    assert [measured(x) for x in (None, 0, 0.0213, 12.34, 123.4, 1312.5, 1e-6)] == [
        "–", "0", "0.0213", "12.3", "123", "1 312", "1.00e-06",
    ]  # fmt: skip
    assert [duration(s) for s in (None, 41.2, 205.0, 59.9, 12_000, 3599.9)] == [
        "–", "41.2 s", "3 min 25 s", "1 min 0 s", "3 h 20 min", "1 h 0 min",
    ]  # fmt: skip
    assert [p_phrase(p) for p in (None, 0.00001, 0.034, 0.5)] == ["–", "p < 0.001", "p = 0.034", "p = 0.5"]
    assert described({"layers": 2, "name": "GCN", "dropout": 0.5}) == "GCN, layers 2, dropout 0.5"
    assert described([0.6, 0.2, 0.2]) == "0.6 / 0.2 / 0.2"
