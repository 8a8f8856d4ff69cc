import os
import signal
import subprocess
import sys
import time
from collections import Counter
from email.utils import formatdate
from itertools import pairwise

import pytest

from jaxgkd.errors import ConfigError
from jaxgkd.teachers import chat_server
from jaxgkd.teachers.answers import read_answers
from jaxgkd.teachers.chat_server import ChatServer, _seconds
from jaxgkd.teachers.describe import Question, describe
from tests.teachers.misbehaving_server import KEY, MisbehavingServer

pytest.importorskip("openai")

ITEMS = [f"C{'C' * i}O" for i in range(12)]
QUICK = {"timeout": 1.0, "first_wait": 0.02, "longest_wait": 0.1, "retries": 3}


def questions(items=ITEMS):
    return [Question(item, f"Describe {item}", system="You are brief.") for item in items]


def run(server, path, items=ITEMS, **settings):
    return describe(questions(items), ChatServer("small", base_url=server.url, **(QUICK | settings)), path)


@pytest.fixture(autouse=True)
def key(monkeypatch, tmp_path, capfd, caplog):
    """There is a key, and after the test it is in no file, no output and no log."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("OPENAI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level("DEBUG")
    yield
    found = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    printed = "".join(capfd.readouterr()) + caplog.text
    assert not any(KEY[:12].encode() in content for content in [*found, printed.encode()])


def test_all_that_passes_is_asked_again_and_every_item_answered_once_in_order(tmp_path):
    mishaps = ["429", "500", "502", "503", "hang", "broken", "half", "drop", "empty", "html", "nothing"]
    plans = {item: [mishap] for item, mishap in zip(ITEMS, mishaps, strict=False)} | {ITEMS[-1]: ["slow"]}
    plans[ITEMS[0]] = ["429", "500", "drop"]
    with MisbehavingServer(plans) as server:
        report = run(server, tmp_path / "answers.jsonl", concurrency=4)
    answers = read_answers(tmp_path / "answers.jsonl")
    assert [(answer.smiles, answer.text) for answer in answers] == [(item, f"About {item}") for item in ITEMS]
    assert server.answered == Counter(ITEMS)
    # One request an item, and one more for every mishap but slowness.
    assert len(server.requests) == len(ITEMS) + 13
    assert (report.n_answered, report.failed) == (12, ())
    connections = sum(count for reason, count in report.retries.items() if reason.startswith("no connection"))
    assert connections == 3
    rest = {reason: count for reason, count in report.retries.items() if not reason.startswith("no connection")}
    http = {"HTTP 429": 1, "HTTP 500": 2, "HTTP 502": 1, "HTTP 503": 1}
    assert rest == http | {"time-out": 1, "broken JSON": 2, "empty answer": 1, "no answer in the response": 1}
    # Usage as the server tells it, of the answers alone.
    assert (report.input_tokens, report.output_tokens) == (1200, 240)
    assert {request.key for request in server.requests} == {KEY}


def test_retry_after_holds_all_requests_back(tmp_path):
    with MisbehavingServer({ITEMS[0]: ["429"]}, retry_after="0.6", pause=0.01) as server:
        run(server, tmp_path / "answers.jsonl", items=ITEMS[:6], concurrency=2)
    at = [request.at for request in server.requests if request.item == ITEMS[0]]
    assert at[1] - at[0] >= 0.6
    # Of the other five, one may have been under way, and one before it.
    held = [request for request in server.requests if at[0] < request.at < at[0] + 0.6]
    assert len(held) <= 2 and len(server.requests) == 7


def test_retry_after_may_be_a_date():
    assert 27 < _seconds(formatdate(time.time() + 30, usegmt=True)) <= 30
    long_ago = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert [_seconds(header) for header in ("0.5", "-1", "nan", "soon", long_ago, None)] == [0.5, 0, 0, 0, 0, 0]


def test_waits_grow_and_vary(tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(chat_server.random, "uniform", lambda *bounds: shares.append(bounds) or 1.0)
    with MisbehavingServer({"CO": ["500"] * 4}) as server:
        run(server, tmp_path / "answers.jsonl", items=["CO"], first_wait=0.05, longest_wait=0.15, retries=4)
    at = [request.at for request in server.requests]
    waits = [later - earlier for earlier, later in pairwise(at)]
    for wait, most in zip(waits, (0.05, 0.1, 0.15, 0.15), strict=True):
        assert most <= wait < most + 1
    assert shares == [(0.5, 1.0)] * 4


def test_what_no_attempt_answers_is_listed_and_the_others_go_on(tmp_path):
    plans = {"CO": ["503"] * 9, "CN": ["content_filter"], "CF": ["too long"], "CS": ["thinking"], "CCl": ["empty"] * 9}
    with MisbehavingServer(plans) as server:
        report = run(server, tmp_path / "answers.jsonl", items=[*plans, "CBr"])
        assert dict(report.failed) == {
            "CO": "HTTP 503",
            "CN": "content filter",
            "CF": "HTTP 400: Too many tokens",
            "CS": "all 400 tokens used up before an answer began",
            "CCl": "empty answer",
        }
        assert [server.asked(item) for item in plans] == [4, 1, 1, 1, 4]
        assert [answer.smiles for answer in read_answers(tmp_path / "answers.jsonl")] == ["CBr"]
        server.plans.clear()
        report = run(server, tmp_path / "answers.jsonl", items=[*plans, "CBr"])
    assert (report.n_kept, report.n_answered, server.asked("CBr")) == (1, 5, 1)
    assert [answer.smiles for answer in read_answers(tmp_path / "answers.jsonl")] == [*plans, "CBr"]


def test_answers_that_the_limit_cut_are_kept_and_counted(tmp_path):
    with MisbehavingServer({"CO": ["length"]}) as server:
        report = run(server, tmp_path / "answers.jsonl", items=["CO", "CN"])
    assert (report.n_answered, report.n_cut) == (2, 1)
    assert [answer.finish_reason for answer in read_answers(tmp_path / "answers.jsonl")] == ["length", "stop"]


@pytest.mark.parametrize(
    ("mishap", "words"),
    [
        ("401", r"127\.0\.0\.1:\d+/v1/ refuses the key \(HTTP 401\); set OPENAI_API_KEY to a key that is valid there"),
        ("400", r"refuses to answer as 'small' \(HTTP 400: Trouble with \*\*\* and \*\*\* of CO"),
        ("404", r"refuses to answer as 'small' \(HTTP 404: .*check the model's name"),
        ("detail", r"refuses to answer as 'small' \(HTTP 422: temperature is odd"),
        ("quota", "the account is used up"),
    ],
)
def test_what_does_not_pass_stops_at_once_in_one_sentence_without_the_key(tmp_path, mishap, words):
    items = ["CO", *ITEMS]
    with MisbehavingServer({"CO": [mishap]}, pause=0.02) as server, pytest.raises(ConfigError, match=words) as caught:
        run(server, tmp_path / "answers.jsonl", items=items, concurrency=1)
    assert server.asked("CO") == 1 and len(server.requests) <= 2
    assert KEY[:12] not in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_wants_hours_of_peace_ends_the_run(tmp_path):
    with MisbehavingServer({"CO": ["429"]}, retry_after="7200") as server:
        with pytest.raises(ConfigError, match=r"wants no request for 7,200 s \(HTTP 429\); run again then"):
            run(server, tmp_path / "answers.jsonl", items=["CO"])
        assert len(server.requests) == 1


def test_a_server_that_is_not_there_ends_the_run(tmp_path):
    with MisbehavingServer() as server:
        pass
    items = [f"C{i}" for i in range(25)]
    with pytest.raises(ConfigError, match=r"20 questions in a row found no answer, the last one because of no conn"):
        run(server, tmp_path / "answers.jsonl", items=items, retries=1, first_wait=0.001)


def test_an_answer_that_repeats_the_key_is_kept_without_it(tmp_path):
    with MisbehavingServer({"CO": ["echo"]}) as server:
        run(server, tmp_path / "answers.jsonl", items=["CO"])
    assert read_answers(tmp_path / "answers.jsonl")[0].text == "The key is *** indeed"


def test_what_is_sent(tmp_path):
    question = Question("CO", "Describe CO", image=b"\x89PNG", system="You are brief.")
    with MisbehavingServer() as server:
        base = {"base_url": server.url, **QUICK}
        describe([question], ChatServer("small", max_tokens=77, temperature=0.5, **base), tmp_path / "a")
        describe(questions(["CN"]), ChatServer("small", temperature=None, **base), tmp_path / "b")
    with_image, text_only = (request.body for request in server.requests)
    role, user = with_image.pop("messages")
    assert with_image == {"model": "small", "max_tokens": 77, "temperature": 0.5}
    assert role == {"role": "system", "content": "You are brief."}
    assert user["content"][0] == {"type": "text", "text": "Describe CO"}
    assert user["content"][1]["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    assert text_only["messages"][1]["content"] == "Describe CN" and "temperature" not in text_only


def test_models_that_know_the_limit_by_its_longer_name_are_told_it_so(tmp_path):
    with MisbehavingServer({"*": ["newer"]}) as server:
        report = run(server, tmp_path / "answers.jsonl", items=["CO", "CN", "CF"], concurrency=1)
    assert (report.n_answered, report.retries) == (3, {})
    assert ["max_completion_tokens" in request.body for request in server.requests] == [False, True, True, True]


def test_so_many_questions_at_once_and_no_more(tmp_path):
    with MisbehavingServer(pause=0.05) as server:
        run(server, tmp_path / "answers.jsonl", concurrency=3)
    assert server.most_at_once == 3


def test_questions_are_made_no_earlier_than_they_are_asked():
    taken = 0

    def made():
        nonlocal taken
        for question in questions():
            taken += 1
            yield question

    with MisbehavingServer(pause=0.01) as server:
        replies = ChatServer("small", base_url=server.url, concurrency=3, **QUICK).replies(made())
        for done, _ in enumerate(replies, start=1):
            assert taken - done <= 3


def test_so_many_requests_a_minute_and_no_more(tmp_path):
    with MisbehavingServer({"CO": ["500"]}) as server:
        run(server, tmp_path / "answers.jsonl", items=["CO", "CN", "CF"], requests_per_minute=600)
    at = [request.at for request in server.requests]
    assert len(at) == 4 and at[-1] - at[0] >= 0.2


CLIENT = """
import sys
from jaxgkd.teachers.chat_server import ChatServer
from jaxgkd.teachers.describe import Question, describe

