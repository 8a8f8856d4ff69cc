"""Write the tables of this folder's README, and of the project's, from ``results/*.json``.

python experiments/ccmd/tables.py
"""

import json
from pathlib import Path

from jaxgkd.training.statistics import mean_std, paired_difference

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: written by experiments/ccmd/tables.py -->", "<!-- end of tables -->"


def runs() -> list[tuple[str, dict]]:
    """The summaries of all runs, by name."""
    files = sorted(HERE.glob("results/*.json"))
    return [(file.stem, json.loads(file.read_text())) for file in files if file.stem != "gradient-norms"]


def shown(values: list[float | None]) -> str:
    there = [value for value in values if value is not None]
    mean, deviation = mean_std(there)
    return f"{mean:.4g} ± {deviation:.2g}"


def rows_of(name: str, summary: dict) -> list[str]:
    """One line a row of a run, with its difference from the student alone."""
    unit = f" in {summary['unit']}" if "unit" in summary else ""
    data = summary["data"]
    table = [
        f"### {name}",
        "",
        f"{data['molecules']:,} molecules, split {data['split']}, {len(summary['seeds'])} seeds; "
        f"test {summary['metric']}{unit}. `{summary['command']}`",
        "",
        "| row | validation | test | minus alone | relative | p |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    alone = summary["results"]["student_alone"]["test"]
    for row, values in summary["results"].items():
        if "not_run" in values:
            table.append(f"| {values['label']} | not run: {values['not_run']} | | | | |")
            continue
        line = f"| {values['label']} | {shown(values['valid'])} | {shown(values['test'])} |"
        if row == "student_alone":
            table.append(f"{line} | | |")
            continue
        difference = paired_difference(values["test"], alone)
        relative = 100 * difference["mean"] / mean_std(alone)[0]
        p = "" if difference["p_value"] is None else f"{difference['p_value']:.2g}"
        table.append(f"{line} {difference['mean']:+.3g} ± {difference['std']:.2g} | {relative:+.1f} % | {p} |")
    return [*table, ""]


def costs(found: list[tuple[str, dict]]) -> list[str]:
    table = [
        "| run | teacher weights | student weights | teacher ms per molecule | student ms per molecule | training s |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, summary in found:
        cost = summary["cost"]
        table.append(
            f"| {name} | {cost['teacher_parameters']:,} | {cost['student_parameters']:,} "
            f"| {cost['teacher_ms_per_item']:.3g} | {cost['student_ms_per_item']:.3g} | {cost['train_seconds']:,.0f} |"
        )
    return [*table, ""]


def slopes() -> list[str]:
    """The slopes of gradient norms against size."""
    file = HERE / "results" / "gradient-norms.json"
    if not file.is_file():
        return []
    result = json.loads(file.read_text())
    names = {"global": "global", "none": "local, sum", "mean": "local, mean", "size": "local, mean × 1/N"}
    low, high = result["atoms"]
    lines = [
        f"Slopes of log gradient norm over log size, {result['molecules']} molecules of {low} to {high} atoms "
        f"({result['data']}), with 95 % intervals. `{result['command']}`",
        "",
        "| | " + " | ".join(names.values()) + " |",
        "|---|" + "--:|" * len(names),
    ]
    for state in ("untrained", "trained"):
        cells = [f"{result[state][which]['slope']:+.2f} ± {result[state][which]['interval']:.2f}" for which in names]
        lines.append(f"| {state} | {' | '.join(cells)} |")
    return [*lines, ""]


def short_lines(found: list[tuple[str, dict]]) -> list[str]:
    """The table of the project's README."""
    table = ["| data | test metric | teacher, 3D at test | alone | distilled | p |", "|---|---|--:|--:|--:|--:|"]
    for _, summary in found:
        results = summary["results"]
        cells = [shown(results[row]["test"]) for row in ("teacher", "student_alone", "student_distilled")]
        unit = f", {summary['unit']}" if "unit" in summary else ""
        data = f"{summary['data']['name']}, {summary['data']['split']}"
        p = summary["difference"]["p_value"]
        table.append(f"| {data} | {summary['metric']}{unit} | {' | '.join(cells)} | {p:.2g} |")
    return ["", *table, ""]


def write_between(page: Path, lines: list[str]) -> None:
    """Replace what stands between the two marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text("\n".join([before + BEGIN, *lines, END]) + after)


def main() -> None:
    found = runs()
    tables = ["", *(line for name, summary in found for line in rows_of(name, summary)), *costs(found), *slopes()]
    write_between(HERE / "README.md", tables)
    write_between(HERE.parents[1] / "README.md", short_lines(found))


if __name__ == "__main__":
    main()
