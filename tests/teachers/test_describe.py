from dataclasses import dataclass, field, replace

import pytest

from jaxgkd.errors import ConfigError
from jaxgkd.teachers import describe as module
from jaxgkd.teachers.answers import read_answers
from jaxgkd.teachers.describe import (
    SYSTEM,
    Failure,
    Question,
    Reply,
    Template,
    describe,
    estimate,
    molecule_question,
    prompt_sha256,
)

SMILES = [f"C{'C' * i}O" for i in range(6)]
QUESTIONS = [Question(smiles, f"Describe {smiles}") for smiles in SMILES]
SETTINGS = {"model": "m", "max_tokens": 50, "temperature": 0.0}


@dataclass
class Backwards:
    """Answers the last question first, some not at all, and may be broken off after a number of answers."""

    failures: dict = field(default_factory=dict)
    breaks_after: int | None = None
    settings: dict = field(default_factory=lambda: dict(SETTINGS))
    asked: list = field(default_factory=list)

    def replies(self, questions):
        for i, question in enumerate(reversed(list(questions))):
            if i == self.breaks_after:
                raise KeyboardInterrupt
            self.asked.append(question.smiles)
            failure = self.failures.get(question.smiles)
            yield question, failure or Reply(f"About {question.smiles}", 10, 2, "length", ("time-out",))


def test_every_question_is_asked_once_and_answers_are_in_the_order_of_the_questions(tmp_path):
    path, describer = tmp_path / "answers.jsonl", Backwards()
    report = describe([*QUESTIONS, QUESTIONS[2]], describer, path)
    assert describer.asked == SMILES[::-1]
    answers = read_answers(path)
    assert [(answer.smiles, answer.text) for answer in answers] == [(smiles, f"About {smiles}") for smiles in SMILES]
    assert {answer.model for answer in answers} == {"m"}
    assert (report.n_question, report.n_kept, report.n_answered, report.n_cut) == (6, 0, 6, 6)
    assert (report.input_tokens, report.output_tokens, report.retries) == (60, 12, {"time-out": 6})


def test_what_was_interrupted_goes_on_and_nothing_is_asked_twice(tmp_path):
    path, first, second, third = tmp_path / "answers.jsonl", Backwards(breaks_after=2), Backwards(), Backwards()
    with pytest.raises(KeyboardInterrupt):
        describe(QUESTIONS, first, path)
    told = []
    report = describe(QUESTIONS, second, path, on_progress=lambda *counts: told.append(counts))
    assert sorted(first.asked + second.asked) == sorted(SMILES)
    assert (report.n_kept, report.n_answered, report.n_cut) == (2, 4, 6)
    assert told[-1] == (6, 0) and told == sorted(told)
    assert [answer.smiles for answer in read_answers(path)] == SMILES
    content = path.read_bytes()
    assert describe(QUESTIONS, third, path).n_kept == 6
    assert third.asked == [] and path.read_bytes() == content


def test_another_prompt_is_asked_anew_and_the_first_answers_stay(tmp_path):
    path, warmer = tmp_path / "answers.jsonl", Backwards(settings=SETTINGS | {"temperature": 1.0})
    describe(QUESTIONS, Backwards(), path)
    describe(QUESTIONS[:2], warmer, path)
    assert sorted(warmer.asked) == sorted(SMILES[:2])
    assert [answer.smiles for answer in read_answers(path)] == [*SMILES[:2], *SMILES]
    again = Backwards()
    describe(QUESTIONS, again, path)
    assert again.asked == []


