import pytest

from jaxgkd.report.comparison_figures import draw_gains, draw_students
from jaxgkd.report.pairing import gains_corrected
from jaxgkd.report.run_directory import read_run
from jaxgkd.report.style import house_style


@pytest.mark.parametrize(
    ("metric", "higher", "best"),
    [("accuracy", True, "Best distilled student: 87.7 %"), ("rmse", False, "Best distilled")],
)
def test_figures_are_readable_and_say_what_is_seen(run_directory, summary, readable, metric, higher, best):
    runs = [
        read_run(run_directory(f"run-{i}", summary=given, metrics={}, predictions={}))
        for i, given in enumerate(
            [
                summary(metric=metric, higher_is_better=higher),
                summary(metric=metric, higher_is_better=higher, distilled=0.88),
                summary(metric=metric, higher_is_better=higher, distilled=0.832, noise=0.02),
                summary(metric=metric, higher_is_better=higher, seeds=1),
            ]
        )
    ]
    names = ["gcn", "a name that is too long to be written out beside any line", "mlp", "one seed"]
    with house_style():
        students, gains = draw_students(runs, names), draw_gains(runs, names, gains_corrected(runs))
        readable(students.figure)
        readable(gains.figure)
    assert students.title.startswith(best)
    assert students.title.endswith(names[1] if higher else names[2])
    assert gains.title == f"Distillation clearly helps in {2 if higher else 0} of 4 runs"


def test_a_run_without_pairs_has_an_empty_line(run_directory, summary, readable):
    given = summary()
    given["results"]["student_distilled"]["test"] = [None] * 5
    given["difference"] = {"mean": None, "std": None, "p_value": None}
    runs = [read_run(run_directory("run", summary=given, metrics={}, predictions={}))]
    with house_style():
        readable(draw_students(runs, ["run"]).figure)
        readable(draw_gains(runs, ["run"], [None]).figure)
