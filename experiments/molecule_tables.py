"""What the tables over molecules share: summaries of runs as rows of Markdown."""

from result_tables import Summary, shown

from jaxgkd.training.statistics import mean_std, paired_difference


def rows_of(name: str, summary: Summary) -> list[str]:
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


def costs(found: list[tuple[str, Summary]]) -> list[str]:
    """What teachers and students weigh and take; what it takes to read a molecule where the runs have measured it."""
    heads = ["run", "teacher weights", "student weights", "teacher ms per molecule", "student ms per molecule", "ratio"]
    reading = any("read_ms_per_item" in summary["cost"] for _, summary in found)
    heads += ["ms to read a SMILES", "ratio with it"] if reading else []
    table = [f"| {' | '.join([*heads, 'training s'])} |", f"|---|{'--:|' * len(heads)}"]
    for name, summary in found:
        cost = summary["cost"]
        teacher, student = cost["teacher_ms_per_item"], cost["student_ms_per_item"]
        cells = [name, *(f"{cost[f'{who}_parameters']:,}" for who in ("teacher", "student"))]
        cells += [f"{teacher:.3g}", f"{student:.3g}", f"{teacher / student:,.0f}"]
        if "read_ms_per_item" in cost:
            read = cost["read_ms_per_item"]
            cells += [f"{read:.2g}", f"{(teacher + read) / (student + read):,.0f}"]
        elif reading:
            cells += ["–", "–"]
        table.append(f"| {' | '.join(cells)} | {cost['train_seconds']:,.0f} |")
    return [*table, ""]


def short_lines(found: list[tuple[str, Summary]], teacher: str) -> list[str]:
    """The table of the project's README; ``teacher`` heads its column."""
    table = [f"| data | test metric | {teacher} | alone | distilled | p |", "|---|---|--:|--:|--:|--:|"]
    for _, summary in found:
        results = summary["results"]
        cells = [shown(results[row]["test"]) for row in ("teacher", "student_alone", "student_distilled")]
        unit = f", {summary['unit']}" if "unit" in summary else ""
        data = f"{summary['data']['name']}, {summary['data']['split']}"
        p = summary["difference"]["p_value"]
        table.append(f"| {data} | {summary['metric']}{unit} | {' | '.join(cells)} | {p:.2g} |")
    return ["", *table, ""]
