"""``jaxgkd data list | check | fetch``: which data sets there are, what is in one, and how to get a public one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from jaxgkd.errors import ConfigError

Recipe = Literal["lingugkd", "gallon", "ccmd", "lmgnn", "bleg"]
# Beyond this many entries a mapping of counts is cut: 5,000 classes are no news one by one.
_MOST = 40


@dataclass(frozen=True)
class DataList:
    """List the data sets that --data knows by name: built in, at hand, and those that `jaxgkd data fetch` brings."""

    recipe: Recipe | None = None
    """Recipe they are for; all by default. Text graphs are for lingugkd, typed graphs for lmgnn, molecules for gallon
    and ccmd, brains for bleg."""


@dataclass(frozen=True)
class DataCheck:
    """Read data as a run would, count what is in it, and say about how long a run would take here."""

    path: tyro.conf.Positional[str]
    """Nodes and edges in a folder, a file of molecules, or the name of a data set."""
    recipe: Recipe = "lingugkd"
    """Recipe it is for: text graphs for lingugkd, heterogeneous ones for lmgnn, brains for bleg, else molecules."""
    text_columns: tuple[str, ...] = ()
    """Columns to read as text; by default title, abstract, text, name and keywords."""
    label: tuple[str, ...] = ()
    """Column of the classes, by default label; columns of the labels of molecules."""
    estimate: bool = True
    """Time a little of the work here, and say about how long, and in how much memory, `jaxgkd run` would work."""


@dataclass(frozen=True)
class DataFetch:
    """Download a public data set from its own home and write it as a folder that --data finds by name."""

    name: tyro.conf.Positional[str]
    """Name of the set, see `jaxgkd data list`."""
    to: Path | None = None
    """Folder to write it into; by default the user's cache, where --data looks."""


COMMANDS = {"list": DataList, "check": DataCheck, "fetch": DataFetch}


def run_data_command(config: DataList | DataCheck | DataFetch, console: Console) -> None:
    """Do what one of the three says.

    Raises:
      JaxgkdError: the data, a name or a flag cannot be used, or a download failed.
    """
    if isinstance(config, DataList):
        _list(config, console)
    elif isinstance(config, DataCheck):
        _check(config, console)
    else:
        from jaxgkd.data.fetch import fetch

        folder = fetch(config.name, to=config.to, on_line=lambda line: _say(console, line))
        _say(console, f"written: {folder}")


def _check(config: DataCheck, console: Console) -> None:
    data, facts = _READERS[config.recipe](config)
    notes = facts.pop("notes")
    for line in lines_of(facts):
        _say(console, line)
    _say(console, f"notes: {'; '.join(notes) or 'none'}")
    if config.estimate:
        from jaxgkd.run_estimate import estimate_run

        for line in estimate_run(config.recipe, data).lines:
            _say(console, line)


def lines_of(facts: Mapping[str, Any]) -> list[str]:
    """Facts as lines ``name: value``; a mapping of mappings becomes a table when all have the same fields."""
    lines = []
    for key, value in facts.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping) and value and all(isinstance(each, Mapping) for each in value.values()):
            lines.append(f"{name}:")
            lines += _table(value) if len({tuple(each) for each in value.values()}) == 1 else _sections(value)
        else:
            lines.append(f"{name}: {_shown(value)}")
    return lines


def _table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Rows under a header, right-aligned; what is nested deeper stands in one cell."""
    header = ["", *(name.replace("_", " ") for name in next(iter(rows.values())))]
    cells = [header, *([name, *map(_shown, row.values())] for name, row in rows.items())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if sum(widths) + 2 * len(widths) > 110:
        return _sections(rows)
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]


def _sections(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, row in rows.items():
        lines.append(f"  {name}")
        lines += [f"    {key.replace('_', ' ')}: {_shown(value)}" for key, value in row.items() if value is not None]
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        items = list(value.items())
        listed = ", ".join(f"{name} {_shown(each)}" for name, each in items[:_MOST])
        return listed + (f", … ({len(items):,} in all)" if len(items) > _MOST else "") or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(each) for each in value) or "none"
    return "none" if value is None else str(value)


def _graph(config: DataCheck) -> tuple[Any, dict[str, Any]]:
    from jaxgkd.data import registry
    from jaxgkd.data.graph_counts import check_text_graph

    if len(config.label) > 1:
        raise ConfigError(f"{len(config.label)} columns are given", field="--label", mend="give the one of the classes")
    options = registry.column_options(config.text_columns, *(config.label or ("label",)))
    graph = registry.load(config.path, recipe="lingugkd", **options)
    return graph, check_text_graph(graph)


def _hetero(config: DataCheck) -> tuple[Any, dict[str, Any]]:
    from jaxgkd.data import registry
    from jaxgkd.data.hetero_counts import check_hetero

    if config.text_columns or config.label:
        what = "texts and labels are named in metadata.json"
        raise ConfigError(what, field="--text-columns" if config.text_columns else "--label", mend="leave it out")
    graph = registry.load(config.path, recipe="lmgnn")
    return graph, check_hetero(graph)


def _brains(config: DataCheck) -> tuple[Any, dict[str, Any]]:
    from jaxgkd.data import registry
    from jaxgkd.data.brain_counts import check_brains

    if len(config.label) > 1:
        raise ConfigError(f"{len(config.label)} columns are given", field="--label", mend="give the one of the groups")
    options = {"label": config.label[0]} if config.label else {}
    brains = registry.load(config.path, recipe="bleg", **options)
    return brains, check_brains(brains)


def _molecules(config: DataCheck) -> tuple[Any, dict[str, Any]]:
    from jaxgkd.data import registry
    from jaxgkd.data.molecule_counts import check_molecules

    molecules = registry.load(config.path, recipe=config.recipe, **({"labels": config.label} if config.label else {}))
    for problem in molecules.problems:
        what = "kept without coordinates" if problem.kept else "left out"
        print(f"row {problem.row}: {problem.reason} ({what})")
    return molecules, check_molecules(molecules)


_READERS = {"lingugkd": _graph, "lmgnn": _hetero, "bleg": _brains, "gallon": _molecules, "ccmd": _molecules}


def _list(config: DataList, console: Console) -> None:
    from jaxgkd.data import registry
    from jaxgkd.data.published import published

    recipes = ("lingugkd", "lmgnn", "gallon", "ccmd", "bleg") if config.recipe is None else (config.recipe,)
    for recipe in recipes:
        at_hand = registry.at_hand(recipe)
        rows = [
            (name, f"built in{', the default' if usual else ''}") for name, usual in registry.embedded(recipe).items()
        ]
        rows += [(name, f"in {folder}") for name, folder in at_hand.items()]
        rows += [
            (each.name, f"{each.about} (jaxgkd data fetch {each.name}: {each.size}, {each.licence})")
            for each in published(recipe)
            if each.name not in at_hand
        ]
        width = max(len(name) for name, _ in rows)
        _say(console, f"{recipe}:")
        for name, what in rows:
            _say(console, f"  {name.ljust(width)}  {what}")


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)
