"""What a language model reads of every subject in one fold: a template fitted to training subjects, or a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from jaxgkd.data.brain_contrasts import describe_contrasts
from jaxgkd.data.brain_measures import Profiles
from jaxgkd.data.brain_measures import profiles as profiles_of
from jaxgkd.data.brain_texts import describe_subjects, fit_text_reference
from jaxgkd.data.brains import Brains
from jaxgkd.data.splits import Split
from jaxgkd.data.tables import reading
from jaxgkd.errors import ConfigError, DataError, shown

TextKind = Literal["none", "reference", "contrast", "conclusion"]
#: Parts of the training subjects, each of which is set against the groups among the others.
FOLDS = 5


def check_texts(texts: str) -> None:
    """Raises ConfigError unless ``texts`` is a kind or a file that is there."""
    if texts not in get_args(TextKind) and not Path(texts).expanduser().is_file():
        mend = f"choose from {', '.join(get_args(TextKind))}, or give a JSON lines file"
        raise ConfigError(f"there is no '{texts}'", field="--texts", mend=mend)


def profiles_for(brains: Brains, texts: str) -> Profiles | None:
    """What templates read of every subject, the same in all folds; None where texts come from a file."""
    return profiles_of(brains) if texts in get_args(TextKind) else None


def fold_texts(
    brains: Brains,
    profiles: Profiles | None,
    texts: str,
    split: Split,
    trained: np.ndarray,
    seed: int,
    features: np.ndarray | None = None,
) -> list[str]:
    """One text a subject, of all n; none of them holds a label.

    Args:
      brains: n subjects; profiles: of these, from `profiles_for`.
      texts: a `TextKind` other than none, or a file, whose texts are the same in all folds.
      split: labels of its training part may be used, where the kind uses any.
      trained: rows of all training subjects, those whose labels are hidden among them.
      seed: of the parts of a training set that are described from the others.
      features: [n, p] in which contrasts are looked for, fitted to training subjects; by default correlations.

    Raises:
      DataError: the file cannot be used.
    """
    everyone = np.arange(brains.n_subjects)
    if profiles is None:
        return read_texts(Path(texts).expanduser(), brains.subjects)
    if texts in ("contrast", "conclusion"):
        smallest = int(np.bincount(brains.labels[split.train], minlength=2).min())
        folds = max(2, min(FOLDS, smallest))
        found = describe_contrasts(brains, profiles, split.train, everyone, features=features, folds=folds, seed=seed)
        return [each.conclusion if texts == "conclusion" else each.text for each in found]
    reference = fit_text_reference(brains, profiles, trained)
    return [each.text for each in describe_subjects(brains, profiles, reference, everyone)]


def shuffled(texts: Sequence[str], split: Split, seed: int) -> list[str]:
    """Everyone has the text of another subject of the same part: subjects that train swap with such that train."""
    random = np.random.default_rng(seed)
    given = list(texts)
    part = np.zeros(len(texts), np.int8)
    for number, rows in enumerate((split.train, split.valid, split.test), 1):
        part[rows] = number
    for number in range(4):
        rows = np.flatnonzero(part == number)
        for to, source in zip(rows.tolist(), random.permutation(rows).tolist(), strict=True):
            given[int(to)] = texts[int(source)]
    return given


def read_texts(file: Path, subjects: Sequence[str]) -> list[str]:
    """The texts of a JSON lines file, in the order of the subjects; others in it are passed over.

    A line has ``subject`` and either ``text``, or ``conclusion`` and a list ``key_features``.

    Raises:
      DataError: a line is of another form, names a subject twice, or a subject has none.
    """
    found: dict[str, str] = {}
    try:
        with reading(file):
            lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", file=file, mend="give a JSON lines file") from error
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            subject = str(entry["subject"])
            text = entry["text"] if "text" in entry else " ".join([entry["conclusion"], *entry["key_features"]])
            # Half of a surrogate pair, which JSON can spell, is no text.
            f"{subject}{text}".encode()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            mend = 'write {"subject": …, "text": …}, or "conclusion" and a list "key_features"'
            raise DataError("is no description of a subject", file=file, row=row, mend=mend) from error
        if subject in found:
            raise DataError(f"names subject '{shown(subject)}' again", file=file, row=row, mend="keep one line of it")
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"says nothing of subject '{shown(subject)}'", file=file, row=row, field="text", mend="fill it in"
            )
        found[subject] = text
    if missing := [subject for subject in subjects if subject not in found]:
        what = f"says nothing of {len(missing)} subjects, such as '{missing[0]}'"
        raise DataError(what, file=file, mend="describe every subject")
    return [found[subject] for subject in subjects]