def test_failures_are_listed_not_written_and_asked_by_the_next_run(tmp_path):
    path = tmp_path / "answers.jsonl"
    failures = {SMILES[1]: Failure("content filter", ("time-out",), of_question=True), SMILES[4]: Failure("HTTP 500")}
    report = describe(QUESTIONS, Backwards(failures), path)
    assert set(report.failed) == {(SMILES[1], "content filter"), (SMILES[4], "HTTP 500")}
    assert report.retries == {"time-out": 5}
    assert [answer.smiles for answer in read_answers(path)] == [SMILES[0], SMILES[2], SMILES[3], SMILES[5]]
    second = Backwards()
    describe(QUESTIONS, second, path)
    assert sorted(second.asked) == sorted([SMILES[1], SMILES[4]])
    assert [answer.smiles for answer in read_answers(path)] == SMILES


def test_failures_in_a_row_end_the_run_unless_they_are_the_questions_own(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FAILURES_IN_A_ROW", 3)
    own = {smiles: Failure("content filter", of_question=True) for smiles in SMILES[:5]}
    assert len(describe(QUESTIONS, Backwards(own), tmp_path / "a").failed) == 5
    others = {smiles: Failure("HTTP 500") for smiles in (SMILES[5], SMILES[4], SMILES[2], SMILES[1], SMILES[0])}
    ended = Backwards(others)
    with pytest.raises(ConfigError, match="3 questions in a row found no answer, the last one because of HTTP 500"):
        describe(QUESTIONS, ended, tmp_path / "b")
    assert ended.asked == SMILES[::-1]


@pytest.mark.parametrize(
    "change",
    [
        {"text": "Explain CO"},
        {"image": b"png"},
        {"image": b"another"},
        {"system": "You are a poet."},
    ],
)
def test_the_hash_covers_all_of_the_question(change):
    question = QUESTIONS[0]
    assert prompt_sha256(replace(question, **change), SETTINGS) != prompt_sha256(question, SETTINGS)
    assert len(prompt_sha256(question, SETTINGS)) == 64


@pytest.mark.parametrize("change", [{"model": "n"}, {"max_tokens": 51}, {"temperature": None}])
def test_the_hash_covers_who_is_asked(change):
    assert prompt_sha256(QUESTIONS[0], SETTINGS | change) != prompt_sha256(QUESTIONS[0], SETTINGS)
    assert prompt_sha256(QUESTIONS[0], dict(reversed(SETTINGS.items()))) == prompt_sha256(QUESTIONS[0], SETTINGS)


def test_questions_show_what_they_are_told_to_and_name_the_property():
    whole = molecule_question("CCO", about="solubility", structure="C1 and C2: single bond.", image=b"png")
    assert whole.system == SYSTEM and whole.image == b"png" and whole.smiles == "CCO"
    assert "SMILES: CCO" in whole.text and "C1 and C2: single bond." in whole.text and "picture" in whole.text
    assert whole.text.count("solubility") == 2
    drawn = molecule_question("CCO", show_smiles=False, image=b"png")
    assert "CCO" not in drawn.text and "bonds" not in drawn.text
    bare = molecule_question("CCO")
    assert "picture" not in bare.text and "bonds" not in bare.text
    with pytest.raises(ConfigError, match="nothing of the molecule"):
        molecule_question("CCO", show_smiles=False)


def test_templates_answer_with_their_own_words_and_say_so(tmp_path):
    report = describe(QUESTIONS, Template(), tmp_path / "a")
    assert (report.n_answered, report.input_tokens) == (6, 0)
    answers = read_answers(tmp_path / "a")
    assert {answer.model for answer in answers} == {"template"}
    assert [answer.text for answer in answers] == [question.text for question in QUESTIONS]


def test_estimates_count_what_is_left_without_writing(tmp_path):
    path = tmp_path / "answers.jsonl"
    questions = [Question(smiles, "x" * 30, image, system="y" * 31) for smiles, image in (("C", None), ("CC", b"png"))]
    assert estimate(questions, Backwards(), path) == (2, 2, 2 * 21 + 300, 100)
    assert not list(tmp_path.iterdir())
    describe(questions[1:], Backwards(), path)
    assert estimate([*questions, *questions], Backwards(), path) == (2, 1, 21, 50)
    assert estimate(questions, Template(), path) == (2, 2, 0, 0)
