"""Descriptions of molecules from a file, one JSON object a line, matched with the molecules by canonical SMILES."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

from rdkit import Chem, rdBase

from jaxgkd.data.molecule_files import LineStream
from jaxgkd.data.molecule_texts import templates
from jaxgkd.data.molecules import Molecules
from jaxgkd.data.workers import map_chunks
from jaxgkd.errors import ConfigError, DataError, shown

Missing = Literal["error", "smiles", "template"]
_CHUNK = 256
# Rows and models that are named; the others are only counted.
_NAMED = 5
# A word with one of these signs, or a chain of these elements, that RDKit reads as so many atoms is a SMILES. "(C=O)"
# names a group, however molecules are written.
_SIGNS, _CHAIN, _QUOTED_ATOMS = re.compile(r"[=#()\[\]@/\\\d]"), re.compile("(Cl|Br|[CNOSPF])+"), 5
# One that was copied wrong, or cut: atoms and signs alone, with aromatic atoms or more than a group written out.
_BROKEN = re.compile(r"(?=.{8})(?=.*([cnos]|[=@\[].{8}))([A-Z]|Cl|Br|Na|Si|Se|[bcnops]|[-+=#()\[\]@/\\.>%\d])+")
_FORM = '{"smiles": "CCO", "text": "An alcohol …"}'


@dataclass(frozen=True)
class Descriptions:
    """A text for each of n molecules.

    Attributes:
      texts: [n]; for a molecule without a description "", or its template.
      missing: positions of the molecules without a description.
      source: who wrote them: the models the file names, else the file; "template" where that helped out.
      notes: counted facts that a report repeats.
    """

    texts: list[str]
    missing: list[int]
    source: str
    notes: tuple[str, ...]


class _Line(NamedTuple):
    """A line of the file; ``key`` is its canonical SMILES, or the SMILES as it is where it cannot be parsed."""

    row: int
    key: str
    readable: bool
    text: str
    model: str | None


def read_descriptions(
    path: str | PathLike[str],
    molecules: Molecules,
    *,
    missing: Missing,
    n_asked: int | None = None,
    workers: int | None = None,
) -> Descriptions:
    """Reads ``.jsonl`` or ``.jsonl.gz`` with lines such as ``{"smiles": "CCO", "text": "...", "model": "..."}``.

    A line belongs to all molecules with its SMILES, however it is written; of several lines with the same one the first
    that has a text counts. ``model`` may be left out, and further fields are not read. SMILES that a text quotes are
    made canonical or left out, see `in_one_notation`.

    Args:
      path: of the file.
      molecules: n of them.
      missing: what becomes of molecules without a description: "error" stops, "smiles" leaves their text empty, for
        readers who see the SMILES as well, "template" takes `molecule_texts.template_description`.
      n_asked: the first so many molecules should have a description, by default all; of the others "error" lets those
        without one be.
      workers: processes, by default one a core.

    Raises:
      DataError: the file cannot be read, a line is not as above, no molecule is described, or one is not and
        ``missing`` is "error".
      ConfigError: ``missing`` is something else.
    """
    if missing not in ("error", "smiles", "template"):
        raise ConfigError(f"'{missing}' is no way", field="missing", mend="use error, smiles or template")
    path = Path(path).expanduser()
    keys = [key for key, _ in _keys([molecules.smiles(i) for i in range(len(molecules))], workers)]
    lines = _lines(path, workers)
    described, notes = _choose(lines, set(keys))
    if not described:
        what = f"none of its {len(lines):,} lines describes a molecule of {molecules.name}"
        raise DataError(what, file=path, mend="give the file that belongs to these molecules")
    n_asked = len(keys) if n_asked is None else n_asked
    gaps = [i for i, key in enumerate(keys) if key not in described]
    unanswered = [i for i in gaps if i < n_asked]
    if unanswered and missing == "error":
        rows = [int(molecules.rows[i]) for i in unanswered]
        what = f"{len(rows):,} of {n_asked:,} molecules without a description ({_listed(rows)} of the data)"
        raise DataError(what, file=path, mend="describe them, or take their SMILES alone or a template for them")
    clean = {key: in_one_notation(line.text, key) for key, line in described.items()}
    texts = [clean.get(key, "") for key in keys]
    if quoted := sum(clean[key] != line.text for key, line in described.items()):
        notes.append(f"{quoted:,} descriptions quote SMILES: the molecule's own are left out, others made canonical")
    if missing == "template":
        chunks = [[molecules.smiles(i) for i in gaps[at : at + _CHUNK]] for at in range(0, len(gaps), _CHUNK)]
        made = [text for part in map_chunks(templates, chunks, workers=workers) for text in part]
        for i, text in zip(gaps, made, strict=True):
            texts[i] = text
    done = "described by a template" if missing == "template" else "left with their SMILES alone"
    if unanswered:
        notes = [f"{len(unanswered):,} of {n_asked:,} molecules without a description, {done}", *notes]
    return Descriptions(texts, gaps, _source(path, described.values(), missing, gaps), tuple(notes))


def _lines(path: Path, workers: int | None) -> list[_Line]:
    rows, smiles, texts, models = [], [], [], []
    for row, fields in _objects(path):
        rows.append(row)
        smiles.append(_field(fields, "smiles", path, row).strip())
        texts.append(_field(fields, "text", path, row).strip())
        models.append(_field(fields, "model", path, row).strip() if fields.get("model") is not None else None)
    if not rows:
        raise DataError("holds no description", file=path, mend=f"write lines such as {_FORM}")
    keys = _keys(smiles, workers)
    return [_Line(row, *key, text, model) for row, key, text, model in zip(rows, keys, texts, models, strict=True)]


def _objects(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Row and content of every line that is not blank."""
    for row, line in enumerate(LineStream(path), start=1):
        if not line.strip():
            continue
        try:
            # Files that were edited by hand may begin with a byte order mark.
            fields = json.loads(line.decode("utf-8-sig" if row == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise DataError("is not UTF-8 text", file=path, row=row, mend="save it with UTF-8 encoding") from error
        except (ValueError, RecursionError) as error:
            what = f"is not JSON ({shown(line[:60].decode(errors='replace'))})"
            raise DataError(what, file=path, row=row, mend=f"write one line a molecule such as {_FORM}") from error
        if not isinstance(fields, dict):
            what = f"is {_kind(fields)}, not an object"
            raise DataError(what, file=path, row=row, mend=f"write one line a molecule such as {_FORM}")
        yield row, fields


def _field(fields: dict[str, object], name: str, path: Path, row: int) -> str:
    if name not in fields:
        found = ", ".join(f"'{each}'" for each in list(fields)[:10])
        what = f"there is no such field, there {'are ' + shown(found, 200) if found else 'is none'}"
        raise DataError(what, file=path, row=row, field=name, mend=f"write lines such as {_FORM}")
    value = fields[name]
    if not isinstance(value, str):
        raise DataError(f"is {_kind(value)}, not text", file=path, row=row, field=name, mend="write it in quotes")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        what = "has half of a character that takes two escapes"
        raise DataError(what, file=path, row=row, field=name, mend="write the character itself") from error
    return value


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def _choose(lines: Sequence[_Line], known: set[str]) -> tuple[dict[str, _Line], list[str]]:
    """The first line with a text for every known molecule that has one, and what there is to say of the others."""
    described: dict[str, _Line] = {}
    empty, unknown, unreadable, identical, conflicting = [], [], [], [], []
    for line in lines:
        if line.key not in known:
            (unknown if line.readable else unreadable).append(line)
        elif not line.text:
            empty.append(line)
        elif line.key not in described:
            described[line.key] = line
        else:
            (identical if line.text == described[line.key].text else conflicting).append(line)
    foreign = sum(not _is_latin(line.text) for line in described.values())
    broken = _listed([line.row for line in unreadable])
    facts = (
        (len(empty), "empty {descriptions}, taken as missing"),
        (len(identical), "{descriptions} twice in the file, word for word"),
        (len(conflicting), "further {descriptions} of molecules that had another one, the first was kept"),
        (len(unknown), "{descriptions} of molecules that are not in the data"),
        (len(unreadable), f"{{descriptions}} of SMILES that cannot be parsed ({broken})"),
        (foreign, "{descriptions} in another language (mostly not in Latin script)"),
    )
    return described, [
        f"{count:,} {fact.format(descriptions='description' if count == 1 else 'descriptions')}"
        for count, fact in facts
        if count
    ]


def in_one_notation(text: str, smiles: str) -> str:
    """A text whose SMILES are canonical, and which does not repeat that of its own molecule.

    There are many ways to write a molecule, and which one a table uses may tell where the molecule was taken from, and
    with that its label. A text that quotes it tells as much, so whoever reads it is shown one way of writing for all.

    Args:
      text: what is said of a molecule.
      smiles: of the molecule, canonical.

    Example:
      >>> in_one_notation("Original SMILES: C1=CC=CC=C1O. A phenyl ring (C1=CC=CC=C1) with OH.", "Oc1ccccc1")
      'Original SMILES: . A phenyl ring (c1ccccc1) with OH.'
    """

    def written(word: re.Match[str]) -> str:
        core = word[0].strip("\"'`“”‘’,;:.!?*")
        if core.startswith("(") and core.endswith(")"):
            core = core[1:-1]
        if not (_SIGNS.search(core) or _CHAIN.fullmatch(core)):
            return word[0]
        # What is no whole molecule, such as a cut ring, is still a piece of somebody's notation.
        found = Chem.MolFromSmiles(core, sanitize=False)
        if found is None and _BROKEN.fullmatch(core) and len(_SIGNS.findall(core)) > 2:
            return word[0].replace(core, "")
        if found is None or found.GetNumAtoms() < _QUOTED_ATOMS:
            return word[0]
        whole = Chem.MolFromSmiles(core)
        canonical = "" if whole is None or _without_stereo(whole) == itself else Chem.MolToSmiles(whole)
        return word[0].replace(core, canonical)

    with rdBase.BlockLogs():
        itself = _without_stereo(Chem.MolFromSmiles(smiles))
        return re.sub(r"\S+", written, text)


def _without_stereo(molecule: Chem.Mol | None) -> str | None:
    return None if molecule is None else Chem.MolToSmiles(molecule, isomericSmiles=False)


def _keys(smiles: list[str], workers: int | None) -> list[tuple[str, bool]]:
    chunks = (smiles[at : at + _CHUNK] for at in range(0, len(smiles), _CHUNK))
    return [key for part in map_chunks(canonical_keys, chunks, workers=workers) for key in part]


def canonical_keys(smiles: list[str]) -> list[tuple[str, bool]]:
    """The canonical SMILES of every SMILES, hydrogens implied, and True; itself and False where it has none."""
    with rdBase.BlockLogs():
        parsed = [Chem.MolFromSmiles(text) if text else None for text in smiles]
        return [
            (text, False) if molecule is None else (Chem.MolToSmiles(molecule), True)
            for text, molecule in zip(smiles, parsed, strict=True)
        ]


def _is_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin ones."""
    if text.isascii():
        return True
    letters = [letter for letter in text if letter.isalpha()]
    latin = sum(letter.isascii() or unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    return 2 * latin >= len(letters)


def _source(path: Path, used: Collection[_Line], missing: Missing, gaps: Sequence[int]) -> str:
    # By the share they have in the texts; the file stands for the lines that name no model.
    names = Counter(line.model or path.name for line in used)
    if gaps and missing == "template":
        names["template"] += len(gaps)
    found = [name for name, _ in names.most_common()]
    return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _listed(rows: Sequence[int]) -> str:
    named = ", ".join(str(row) for row in rows[:_NAMED])
    return f"{'row' if len(rows) == 1 else 'rows'} {named}{', …' if len(rows) > _NAMED else ''}"
