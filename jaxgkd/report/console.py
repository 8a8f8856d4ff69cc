"""The short table at the end of a run, and the Markdown table that compares several runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from jaxgkd.report.markdown import literal, table_row
from jaxgkd.report.pairing import gain, gains_corrected
from jaxgkd.report.run_directory import Run
from jaxgkd.report.wording import (
    count,
    measured,
    p_cell,
    row_cost,
    row_name,
    row_values,
    run_rows,
    scale_of,
    verdict,
)
from jaxgkd.training.summary import STUDENTS


def console_table(summary: Mapping[str, Any]) -> Table:
    """The results of a run as a small table for the terminal.

    Args:
      summary: a checked summary.

    Returns:
      A rich table: teacher, student alone, student distilled, then the other rows, each with its test mean ± standard
      deviation over seeds, parameters and milliseconds per item; the verdict stands below.
    """
    scale, results = scale_of(summary), summary["results"]
    table = Table(
        title=Text(f"{summary['recipe']} on {summary['data']['name']}", style="bold"),
        caption=Text(verdict(summary), style="dim"),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("")
    for head in (f"test {scale.label}", "parameters", "ms per item"):
        table.add_column(Text(head), justify="right")
    rows = run_rows(summary)
    for row in rows:
        table.add_row(
            Text(row_name(summary, row)),
            scale.mean_and_std(row_values(summary, row, "test")),
            count(row_cost(summary, row, "parameters")),
            measured(row_cost(summary, row, "ms_per_item")),
            style="bold" if row == "student_distilled" else None,
        )
    for row in (row for row in results if row not in rows):
        table.add_row(Text(row_name(summary, row)), Text(f"not run: {results[row]['not_run']}"), "", "", style="dim")
    return table


def runs_table(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Several runs in one Markdown table, a row each, with Holm-corrected p-values.

    Args:
      runs: in the order of the table.
      names: of the runs.

    Returns:
      The table and, below it, a line that says what the columns are. The correction counts every run of the table.
    """
    corrected = gains_corrected(runs)
    lines = [
        "| run | recipe | data | metric | n | teacher | student alone | distilled | difference | p | p (Holm) |",
        "|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for run, name, p_corrected in zip(runs, names, corrected, strict=True):
        summary, p_value = run.summary, gain(run)["p_value"]
        scale, difference = scale_of(summary), summary["difference"]
        rows = run_rows(summary)
        values = [
            scale.mean_and_std(row_values(summary, row, "test"), 1) if row in rows else "not run"
            for row in ("teacher", *STUDENTS)
        ]
        change = "–" if difference["mean"] is None else scale.change(difference["mean"], 1)
        if p_value is not None:
            change += f" ± {scale.number(difference['std'] or 0.0, 1)}"
        direction = "" if scale.higher_is_better else ", lower is better"
        cells = [
            literal(name),
            literal(summary["recipe"]),
            literal(summary["data"]["name"]),
            f"{scale.label}{direction}",
            str(len(summary["results"]["student_alone"]["test"])),
            *values,
            change,
            p_cell(p_value),
            p_cell(p_corrected),
        ]
        lines.append(table_row(cells))
    lines += [
        "",
        "Test mean ± standard deviation over n seeds or folds; difference is distilled minus alone, with a two-sided "
        "paired t-test, whose variance is corrected where folds share training items (Nadeau and Bengio, 2003); Holm's "
        "correction counts every run of this table that has a p-value.",
    ]
    return "\n".join(lines) + "\n"