url, path, *items = sys.argv[1:]
questions = [Question(item, f"Describe {item}", system="You are brief.") for item in items]
describe(questions, ChatServer("small", base_url=url, concurrency=3, first_wait=0.02), path)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.thorough)])
def test_a_client_that_is_killed_goes_on_and_asks_nothing_twice_that_was_kept(tmp_path, sent):
    items, path = [f"C{'N' * i}" for i in range(40)], tmp_path / "answers.jsonl"
    plans = {items[1]: ["500"], items[5]: ["drop"]}
    # However late a busy machine comes to end it, the client has not been given everything.
    with MisbehavingServer(plans, pause=0.1, holds_after=14) as server:
        with open(tmp_path / "output", "wb") as output:
            command = [sys.executable, "-c", CLIENT, server.url, str(path), *items]
            client = subprocess.Popen(command, stdout=output, stderr=output)
            until = time.monotonic() + 60
            while server.answered.total() < 12 and client.poll() is None and time.monotonic() < until:
                time.sleep(0.005)
            client.send_signal(sent)
            begun = time.monotonic()
            assert client.wait(timeout=20) != 0
            assert time.monotonic() - begun < 5
        server.holds_after = None
        time.sleep(0.2)
        kept = {answer.smiles for answer in read_answers(path)}
        before = {item: server.asked(item) for item in items}
        # At least all but those that were under way.
        assert 12 - 4 <= len(kept) < len(items)
        report = run(server, path, items=items, concurrency=3)
    assert (report.n_kept, report.n_answered) == (len(kept), len(items) - len(kept))
    assert [(answer.smiles, answer.text) for answer in read_answers(path)] == [(i, f"About {i}") for i in items]
    for item in items:
        assert server.asked(item) - before[item] == (item not in kept), item
        assert server.answered[item] <= (1 if item in kept else 2)
    # In flight at the kill: one for every thread, and one that waited to be written.
    assert sum(count == 2 for count in server.answered.values()) <= 4


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"model": ""}, "model"),
        ({"concurrency": 0}, "concurrency"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0.0}, "timeout"),
        ({"requests_per_minute": float("nan")}, "requests_per_minute"),
        ({"temperature": 3.0}, "temperature"),
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"base_url": f"https://me:{KEY}@example.org/v1"}, "base_url"),
        ({"base_url": f"https://example.org/v1?key={KEY}"}, "base_url"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings, field):
    with pytest.raises(ConfigError) as caught:
        ChatServer(**({"model": "small"} | settings))
    assert caught.value.field == field and KEY not in str(caught.value)


def test_the_key_comes_from_the_variable_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "another-key")
    monkeypatch.delenv("OPENAI_API_KEY")
    with MisbehavingServer() as server:
        run(server, tmp_path / "a", items=["CO"], key_variable="OTHER_KEY")
        run(server, tmp_path / "b", items=["CO"])
        assert [request.key for request in server.requests] == ["another-key", "none"]
        monkeypatch.delenv("OTHER_KEY")
        with pytest.raises(ConfigError, match="'OTHER_KEY': is not set"):
            run(server, tmp_path / "c", items=["CO"], key_variable="OTHER_KEY")
        monkeypatch.setenv("OTHER_KEY", "kéy")
        with pytest.raises(ConfigError, match="holds what is no key"):
            run(server, tmp_path / "c", items=["CO"], key_variable="OTHER_KEY")
    with pytest.raises(ConfigError, match="'OPENAI_API_KEY': is not set"):
        describe(questions(["CO"]), ChatServer("small"), tmp_path / "c")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxgkd\[llm\]'"):
        describe(questions(["CO"]), ChatServer("small"), tmp_path / "a")
