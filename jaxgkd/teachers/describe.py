"""Asks a model to describe molecules in words, each once, and keeps the answers through crashes.

What is asked names the molecule and what the user wants to know about, never a label; nor is a label asked for. Who
answers is any `Describer`: a server (`chat_server`), a model in this process (`local_describer`), or no model at all
(`Template`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxgkd.errors import ConfigError
from jaxgkd.teachers.answers import Answer, AnswerFile, Key, read_answers

SYSTEM = (
    "You are a chemist who has spent a career relating the structure of molecules to what they do. Colleagues will "
    "work from your words without seeing the molecule, so be exact about its structure, give reasons for what you say "
    "of its behaviour, and leave out whatever you are not sure of."
)

#: Rule of thumb of `estimate`: characters of a prompt that make a token (4 in plain English, fewer in SMILES), and
#: tokens of a small picture.
CHARACTERS_PER_TOKEN = 3
TOKENS_PER_IMAGE = 300

#: This many questions in a row without an answer end a run: the fault is no longer the questions'.
FAILURES_IN_A_ROW = 20


@dataclass(frozen=True)
class Question:
    """What is asked about one molecule.

    Fields:
      smiles: canonical, the molecule's name; only told to the model where `text` repeats it.
      text: the question.
      image: a PNG file beside it.
      system: the role the model is given.
    """

    smiles: str
    text: str
    image: bytes | None = None
    system: str = SYSTEM


@dataclass(frozen=True)
class Reply:
    """An answer as it arrives; see `Answer`. ``retries`` tells why each earlier attempt gave none."""

    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str = "stop"
    retries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A question that stays without an answer.

    Fields:
      reason: in a few words.
      retries: why each attempt but the last gave none.
      of_question: whether other questions may well be answered, as where a filter refuses this one.
    """

    reason: str
    retries: tuple[str, ...] = ()
    of_question: bool = False


class Describer(Protocol):
    """Whoever answers."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain JSON values: the name of the ``model``, ``max_tokens``, and all else that decides an answer."""
        ...

    def replies(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply | Failure]]:
        """Every question with its reply, in the order they arrive; questions are taken as they can be asked."""
        ...


class Template:
    """Answers with the text of the question: for descriptions that a program writes."""

    @property
    def settings(self) -> dict[str, Any]:
        """The model is called ``template``."""
        return {"model": "template", "max_tokens": 0}

    def replies(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply | Failure]]:
        """Every question answered by itself."""
        for question in questions:
            yield question, Reply(question.text)


