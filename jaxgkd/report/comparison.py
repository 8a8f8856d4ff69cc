"""Several runs on one page: students beside each other, run against run, what they cost, and how they were made."""

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from jaxgkd.errors import ConfigError
from jaxgkd.report.comparison_figures import draw_gains, draw_students
from jaxgkd.report.console import runs_table
from jaxgkd.report.html import html_page
from jaxgkd.report.markdown import code_block, literal, table_head, table_row
from jaxgkd.report.pairing import Pair, gains_corrected, pairs_of
from jaxgkd.report.run_directory import Run, read_run
from jaxgkd.report.style import house_style, png_of
from jaxgkd.report.wording import SIGNIFICANT, count, described, duration, measured, p_cell, scale_of
from jaxgkd.whole_file import write_whole

_COMPARED = "runs compared"
_TITLE = f" {_COMPARED}</title>".encode()
# Bytes of a page in which its title stands.
_HEAD = 2000
_CAPTIONS = {
    "students": "From top to bottom: teacher, student alone, student distilled. Their means are on the right.",
    "gains": "An interval that holds 0 does not tell the two students apart.",
}


def compare_runs(run_dirs: Sequence[str | PathLike[str]]) -> str:
    """Several runs in two Markdown tables: the students of every run, and every run against every other.

    Args:
      run_dirs: the run directories, in the order of the tables.

    Raises:
      ConfigError: a path is no run directory.
      DataError: a file in one of them is damaged or breaks the contract.
    """
    runs, names = _read(run_dirs)
    return "\n".join([runs_table(runs, names), pairs_table(runs, names)])


def write_comparison(run_dirs: Sequence[str | PathLike[str]], path: str | PathLike[str]) -> Path:
    """Write an HTML page that compares runs and needs no other file; an earlier such page is written over.

    Args:
      run_dirs: the run directories, in the order of the tables.
      path: of the page, with the ending .html.

    Returns:
      The path.

    Raises:
      ConfigError: a path is no run directory, something else than such a page is there, or it cannot be written.
      DataError: a file in one of them is damaged or breaks the contract.
    """
    path = Path(path)
    _check_out(path)
    runs, names = _read(run_dirs)
    corrected = gains_corrected(runs)
    figures: dict[str, bytes] = {}
    sections = [
        f"# {len(runs)} {_COMPARED}",
        _verdict(runs, corrected),
        "## Distilled against alone",
        runs_table(runs, names),
    ]
    with house_style():
        for number, members in enumerate(_same_scale(runs)):
            those, called = [runs[i] for i in members], [names[i] for i in members]
            drawings = [draw_students(those, called), draw_gains(those, called, [corrected[i] for i in members])]
            summary = those[0].summary
            where = f"{summary['data']['name']}, {described(summary['data']['split'])}"
            sections.append(f"### {literal(where)}: {scale_of(summary).name}")
            for (kind, caption), drawing in zip(_CAPTIONS.items(), drawings, strict=True):
                figures[f"{kind}-{number}"] = png_of(drawing)
                sections += [f"![{literal(drawing.title)}]({kind}-{number})", caption]
    sections += ["## Run against run", pairs_table(runs, names), "## Cost", _cost_table(runs, names), "## Commands"]
    sections += [
        f"{literal(name)}:\n\n{code_block(_command(run), 'sh')}" for run, name in zip(runs, names, strict=True)
    ]
    page = html_page("\n\n".join(sections) + "\n", title=f"{len(runs)} {_COMPARED}", figures=figures)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page.encode())
    except OSError as error:
        what = f"the page cannot be written ({error.strerror})"
        raise ConfigError(what, file=path, mend="give another --out") from error
    return path


