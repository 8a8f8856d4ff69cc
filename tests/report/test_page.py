import json
import re

import pytest

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.report import write_report
from jaxgkd.training.statistics import paired_difference


def section(page: str, name: str) -> str:
    return page.split(f"## {name}\n", 1)[1].split("\n## ", 1)[0]


def test_a_whole_report(run_directory, summary):
    given = summary(baselines={"mlp_bag_of_words": 0.74})
    given["results"]["forest"] = {"not_run": "install jaxgkd[baselines]"}
    given["results"]["student_distilled"] |= {"epochs_to_reach": [40, 50, None, 60, 50], "parameters": 48_000}
    path = run_directory(summary=given)
    assert write_report(path) == path / "report.md"
    page = (path / "report.md").read_text(encoding="utf-8")
    assert page.startswith("# lingugkd on scipy-docs\n\n**Distillation raised test accuracy from 8")
    figures = re.findall(r"!\[([^]]+)\]\((figures/[a-z_]+\.png)\)", page)
    assert len(figures) == 6
    assert all((path / file).is_file() for _, file in figures)
    rows = {line.split("|")[1].strip(): line for line in section(page, "Results").splitlines() if line.startswith("| ")}
    assert set(rows) == {"", "teacher", "student alone", "**student distilled**", "mlp bag of words", "forest"}
    assert "48 k" in rows["**student distilled**"]
    assert "| 50 (4 of 5 seeds) |" in rows["**student distilled**"]
    assert "not run: install jaxgkd\\[baselines\\]" in rows["forest"]
    assert len({row.replace("\\|", "").count("|") for row in rows.values()}) == 1
    result = paired_difference(given["results"]["mlp_bag_of_words"]["test"], given["results"]["student_alone"]["test"])
    assert f"| −{-100 * result['mean']:.2f} ± {100 * result['std']:.2f} |" in rows["mlp bag of words"]
    assert "Seeds: 0, 1, 2, 3, 4, the same in every row." in section(page, "Protocol")
    assert "Asking the teacher took 41.2 s, training 3 min 25 s; memory peaked at 1.3 GB." in section(page, "Cost")
    assert "| counts: train | 1 491 |" in section(page, "Data")
    assert "- The student sees the name and the summary line only." in section(page, "Notes")
    assert "```sh\njaxgkd run lingugkd --data scipy-docs --seeds 5\n```" in section(page, "Command")
    assert "jax 0.10.2" in section(page, "Versions")


def test_the_same_run_gives_the_same_report(run_directory):
    path = run_directory()

    def everything() -> dict:
        write_report(path)
        return {file: file.read_bytes() for file in [path / "report.md", *(path / "figures").iterdir()]}

    assert everything() == everything()


def test_a_bare_run_says_nothing_about_what_it_lacks(run_directory, summary):
    given = summary(seeds=1)
    given["notes"] = []
    given["cost"] |= {"extract_seconds": None, "peak_memory_mb": None, "teacher_ms_per_item": None}
    path = run_directory(summary=given, metrics={}, predictions={})
    write_report(path)
    page = (path / "report.md").read_text(encoding="utf-8")
    assert "cannot tell this from chance" in page
    assert re.findall(r"figures/[a-z_]+\.png", page) == ["figures/results.png"]
    for absent in ("## Training", "## Predictions", "## Notes", "None", "nan", "standard deviation", "t-test"):
        assert absent not in page
    assert "Training took 3 min 25 s." in section(page, "Cost")
    assert "| ms per item | – | 0.0213 |" in section(page, "Cost")


def test_names_cannot_break_the_page(run_directory, summary):
    given = summary()
    given["data"]["name"] = "a|b <script> $x$"
    given["results"]["student_alone"]["label"] = "plain | *GNN*"
    given["results"]["student_alone"]["per_class"] = {"a|b": 0.5, "<b>": [0.5, 0.7]}
    given["command"] = "jaxgkd run lingugkd --data '```'"
    path = run_directory(summary=given, metrics={}, predictions={})
    write_report(path)
    page = (path / "report.md").read_text(encoding="utf-8")
    assert page.startswith("# lingugkd on a|b \\<script\\> \\$x\\$\n")
    assert "| plain \\| \\*GNN\\* |" in page
    assert "| \\<b\\> | 60.0 |" in page
    assert "````sh\njaxgkd run lingugkd --data '```'\n````" in page


def test_per_class_values_average_the_seeds(run_directory, summary):
    given = summary()
    given["results"]["student_alone"]["per_class"] = [[0.5, 0.25, None], [0.7, 0.35, None]]
    given["results"]["teacher"]["per_class"] = [0.9, 0.8, 0.7]
    path = run_directory(summary=given, metrics={}, predictions={})
    write_report(path)
    page = (path / "report.md").read_text(encoding="utf-8")
    assert "| class | teacher | student alone |" in page
    assert "| algebra | 90.0 | 60.0 |" in page
    assert "| fitting | 70.0 | – |" in page


def test_folds_missing_values_and_smoke_runs_are_said(run_directory, summary):
    given = summary(seeds=10)
    given["seeds"] = [0, 1]
    given["results"]["teacher"]["test"][3] = None
    path = run_directory(summary=given, metrics={}, predictions={})
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps(config | {"smoke": True}), encoding="utf-8")
    write_report(path)
    page = (path / "report.md").read_text(encoding="utf-8")
    assert "over 10 folds" in page
    assert "one per fold; folds share training data" in page
    assert "Teacher: 1 of 10 test values are missing." in page
    assert "A smoke run" in page


def test_errors_leave_no_page(tmp_path, run_directory):
    with pytest.raises(ConfigError, match="is not a run directory"):
        write_report(tmp_path)
    path = run_directory()
    (path / "metrics.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="row 1"):
        write_report(path)
    assert not (path / "report.md").exists()
    assert not (path / "figures").exists()
