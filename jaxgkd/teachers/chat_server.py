"""Asks any server that speaks OpenAI's chat completions, several questions at a time, and again where that may help.

Needs the extra ``jaxgkd[llm]``. The key is read from the environment when questions are asked, and kept nowhere else:
not in the describer's settings, and what a server says is stripped of it before anybody sees it.
"""

import base64
import json
import os
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from queue import Queue
from typing import Any
from urllib.parse import urlsplit

from jaxgkd.errors import ConfigError
from jaxgkd.teachers.describe import Failure, Question, Reply

OPENAI_KEY = "OPENAI_API_KEY"
# Of a 4xx, these pass: a request that took too long, a conflict, one that came too early, and too many of them.
_PASSING = (408, 409, 425, 429)
# Pieces of the key that are looked for in what a server says, in characters: servers echo parts of keys, too.
_PIECE = 8


@dataclass(frozen=True)
class ChatServer:
    """A model behind a server.

    Fields:
      model: its name there.
      base_url: such as http://localhost:8000/v1; None for OpenAI's, or what OPENAI_BASE_URL says.
      key_variable: the environment variable that holds the key; servers at a `base_url` may do without one.
      max_tokens: of an answer.
      temperature: None leaves it to the server, as some models demand.
      timeout: seconds a server may be silent.
      concurrency: questions asked at the same time.
      requests_per_minute: at most, repeated ones counted; None for no limit.
      retries: attempts after the first.
      first_wait, longest_wait: seconds before the first repetition, doubled for each further one up to the longest; a
        random part of up to a half is taken off. A server that asks for a longer wait gets it, but not above
        `patience`: there the run ends.
    """

    model: str
    base_url: str | None = None
    key_variable: str = OPENAI_KEY
    max_tokens: int = 400
    temperature: float | None = 0.0
    timeout: float = 120.0
    concurrency: int = 8
    requests_per_minute: float | None = None
    retries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    patience: float = 900.0

    def __post_init__(self):
        """Raises ConfigError for a value that cannot be used; the message names the field."""
        if not self.model:
            raise ConfigError("no model is named", field="model", mend="give the name the server knows it by")
        for name, least in (("max_tokens", 1), ("concurrency", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"the value is {getattr(self, name)}", field=name, mend=f"give {least} or more")
        for name in ("timeout", "requests_per_minute"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ConfigError(f"the value is {value}", field=name, mend="give a number above 0")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise ConfigError(f"the value is {self.temperature}", field="temperature", mend="give 0 to 2")
        if self.base_url is not None:
            url = urlsplit(self.base_url)
            # A password in the address would end up in shell histories and messages.
            if url.scheme not in ("http", "https") or not url.hostname or url.query or "@" in url.netloc:
                mend = "give an address such as http://localhost:8000/v1, and the key in the environment"
                raise ConfigError("is no plain address of a server", field="base_url", mend=mend)

    @property
    def settings(self) -> dict[str, Any]:
        """What of this decides an answer."""
        return {"model": self.model, "max_tokens": self.max_tokens, "temperature": self.temperature}

    def replies(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply | Failure]]:
        """Every question with its reply, in the order they arrive.

        Raises:
          ConfigError: openai is not installed, the key is missing, or the server refuses every question.
        """
        session = _Session(self)
        waiting: Queue[Question | None] = Queue()
        done: Queue[tuple[Question, Reply | Failure | BaseException]] = Queue()

        def work() -> None:
            while (question := waiting.get()) is not None and not session.stopped.is_set():
                try:
                    done.put((question, session.ask(question)))
                except BaseException as error:  # raised again in the thread that reads `done`
                    done.put((question, error))

        def next_reply() -> tuple[Question, Reply | Failure]:
            question, reply = done.get()
            if isinstance(reply, BaseException):
                raise reply
            return question, reply

        # Not an executor's threads, which Python waits for: an interrupted run must not wait for slow servers.
        for _ in range(self.concurrency):
            threading.Thread(target=work, daemon=True).start()
        in_flight = 0
        try:
            for question in questions:
                waiting.put(question)
                in_flight += 1
                # One more than are asked, so that no thread waits for an answer to be written.
                while in_flight > self.concurrency or not done.empty():
                    yield next_reply()
                    in_flight -= 1
            while in_flight:
                yield next_reply()
                in_flight -= 1
        finally:
            session.stopped.set()
            for _ in range(self.concurrency):
                waiting.put(None)
            session.client.close()


class _TryAgain(Exception):
    """An attempt without an answer that another one may bring."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class _Session:
    """The client, the key, and the pace that all threads keep."""

    def __init__(self, server: ChatServer):
        try:
            import openai
        except ImportError:
            raise ConfigError(
                "asking a server needs the package openai", mend="install it with pip install 'jaxgkd[llm]'"
            ) from None
        self.server, self.openai, self.stopped = server, openai, threading.Event()
        self._key = os.environ.get(server.key_variable, "").strip()
        if not self._key and (server.base_url is None or server.key_variable != OPENAI_KEY):
            mend = "set the environment variable to the server's key"
            raise ConfigError("is not set", field=server.key_variable, mend=mend)
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError("holds what is no key", field=server.key_variable, mend="copy the key again")
        self.client = openai.OpenAI(
            api_key=self._key or "none", base_url=server.base_url, timeout=server.timeout, max_retries=0
        )
        self._lock, self._next_start = threading.Lock(), 0.0
        # Newer models know the limit by the longer name only; the first refusal tells which.
        self._limit_name = "max_tokens"

    def ask(self, question: Question) -> Reply | Failure:
        """Ask until there is an answer or the attempts are used up."""
        server, reasons = self.server, []
        while True:
            self._wait_for_turn()
            if self.stopped.is_set():
                return Failure("the run's end", tuple(reasons))
            try:
                reply = self._attempt(question)
            except _TryAgain as error:
                reasons.append(error.reason)
                if len(reasons) > server.retries:
                    return Failure(error.reason, tuple(reasons[:-1]))
                wait = min(server.first_wait * 2.0 ** (len(reasons) - 1), server.longest_wait)
                self.stopped.wait(wait * random.uniform(0.5, 1.0))
                continue
            return replace(reply, retries=tuple(reasons))

    def _wait_for_turn(self) -> None:
        """Starts of requests are spaced evenly, and none is made while the server wants peace."""
        per_minute = self.server.requests_per_minute
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + (60 / per_minute if per_minute else 0.0)
        self.stopped.wait(start - now)

    def _attempt(self, question: Question) -> Reply | Failure:
        server, openai, limit_name = self.server, self.openai, self._limit_name
        options: dict[str, Any] = {limit_name: server.max_tokens}
        if server.temperature is not None:
            options["temperature"] = server.temperature
        try:
            response = self.client.chat.completions.with_raw_response.create(
                model=server.model, messages=_messages(question), **options
            )
        except openai.APITimeoutError:
            raise _TryAgain("time-out") from None
        except openai.APIConnectionError as error:
            cause = f" ({self._clean(error.__cause__)})" if error.__cause__ is not None else ""
            raise _TryAgain(f"no connection{cause}") from None
        except openai.APIStatusError as error:
            said = _message(error.response.text)
            if limit_name == "max_tokens" and "max_completion_tokens" in said:
                self._limit_name = "max_completion_tokens"
                return self._attempt(question)
            return self._refusal(error.status_code, error.response.headers, error.code, self._clean(said))
        try:
            body = json.loads(response.http_response.content)
        except ValueError:
            raise _TryAgain("broken JSON") from None
        return self._reply(body)

    def _refusal(self, status: int, headers: Mapping[str, str], code: str | None, message: str) -> Failure:
        """What to do about an error of the server: ask again, give this question up, or give everything up."""
        server, place = self.server, f"the server at {self.client.base_url}"
        if code == "insufficient_quota":
            raise ConfigError(f"{place} says that the account is used up", mend="add credit, then run again")
        if status >= 500 or status in _PASSING:
            wait = _seconds(headers.get("retry-after"))
            if wait > server.patience:
                what = f"{place} wants no request for {wait:,.0f} s (HTTP {status})"
                raise ConfigError(what, mend="run again then, which goes on from what is answered")
            with self._lock:
                self._next_start = max(self._next_start, time.monotonic() + wait)
            raise _TryAgain(f"HTTP {status}")
        if code in ("content_filter", "context_length_exceeded") or "context length" in message.lower():
            return Failure(f"HTTP {status}: {message}", of_question=True)
        if status in (401, 403):
            mend = f"set {server.key_variable} to a key that is valid there"
            raise ConfigError(f"{place} refuses the key (HTTP {status})", mend=mend)
        what = f"{place} refuses to answer as '{server.model}' (HTTP {status}: {message})"
        raise ConfigError(what, mend="check the model's name, the address and the settings")

    def _reply(self, body: Any) -> Reply | Failure:
        try:
            choice = body["choices"][0]
            text, finish_reason = choice["message"].get("content"), choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise _TryAgain("no answer in the response") from None
        if finish_reason == "content_filter":
            return Failure("content filter", of_question=True)
        if not isinstance(text, str) or not text.strip():
            if finish_reason == "length":
                # A model that thinks first would use its tokens up again.
                return Failure(f"all {self.server.max_tokens} tokens used up before an answer began")
            raise _TryAgain("empty answer")
        if len(self._key) >= 2 * _PIECE:
            text = text.replace(self._key, "***")
        return Reply(
            text.strip(),
            input_tokens=_count(body, "prompt_tokens"),
            output_tokens=_count(body, "completion_tokens"),
            finish_reason="length" if finish_reason == "length" else "stop",
        )

    def _clean(self, said: object) -> str:
        """One line of what was said, without words that hold a piece of the key."""
        pieces = {self._key[i : i + _PIECE] for i in range(max(1, len(self._key) - _PIECE + 1))} - {""}
        words = ["***" if any(piece in word for piece in pieces) else word for word in str(said).split()]
        return " ".join(words)[:200].rstrip(".;, ")


def _messages(question: Question) -> list[Any]:
    content: str | list[dict[str, Any]] = question.text
    if question.image is not None:
        url = f"data:image/png;base64,{base64.b64encode(question.image).decode()}"
        content = [{"type": "text", "text": question.text}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "system", "content": question.system}, {"role": "user", "content": content}]


def _message(content: str) -> str:
    """What a server says of an error: OpenAI's form, that of other servers, or the whole of it."""
    try:
        body = json.loads(content)
    except ValueError:
        return content
    inner = body.get("error", body) if isinstance(body, dict) else body
    found = (inner.get("message") or inner.get("detail")) if isinstance(inner, dict) else inner
    return str(found or content)


def _count(body: dict[str, Any], name: str) -> int:
    """Tokens as the server counts them; 0 where it does not."""
    usage = body.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0


def _seconds(header: str | None) -> float:
    """What Retry-After asks for, in seconds or as a date; 0 where there is none."""
    if header is None:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0
