"""``report.md`` and ``report.html``: one page per run, written from the files of the run directory alone."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.report.brain_figures import diagnosis_table, sites_table
from jaxgkd.report.connections_figure import connections_table
from jaxgkd.report.figures import write_figures
from jaxgkd.report.html import html_page
from jaxgkd.report.markdown import code_block, literal, sentence, table_head, table_row
from jaxgkd.report.run_directory import Run, read_run
from jaxgkd.report.wording import (
    against_teacher,
    count,
    described,
    duration,
    measured,
    p_cell,
    p_of_difference,
    row_cost,
    row_name,
    row_values,
    run_rows,
    runs_phrase,
    scale_of,
    verdict,
)
from jaxgkd.training.statistics import mean_std, paired_difference
from jaxgkd.whole_file import write_whole

_FIGURES_OF_PREDICTIONS = ("degree", "size", "errors", "roc", "calibration", "confusion", "embedding")
_CAPTIONS = {
    "results": "The same seeds and splits in every row.",
    "learning_curves": "The first tenth of training may lie outside the frame.",
    "loss_terms": "Terms are comparable with themselves alone: their weights are among the settings of the run.",
    "size": "Sizes are grouped so that every group holds about as many test molecules.",
    "errors": "The band is as wide as the mean error; triangles at the edges stand for errors outside the frame.",
    "roc": "The share of positives found against the share of negatives taken for one, as the threshold falls.",
    "calibration": "A row that is always sure and often wrong lies far from the line.",
    "connections": "What goes along with an answer need not be its reason: neighbouring connections are alike.",
    "sites": "Sites differ in scanners, protocols and how many of each group they hold.",
    "degree": "Degrees are grouped so that every group holds enough test predictions.",
    "layer_weights": "These are the weights that multiply the losses, not the logits they come from.",
    "confusion": "A row shows where the test items of one class went, in percent, all seeds together.",
    "embedding": "Principal components of the unit-length embeddings; what overlaps here may be apart elsewhere.",
}


def write_report(run_dir: str | PathLike[str]) -> Path:
    """Write ``report.md``, ``report.html`` and ``figures/*.png`` into a run directory.

    The HTML page says the same as the other and holds its figures. Nothing but the files of the directory is read; a
    figure whose data is absent is left out. Running it again gives the same pages.

    Args:
      run_dir: a finished run.

    Returns:
      The path of ``report.md``.

    Raises:
      ConfigError: the path is no run directory.
      DataError: a file in it is damaged or breaks the contract.
    """
    run = read_run(run_dir)
    titles = write_figures(run, run.path / "figures")
    sections = [
        _heading(run),
        _results(run),
        _figure("results", titles),
        _protocol(run),
        _training(run, titles),
        _cost(run),
        _predictions(run, titles),
        _data(run),
        _notes(run),
        _reproduction(run),
    ]
    path, text = run.path / "report.md", "\n\n".join(section for section in sections if section) + "\n"
    title = f"{run.summary['recipe']} on {run.summary['data']['name']}"
    figures = {f"figures/{name}.png": (run.path / "figures" / f"{name}.png").read_bytes() for name in titles}
    page = html_page(text, title=title, figures=figures)
    write_whole(path.with_suffix(".html"), page.encode())
    write_whole(path, text.encode())
    return path


def _heading(run: Run) -> str:
    summary = run.summary
    lines = [f"# {literal(summary['recipe'])} on {literal(summary['data']['name'])}", "", f"**{verdict(summary)}**"]
    lines[-1] += f" {teacher}" if (teacher := against_teacher(summary)) else ""
    if run.config.get("smoke") is True:
        lines += ["", "A smoke run: it shows that everything works, its numbers mean nothing."]
    lines += [
        "",
        f"Teacher: {literal(described(summary['teacher']))}. Student: {literal(described(summary['student']))}.",
    ]
    return "\n".join(lines)


def _results(run: Run) -> str:
    summary, scale, results = run.summary, scale_of(run.summary), run.summary["results"]
    rows = run_rows(summary)
    reached = any("epochs_to_reach" in results[row] for row in rows)
    several = len(results["student_alone"]["test"]) > 1
    heads = ["", f"test {scale.label}", f"validation {scale.label}", "parameters", "ms per item"]
    heads += ["epochs to target"] if reached else []
    alone = literal(row_name(summary, "student_alone"))
    heads += [f"difference to {alone}", "p"]
    lines = ["## Results", "", *table_head(heads)]
    for row in [*rows, *(row for row in results if row not in rows)]:
        if row not in rows:
            reason = f"not run: {literal(described(results[row]['not_run']))}"
            lines.append(table_row([literal(row_name(summary, row)), reason, *[""] * (len(heads) - 2)]))
            continue
        name, test = literal(row_name(summary, row)), scale.mean_and_std(row_values(summary, row, "test"), 1)
        cells = [
            f"**{name}**" if row == "student_distilled" else name,
            f"**{test}**" if row == "student_distilled" else test,
            scale.mean_and_std(row_values(summary, row, "valid"), 1),
            count(row_cost(summary, row, "parameters")),
            measured(row_cost(summary, row, "ms_per_item")),
        ]
        cells += [_epochs(results[row].get("epochs_to_reach"))] if reached else []
        lines.append(table_row([*cells, *_difference_cells(run, row)]))
    spread = "± is the sample standard deviation. " if several else ""
    better = "Higher" if scale.higher_is_better else "Lower"
    lines += [
        "",
        f"{f'Mean over {runs_phrase(summary)}' if several else 'One value a row'}. {spread}{better} is better.",
    ]
    if several:
        lines[-1] += f" p is from a two-sided paired t-test against {alone}, not corrected for the number of rows."
        if "corrected_difference" in summary:
            lines[-1] += " Folds share training items; only the distilled student's p is corrected for that."
    lines += _missing(run, rows)
    return "\n".join(lines + _per_class(run))


def _difference_cells(run: Run, row: str) -> list[str]:
    summary, scale = run.summary, scale_of(run.summary)
    if row == "student_alone":
        return ["", ""]
    difference: Mapping[str, Any] = {**summary["difference"], "p_value": p_of_difference(summary)}
    if row != "student_distilled":
        difference = paired_difference(row_values(summary, row, "test"), row_values(summary, "student_alone", "test"))
    if difference["mean"] is None:
        return ["–", "–"]
    spread = "" if difference["p_value"] is None else f" ± {scale.number(difference['std'] or 0.0, 1)}"
    return [f"{scale.change(difference['mean'], 1)}{spread}", p_cell(difference["p_value"])]


def _epochs(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_epochs(item)}" for key, item in value.items())
    if isinstance(value, list):
        reached = [item for item in value if isinstance(item, int | float)]
        missed = "" if len(reached) == len(value) else f" ({len(reached)} of {len(value)} seeds)"
        return f"{np.mean(reached):.0f}{missed}" if reached else "not reached"
    return f"{value:.0f}" if isinstance(value, int | float) else "not reached"


def _missing(run: Run, rows: list[str]) -> list[str]:
    """Says which rows lack a value for some seeds, as their means are not over all of them."""
    lines = []
    for row in rows:
        values = row_values(run.summary, row, "test")
        if (missing := int((~np.isfinite(values)).sum())) > 0:
            name = literal(row_name(run.summary, row))
            lines += ["", f"{name[:1].upper() + name[1:]}: {missing} of {len(values)} test values are missing."]
    return lines


def _per_class(run: Run) -> list[str]:
    """A folded table of ``per_class``, for the rows that carry it: name → value, [classes] or [seeds, classes]."""
    summary, scale = run.summary, scale_of(run.summary)
    columns: dict[str, dict[str, float]] = {}
    for row in run_rows(summary):
        given = summary["results"][row].get("per_class")
        if isinstance(given, Mapping) and given:
            columns[row] = {str(name): mean_std(value)[0] for name, value in given.items()}
        elif isinstance(given, list) and given:
            table = np.atleast_2d(np.asarray(given, dtype=np.float64))
            columns[row] = {run.class_name(index): mean_std(values)[0] for index, values in enumerate(table.T)}
    if not columns:
        return []
    lines = ["", "<details><summary>Per class</summary>", ""]
    lines += table_head(["class", *(literal(row_name(summary, row)) for row in columns)])
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        values = [column.get(name, float("nan")) for column in columns.values()]
        lines.append(table_row([literal(name), *("–" if np.isnan(value) else scale.number(value) for value in values)]))
    return [*lines, "", f"Test {scale.label}, mean over {runs_phrase(summary)}.", "", "</details>"]


def _protocol(run: Run) -> str:
    summary = run.summary
    seeds = ", ".join(str(seed) for seed in summary["seeds"])
    text = sentence(described(summary["protocol"]))
    if (split := sentence(described(summary["data"]["split"]))) not in text:
        text += f" Split: {split}"
    text += f" {'Seeds' if len(summary['seeds']) > 1 else 'Seed'}: {seeds}, the same in every row."
    n = len(summary["results"]["student_alone"]["test"])
    if n > len(summary["seeds"]):
        text += f" Each seed gives {n // len(summary['seeds'])} values, one per fold; folds share training data, "
        text += "which makes the p-values optimistic."
    elif n > 1:
        text += " The p-values speak about these seeds on this data set, not about other data."
    return f"## Protocol\n\n{text}"


def _training(run: Run, titles: Mapping[str, str]) -> str:
    parts = [_figure(name, titles) for name in ("learning_curves", "loss_terms", "layer_weights")]
    return "\n\n".join(["## Training", *filter(None, parts)]) if any(parts) else ""


def _cost(run: Run) -> str:
    cost = run.summary["cost"]
    lines = ["## Cost", "", *table_head(["", "teacher", "student"])]
    for name, label, written in (("parameters", "parameters", count), ("ms_per_item", "ms per item", measured)):
        lines.append(table_row([label, *(written(cost[f"{who}_{name}"]) for who in ("teacher", "student"))]))
    lines += [
        "",
        f"Asking the teacher took {duration(cost['extract_seconds'])}, training {duration(cost['train_seconds'])}; "
        f"memory peaked at {_memory(cost['peak_memory_mb'])}."
        if None not in (cost["extract_seconds"], cost["train_seconds"], cost["peak_memory_mb"])
        else _partial_cost(cost),
    ]
    return "\n".join(lines).rstrip()


def _partial_cost(cost: Mapping[str, Any]) -> str:
    known = []
    for name, label in (("extract_seconds", "asking the teacher"), ("train_seconds", "training")):
        known += [f"{label} took {duration(cost[name])}"] if cost[name] is not None else []
    known += [f"memory peaked at {_memory(cost['peak_memory_mb'])}"] if cost["peak_memory_mb"] is not None else []
    return sentence("; ".join(known)[:1].upper() + "; ".join(known)[1:]) if known else ""


def _memory(megabytes: float) -> str:
    return f"{measured(megabytes)} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def _predictions(run: Run, titles: Mapping[str, str]) -> str:
    parts = [_figure(name, titles) for name in _FIGURES_OF_PREDICTIONS]
    parts += [diagnosis_table(run), _figure("sites", titles), sites_table(run)]
    parts += [_figure("connections", titles), connections_table(run)]
    return "\n\n".join(["## Predictions", *filter(None, parts)]) if any(parts) else ""


def _figure(name: str, titles: Mapping[str, str]) -> str:
    if name not in titles:
        return ""
    return f"![{literal(titles[name])}](figures/{name}.png)\n\n{_CAPTIONS[name]}"


def _data(run: Run) -> str:
    facts = {**_facts(run.config.get("data")), **_facts(run.summary["data"])}
    lines = ["## Data", "", *table_head(["fact", "value"])]
    for name, value in facts.items():
        lines.append(table_row([name, f"`{value}`" if name == "sha256" else value]))
    return "\n".join(lines)


def _facts(value: Any, prefix: str = "") -> dict[str, str]:
    """The leaves of a nested mapping as "counts train" → "1 500"; long lists are counted, not printed."""
    facts: dict[str, str] = {}
    if not isinstance(value, Mapping):
        return facts
    for key, item in value.items():
        name = prefix + literal(str(key).replace("_", " "))
        if isinstance(item, Mapping):
            facts |= _facts(item, f"{name}: ")
        elif isinstance(item, int) and not isinstance(item, bool):
            facts[name] = f"{item:,}".replace(",", " ")
        elif isinstance(item, list) and len(item) > 12:
            facts[name] = f"{len(item)} values"
        elif item is not None:
            facts[name] = literal(described(item))
    return facts


def _notes(run: Run) -> str:
    notes = run.summary.get("notes") or []
    notes = [notes] if isinstance(notes, str) else notes
    return "\n".join(["## Notes", "", *(f"- {sentence(described(note))}" for note in notes)]) if notes else ""


def _reproduction(run: Run) -> str:
    lines = ["## Command", "", code_block(run.summary["command"].strip(), "sh"), "", "## Versions", ""]
    lines.append(_listed(run.summary["versions"]))
    environment = {key: value for key, value in run.environment.items() if key != "versions" and key != "command"}
    if facts := _facts(environment):
        lines += ["", *table_head(["environment", ""]), *(table_row([name, value]) for name, value in facts.items())]
    return "\n".join(lines).rstrip()


def _listed(versions: Mapping[str, Any]) -> str:
    return (
        sentence(", ".join(f"{literal(name)} {literal(described(version))}" for name, version in versions.items()))
        if versions
        else ""
    )
