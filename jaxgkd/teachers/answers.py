"""The file a describer's answers are kept in: one JSON line an answer, added as it arrives, safe through a crash.

    {"smiles": "CCO", "text": "…", "prompt_sha256": "…", "model": "…", "input_tokens": 210, "output_tokens": 95,
     "finish_reason": "stop"}

Only ``smiles`` and ``text`` are needed to read it, so that anybody can, or can write one by hand. An answer belongs to
a molecule and to the hash of what was asked: another prompt is another answer. While a run goes on, lines are in the
order in which answers arrived; a finished run puts its own into the order of its molecules, before those of other runs:
where a molecule has several lines, the first one counts, as in `data.molecule_descriptions`.
"""

import errno
import json
import os
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.training.file_lock import lock_file
from jaxgkd.whole_file import write_whole


class Key(NamedTuple):
    """What an answer is found by: the molecule, and the hash of everything that decides the answer."""

    smiles: str
    prompt_sha256: str


@dataclass(frozen=True)
class Answer:
    """One line of the file.

    Fields:
      smiles: canonical, of the molecule.
      text: what was answered; only a line written by hand may be without.
      prompt_sha256: see `describe.prompt_sha256`; empty where the line was written by hand.
      model: who answered.
      input_tokens, output_tokens: as the model's server counts them, 0 where it does not say.
      finish_reason: "stop", or "length" where the limit of tokens cut the answer.
    """

    smiles: str
    text: str
    prompt_sha256: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str = ""

    @property
    def key(self) -> Key:
        """Molecule and prompt."""
        return Key(self.smiles, self.prompt_sha256)


class AnswerFile:
    """The answers there are, and the place for more; one writer a file at a time.

    Use it as a context manager, `append` what is not in it, then `finish`::

        with AnswerFile(path) as file:
            if key not in file:
                file.append(answer)
            file.finish(keys)

    Attributes:
      notes: what had to be mended, in sentences.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Take the file for this process and read what is in it; a line that a killed run left half-written is cut off.

        Args:
          path: made if it is not there, with its folder.

        Raises:
          DataError: a line in the middle is no answer; the message names the row.
          ConfigError: another process is writing the file, or it cannot be written.
        """
        self.path, self.notes = Path(path), ()
        self._file: int | None = None
        with self._disk_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Beside the file, since `finish` puts another file in its place.
            self._lock: int | None = lock_file(self.path.with_name(f".{self.path.name}.lock"), self.path, ConfigError)
        try:
            with self._disk_errors():
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        lines, whole, torn = _lines(self.path)
        if torn:
            os.ftruncate(self._file, whole)
            self.notes = ("the last line was only half-written when a run ended, and is asked again",)
        elif whole > os.fstat(self._file).st_size:
            os.write(self._file, b"\n")
        os.fsync(self._file)
        # In the order of the file, the first of several lines with the same key.
        self._answers: dict[Key, tuple[Answer, bytes]] = {}
        for answer, line in lines:
            self._answers.setdefault(answer.key, (answer, line))

    def __enter__(self) -> "AnswerFile":
        """The file itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Let go of the file; what was written stays."""
        self.close()

    def __contains__(self, key: Key) -> bool:
        """Whether this was answered."""
        return key in self._answers

    def __getitem__(self, key: Key) -> Answer:
        """The answer to this."""
        return self._answers[key][0]

    def append(self, answer: Answer) -> None:
        """Add an answer; when this returns it is on the disk.

        Raises:
          ConfigError: the disk refuses; the file is as it was before.
        """
        assert self._file is not None
        # Half of a surrogate pair, where a model was cut in the middle of a character, has no place in UTF-8.
        line = json.dumps(asdict(answer), ensure_ascii=False).encode("utf-8", "replace")
        with self._disk_errors():
            size = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line + b"\n") != len(line) + 1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._file, size)
                raise
        self._answers[answer.key] = answer, line

    def finish(self, keys: Iterable[Key]) -> None:
        """Put the answers to these into this order, before all others, and close the file.

        Args:
          keys: those without an answer are passed over.
        """
        wanted = dict.fromkeys(keys)
        order = [key for key in wanted if key in self._answers] + [key for key in self._answers if key not in wanted]
        if order != list(self._answers):
            write_whole(self.path, b"".join(self._answers[key][1] + b"\n" for key in order))
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._lock = None

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turn what the file system refuses into one sentence."""
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"the answers cannot be kept ({error.strerror or error})",
                file=self.path,
                mend="choose another file, or make room and run again, which goes on from what is there",
            ) from None


def read_answers(path: str | os.PathLike[str]) -> list[Answer]:
    """The answers of a file in its order, without those that are only half-written; nothing is changed.

    Raises:
      DataError: the file cannot be read, or a line is no answer; the message names the row.
    """
    path = Path(path)
    if not path.is_file() and path.exists():
        raise DataError("is not a file", file=path, mend="give a file that `jaxgkd describe` wrote")
    try:
        return [answer for answer, _ in _lines(path)[0]]
    except OSError as error:
        mend = "give a file that `jaxgkd describe` wrote"
        raise DataError(f"cannot be read ({error.strerror})", file=path, mend=mend) from None


def _lines(path: Path) -> tuple[list[tuple[Answer, bytes]], int, bool]:
    """The answers with their lines, the bytes these take with all line ends, and whether a torn line follows."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    # Only a line whose end is missing can be torn; one written by hand may be whole without it.
    torn = whole < len(content) and _answer(content[whole:]) is None
    if whole < len(content) and not torn:
        content += b"\n"
        whole = len(content)
    found = []
    # A line may be moved away from the beginning, where an editor may have put a mark.
    for row, line in enumerate(content[:whole].removeprefix(BOM_UTF8).split(b"\n")[:-1], start=1):
        if not line.strip():
            continue
        if (answer := _answer(line)) is None:
            what = "is no answer, which is a JSON object with the texts 'smiles' and 'text'"
            raise DataError(what, file=path, row=row, mend="mend the line, or take it out to have it asked again")
        found.append((answer, line))
    return found, whole, torn


def _answer(line: bytes) -> Answer | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    known = {field.name: values[field.name] for field in fields(Answer) if values.get(field.name) is not None}
    if not {"smiles", "text"} <= known.keys():
        return None
    right = (isinstance(value, int if name.endswith("tokens") else str) for name, value in known.items())
    return Answer(**known) if all(right) else None
