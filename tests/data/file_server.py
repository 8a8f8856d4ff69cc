"""A server on this machine that serves files over HTTP with ranges, and fails in the ways real ones do when told to."""

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Use as a context manager; `url` is its address.

    Attributes:
      files: name → content; etags: name → the tag it has, by default made of the content.
      plans: name → what its next requests meet: a status, "cut" (half of what was asked for), "slow" (nothing for a
        second), "endless" (more than any file), or "to URL" (a redirect); after that it is served.
      ranges: what ranges were asked for, in order.
    """

    def __init__(self, files, plans=None):
        self.files, self.plans = dict(files), {name: list(plan) for name, plan in (plans or {}).items()}
        self.ranges: list[str | None] = []
        self.asked: list[str] = []

    def __enter__(self):
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.owner = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc):
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        owner, name = self.server.owner, self.path.lstrip("/")
        owner.asked.append(name)
        owner.ranges.append(self.headers.get("Range"))
        plan = owner.plans.get(name, [])
        step = plan.pop(0) if plan else ""
        if step.startswith("to "):
            self.send_response(302)
            self.send_header("Location", step[3:])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif step.isdigit() or name not in owner.files:
            self.send_error(int(step or 404))
        else:
            self.serve(owner.files[name], step)

    def serve(self, content: bytes, step: str):
        tag = f'"{hashlib.sha256(content).hexdigest()[:12]}"'
        wanted, start = self.headers.get("Range"), 0
        if wanted and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", tag)
        if step != "endless":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        try:
            if step == "slow":
                time.sleep(1.0)
            elif step == "endless":
                while True:
                    self.wfile.write(bytes(1 << 16))
            body = content[start:]
            self.wfile.write(body[: len(body) // 2] if step == "cut" else body)
        except OSError:
            pass
        if step:
            self.close_connection = True
