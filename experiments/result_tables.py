"""What all tables share: summaries of runs, numbers with their spread, and the place of a page they go to."""

import json
from pathlib import Path

from jaxgkd.training.statistics import mean_std

Summary = dict


def summaries(folder: Path) -> list[tuple[str, Summary]]:
    """The summaries of a folder's runs, by name; other results are left out."""
    found = [(file.stem, json.loads(file.read_text())) for file in sorted(folder.glob("*.json"))]
    return [(name, summary) for name, summary in found if "results" in summary]


def shown(values: list[float | None]) -> str:
    """Mean and standard deviation."""
    mean, deviation = mean_std([value for value in values if value is not None])
    return f"{mean:.4g} ± {deviation:.2g}"


def write_between(page: Path, command: str, lines: list[str]) -> None:
    """Replace what stands between the marks that ``command`` writes into a page."""
    begin, end = f"<!-- tables: written by {command} -->", "<!-- end of tables -->"
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text("\n".join([before + begin, *lines, end]) + after)
