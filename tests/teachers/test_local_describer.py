import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxgkd import language
from jaxgkd.errors import ConfigError, DataError, UnsupportedModelError
from jaxgkd.teachers.answers import read_answers
from jaxgkd.teachers.describe import Failure, Question, Reply, describe, prompt_sha256
from jaxgkd.teachers.local_describer import LocalDescriber

pytestmark = pytest.mark.usefixtures("own_cache")

WORDS = ("graph", "neural network", "teacher student learns", "text", "papers molecules links")
QUESTIONS = [Question(word, f"Describe {word}", system="Be brief.") for word in WORDS]
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def describer(causal_folder):
    return LocalDescriber.load(str(causal_folder), max_tokens=6, batch_size=2)


@pytest.fixture
def changed(causal_folder, tmp_path):
    """A copy of the checkpoint with other fields in one of its files."""

    def changed(name: str, **fields) -> str:
        folder = tmp_path / "changed"
        shutil.copytree(causal_folder, folder)
        before = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps(before | fields))
        return str(folder)

    return changed


def alone(describer, question) -> list[int]:
    """The ids that the model continues a question with, one prompt at a time."""
    # Twice, for the shape that is compiled anyway.
    padded = language.pad([describer.prompt(question)] * 2, padding_id=0, multiple=64)
    options = {"max_new_tokens": describer.max_tokens, "stop_tokens": describer.stop_tokens}
    made = language.generate(describer.model, *padded, **options)
    return np.asarray(made.tokens)[0, np.asarray(made.mask)[0] > 0].tolist()


def read(describer, question) -> str:
    """The text of a prompt; this tokenizer's decoder leaves marks of spaces and line ends in it."""
    return describer.tokenizer.decode(describer.prompt(question)).replace(" ", "").translate({288: " ", 266: "\n"})


def test_batches_answer_what_each_question_alone_would_get(describer, tmp_path):
    report = describe(QUESTIONS, describer, tmp_path / "answers.jsonl")
    answers = read_answers(tmp_path / "answers.jsonl")
    assert [answer.smiles for answer in answers] == list(WORDS)
    for question, answer in zip(QUESTIONS, answers, strict=True):
        assert answer.text == describer.tokenizer.decode(alone(describer, question)).strip()
        assert answer.input_tokens == len(describer.prompt(question)) and answer.output_tokens == 6
        assert (answer.model, answer.finish_reason) == ("causal", "length")
    assert (report.n_answered, report.n_cut, report.output_tokens) == (5, 5, 30)


def test_the_checkpoint_says_what_ends_an_answer(describer, changed):
    free = alone(describer, QUESTIONS[0])
    second = LocalDescriber.load(
        changed("generation_config.json", eos_token_id=[free[2], 7]), max_tokens=6, batch_size=2
    )
    assert set(second.stop_tokens) == {free[2], 7} | set(describer.stop_tokens)
    ((_, reply),) = second.replies(QUESTIONS[:1])
    end = free.index(free[2])
    assert reply == Reply(describer.tokenizer.decode(free[:end]).strip(), reply.input_tokens, end + 1, "stop")


def test_an_answer_without_words_is_a_failure(describer, changed):
    first = alone(describer, QUESTIONS[0])[0]
    silent = LocalDescriber.load(changed("generation_config.json", eos_token_id=first), max_tokens=6, batch_size=2)
    assert list(silent.replies(QUESTIONS[:1])) == [(QUESTIONS[0], Failure("empty answer", of_question=True))]


def test_without_a_template_the_prompt_is_plain_text(describer):
    assert read(describer, QUESTIONS[0]) == "Be brief.\n\nDescribe graph\n\nDescription:"


@pytest.mark.parametrize("refuses", [False, True])
def test_a_chat_template_is_filled_in(changed, refuses):
    pytest.importorskip("jinja2")
    guard = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" if refuses else ""
    describer = LocalDescriber.load(changed("tokenizer_config.json", chat_template=guard + TEMPLATE))
    roles = "<user>Be brief.\n\n" if refuses else "<system>Be brief.\n<user>"
    assert read(describer, QUESTIONS[0]) == f"{roles}Describe graph\n<assistant>"


def test_a_chat_template_that_cannot_be_used_is_named(changed, monkeypatch):
    describer = LocalDescriber.load(changed("tokenizer_config.json", chat_template="{{ nothing.at.all }}"))
    assert describer.settings["chat_template"] == "{{ nothing.at.all }}"

    def missing(*arguments, **options):
        raise ImportError("jinja2")

    monkeypatch.setattr(describer.tokenizer._tokenizer, "apply_chat_template", missing)
    with pytest.raises(ConfigError, match="pip install jinja2"):
        describer.prompt(QUESTIONS[0])

    def broken(*arguments, **options):
        raise RuntimeError("no such\nthing")

    monkeypatch.setattr(describer.tokenizer._tokenizer, "apply_chat_template", broken)
    with pytest.raises(ConfigError, match=r"cannot be used \(no such thing\)"):
        describer.prompt(QUESTIONS[0])


def test_a_question_that_does_not_fit_fails_alone(describer):
    long = Question("long", "text " * 300, system="")
    replies = dict(describer.replies([QUESTIONS[0], long]))
    assert isinstance(replies[QUESTIONS[0]], Reply)
    failure = replies[long]
    assert isinstance(failure, Failure) and failure.of_question and "too many for the model" in failure.reason


def test_drawn_answers_depend_on_the_seed(causal_folder):
    answers = []
    for seed in (1, 1, 2):
        warm = LocalDescriber.load(str(causal_folder), max_tokens=6, batch_size=2, temperature=1.0, seed=seed)
        answers.append([reply for _, reply in warm.replies(QUESTIONS[:2])])
    assert answers[0] == answers[1] != answers[2]


def test_the_hash_covers_weights_template_and_settings(describer):
    settings = describer.settings
    before = prompt_sha256(QUESTIONS[0], settings)
    changes = {"weights": "00", "chat_template": TEMPLATE, "max_tokens": 7, "temperature": 1.0, "seed": 3}
    assert changes.keys() <= settings.keys()
    for name, value in changes.items():
        assert prompt_sha256(QUESTIONS[0], settings | {name: value}) != before


def test_misuse_is_refused(causal_folder, bert_folder, describer, changed):
    with pytest.raises(UnsupportedModelError, match="does not write text"):
        LocalDescriber.load(str(bert_folder))
    for settings in ({"max_tokens": 0}, {"batch_size": 0}, {"temperature": -1.0}):
        with pytest.raises(ConfigError) as caught:
            LocalDescriber.load(str(causal_folder), **settings)
        assert caught.value.field == next(iter(settings))
    with pytest.raises(ConfigError, match="sees no pictures"):
        list(describer.replies([Question("C", "Describe", image=b"png")]))
    folder = changed("generation_config.json")
    (Path(folder) / "generation_config.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        LocalDescriber.load(folder)
