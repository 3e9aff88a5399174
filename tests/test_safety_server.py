"""A listening page asked as strangers would: for addresses it does not need, files of the server, other servers, another's upload, too much."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import re
import threading
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from gradio import processing_utils
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from tests.safety_support import ask, call, clip_call, listener, page_event, post, serving, upload
from tests.ui_support import FakeAnalyzer, write_clip

from msademo import limits
from msademo.limits import Limits
from msademo.ui import closed, gate, visitors
from msademo.ui.access import Access

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def served():
    analyzer = FakeAnalyzer()
    with serving(analyzer) as (demo, url):
        yield demo, url, analyzer


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    return Path(write_clip(tmp_path_factory.mktemp("clips") / "talk.mp4", 1.0)).read_bytes()


UNNEEDED = ["proxy=https://a.hf.space/x", "proxy=http://127.0.0.1/", "stream/a/b/1/playlist.m3u8", "stream/a/b/1/playlist-file", "dev/reload",
            "deep_link?session_hash=a", "runs", "run-history/buckets", "run-history/records", "custom_component/a/client/component/index.js", "vibe-code",
            "file/etc/passwd", "profiling/traces", "nothing"]


@pytest.mark.parametrize("path", [*(f"/gradio_api/{rest}" for rest in UNNEEDED), "/monitoring", "/monitoring/summary", "/monitoring/x", "/docs", "/redoc", "/openapi.json",
                                  "/pwa_icon/100000", "/gradio_api", "//etc/passwd"])
def test_addresses_the_page_does_not_need_are_not_there(served, path):
    status, text, _ = ask(served[1], "GET", path)
    assert (status, json.loads(text)) == (404, {"detail": gate.NOT_HERE})


@pytest.mark.parametrize("path", ["component_server", "process_recording", "vibe-edit", "run-history/connect", "stream/x", "undo-vibe-edit"])
def test_nor_are_those_that_take_something(served, path):
    assert post(served[1], f"/gradio_api/{path}", {"session_hash": "a", "component_id": 1, "fn_name": "x", "data": None})[0] == 404


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/theme.css", "/manifest.json", "/robots.txt", "/gradio_api/startup-events"])
def test_what_the_page_needs_is_there_with_careful_headers(served, path):
    status, _, headers = ask(served[1], "GET", path)
    assert status == 200 and headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"


def test_no_file_of_the_server_is_served(served, clip, tmp_path):
    _, url, _ = served
    own = json.loads(upload(url, clip)[1])[0]
    (tmp_path / "secret.txt").write_text("secret")
    os.symlink(tmp_path / "secret.txt", Path(own).parent / "link.txt")
    wanted = ["/etc/passwd", "../../../../../../etc/passwd", "app.py", "./app.py", f"{ROOT}/app.py", f"{ROOT}/examples/../app.py", "examples/../app.py", f"{ROOT}/examples",
              f"{own}/../../../../../../etc/passwd", f"{Path(own).parent}/../../../x", "/proc/self/environ", f"{ROOT}/.msademo/study.sqlite", f"{ROOT}/checkpoints/pglh.md",
              str(tmp_path / "secret.txt"), str(Path(own).parent / "link.txt"), "\0", "", "/", "~", "a" * 10_000, str(Path(get_upload_folder()).parent / "in-use")]
    for path in wanted:
        for form in (path.replace("\0", "%00"), quote(path, safe="/."), quote(path, safe="").replace(".", "%2e")):
            status, text, _ = ask(url, "GET", f"/gradio_api/file={form}")
            assert status == 404 and "secret" not in text and "root:" not in text, form
    for path in ("/static/../../../../../etc/passwd", "/assets/..%2f..%2f..%2f..%2fetc/passwd", "/static/%2e%2e/%2e%2e/routes.py", "/svelte/../../routes.py"):
        status, text, _ = ask(url, "GET", path)
        assert status in (403, 404) and "root:" not in text and "def create_app" not in text
    status, text, headers = ask(url, "GET", f"/gradio_api/file={own}")
    assert status == 200 and "sandbox" in headers["content-security-policy"]
    assert ask(url, "GET", f"/gradio_api/file={quote(str(ROOT / 'examples' / 'cat.jpg'))}")[0] == 200


def test_no_file_of_the_server_is_analysed(served, tmp_path):
    demo, url, analyzer = served
    secret, opens = write_clip(tmp_path / "secret.mp4", 1.0), analyzer.opens
    own = Path(get_upload_folder())
    for path in (secret, f"{own}/../../..{secret}", "/etc/passwd", str(ROOT / "examples" / "happy.mp4"), f"file://{secret}"):
        assert "event: error" in call(url, "analyze_clip", clip_call(path))
        told = page_event(demo, url, {"video": {"path": path, "meta": {"_type": "gradio.FileData"}}}, "video", f"s{abs(hash(path))}")
        assert '"success":false' in told.replace(" ", "") or "msa-alert" in told
    assert analyzer.opens == opens


def test_no_address_is_fetched(served):
    """On this machine, where Gradio itself would refuse as well, and elsewhere, where it would fetch."""
    demo, url, analyzer = served
    opens = analyzer.opens
    with listener() as (inner, asked):
        for number, address in enumerate((f"{inner}/talk.mp4", "http://example.com/talk.mp4", "https://example.com/talk.mp4", "ftp://example.com/talk.mp4")):
            file = {"path": address, "url": address, "orig_name": "talk.mp4", "meta": {"_type": "gradio.FileData"}}
            assert "event: error" in call(url, "analyze_clip", [file, *clip_call("x")[1:]])
            for at in ("video", "study-upload"):
                told = page_event(demo, url, {at: file}, at, f"fetch{number}{at}")
                assert '"success":false' in told.replace(" ", "") or "msa-alert" in told
                if address.startswith("http"):
                    assert closed.REFUSED in told
            for form in (address, quote(address, safe="")):
                assert ask(url, "GET", f"/gradio_api/file={form}")[0] == 404
                assert ask(url, "GET", f"/gradio_api/proxy={form}")[0] == 404
        assert asked == []
    assert analyzer.opens == opens


def test_an_upload_has_a_name_that_nobody_guesses(served, clip):
    _, url, _ = served
    mine, again = (json.loads(upload(url, clip, "../../talk.mp4")[1])[0] for _ in range(2))
    folder = Path(mine).parent
    assert mine == again and Path(get_upload_folder()).resolve() == folder.parent.resolve() and Path(mine).name == "talk.mp4"
    assert folder.name not in (hashlib.sha256(clip).hexdigest(), hashlib.sha256(b"" + clip).hexdigest()) and len(folder.name) == 64
    assert folder.name == hashlib.sha256(processing_utils.hash_seed + clip).hexdigest() and len(processing_utils.hash_seed) == 32
    assert Path(get_upload_folder()).parent.stat().st_mode & 0o077 == 0
    for guess in (folder, folder.parent, f"{folder.parent}/{hashlib.sha256(clip).hexdigest()}/talk.mp4"):
        assert ask(url, "GET", f"/gradio_api/file={guess}")[0] == 404


def test_too_large_an_upload_is_one_sentence(served):
    _, url, _ = served
    status, text, _ = upload(url, bytes(3 << 20))
    assert status == 413 and text == "The file has more than the 1 MB that are taken here; cut it shorter or save it smaller."
    link = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)       # and without saying how large it is
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="talk.mp4"\r\n\r\n'
    try:
        link.request("POST", "/gradio_api/upload", iter([head, *[bytes(1 << 19)] * 8, b"\r\n--x--\r\n"]), {"Content-Type": "multipart/form-data; boundary=x"}, encode_chunked=True)
        reply = link.getresponse()
        assert reply.status == 413 and b"more than the 1 MB" in reply.read()
    except (BrokenPipeError, ConnectionResetError):         # refused before all was sent
        pass
    finally:
        link.close()
    assert upload(url, b"small")[0] == 200


def test_too_large_a_call_is_one_sentence(served):
    status, text, _ = ask(served[1], "POST", "/gradio_api/call/analyze_clip", None, **{"Content-Type": "application/json", "Content-Length": str(gate.MOST_JSON + 1)})
    assert status == 413 and "more than 70 MB" in json.loads(text)["detail"]


def test_a_full_disk_is_one_sentence(served, monkeypatch):
    monkeypatch.setattr(gate.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1_000_000}))
    status, text, _ = upload(served[1], b"small")
    assert (status, text) == (507, gate.NO_ROOM)


# ---- how often -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slowly(monkeypatch):
    """Three requests a minute."""
    monkeypatch.setattr(limits, "current", lambda: Limits(per_minute=3, upload_mb=1))
    monkeypatch.setattr(visitors, "RATES", visitors.Rates(lambda: 0.0))           # no time goes by, however slow the machine


def test_who_asks_too_often_is_told_how_long_to_wait(served, clip, slowly):
    demo, url, analyzer = served
    path, opens = json.loads(upload(url, clip)[1])[0], analyzer.opens
    for _ in range(3):
        assert "event: complete" in call(url, "analyze_clip", clip_call(path), "one-visitor")
    told = call(url, "analyze_clip", clip_call(path), "one-visitor")
    assert "event: error" in told and re.search(r"too many requests from you just now \(3 a minute are allowed\); wait \d+ seconds and try again\.", told)
    assert analyzer.opens == opens + 3
    assert "event: complete" in call(url, "analyze_clip", clip_call(path), "another-visitor")
    seen = [call(url, "analyze_clip", clip_call(path)) for _ in range(12)]         # a new session each, which costs nothing: the address counts
    assert "event: complete" in seen[0] and "too many requests" in seen[-1]
    assert "msa-alert" in page_event(demo, url, {}, "video", "one-visitor")
    refused = [upload(url, b"small") for _ in range(2)][-1]
    assert refused[0] == 429 and "too many requests" in refused[1] and int(refused[2]["retry-after"]) >= 1


def test_a_forwarded_address_is_believed_only_from_a_proxy_of_ours(served, slowly, monkeypatch):
    spoofed = [upload(served[1], b"small", **{"X-Forwarded-For": f"203.0.113.{n}", "X-Real-IP": f"203.0.113.{n}"})[0] for n in range(20)]
    assert "127.0.0.1" in served[1] and len(spoofed) == 20
    assert visitors.address("198.51.100.7", "203.0.113.9", 0) == "198.51.100.7"
    assert visitors.address("10.0.0.1", "203.0.113.9, 198.51.100.7", 1) == "198.51.100.7"
    assert visitors.address("10.0.0.1", "6.6.6.6, 198.51.100.7, 10.0.0.2", 2) == "198.51.100.7"
    assert visitors.address("10.0.0.1", "", 2) == "10.0.0.1"
    assert visitors.address("10.0.0.1", "6.6.6.6, 8.8.8.8, 10.1.2.3", None) == "8.8.8.8"
    assert visitors.address("2001:db8:1:2:3::4", "", 0) == visitors.address("10.0.0.1", "2001:db8:1:2:9::9", 1) == "2001:db8:1:2::/64"
    assert visitors.address("10.0.0.1", "nonsense, 10.1.2.3", None) == "10.0.0.1"


def test_a_full_queue_is_one_sentence(clip):
    started, go_on = threading.Event(), threading.Event()

    class Slow(FakeAnalyzer):
        def clip(self, *args, **kwargs):
            started.set()
            go_on.wait(60)
            return super().clip(*args, **kwargs)

    with serving(Slow(), Limits(queue=1, upload_mb=1)) as (_, url):
        path = json.loads(upload(url, clip)[1])[0]
        join = lambda: post(url, "/gradio_api/call/analyze_clip", {"data": clip_call(path)})
        try:
            assert join()[0] == 200 and started.wait(60)
            assert join()[0] == 200
            status, text, _ = join()
            assert status == 503 and json.loads(text)["detail"] == "The page is busy: 1 requests are waiting already; wait a minute and try again."
        finally:
            go_on.set()


# ---- a login ---------------------------------------------------------------------------------------------------------------


def test_with_a_login_nothing_is_there_without_it(clip):
    with serving(allowed=Access(login=(("anna", "correct horse"), ("ben", "battery staple")))) as (demo, url):
        assert ask(url, "GET", "/")[0] == 200                       # the form
        for path in ("/config", "/gradio_api/info", "/gradio_api/openapi.json", f"/gradio_api/file={ROOT}/examples/cat.jpg", "/gradio_api/queue/data?session_hash=a",
                     "/gradio_api/mcp/", "/gradio_api/mcp/sse", "/gradio_api/heartbeat/a"):
            assert ask(url, "GET", path)[0] == 401, path
        assert upload(url, clip)[0] == 401 and post(url, "/gradio_api/call/analyze_clip", {"data": clip_call("x")})[0] == 401
        assert post(url, "/gradio_api/queue/join", {"data": [], "fn_index": 0, "session_hash": "a"})[0] == 401
        enter = lambda user, password: ask(url, "POST", "/login", f"username={quote(user)}&password={quote(password)}", **{"Content-Type": "application/x-www-form-urlencoded"})
        for user, password in (("anna", "battery staple"), ("ben", ""), ("", ""), ("eve", "correct horse"), ("anna", "CORRECT HORSE")):
            assert enter(user, password)[0] in (400, 422)
        status, _, headers = enter("ben", "battery staple")
        cookie = {"Cookie": headers["set-cookie"].split(";")[0]}
        assert status == 200 and ask(url, "GET", "/config", **cookie)[0] == 200 and ask(url, "GET", "/gradio_api/openapi.json", **cookie)[0] == 200
        assert "battery" not in ask(url, "GET", "/config", **cookie)[1]
        path = json.loads(upload(url, clip, **cookie)[1])[0]
        assert "event: complete" in call(url, "analyze_clip", clip_call(path), **cookie)
        assert [enter("anna", f"guess number {n}")[0] for n in range(12)][-1] == 429        # ten a minute
        assert ask(url, "GET", "/config", **{"Cookie": f"access-token-{demo.app.cookie_id}=guess"})[0] == 401


# ---- a visitor's key -------------------------------------------------------------------------------------------------------

KEY, SHOUTED = "sk-visitor-0123456789abcdef", "sk-quoted-in-an-error"


def test_a_visitor_s_key_is_used_once_and_found_nowhere(caplog, capfd):
    keys: list = []

    class Writing(FakeAnalyzer):
        def write_guidance(self, opened, source="offline", missing=None, kind="random", seed=0, key=None):
            keys.append(key)
            if key == SHOUTED:
                raise RuntimeError(f"a message with {key}")
            return super().write_guidance(opened, source, missing, kind, seed)

    caplog.set_level(logging.DEBUG)
    with serving(Writing()) as (demo, url):
        session = "key-session"
        file = json.loads(upload(url, (ROOT / "examples" / "happy.mp4").read_bytes(), "happy.mp4")[1])[0]
        opened = page_event(demo, url, {"video": {"path": file, "meta": {"_type": "gradio.FileData"}}, "transcript": "so good"}, "video", session)
        assert "process_completed" in opened and "msa-alert" not in opened
        told = page_event(demo, url, {"prompt-writer": "openai", "prompt-key": KEY}, "prompt-key", session)
        assert keys == [KEY] and "process_completed" in told and KEY not in told
        refused = page_event(demo, url, {"prompt-writer": "openai", "prompt-key": "a key\nwith lines"}, "prompt-key", session)
        assert "must be one word" in refused and "with lines" not in refused
        page_event(demo, url, {"prompt-writer": "openai", "prompt-key": SHOUTED}, "prompt-key", session)
        page_event(demo, url, {"prompt-writer": "offline", "prompt-key": KEY}, "prompt-key", session)
        assert keys == [KEY, SHOUTED, None]
        kept = demo.state_holder[session]
        everything = repr([list(kept.components), {k: v for k, v in kept.state_data.items()}, demo._queue.event_analytics, demo._queue.event_ids_to_events])
        assert not [secret for secret in (KEY, SHOUTED, "with lines") if secret in everything]
        assert KEY not in ask(url, "GET", "/config")[1] + ask(url, "GET", "/gradio_api/info")[1]
    written = caplog.text + "".join(capfd.readouterr())
    assert "unexpected RuntimeError" in written and not [secret for secret in (KEY, SHOUTED) if secret in written]


def test_the_limits_are_said_on_the_page(served):
    text = ask(served[1], "GET", "/config")[1]
    assert "A file may have 1 MB" in text and "first 60 s" in text and "first 500" in text and "after 6 hours" in text


def test_gradio_client_still_works(served, tmp_path):
    client = Client(served[1], verbose=False)
    try:
        assert client.predict(video=handle_file(write_clip(tmp_path / "talk.mp4", 1.0)), transcript="fine", api_name="/analyze_clip")["score"] > 0
    finally:
        client.close()
