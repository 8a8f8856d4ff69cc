"""Every error jaxgkd raises on purpose: what is wrong, where, and the mend, in one sentence.

The command line prints the sentence and leaves with exit code 2; a traceback means a bug in jaxgkd.
"""

from os import PathLike

_LONGEST_PART = 400


class JaxgkdError(Exception):
    """Something the user can mend. ``str(error)`` is one sentence that says what, where and how to mend it."""

    def __init__(
        self,
        what: str,
        *,
        file: str | PathLike[str] | None = None,
        row: int | None = None,
        field: str | None = None,
        mend: str | None = None,
    ):
        """Put the sentence together.

        Args:
          what: what is wrong, without a full stop.
          file: the file or folder it is wrong in.
          row: the row of that file, counted as a spreadsheet does (the header is row 1).
          field: the column, configuration field or flag.
          mend: what to do about it, in the imperative, without a full stop.
        """
        places = [
            None if file is None else _line(str(file), 4 * _LONGEST_PART),
            None if row is None else f"row {row}",
            None if field is None else f"field '{_line(field)}'",
        ]
        where = ", ".join(place for place in places if place)
        what = _line(what, 4 * _LONGEST_PART)
        sentence = f"{where}: {what}" if where else what
        super().__init__(f"{sentence}; {_line(mend, 4 * _LONGEST_PART)}." if mend else f"{sentence}.")
        self.file, self.row, self.field = file, row, field


def _line(text: str, longest: int = _LONGEST_PART) -> str:
    """A part of a sentence as one line that any terminal can show, whatever a file put into it."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def shown(text: str, limit: int = 60) -> str:
    """``text`` cut and escaped so that it fits into one line of an error."""
    escaped = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


class DataError(JaxgkdError):
    """A data file, split or array that cannot be used as it is."""


class UnsupportedModelError(JaxgkdError):
    """A model configuration that would not be reproduced exactly; ``field`` names the configuration field."""


class CheckpointError(JaxgkdError):
    """Model weights that are missing, damaged or do not match their configuration."""


class StoreError(JaxgkdError):
    """A teacher store that is damaged or was made from other data, another teacher or other settings."""


class ConfigError(JaxgkdError):
    """A setting, flag or output folder that cannot be used."""
