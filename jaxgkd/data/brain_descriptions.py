"""Descriptions of subjects from a file, one JSON object a line, matched with the cohort by the subject's id."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from jaxgkd.data.brain_subjects import subject_key
from jaxgkd.data.brain_texts import Description
from jaxgkd.data.brains import Brains
from jaxgkd.data.molecule_files import LineStream
from jaxgkd.errors import DataError, shown

_FORM = '{"subject": "50551", "key_features": ["…"], "conclusion": "…"} or {"subject": "50551", "text": "…"}'
# Rows and subjects that are named; the others are only counted.
_NAMED = 5


@dataclass(frozen=True)
class SubjectDescriptions:
    """A description for each of n subjects.

    Fields:
      descriptions: [n]; None where the file has none.
      missing: positions of those.
      notes: counted facts that a report repeats.
    """

    descriptions: tuple[Description | None, ...]
    missing: tuple[int, ...]
    notes: tuple[str, ...]


def read_subject_descriptions(path: str | PathLike[str], brains: Brains) -> SubjectDescriptions:
    """Reads ``.jsonl`` or ``.jsonl.gz`` with a subject a line.

    A line has ``subject`` and either ``text`` or ``key_features`` (a list of texts) and ``conclusion``; further fields
    are not read. Descriptions that hold the name of a class are counted in the notes, since they may give the label
    away.

    Args:
      path: of the file; brains: n subjects.

    Raises:
      DataError: the file cannot be read, a line is not as above, a subject has two, or none of the cohort has one.
    """
    path = Path(path).expanduser()
    row_of = {subject_key(subject): row for row, subject in enumerate(brains.subjects)}
    found: list[Description | None] = [None] * brains.n_subjects
    first: dict[str, int] = {}
    unknown = empty = 0
    for line, fields in _objects(path):
        subject = fields.get("subject")
        if not isinstance(subject, str | int) or isinstance(subject, bool) or not str(subject).strip():
            raise DataError("there is no subject", file=path, row=line, field="subject", mend=f"write {_FORM}")
        key = subject_key(str(subject))
        if key in first:
            what = f"subject '{shown(str(subject))}' is also in row {first[key]}"
            raise DataError(what, file=path, row=line, field="subject", mend="keep one description a subject")
        first[key] = line
        description = _description(fields, path, line)
        if key not in row_of:
            unknown += 1
        elif not description.text.strip():
            empty += 1
        else:
            found[row_of[key]] = description
    if not first:
        raise DataError("holds no description", file=path, mend=f"write lines such as {_FORM}")
    missing = tuple(row for row, description in enumerate(found) if description is None)
    if len(missing) == brains.n_subjects:
        what = f"none of its {len(first):,} lines describes a subject of {brains.name}"
        raise DataError(what, file=path, mend="give the file that belongs to this cohort")
    telling = sum(_names_class(description.text, brains.class_names) for description in found if description)
    facts = [(empty, "empty, taken as missing"), (unknown, f"of subjects that are not in {brains.name}")]
    notes = [f"{count:,} description{'' if count == 1 else 's'} {fact}" for count, fact in facts if count]
    if missing:
        named = ", ".join(brains.subjects[row] for row in missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        notes.append(f"{len(missing):,} of {brains.n_subjects:,} subjects without a description ({named})")
    if telling:
        notes.append(f"{telling:,} of the descriptions hold the name of a class and may give the label away")
    return SubjectDescriptions(tuple(found), missing, tuple(notes))


def _objects(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Row and content of every line that is not blank."""
    for row, line in enumerate(LineStream(path), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line.decode("utf-8-sig" if row == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise DataError("is not UTF-8 text", file=path, row=row, mend="save it with UTF-8 encoding") from error
        except (ValueError, RecursionError) as error:
            what = f"is not JSON ({shown(line[:60].decode(errors='replace'))})"
            raise DataError(what, file=path, row=row, mend=f"write one line a subject such as {_FORM}") from error
        if not isinstance(fields, dict):
            raise DataError("is not an object", file=path, row=row, mend=f"write one line a subject such as {_FORM}")
        yield row, fields


def _description(fields: dict[str, object], path: Path, row: int) -> Description:
    if "text" in fields:
        return Description((), _text(fields["text"], "text", path, row))
    if "key_features" not in fields or "conclusion" not in fields:
        raise DataError(
            "there is neither text nor key_features with conclusion", file=path, row=row, mend=f"write {_FORM}"
        )
    features = fields["key_features"]
    if not isinstance(features, list):
        raise DataError("is not a list", file=path, row=row, field="key_features", mend='write ["…", "…"]')
    texts = tuple(_text(feature, "key_features", path, row) for feature in features)
    return Description(texts, _text(fields["conclusion"], "conclusion", path, row))


def _text(value: object, field: str, path: Path, row: int) -> str:
    if not isinstance(value, str):
        raise DataError("is not text", file=path, row=row, field=field, mend="write it in quotes")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        what = "has half of a character that takes two escapes"
        raise DataError(what, file=path, row=row, field=field, mend="write the character itself") from error
    return value.strip()


def _names_class(text: str, class_names: Sequence[str]) -> bool:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    padded = f" {' '.join(words)} "
    return any(f" {' '.join(name.lower().split())} " in padded for name in class_names if not name.isdigit())
