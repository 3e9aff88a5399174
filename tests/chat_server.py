"""A small chat/completions server on 127.0.0.1 that answers as told, and misbehaves as told."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = """### Visual Cues ###
The speaker smiles. The eyes are bright.
### Language Cues ###
"Loved" carries warmth.
### Multimodal Cues ###
Voice and face support the words."""


def completion(content: str | None, finish: str = "stop", **message) -> dict:
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}}


def fault(status: int, code: str | None = None, headers: dict | None = None) -> tuple[int, bytes, dict]:
    """What a server says when it fails; an unkind one, which repeats the key it was given."""
    return status, json.dumps({"error": {"message": "no: {KEY}", "type": "t", "code": code}}).encode(), headers or {}


class Server:
    """`script`: one reply a request, the last one repeated; a reply is (status, body, headers), a dict sent as JSON, a function of the
    request, or a number of seconds to hang. `requests` holds what came in."""

    def __init__(self, script, delay: float = 0.0):
        self.script, self.delay, self.requests, self.times, self.open, self.most_open = list(script), delay, [], [], 0, 0
        self.lock, self.stopped = threading.Lock(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer.lock:
                    outer.open += 1
                    outer.most_open = max(outer.most_open, outer.open)
                    outer.requests.append({"path": self.path, "key": self.headers["authorization"].removeprefix("Bearer "), **body})
                    outer.times.append(time.monotonic())
                    reply = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                time.sleep(outer.delay)
                try:
                    self.reply(reply(body) if callable(reply) else reply)
                except OSError:             # the client did not wait
                    pass
                with outer.lock:
                    outer.open -= 1

            def reply(self, reply):
                if reply == "drip":         # headers, then a byte now and then, for ever
                    self.send_response(200)
                    self.send_header("content-type", "application/json")
                    self.end_headers()
                    while not outer.stopped.wait(0.05):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                    return
                if isinstance(reply, (int, float)):
                    outer.stopped.wait(reply)
                    return
                status, content, headers = reply if isinstance(reply, tuple) else (200, json.dumps(reply).encode(), {})
                content = content.replace(b"{KEY}", self.headers["authorization"].encode())
                self.send_response(status)
                for name, value in {"content-type": "application/json", "content-length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@contextmanager
def serving(*script, delay: float = 0.0):
    server = Server(script, delay)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.http.shutdown()
        server.http.server_close()
