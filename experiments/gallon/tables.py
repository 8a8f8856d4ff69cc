"""Write the tables of this folder's README, and of the project's, from ``results/*.json``.

python experiments/gallon/tables.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from molecule_tables import costs, rows_of, short_lines  # noqa: E402
from result_tables import Summary, shown, summaries, write_between  # noqa: E402

from jaxgkd.training.statistics import paired_difference  # noqa: E402

COMMAND = "experiments/gallon/tables.py"
ROWS = ("teacher", "gnn", "student_alone", "student_gnn", "student_lm", "student_distilled", "ecfp_forest", "mean")


def overview(found: list[tuple[str, Summary]]) -> list[str]:
    """One line a run: every row's test values, and distilled against alone."""
    heads = ["LM, atoms", "GNN", "alone", "+ GNN", "+ LM", "+ both", "ECFP4 forest", "mean"]
    table = [f"| run | metric | {' | '.join(heads)} | p of both |", "|---|---|" + "--:|" * (len(heads) + 1)]
    for name, summary in found:
        results = summary["results"]
        cells = [shown(results[row]["test"]) if "test" in results.get(row, {}) else "–" for row in ROWS]
        alone, both = results["student_alone"]["test"], results["student_distilled"]["test"]
        p = paired_difference(both, alone)["p_value"]
        table.append(f"| {name} | {summary['metric']} | {' | '.join(cells)} | {'–' if p is None else f'{p:.2g}'} |")
    return [*table, ""]


def main() -> None:
    found = summaries(HERE / "results")
    rows = [line for name, summary in found for line in rows_of(name, summary)]
    write_between(HERE / "README.md", COMMAND, ["", *overview(found), *costs(found), *rows])
    # Other students, and other splits, are in this folder's page.
    short = [(name, summary) for name, summary in found if name.endswith("-counts-beside")]
    write_between(HERE.parents[1] / "README.md", COMMAND, short_lines(short, "LM, atoms"))


if __name__ == "__main__":
    main()
