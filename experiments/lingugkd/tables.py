"""Write the tables of this folder's README, and of the project's, from ``results/*.json``.

python experiments/lingugkd/tables.py
"""

import json
from pathlib import Path

from jaxgkd.training.statistics import mean_std

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: written by experiments/lingugkd/tables.py -->", "<!-- end of tables -->"


def percent(values: list[float]) -> str:
    mean, deviation = mean_std(values)
    return f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def median_epochs(reached: list[int | None]) -> str:
    """Median over the seeds that got there, and how many did."""
    there = sorted(epoch for epoch in reached if epoch is not None)
    if not there:
        return "never"
    return f"{there[len(there) // 2]} ({len(there)} of {len(reached)})"


def lines() -> list[str]:
    files = sorted((HERE / "results").glob("*.json"))
    table = [
        "| row | split | heads | teacher | alone | distilled | difference | p | epochs alone | epochs to match |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    costs = [
        "| row | teacher weights | student weights | teacher ms per node | student ms per node | times faster |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    commands = []
    for file in files:
        summary = json.loads(file.read_text())
        results, difference, cost = summary["results"], summary["difference"], summary["cost"]
        alone, distilled = results["student_alone"], results["student_distilled"]
        best = sorted(alone["best_epoch"])[len(alone["best_epoch"]) // 2]
        table.append(
            f"| {file.stem} | {summary['data']['split']} | {summary['teacher']['name'].partition(' + ')[2]} "
            f"| {percent(results['teacher']['test'])} "
            f"| {percent(alone['test'])} | {percent(distilled['test'])} "
            f"| {100 * difference['mean']:+.1f} ± {100 * difference['std']:.1f} | {difference['p_value']:.2g} "
            f"| {best} | {median_epochs(distilled['epochs_to_reach'])} |"
        )
        for name, values in results.items():
            if name not in ("teacher", "student_alone", "student_distilled"):
                table.append(f"| {file.stem}: {values['label']} | | | | {percent(values['test'])} | | | | | |")
        costs.append(
            f"| {file.stem} | {cost['teacher_parameters']:,} | {cost['student_parameters']:,} "
            f"| {cost['teacher_ms_per_item']:.3g} | {cost['student_ms_per_item']:.2g} "
            f"| {cost['teacher_ms_per_item'] / cost['student_ms_per_item']:,.0f} |"
        )
        commands.append(f"{file.stem}: `{summary['command']}`  ")
    caption = (
        "Test accuracy in percent, mean ± standard deviation over seeds; the difference is distilled minus alone, "
        "paired over seeds, with a two-sided paired t-test. *Epochs alone*: median best epoch of the plain student; "
        "*epochs to match*: median epoch at which the distilled one reaches the plain one's best validation score, and "
        "how many seeds do."
    )
    return ["", *table, "", caption, "", *costs, "", *commands, ""]


def short_lines() -> list[str]:
    """The table of the project's README."""
    table = ["| data | student | teacher | alone | distilled | p |", "|---|---|--:|--:|--:|--:|"]
    for file in sorted((HERE / "results").glob("*.json")):
        summary = json.loads(file.read_text())
        results = summary["results"]
        # Heads of the earlier version were GCN and SAGE alone.
        earlier = "" if "MLP" in summary["teacher"]["name"] else " †"
        readout = ", all layers" if "--readout all" in summary["command"] else ""
        table.append(
            f"| {summary['data']['name']}, {summary['data']['split']} | {summary['student']['name']}{readout}{earlier} "
            f"| {percent(results['teacher']['test'])} | {percent(results['student_alone']['test'])} "
            f"| {percent(results['student_distilled']['test'])} | {summary['difference']['p_value']:.2g} |"
        )
    caption = (
        "Test accuracy in percent, mean ± standard deviation over seeds; p from a two-sided paired t-test of distilled "
        "against alone. Where p is not small, distillation did not clearly help. † Made by an earlier version with "
        "other heads and settings, not yet run again."
    )
    return ["", *table, "", caption, ""]


def write_between(page: Path, lines: list[str]) -> None:
    """Replace what stands between the two marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text("\n".join([before + BEGIN, *lines, END]) + after)


def main() -> None:
    write_between(HERE / "README.md", lines())
    write_between(HERE.parents[1] / "README.md", short_lines())


if __name__ == "__main__":
    main()
