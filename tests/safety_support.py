"""A demo that really listens, with a fake analyzer and limits of a test's own, asked over plain HTTP."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from tests.ui_support import FakeAnalyzer

from msademo import limits
from msademo.limits import Limits
from msademo.ui import access, visitors
from msademo.ui.access import Access
from msademo.ui.page import build_demo
from msademo.ui.theme import launch_options

FREELY = Limits(per_minute=100_000, upload_mb=1)
REST = [None, None, False]            # models, guidance, maps: a raw call sends every value


@contextmanager
def serving(analyzer=None, bounds: Limits = FREELY, allowed: Access = Access()):
    """(demo, address) of a listening demo under these limits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "current", lambda: bounds)
        patch.setattr(access, "current", lambda: allowed)
        patch.setattr(visitors, "RATES", visitors.Rates())
        demo = build_demo(analyzer or FakeAnalyzer())
        _, url, _ = demo.queue(default_concurrency_limit=2, max_size=bounds.queue).launch(prevent_thread_lock=True, quiet=True, **launch_options())
        try:
            yield demo, url
        finally:
            demo.close()


def ask(url: str, method: str, path: str, body: bytes | str | None = None, **headers) -> tuple[int, str, dict]:
    """Status, text and headers; the path goes out as it is written, dots and all."""
    link = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        link.request(method, path, body, headers)
        reply = link.getresponse()
        return reply.status, reply.read().decode("utf-8", "replace"), {name.lower(): value for name, value in reply.getheaders()}
    finally:
        link.close()


def post(url: str, path: str, data: dict, **headers) -> tuple[int, str, dict]:
    return ask(url, "POST", path, json.dumps(data), **{"Content-Type": "application/json", **headers})


def upload(url: str, content: bytes, name: str = "talk.mp4", **headers) -> tuple[int, str, dict]:
    body = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n--x--\r\n"
    return ask(url, "POST", "/gradio_api/upload", body, **{"Content-Type": "multipart/form-data; boundary=x", **headers})


def call(url: str, name: str, data: list, session: str | None = None, **headers) -> str:
    """The event stream of one API call by hand, or what refused it."""
    status, text, _ = post(url, f"/gradio_api/call/{name}", {"data": data, **({"session_hash": session} if session else {})}, **headers)
    return ask(url, "GET", f"/gradio_api/call/{name}/{json.loads(text)['event_id']}", **headers)[1] if status == 200 else text


def page_event(demo, url: str, inputs: dict, target: str, session: str) -> str:
    """Fire the first page event with the component `target` (an elem_id) among its inputs, with values by elem_id; the stream of its session."""
    ids = {getattr(block, "elem_id", None): number for number, block in demo.blocks.items()}
    number, event = next((n, fn) for n, fn in demo.fns.items() if ids[target] in [block._id for block in fn.inputs])
    values = [inputs.get(block.elem_id) if getattr(block, "elem_id", None) in inputs else None if block.stateful else block.value for block in event.inputs]
    status, text, _ = post(url, "/gradio_api/queue/join", {"data": values, "fn_index": number, "session_hash": session})
    return text if status != 200 else ask(url, "GET", f"/gradio_api/queue/data?session_hash={session}")[1]


@contextmanager
def listener():
    """(address, requests): a server on this machine that nobody should ask."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def clip_call(path) -> list:
    return [{"path": str(path), "meta": {"_type": "gradio.FileData"}}, "a", 0, 0, 0, "random", 0, *REST]
