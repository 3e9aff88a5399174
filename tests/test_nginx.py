"""docs/nginx.conf as it stands, on loopback: two workers of the page behind nginx, at the root of a site and under a path."""

import os
import re
import socket
import subprocess
import time
from pathlib import Path
from shutil import which

import httpx
import pytest
from gradio_client import Client, handle_file
from tests.ui_support import FakeAnalyzer, write_clip

from msademo.ui.page import build_demo
from msademo.ui.theme import launch_options

NGINX = which("nginx") or which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
DOCS = Path(__file__).resolve().parent.parent / "docs"
CONF = (DOCS / "nginx.conf").read_text(encoding="utf-8")
UNDER = re.search(r"```nginx\n(.*?)```", (DOCS / "deploy.md").read_text(encoding="utf-8"), re.S)[1]


class Slow(FakeAnalyzer):
    def open(self, path, transcript=None, **more):
        time.sleep(0.4 * (transcript == "slow"))
        return super().open(path, transcript, **more)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(conf: str, folder: Path) -> tuple[subprocess.Popen, str]:
    """nginx with only that file, as whoever runs the tests; its address once it listens."""
    port = free_port()
    conf = re.sub(r"listen 80;", f"listen 127.0.0.1:{port};", conf)
    temporary = "".join(f"    {name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "main.conf").write_text(f"{user}daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\n    access_log off;\n{temporary}{conf}}}\n")
    process = subprocess.Popen([NGINX, "-e", f"{folder}/error.log", "-p", str(folder), "-c", str(folder / "main.conf")], stderr=subprocess.PIPE, text=True)
    for _ in range(100):
        if process.poll() is not None:
            raise RuntimeError(process.stderr.read())
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return process, f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.1)
    process.terminate()
    raise RuntimeError("nginx does not listen")


def behind(tmp_path_factory, root: str, conf: str):
    workers, addresses = [], []
    for _ in range(2):
        demo = build_demo(analyzer := Slow())
        _, url, _ = demo.queue().launch(prevent_thread_lock=True, quiet=True, root_path=root, **launch_options())
        workers.append((analyzer, demo))
        addresses.append(url.split("//")[1].split("/")[0])
    for example, address in zip(("127.0.0.1:7861", "127.0.0.1:7862"), addresses):
        assert f"server {example};" in conf
        conf = conf.replace(f"server {example};", f"server {address};")
    process, url = start(conf, tmp_path_factory.mktemp("nginx"))
    try:
        yield url, [analyzer for analyzer, _ in workers]
    finally:
        process.terminate()
        process.wait(10)
        for _, demo in workers:
            demo.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    yield from behind(tmp_path_factory, "", CONF)


@pytest.fixture(scope="module")
def under(tmp_path_factory):
    location = re.search(r"    location / \{.*?\n    \}\n", CONF, re.S)[0]
    yield from behind(tmp_path_factory, "/demo", CONF.replace(location, UNDER))


@pytest.fixture(scope="module")
def talk(tmp_path_factory) -> str:
    return write_clip(tmp_path_factory.mktemp("clips") / "talk.mp4", 1.0)


class Browser:
    """Opens the page, keeps its cookie, and speaks the page's protocol."""

    def __init__(self, url: str, session: str):
        self.http, self.session = httpx.Client(base_url=url, timeout=60), session
        assert self.http.get("/").status_code == 200
        config = self.http.get("/config").json()
        self.home, self.events = config["app_id"], {event["api_name"]: event["id"] for event in config["dependencies"]}

    def analyse(self, talk: str) -> dict:
        with open(talk, "rb") as file:
            path = self.http.post("/gradio_api/upload", files={"files": ("talk.mp4", file)}).raise_for_status().json()[0]
        data = [path, "a b", 0, 0, 0, "random", 0, None, None, False]
        self.http.post("/gradio_api/queue/join", json={"data": data, "fn_index": self.events["analyze_clip"], "session_hash": self.session}).raise_for_status()
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            return next(line for line in stream.iter_lines() if "process_completed" in line)


def test_each_visitor_stays_with_one_worker_and_both_have_some(site, talk):
    url, analyzers = site
    homes = {}
    for number in range(24):
        browser = Browser(url, f"session{number}")
        if browser.home in homes:
            browser.http.close()
            continue
        homes[browser.home] = opened = []
        for _ in range(2):
            before = [analyzer.opens for analyzer in analyzers]
            assert '"success":true' in browser.analyse(talk)
            opened += [n for n, analyzer in enumerate(analyzers) if analyzer.opens > before[n]]
        browser.http.close()
        assert len(opened) == 2 and len(set(opened)) == 1, "one visitor was served by both"
        if len(homes) == 2:
            break
    assert {opened[0] for opened in homes.values()} == {0, 1}


def test_the_cookie_is_set_once_and_without_it_the_address_decides(site):
    with httpx.Client(base_url=site[0]) as http:
        first = http.get("/")
        assert re.fullmatch(r"msademo_worker=[0-9a-f]{32}; Path=/; HttpOnly; SameSite=Lax", first.headers["set-cookie"])
        assert "set-cookie" not in http.get("/").headers and "set-cookie" not in http.get("/config").headers
    assert len({httpx.get(f"{site[0]}/config").json()["app_id"] for _ in range(6)}) == 1


def test_a_program_without_cookies_is_served_and_sees_progress_at_once(site, talk):
    client = Client(site[0], verbose=False)
    try:
        job, seen = client.submit(videos=[handle_file(talk)] * 4, transcripts=["slow"] * 4, api_name="/analyze_clips"), {}
        while not job.done():
            for unit in job.status().progress_data or []:
                seen.setdefault(unit.index, time.monotonic())
            time.sleep(0.05)
        assert all(row["result"] for row in job.result()) and len(seen) >= 2
        assert time.monotonic() - min(seen.values()) > 0.4, "the events came all together"
    finally:
        client.close()


def test_a_body_too_large_ends_at_nginx(site):
    host, port = site[0].split("//")[1].split(":")
    with socket.create_connection((host, int(port)), 10) as line:
        line.sendall(f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: {300_000_000}\r\n\r\n".encode())
        assert b" 413 " in line.recv(200)


def test_under_a_path_of_the_site(under, talk):
    url = under[0]
    page = httpx.get(f"{url}/demo/")
    assert page.status_code == 200 and f'"root":"{url}/demo"' in page.text.replace(" ", "") and httpx.get(f"{url}/").status_code == 404
    for asset in re.findall(r'(?:src|href)="([^"]+\.(?:js|css))"', page.text)[:6]:
        assert httpx.get(httpx.URL(f"{url}/demo/").join(asset)).status_code == 200, asset
    assert httpx.get(f"{url}/demo/gradio_api/openapi.json").json()["servers"] == [{"url": f"{url}/demo"}]
    client = Client(f"{url}/demo", verbose=False)
    try:
        assert client.predict(video=handle_file(talk), transcript="a b", api_name="/analyze_clip")["words"]
    finally:
        client.close()
