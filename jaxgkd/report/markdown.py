"""The few pieces of Markdown a report is put together from."""

from collections.abc import Sequence


def table_row(cells: Sequence[str]) -> str:
    """A row of a table; bars and line breaks in a cell would end it early."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def table_head(cells: Sequence[str]) -> list[str]:
    """The head of a table: its first column to the left, the others to the right, as they hold numbers."""
    return [table_row(cells), "|" + "|".join("---" if position == 0 else "--:" for position in range(len(cells))) + "|"]


def literal(text: str) -> str:
    """Text on one line that is shown as it is written, whatever signs are in it."""
    return "".join(f"\\{letter}" if letter in "\\`*_<>[]$#" else letter for letter in " ".join(str(text).split()))


def sentence(text: str) -> str:
    """The text with a full stop, unless it ends with one."""
    return text if not text or text[-1] in ".!?" else f"{text}."


def code_block(text: str, language: str) -> str:
    """A fenced block; the fence is longer than any in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"
