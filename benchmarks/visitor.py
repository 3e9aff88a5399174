"""The real server as a child process on a loopback port, and visitors who speak the page's own protocol to it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator
from uuid import uuid4

import httpx

ROOT = Path(__file__).resolve().parent.parent
START_S = 180.0             # until the page answers; the models load behind it
BUSY = re.compile(r"busy|queue is full|too many|wait", re.IGNORECASE)      # sentences that tell a visitor to come again


class Server:
    """app.py, listening on a free port of 127.0.0.1. Use it in a `with`: it is killed at the end, however that comes.

    program: what Python runs. environment: more variables. start_s: how long it may take until it answers. Runs, uploads and the log lie in `folder`.
    """

    def __init__(self, folder: Path, program: tuple[str, ...] = ("app.py",), environment: dict[str, str] | None = None, port: int | None = None,
                 start_s: float | None = None):
        self.folder, self.port, self._environment, self._start_s = folder, port or free_port(), environment or {}, start_s or START_S
        self.url, self.log = f"http://127.0.0.1:{self.port}/", folder / "server.log"
        self._command = [sys.executable, *program]
        self.process: subprocess.Popen | None = None

    def start(self) -> "Server":
        environment = os.environ | {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(self.port), "GRADIO_ANALYTICS_ENABLED": "False",
                                    "GRADIO_TEMP_DIR": str(self.folder / "gradio"), "MSADEMO_DATA": str(self.folder / "runs"), "PYTHONUNBUFFERED": "1", **self._environment}
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "SPACE_ID"):          # nobody else is asked, and nothing is paid for
            environment.pop(name, None)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self._command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + self._start_s
        while not self._answers():
            if time.monotonic() > end or self.process.poll() is not None:
                told = self.log.read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"the server does not answer:\n{told}")
            time.sleep(0.5)
        return self

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}config", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, grace_s: float = 10.0) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    def memory(self) -> int:
        """Bytes in memory (PSS) of the server and of the processes it started; what they share counts once."""
        return sum(_pss(pid) for pid in family(self.process.pid))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [one for child in path.read_text().split() for one in family(int(child))]
        except OSError:                                 # it ended meanwhile
            continue
    return found


def _pss(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:                                     # it ended meanwhile
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


@dataclass(frozen=True)
class Answer:
    """What came of an event. data: its outputs, None when it failed; error: what the page would say then; warned: sentences of its pop-ups.

    status: of HTTP, 200 where the event was taken. raw: every message of the event as text, to look for what must not be in it.
    """

    data: list | None
    error: str | None
    warned: tuple[str, ...] = ()
    status: int = 200
    raw: str = ""

    @property
    def busy(self) -> bool:
        return any(BUSY.search(said) for said in (self.error or "", *self.warned))


class Page:
    """What a browser knows of the page: its components and which event is which."""

    def __init__(self, url: str):
        self.url, self.config = url, httpx.get(f"{url}config", timeout=60).json()
        self.components = {part["id"]: part for part in self.config["components"]}
        self.named = {part["props"].get("elem_id"): part["id"] for part in self.config["components"] if part["props"].get("elem_id")}
        self.events = self.config["dependencies"]

    def event(self, name: str, trigger: str, outputs: int = 2) -> dict:
        """The event of a component by its elem_id, with at least so many outputs."""
        wanted = [self.named[name], trigger]
        return next(event for event in self.events if wanted in [list(target) for target in event["targets"]] and len(event["outputs"]) >= outputs)

    def api(self, name: str) -> dict:
        return next(event for event in self.events if event["api_name"] == name)

    def inputs(self, event: dict, given: dict | None = None) -> list:
        """The event's inputs as a fresh page has them; given: other values by component id. What the server keeps itself stays empty."""
        given = given or {}
        return [given.get(part, None if self.components[part]["type"] == "state" else self.components[part]["props"].get("value")) for part in event["inputs"]]


class Visitor:
    """One open page. Not for two threads at once."""

    def __init__(self, page: Page, timeout: float = 120.0):
        self.page, self.session = page, uuid4().hex
        self.http = httpx.Client(base_url=f"{page.url}gradio_api/", timeout=timeout)
        # A browser keeps this line open for as long as the page is; the server puts the visitor's clip away when it ends.
        self._heart = self.http.send(self.http.build_request("GET", f"heartbeat/{self.session}"), stream=True)

    def close(self) -> None:
        self._heart.close()
        self.http.close()

    def upload(self, path: Path, name: str | None = None) -> dict:
        """The file as the page names it once it is on the server. httpx.HTTPStatusError when it was refused."""
        with open(path, "rb") as file:
            answer = self.http.post("upload", files={"files": (name or path.name, file)})
        answer.raise_for_status()
        return {"path": answer.json()[0], "orig_name": name or path.name, "meta": {"_type": "gradio.FileData"}}

    def begin(self, event: dict, data: list, more: dict | None = None) -> httpx.Response:
        """Put an event into the queue; its answer comes by `messages`. more: what else, or otherwise, is in the message."""
        body = {"data": data, "fn_index": event["id"], "session_hash": self.session, "event_data": None, "trigger_id": None, **(more or {})}
        # Not httpx's own JSON: NaN and half letters are sent as they are.
        return self.http.post("queue/join", content=json.dumps(body), headers={"Content-Type": "application/json"})

    def messages(self) -> Iterator[dict]:
        """What the server says of this visitor's events, until nothing is going on."""
        with self.http.stream("GET", "queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])

    def ask(self, event: dict, data: list, more: dict | None = None) -> Answer:
        """An event from its beginning to its end. Errors of the connection are raised: a server that breaks off has failed."""
        taken = self.begin(event, data, more)
        if taken.status_code != 200:
            return Answer(None, _detail(taken), status=taken.status_code)
        found, warned, raw = None, [], []
        for message in self.messages():
            raw.append(json.dumps(message, ensure_ascii=False))
            if message["msg"] == "log":
                warned.append(str(message.get("log")))
            elif message["msg"] in ("process_generating", "process_completed"):
                output = message["output"]
                found = Answer(output.get("data"), None) if message.get("success", True) else Answer(None, str(output.get("error")))
            elif message["msg"] == "unexpected_error":
                found = Answer(None, str(message.get("message")), status=500)
        if found is None:
            return Answer(None, "the stream ended without an answer", tuple(warned), 500, "\n".join(raw))
        return Answer(found.data, found.error, tuple(warned), found.status, "\n".join(raw))


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]


def temporary() -> tempfile.TemporaryDirectory:
    """A folder for a server's files; what it leaves behind goes with it."""
    return tempfile.TemporaryDirectory(prefix="msademo-server-", ignore_cleanup_errors=True)
