"""Write the tables of this folder's README, and of the project's, from ``results/*.json``.

python experiments/lingugkd/tables.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from result_tables import Summary, summaries, write_between  # noqa: E402
from rows import ABLATIONS, MAIN, STUDENTS  # noqa: E402

from jaxgkd.training.statistics import mean_std  # noqa: E402

COMMAND = "experiments/lingugkd/tables.py"
#: Where a difference counts as found.
SIGNIFICANT = 0.01


def percent(values: list[float]) -> str:
    mean, deviation = mean_std(values)
    return f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2]


def epochs_to_match(reached: list[int | None]) -> str:
    """Median over the seeds that got there, and how many did."""
    there = [epoch for epoch in reached if epoch is not None]
    return f"{median(there)} ({len(there)} of {len(reached)})" if there else "never"


def rows_of(found: dict[str, Summary], names: list[str]) -> list[str]:
    """One line a run."""
    table = [
        "| row | split | teacher | alone | distilled | difference | p | epochs alone | epochs to match |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in names:
        if name not in found:
            continue
        summary = found[name]
        results, difference = summary["results"], summary["difference"]
        alone, distilled = results["student_alone"], results["student_distilled"]
        table.append(
            f"| {name} | {summary['data']['split']} | {percent(results['teacher']['test'])} "
            f"| {percent(alone['test'])} | {percent(distilled['test'])} "
            f"| {100 * difference['mean']:+.1f} ± {100 * difference['std']:.1f} | {difference['p_value']:.2g} "
            f"| {median(alone['best_epoch'])} | {epochs_to_match(distilled['epochs_to_reach'])} |"
        )
        for other, values in results.items():
            if other not in ("teacher", "student_alone", "student_distilled"):
                table.append(f"| {name}: {values['label']} | | | {percent(values['test'])} | | | | | |")
    return [*table, ""]


def halves(found: dict[str, Summary]) -> str:
    """In how many rows the distilled student needs at most half of the plain one's epochs."""
    shares = []
    for name in MAIN:
        if name in found:
            results = found[name]["results"]
            there = [epoch for epoch in results["student_distilled"]["epochs_to_reach"] if epoch is not None]
            shares.append(median(there) / median(results["student_alone"]["best_epoch"]) if there else float("inf"))
    half = sum(share <= 0.5 for share in shares)
    return f"At most half of the plain one's epochs: {half} of {len(shares)} rows."


def costs(found: dict[str, Summary]) -> list[str]:
    table = [
        "| row | teacher weights | student weights | teacher ms per node | student ms per node | times faster |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name in MAIN:
        if name in found:
            cost = found[name]["cost"]
            table.append(
                f"| {name} | {cost['teacher_parameters']:,} | {cost['student_parameters']:,} "
                f"| {cost['teacher_ms_per_item']:.3g} | {cost['student_ms_per_item']:.2g} "
                f"| {cost['teacher_ms_per_item'] / cost['student_ms_per_item']:,.0f} |"
            )
    return [*table, ""]


def lines(found: dict[str, Summary]) -> list[str]:
    caption = (
        "Test accuracy in percent, mean ± standard deviation over seeds; the difference is distilled minus alone, "
        "paired over seeds, with a two-sided paired t-test, not corrected for the number of rows. *Epochs alone*: "
        "median best epoch of the plain student; *epochs to match*: median epoch at which the distilled one reaches "
        f"the plain one's best validation score, and how many seeds do. {halves(found)}"
    )
    commands = [
        f"{name}: `{found[name]['command'].partition(' --out')[0]}`  " for name in [*MAIN, *ABLATIONS] if name in found
    ]
    main, ablations = (rows_of(found, list(names)) for names in (MAIN, ABLATIONS))
    titles = "### Students", "### Terms, labels and protocols", "### Costs", "### Commands"
    blocks = [[*main, caption, ""], ablations, costs(found), [*commands, ""]]
    return ["", *(line for title, block in zip(titles, blocks, strict=True) for line in (title, "", *block))]


def short_lines(found: dict[str, Summary]) -> list[str]:
    """The table of the project's README: a line a student, a column a data set."""
    data = ("cora", "cora-public", "scipy-docs", "wikispeedia")
    table = ["| student | " + " | ".join(_named(found, name) for name in data) + " |", "|---|" + "--:|" * len(data)]
    for kind in STUDENTS:
        cells = []
        for name in data:
            summary = found.get(f"{name}-{kind}")
            if summary is None:
                cells.append("–")
                continue
            alone, distilled = (summary["results"][f"student_{row}"]["test"] for row in ("alone", "distilled"))
            values = [f"{100 * mean_std(each)[0]:.1f}" for each in (alone, distilled)]
            found_one = (summary["difference"]["p_value"] or 1) < SIGNIFICANT
            cells.append(f"{values[0]} → {f'**{values[1]}**' if found_one else values[1]}")
        table.append(f"| {kind.upper()} | {' | '.join(cells)} |")
    teachers = []
    for name in data:
        of = [found[f"{name}-{kind}"]["results"]["teacher"]["test"] for kind in STUDENTS if f"{name}-{kind}" in found]
        teachers.append(f"{100 * mean_std(of[0])[0]:.1f}" if of else "–")
    table.append(f"| teacher | {' | '.join(teachers)} |")
    caption = (
        "Test accuracy in percent, alone → distilled, means over ten seeds; bold where a two-sided paired t-test over "
        f"the seeds has p < {SIGNIFICANT}. Elsewhere distillation did not clearly help."
    )
    return ["", *table, "", caption, ""]


def _named(found: dict[str, Summary], name: str) -> str:
    summary = next((found[f"{name}-{kind}"] for kind in STUDENTS if f"{name}-{kind}" in found), None)
    return name if summary is None else f"{summary['data']['name']}, {summary['data']['split']}"


def main() -> None:
    found = dict(summaries(HERE / "results"))
    write_between(HERE / "README.md", COMMAND, lines(found))
    write_between(HERE.parents[1] / "README.md", COMMAND, short_lines(found))


if __name__ == "__main__":
    main()
