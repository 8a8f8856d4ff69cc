from pathlib import Path

from jaxgkd.report.brain_figures import diagnosis_table, draw_sites, sites_of, sites_table
from jaxgkd.report.run_directory import Run
from jaxgkd.report.style import house_style

ROWS = ("teacher", "student_alone", "student_distilled")


def run_with(sites):
    scores = {"valid": [0.6], "test": [0.6], "accuracy": [0.5, 0.7], "sensitivity": [0.25, None]}
    scores |= {"specificity": [1.0, 0.5], "f1": [0.5, 0.5]}
    results = {row: {"label": f"the {row}", **scores} for row in ROWS}
    summary = {"results": results, "metric": "auroc", "higher_is_better": True, "seeds": [0], "sites": sites}
    return Run(Path(), summary, {"class_names": ["healthy", "ill"]}, {}, [], None)


def site(name, alone, distilled, sizes=(20, 30)):
    return {"site": name, "subjects": list(sizes), "auroc": dict(zip(ROWS, (0.7, alone, distilled), strict=True))}


SITES = [
    site("a small one", 0.5, 0.4, (4, 5)),
    site("B", 0.6, 0.7),
    site("C", None, None),
    site("D", 0.6, 0.8, (9, 90)),
]


def test_sites_are_drawn_by_size_where_both_students_have_a_value(readable):
    run = run_with(SITES)
    assert [each["site"] for each in sites_of(run)] == ["D", "B", "a small one"]
    with house_style():
        drawing = draw_sites(run)
        assert drawing is not None and "2 of 3 sites" in drawing.title
        readable(drawing.figure)


def test_tables_hold_means_and_sites():
    run = run_with(SITES)
    assert "alone | 60.0 | 25.0 | 75.0 | 50.0 |" in diagnosis_table(run)
    lines = sites_table(run).splitlines()
    assert "healthy" in lines[0] and "| D | 9 | 90 | 70.0 | 60.0 | 80.0 |" in lines[2]


def test_a_run_without_sites_has_neither():
    for sites in (None, [], SITES[:1]):
        assert draw_sites(run_with(sites)) is None and sites_table(run_with(sites)) == ""
    run = run_with([])
    del run.summary["results"]["student_alone"]["f1"]
    assert "student_alone" not in diagnosis_table(run)
