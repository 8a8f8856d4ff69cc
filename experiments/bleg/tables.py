"""Write the tables of this folder's README, and of the project's, from ``results/*.json``.

python experiments/bleg/tables.py
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from result_tables import Summary, shown, summaries, write_between  # noqa: E402

COMMAND = "experiments/bleg/tables.py"
SCORES = ("test", "accuracy", "sensitivity", "specificity", "f1")


def interval(found: dict[str, float]) -> str:
    """A difference in points of AUROC with its corrected interval."""
    if found["low"] is None:
        return "–"
    return f"{100 * found['mean']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


def mean(results: dict, row: str) -> str:
    """AUROC of a row, or a dash where it was not run."""
    return shown(results[row]["test"]) if "test" in results.get(row, {}) else "–"


def overview(found: list[tuple[str, Summary]]) -> list[str]:
    """One line a run: AUROC of the rows, and what distillation gains over the student alone and the linear row."""
    table = [
        "| run | folds | ridge | LM on texts | alone | distilled | distilled − alone | distilled − ridge |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, summary in found:
        results, versus = summary["results"], summary["corrected_differences_to"]
        cells = [mean(results, row) for row in ("ridge", "teacher", "student_alone", "student_distilled")]
        gains = [interval(versus[row]) if row in versus else "–" for row in ("student_alone", "ridge")]
        n_folds = len(results["student_distilled"]["test"])
        table.append(f"| {name} | {n_folds} | {' | '.join(cells)} | {' | '.join(gains)} |")
    return [*table, ""]


def rows_of(name: str, summary: Summary) -> list[str]:
    """One line a row of a run, with every score."""
    table = [
        f"### {name}",
        "",
        f"{summary['data']['name']}, {summary['data']['split']}. `{summary['command']}`",
        "",
        "| row | AUROC | accuracy | sensitivity | specificity | F1 | distilled minus it |",
        "|---|" + "--:|" * 6,
    ]
    versus = summary["corrected_differences_to"]
    for row, values in summary["results"].items():
        if "test" not in values:
            continue
        gain = interval(versus[row]) if row in versus else ""
        table.append(f"| {values['label']} | {' | '.join(shown(values[score]) for score in SCORES)} | {gain} |")
    return [*table, ""]


# How runs are called that differ in the teacher alone.
WHAT = {
    "-2+3": "contrastive tuning first",
    "-answers": "answers alone",
    "-states": "states alone",
    "-details": "texts with details",
}


def short_lines(found: list[tuple[str, Summary]]) -> list[str]:
    """The table of the project's README: the runs on real brains that are no controls, and not one weight of many."""
    table = [
        "| ABIDE | ridge | LM on texts | alone | distilled | distilled − alone, points |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, summary in found:
        if "shuffled" in name or "weight" in name or not name.startswith("abide"):
            continue
        results = summary["results"]
        cells = [mean(results, row) for row in ("ridge", "teacher", "student_alone", "student_distilled")]
        read = "tangent" if "tangent" in name else "correlation"
        split = summary["data"]["split"].replace(" by site and label", "").split(", of those")[0]
        what = next((f", {words}" for ending, words in WHAT.items() if name.endswith(ending)), "")
        student = f"{read}, {summary['student']['name']}{what}; {split}"
        gain = interval(summary["corrected_differences_to"]["student_alone"])
        table.append(f"| {student} | {' | '.join(cells)} | {gain} |")
    return ["", *table, ""]


def best(found: list[tuple[str, Summary]]) -> list[str]:
    """A sentence about the best student and the linear rows beside it."""
    real = [one for one in found if one[0].startswith("abide") and "shuffled" not in one[0]]
    if not real:
        return []
    score = lambda one: float(np.mean(one[1]["results"]["student_distilled"]["test"]))  # noqa: E731
    name, summary = max(real, key=score)
    versus = summary["corrected_differences_to"]["ridge"]
    verdict = "is above" if versus["low"] > 0 else "is below" if versus["high"] < 0 else "is not told apart from"
    what = f"The best distilled student, of {name}, has an AUROC of {score((name, summary)):.3f} and {verdict} ridge "
    return [what + f"on the same connections: {interval(versus)} points.", ""]


def main() -> None:
    found = summaries(HERE / "results")
    rows = [line for name, summary in found for line in rows_of(name, summary)]
    write_between(HERE / "README.md", COMMAND, ["", *best(found), *overview(found), *rows])
    write_between(HERE.parents[1] / "README.md", COMMAND, short_lines(found))


if __name__ == "__main__":
    main()
