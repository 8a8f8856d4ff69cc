"""Write the tables of this folder's README, and of the project's, from ``results/*.json``.

python experiments/ccmd/tables.py
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from molecule_tables import costs, rows_of, short_lines  # noqa: E402
from result_tables import summaries, write_between  # noqa: E402

COMMAND = "experiments/ccmd/tables.py"


def slopes(file: Path) -> list[str]:
    """The slopes of gradient norms against size."""
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


def main() -> None:
    found = summaries(HERE / "results")
    tables = ["", *(line for name, summary in found for line in rows_of(name, summary)), *costs(found)]
    tables += [line for file in sorted((HERE / "results").glob("gradient-norms-*.json")) for line in slopes(file)]
    write_between(HERE / "README.md", COMMAND, tables)
    write_between(HERE.parents[1] / "README.md", COMMAND, short_lines(found, "teacher, 3D at test"))


if __name__ == "__main__":
    main()
