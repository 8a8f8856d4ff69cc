"""A server on this machine that speaks OpenAI's chat completions, and fails in the ways real ones do when told to.

The last word of a question is the item it is about. What happens to an item is read from its plan, one word a request;
when the plan is used up, it is answered.
"""

import json
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

KEY = "sk-test-5f3c9a7e21d84b06"
HANGS = 2.0


class Request(NamedTuple):
    item: str
    at: float
    body: dict
    key: str


class MisbehavingServer:
    """Use as a context manager; `url` is its address.

    Attributes:
      plans: by item, what its next requests meet: a word of `_Handler.react`, or a status such as "500"; what "*"
        names first is met by all items without a plan.
      requests: all that came, in order.
      answered: by item, how often it was answered in full.
      pause: seconds before every answer.
      holds_after: answers after which all others wait until this is None.
      retry_after: what a 429 asks for.
    """

    def __init__(self, plans=None, *, pause: float = 0.0, holds_after: int | None = None, retry_after: str = "0.3"):
        self.plans = {item: list(plan) for item, plan in (plans or {}).items()}
        self.pause, self.holds_after, self.retry_after = pause, holds_after, retry_after
        self.requests: list[Request] = []
        self.answered = Counter()
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()

    def __enter__(self):
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc):
        self._http.shutdown()
        self._http.server_close()

    def asked(self, item: str) -> int:
        return sum(request.item == item for request in self.requests)

    def take(self, request: Request) -> str:
        with self._lock:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            plan = self.plans.get(request.item) or self.plans.get("*") or ["answer"]
            return plan.pop(0) if request.item in self.plans else plan[0]

    def leave(self) -> None:
        with self._lock:
            self._at_once -= 1


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    owner: MisbehavingServer

    def handle_error(self, request, client_address):
        """A client that was killed or has run out of patience is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def do_POST(self):
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        key = self.headers["Authorization"].removeprefix("Bearer ")
        request = Request(text.split()[-1], time.monotonic(), body, key)
        mishap = owner.take(request)
        try:
            time.sleep(owner.pause)
            while owner.holds_after is not None and owner.answered.total() >= owner.holds_after:
                time.sleep(0.01)
            self.react(mishap, request)
        finally:
            owner.leave()

    def react(self, mishap: str, request: Request):
        owner, item = self.server.owner, request.item
        if mishap == "hang":
            time.sleep(HANGS)
            self.close_connection = True
        elif mishap == "drop":
            # Closed with a reset, as when a machine goes down.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif mishap == "half":
            self.send_headers(200, len(completion(item)))
            self.wfile.write(completion(item)[:40])
            self.close_connection = True
        elif mishap == "broken":
            self.send(200, completion(item)[:-30])
        elif mishap == "html":
            self.send(200, b"<html>busy</html>", kind="text/html")
        elif mishap == "nothing":
            self.send(200, b'{"choices": []}')
        elif mishap in ("empty", "length", "content_filter", "thinking"):
            text = "  " if mishap in ("empty", "thinking") else f"About {item}"
            reason = {"empty": "stop", "thinking": "length"}.get(mishap, mishap)
            self.send(200, completion(item, text, reason))
        elif mishap == "echo":
            self.send(200, completion(item, f"The key is {request.key} indeed"))
        elif mishap == "newer" and "max_tokens" in request.body:
            self.send(400, refusal("Unsupported parameter: use 'max_completion_tokens' instead."))
        elif mishap == "too long":
            self.send(400, refusal("Too many tokens.", code="context_length_exceeded"))
        elif mishap == "quota":
            self.send(429, refusal("Used up.", code="insufficient_quota"))
        elif mishap == "detail":
            self.send(422, b'{"detail": "temperature is odd"}')
        elif mishap.isdigit():
            # Some servers repeat the key they were given, whole or in part.
            words = f"Trouble with {request.key} and {request.key[:12]}*** of {item}"
            headers = {"Retry-After": owner.retry_after} if mishap == "429" else {}
            self.send(int(mishap), refusal(words), headers)
        else:
            time.sleep(0.2 if mishap == "slow" else 0.0)
            with owner._lock:
                owner.answered[item] += 1
            self.send(200, completion(item))

    def send_headers(self, status: int, length: int, headers=None, kind="application/json"):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, status: int, content: bytes, headers=None, kind="application/json"):
        self.send_headers(status, len(content), headers, kind)
        self.wfile.write(content)

    def log_message(self, format, *args):
        """Requests are counted, not printed."""


def completion(item: str, text: str | None = None, finish_reason: str = "stop") -> bytes:
    message = {"role": "assistant", "content": f"About {item}" if text is None else text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def refusal(message: str, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "code": code, "type": "error", "param": None}}).encode()