@dataclass(frozen=True)
class DescribeReport:
    """What became of the questions, each molecule and prompt counted once.

    Fields:
      n_question: of them.
      n_kept, n_answered: answers that were there before, and new ones.
      n_cut: answers, old and new, that the limit of tokens ended.
      failed: molecules without an answer, with reasons; asked again by the next run.
      retries: attempts that were repeated, by reason.
      input_tokens, output_tokens: of the new answers.
      notes: what had to be mended in the file.
    """

    n_question: int
    n_kept: int
    n_answered: int
    n_cut: int
    failed: tuple[tuple[str, str], ...] = ()
    retries: Mapping[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    notes: tuple[str, ...] = ()


class Estimate(NamedTuple):
    """Questions, how many of them are still to ask, and about how many tokens that takes; ``output_tokens`` at most."""

    n_question: int
    n_left: int
    input_tokens: int
    output_tokens: int


def molecule_question(
    smiles: str,
    *,
    about: str = "",
    show_smiles: bool = True,
    structure: str | None = None,
    image: bytes | None = None,
) -> Question:
    """The question about a molecule; it is told what of its structure is given, and nothing else.

    Args:
      smiles: canonical.
      about: the property that matters, in words.
      show_smiles: whether the model sees the SMILES.
      structure: sentences that list its bonds.
      image: a drawing, as PNG.

    Raises:
      ConfigError: nothing of the molecule would be seen.
    """
    seen = [f"SMILES: {smiles}"] if show_smiles else []
    seen += [f"Its bonds, atom by atom: {structure}"] if structure is not None else []
    seen += ["Its structure is drawn in the picture."] if image is not None else []
    if not seen:
        raise ConfigError("nothing of the molecule is shown", field="parts", mend="name smiles, structure or image")
    matter = about.strip() or "its physical properties and its behaviour in the body"
    asked = (
        f"Describe this molecule for a reader who is concerned with {matter}.",
        "Name its functional groups and ring systems, say how they are joined and what shape and size this gives the "
        f"whole, then explain which of these features matter for {matter} and in which direction each of them works.",
        "Write one plain paragraph of 80 to 150 words. Describe and explain only: no verdict, no class, no guessed "
        "measurement.",
    )
    return Question(smiles, "\n\n".join(["\n".join(["A molecule.", *seen]), "\n".join(asked)]), image)


def prompt_sha256(question: Question, settings: Mapping[str, Any]) -> str:
    """The sha256 of everything that decides an answer: question, picture, role, and the settings of who is asked."""
    image = None if question.image is None else hashlib.sha256(question.image).hexdigest()
    asked = [question.system, question.text, image, dict(settings)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def describe(
    questions: Iterable[Question],
    describer: Describer,
    path: str | PathLike[str],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> DescribeReport:
    """Ask what the file does not answer yet; a killed or interrupted run is continued by the next.

    Every answer is on the disk before the next one is looked at, so nothing that arrived is asked again but the one
    answer that was being written and those that waited for it.

    Args:
      questions: read one by one, so that they need not all be in memory; the same one twice is asked once.
      describer: who answers.
      path: of the file, see ``answers``.
      on_progress: called with the questions that have an answer and those that failed.

    Raises:
      DataError: the file is damaged.
      ConfigError: the file cannot be written, the describer refuses all questions, or too many failed in a row.
    """
    settings = dict(describer.settings)
    keys: dict[Key, None] = {}
    failed: dict[str, str] = {}
    retries, tokens, n_kept, n_answered, in_a_row = Counter[str](), Counter[str](), 0, 0, 0

    def told() -> None:
        if on_progress is not None:
            on_progress(n_kept + n_answered, len(failed))

    with AnswerFile(path) as file:

        def unanswered() -> Iterator[Question]:
            nonlocal n_kept
            for question in questions:
                key = Key(question.smiles, prompt_sha256(question, settings))
                if key in keys:
                    continue
                keys[key] = None
                if key not in file:
                    yield question
                else:
                    n_kept += 1
                    told()

        for question, reply in describer.replies(unanswered()):
            retries.update(reply.retries)
            if isinstance(reply, Failure):
                failed[question.smiles] = reply.reason
                in_a_row += not reply.of_question
                if in_a_row >= FAILURES_IN_A_ROW:
                    raise ConfigError(
                        f"{in_a_row} questions in a row found no answer, the last one because of {reply.reason}",
                        mend="see what is wrong there and run again, which goes on from what is answered",
                    )
            else:
                key = Key(question.smiles, prompt_sha256(question, settings))
                answer = Answer(
                    key.smiles,
                    reply.text,
                    key.prompt_sha256,
                    model=str(settings["model"]),
                    input_tokens=reply.input_tokens,
                    output_tokens=reply.output_tokens,
                    finish_reason=reply.finish_reason,
                )
                file.append(answer)
                tokens.update(input=reply.input_tokens, output=reply.output_tokens)
                n_answered, in_a_row = n_answered + 1, 0
            told()
        n_cut = sum(file[key].finish_reason == "length" for key in keys if key in file)
        file.finish(keys)
        return DescribeReport(
            n_question=len(keys),
            n_kept=n_kept,
            n_answered=n_answered,
            n_cut=n_cut,
            failed=tuple(failed.items()),
            retries=dict(retries.most_common()),
            input_tokens=tokens["input"],
            output_tokens=tokens["output"],
            notes=file.notes,
        )


def estimate(questions: Iterable[Question], describer: Describer, path: str | PathLike[str]) -> Estimate:
    """What `describe` would ask, without asking or writing anything.

    Raises:
      DataError: the file is damaged.
    """
    settings = dict(describer.settings)
    answered = {answer.key for answer in read_answers(path)} if Path(path).exists() else set()
    left: dict[Key, int] = {}
    for question in questions:
        n_token = -(-(len(question.system) + len(question.text)) // CHARACTERS_PER_TOKEN)
        n_token += TOKENS_PER_IMAGE if question.image is not None else 0
        left[Key(question.smiles, prompt_sha256(question, settings))] = n_token
    n_question = len(left)
    for key in answered & left.keys():
        del left[key]
    # No tokens are counted where no model is asked.
    limit = int(settings["max_tokens"])
    return Estimate(n_question, len(left), sum(left.values()) if limit else 0, limit * len(left))
