"""Write the tables of this folder's README, and of the project's, from ``results/*.json``.

python experiments/lmgnn/tables.py
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from result_tables import Summary, shown, summaries, write_between  # noqa: E402
from rows import TABLES  # noqa: E402

from jaxgkd.training.statistics import paired_difference  # noqa: E402

COMMAND = "experiments/lmgnn/tables.py"
HEADS = {
    "text_only": "text, frozen",
    "teacher": "text, tuned",
    "student_alone": "GNN, frozen",
    "fine_tuned": "GNN, tuned",
    "cotrained": "together",
    "glem": "GLEM",
    "text_student": "text student",
}


def overview(found: list[tuple[str, Summary]]) -> list[str]:
    """One line a run: every row's test values, and the best staged row against the GNN on the frozen model."""
    table = [f"| run | metric | {' | '.join(HEADS.values())} | staged − frozen | p |", "|---|---|" + "--:|" * 9]
    for name, summary in found:
        results, difference = summary["results"], summary["difference"]
        there = set(results) - ({"teacher"} if _frozen(results) else set())
        cells = [shown(results[row]["test"]) if row in there else "–" for row in HEADS]
        gain, p = f"{difference['mean']:+.3g}", difference["p_value"]
        if _frozen(results):
            gain = p = None
        end = f"{gain or '–'} | {'–' if p is None else f'{p:.2g}'}"
        table.append(f"| {name} | {summary['metric']} | {' | '.join(cells)} | {end} |")
    return [*table, ""]


def rows_of(name: str, summary: Summary) -> list[str]:
    """One line a row of a run, with every metric and its difference from the GNN on the frozen language model."""
    results, data = summary["results"], summary["data"]
    metrics = list(results["student_alone"]["metrics"])
    table = [
        f"### {name}",
        "",
        f"{data['split']}; {len(summary['seeds'])} seeds. `{summary['command']}`",
        "",
        f"| row | {' | '.join(f'test {metric}' for metric in metrics)} | minus GNN, frozen | p | s |",
        "|---|" + "--:|" * (len(metrics) + 3),
    ]
    alone = results["student_alone"]["test"]
    for row, values in results.items():
        if row == "student_distilled" or (row == "teacher" and _frozen(results)):
            continue
        cells = [shown(values["metrics"][metric]["test"]) for metric in metrics]
        difference = paired_difference(values["test"], alone)
        gain = "" if row == "student_alone" else f"{difference['mean']:+.3g} ± {difference['std']:.2g}"
        p = "" if difference["p_value"] is None or not gain else f"{difference['p_value']:.2g}"
        seconds = f"{values['seconds']:,.0f}" if "seconds" in values else ""
        table.append(f"| {values['label']} | {' | '.join(cells)} | {gain} | {p} | {seconds} |")
    return [*table, ""]


def _frozen(results: Mapping[str, Any]) -> bool:
    """Whether no language model was tuned: the teacher's row is then that of the head on the frozen one."""
    return "fine_tuned" not in results


def short_lines(found: list[tuple[str, Summary]]) -> list[str]:
    """The table of the project's README."""
    table = [
        "| data and task | test metric | tuned text | GNN, frozen text | best staged | p |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for _, summary in found:
        results, p = summary["results"], summary["difference"]["p_value"]
        cells = [shown(results[row]["test"]) for row in ("teacher", "student_alone", "student_distilled")]
        task = summary["data"]["name"] + ", " + summary["data"]["split"].split(" ", 1)[1]
        table.append(f"| {task} | {summary['metric']} | {' | '.join(cells)} | {'–' if p is None else f'{p:.2g}'} |")
    return ["", *table, ""]


def main() -> None:
    found = summaries(HERE / "results")
    rows = [line for name, summary in found for line in rows_of(name, summary)]
    write_between(HERE / "README.md", COMMAND, ["", *overview(found), *rows])
    of_tasks = [(name, summary) for name, summary in found if name in TABLES]
    write_between(HERE.parents[1] / "README.md", COMMAND, short_lines(of_tasks))


if __name__ == "__main__":
    main()