def pairs_table(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Every run against every later one by their distilled students, as a Markdown table with what it means below."""
    lines = [table_row(["run", "against", "pairs", "difference", "p", "p (Holm)", ""]), "|---|---|--:|--:|--:|--:|---|"]
    refused: dict[tuple[int, str], list[str]] = {}
    for pair in pairs_of(runs):
        if pair.mean is None:
            refused.setdefault((pair.second, pair.reason), []).append(literal(names[pair.first]))
        else:
            cells = [literal(names[pair.second]), literal(names[pair.first]), *_tested_cells(runs, pair)]
            lines.append(table_row(cells))
    for (second, reason), others in refused.items():
        cells = [literal(names[second]), ", ".join(others), *["–"] * 4, f"not paired: {literal(reason)}"]
        lines.append(table_row(cells))
    lines += [
        "",
        "Distilled student of the run minus that of the one it is against, over values of the same data, seed and "
        "split only; two-sided paired t-test. Holm's correction counts every test of this table.",
    ]
    return "\n".join(lines) + "\n"


def _tested_cells(runs: Sequence[Run], pair: Pair) -> list[str]:
    scale = scale_of(runs[pair.second].summary)
    difference = f"{scale.change(pair.mean or 0.0, 1)} {scale.change_unit}".strip()
    return [str(pair.n), difference, p_cell(pair.p_value), p_cell(pair.p_corrected), "; ".join(pair.notes)]


def _cost_table(runs: Sequence[Run], names: Sequence[str]) -> str:
    heads = ["run", "teacher parameters", "student parameters", "teacher ms per item", "student ms per item"]
    lines = [*table_head([*heads, "training", "peak memory (MB)"])]
    for run, name in zip(runs, names, strict=True):
        cost = run.summary["cost"]
        cells = [count(cost["teacher_parameters"]), count(cost["student_parameters"])]
        cells += [measured(cost["teacher_ms_per_item"]), measured(cost["student_ms_per_item"])]
        cells += [duration(cost["train_seconds"]), measured(cost["peak_memory_mb"])]
        lines.append(table_row([literal(name), *cells]))
    return "\n".join([*lines, "", "Times are comparable only between runs on the same machine."])


def _verdict(runs: Sequence[Run], corrected: Sequence[float | None]) -> str:
    """How many runs clearly gained or lost by distillation, with what that rests on."""
    clear = [
        scale_of(run.summary).better(run.summary["difference"]["mean"])
        for run, p_value in zip(runs, corrected, strict=True)
        if p_value is not None and p_value < SIGNIFICANT
    ]
    text = f"Distillation clearly helped in {sum(clear)} of {len(runs)} runs"
    text += f" and did harm in {len(clear) - sum(clear)}" if len(clear) > sum(clear) else ""
    text += f" (paired t-tests, Holm-corrected over the runs, p < {SIGNIFICANT})."
    smoke = sum(run.config.get("smoke") is True for run in runs)
    return f"**{text}**" + (f" {smoke} of them are smoke runs, whose numbers mean nothing." if smoke else "")


def _check_out(path: Path) -> None:
    """Raises ConfigError where a page may not be written."""
    if path.suffix.lower() != ".html":
        raise ConfigError("is not called .html", file=path, field="--out", mend="give the page that ending")
    if path.exists() and (not path.is_file() or _TITLE not in path.read_bytes()[:_HEAD]):
        raise ConfigError("is no earlier comparison", file=path, field="--out", mend="choose another --out")


def _same_scale(runs: Sequence[Run]) -> list[list[int]]:
    """Positions of the runs that can share an axis: same data, kind of split, labels and metric."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, run in enumerate(runs):
        data: Mapping[str, Any] = run.summary["data"]
        key = (data["sha256"], described(data["split"]), str(data.get("tasks")), run.summary["metric"])
        groups.setdefault(key, []).append(position)
    return list(groups.values())


def _read(run_dirs: Sequence[str | PathLike[str]]) -> tuple[list[Run], list[str]]:
    """The runs, and the shortest endings of their paths that tell them apart."""
    runs = [read_run(path) for path in run_dirs]
    parts = [Path(os.path.abspath(run.path)).parts for run in runs]
    length = 1
    while len({each[-length:] for each in parts}) < len(set(parts)):
        length += 1
    return runs, [str(Path(*each[-length:])) for each in parts]


def _command(run: Run) -> str:
    return str(run.summary["command"]).strip()
