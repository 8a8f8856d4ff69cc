import io

import pytest
from rich.console import Console

from jaxgkd.errors import ConfigError
from jaxgkd.report import compare_runs, console_table
from jaxgkd.report.wording import p_cell
from jaxgkd.training.statistics import holm


def shown(table, width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_has_a_line_per_row_and_the_verdict(summary):
    given = summary(baselines={"mlp": 0.7})
    given["results"]["forest"] = {"not_run": "install jaxgkd[baselines]"}
    given["results"]["student_alone"]["label"] = "GNN [bold]alone[/bold]"
    text = shown(console_table(given))
    for part in (
        "lingugkd on scipy-docs",
        "test accuracy (%)",
        "GNN [bold]alone[/bold]",
        "install jaxgkd[baselines]",
        "22.7 M",
        "12.3",
        "Distillation raised test accuracy",
    ):
        assert part in text
    lines = [line for line in text.splitlines() if "│" in line]
    assert [line.split("│")[1].strip() for line in lines] == [
        "teacher",
        "GNN [bold]alone[/bold]",
        "student distilled",
        "mlp",
        "forest",
    ]
    assert " ± " in lines[0]


def test_the_table_fits_a_narrow_terminal(summary):
    assert all(len(line) <= 80 for line in shown(console_table(summary()), 80).splitlines())


def test_runs_are_compared_with_holm_corrected_p_values(run_directory, summary):
    summaries = {
        "better": summary(noise=0.03),
        "same": summary(distilled=0.832, seeds=4),
        "single": summary(seeds=1),
        "rmse": summary(metric="rmse", higher_is_better=False, distilled=0.8),
    }
    summaries["single"]["results"]["teacher"] = {"not_run": "no labels"}
    paths = [run_directory(name, summary=given, metrics={}, predictions={}) for name, given in summaries.items()]
    table = compare_runs(paths).split("\n\n")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    assert [line[0] for line in lines] == ["run", "better", "same", "single", "rmse"]
    assert len({len(line) for line in lines}) == 1
    p_values = [given["difference"]["p_value"] for given in summaries.values()]
    assert [line[-2] for line in lines[1:]] == [p_cell(p) for p in p_values]
    assert [line[-1] for line in lines[1:]] == [p_cell(p) for p in holm(p_values)]
    assert lines[3][-2:] == ["–", "–"]
    assert lines[3][5] == "not run"
    assert lines[4][3] == "RMSE, lower is better"
    assert [line[4] for line in lines[1:]] == ["5", "4", "1", "5"]


def test_comparing_names_the_folder_that_is_no_run(run_directory, tmp_path):
    with pytest.raises(ConfigError, match="nowhere: does not exist"):
        compare_runs([run_directory(metrics={}, predictions={}), tmp_path / "nowhere"])
