"""python -m benchmarks faults: the real server while its decoder is killed, its disk is full, its store is garbage, a checkpoint goes, visitors hang up.

Each time: an answer or one sentence, no traceback, and a visitor afterwards is served as before. Exit status 1 when one of them fails. What needs
no whole server is in tests/test_faults.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Callable

import httpx

from benchmarks.fuzz_files import trouble_with
from benchmarks.visitor import ROOT, Answer, Page, Server, Visitor, family, temporary
from msademo.ui.examples import EXAMPLES
from msademo.ui.guard import UNEXPECTED

WORDS = "What a lovely day it was"
KEY = "a key of nobody, but long enough"
ROOM = 2_000_000            # bytes a file of the server may have where its disk is "full"
# app.py under a limit on what it may write, or with checkpoints that may be taken away.
LIMITED = ("-c", f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({ROOM}, resource.RLIM_INFINITY)); sys.argv = ['app.py']; runpy.run_path('app.py', run_name='__main__')")
ELSEWHERE = ("-c", "import sys; from pathlib import Path; from msademo.analyzer import Analyzer; from msademo.ui.page import build_demo, launch; "
                   "analyzer = Analyzer(Path(sys.argv[1])); launch(build_demo(analyzer), analyzer)")


class Trouble(AssertionError):
    """A fault was not borne as it should be."""


def demand(true: bool, said: str) -> None:
    if not true:
        raise Trouble(said)


def analyse(visitor: Visitor, clip: Path = EXAMPLES / "happy.mp4") -> Answer:
    page = visitor.page
    event = page.event("analyse", "click")
    return visitor.ask(event, page.inputs(event, {page.named["video"]: visitor.upload(clip), page.named["transcript"]: WORDS}))


def served(page: Page) -> None:
    """A new visitor gets a result."""
    visitor = Visitor(page)
    try:
        answer = analyse(visitor)
        demand(answer.error is None and not answer.warned and "lovely" in answer.raw, f"the next visitor is not served: {answer.error or answer.warned}")
    finally:
        visitor.close()


def told(answer: Answer, allowed: tuple[str, ...] = ()) -> str:
    """The one sentence of an answer, "" for a result. Trouble when it is no sentence, or none that tells what was wrong."""
    for said in (answer.error, *answer.warned):
        if said is not None:
            demand(not trouble_with(said), trouble_with(said))
            demand(UNEXPECTED not in said or UNEXPECTED in allowed, f"an unexpected error: {said}")
            return said
    return ""


def decoder(server: Server, page: Page) -> str:
    """Kill the process that decodes, and what it started, while a clip is read."""
    served(page)
    visitor, answers = Visitor(page), []
    try:
        asking = threading.Thread(target=lambda: answers.append(analyse(visitor)))
        asking.start()
        killed, end = 0, time.monotonic() + 30
        while asking.is_alive() and time.monotonic() < end and killed < 3:
            for pid in family(server.process.pid)[1:]:
                try:
                    if b"decoder_child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)
                        killed += 1
                except OSError:                         # it ended by itself
                    continue
            time.sleep(0.05)
        asking.join()
    finally:
        visitor.close()
    demand(killed > 0, "there was no decoder to kill")
    served(page)
    return f"killed {killed} times: {told(answers[0]) or 'the clip was read all the same'}"


def disk(server: Server, page: Page) -> str:
    """No file may grow beyond ROOM: a large upload fails, a small one does not."""
    large = server.folder / "large.mp4"
    large.write_bytes((EXAMPLES / "happy.mp4").read_bytes() + bytes(3 * ROOM))
    visitor = Visitor(page)
    try:
        said = told(analyse(visitor, large))
    except httpx.HTTPStatusError as error:
        said = f"the upload is refused with status {error.response.status_code}"
        demand("Traceback" not in error.response.text, "a traceback in the answer to the upload")
    finally:
        visitor.close()
    served(page)
    return said


def store(server: Server, page: Page) -> str:
    """The database of the Errors tab becomes garbage, and is put away as its sentence says."""
    event, visitor = page.event("study-go", "click"), Visitor(page)
    listing = next(event for event in page.events if [page.named["study-key"], "submit"] in [list(target) for target in event["targets"]] and not event["backend_fn"])
    listing = next(event for event in page.events if event.get("trigger_after") == listing["id"])
    key = {page.named["study-key"]: KEY}
    path = server.folder / "runs" / "study.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(b"this is no database" * 1000)
        said = told(visitor.ask(listing, page.inputs(listing, key)))
        demand("damaged" in said, f"a damaged store is told as {said!r}")
        demand("damaged" in told(visitor.ask(event, page.inputs(event, key))), "a run is begun in a damaged store")
        served(page)
        path.unlink()
        demand(told(visitor.ask(listing, page.inputs(listing, key))) == "", "the store is not begun anew")
        if path.is_file():
            with sqlite3.connect(path) as db:
                demand(db.execute("pragma integrity_check").fetchone()[0] == "ok", "the new store is not sound")
    finally:
        visitor.close()
    return said


def checkpoints(server: Server, page: Page) -> str:
    """Checkpoints in use are taken away and cut off; who is there goes on with what is loaded."""
    visitor = Visitor(page)
    try:
        analyse(visitor)
        folder = server.folder / "checkpoints"
        (folder / "pgmf_teacher.safetensors").unlink()
        os.truncate(folder / "pglh.safetensors", 1000)
        os.truncate(folder / "text.safetensors", 1000)
        move = page.event("text", "release", 10)
        answer = visitor.ask(move, page.inputs(move, {page.named["text"]: 0.5, page.named["transcript"]: WORDS}))
        demand(told(answer) == "" and "lovely" in answer.raw, f"a slider after the checkpoints went: {told(answer)}")
    finally:
        visitor.close()
    served(page)
    return "answered from memory"


def hanging_up(server: Server, page: Page) -> str:
    """Visitors leave in the middle of uploads and of their clip's analysis."""
    served(page)
    before = server.memory()
    for _ in range(10):
        visitor = Visitor(page, timeout=30)
        event = page.event("analyse", "click")
        visitor.begin(event, page.inputs(event, {page.named["video"]: visitor.upload(EXAMPLES / "happy.mp4"), page.named["transcript"]: WORDS}))
        visitor.close()
    served(page)
    time.sleep(5)
    served(page)
    return f"memory {before / 1e6:.0f} MB before, {server.memory() / 1e6:.0f} MB after"


FAULTS: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "decoder": (decoder, ("app.py",)), "hanging up": (hanging_up, ("app.py",)), "store": (store, ("app.py",)), "disk": (disk, LIMITED), "checkpoints": (checkpoints, ELSEWHERE)}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks faults", description="What breaks around the real server, on loopback.")
    parser.add_argument("--only", choices=FAULTS, action="append", help="these alone")
    parser.add_argument("--port", type=int, help="of the server; any free one by default")
    args = parser.parse_args(arguments)
    report, program, server, page = {}, None, None, None
    with temporary() as folder:
        place = Path(folder)
        shutil.copytree(ROOT / "checkpoints", place / "checkpoints")
        try:
            for name in args.only or FAULTS:
                break_it, needed = FAULTS[name]
                if needed != program:                   # faults that leave the server sound share one
                    if server is not None:
                        server.stop()
                    program, server = needed, Server(place, program=needed + ((str(place / "checkpoints"),) if needed is ELSEWHERE else ()), port=args.port).start()
                    page = Page(server.url)
                started = time.monotonic()
                try:
                    report[name] = {"passed": True, "told": break_it(server, page)}
                except (Trouble, httpx.HTTPError, OSError) as error:
                    report[name] = {"passed": False, "told": f"{type(error).__name__}: {error}"}
                report[name] |= {"seconds": round(time.monotonic() - started, 1), "server_alive": server.alive}
                if not server.alive:
                    report[name]["passed"], program = False, None
        finally:
            if server is not None:
                server.stop()
    print(json.dumps({"benchmark": "faults", **report}, indent=1))
    return int(not all(entry["passed"] for entry in report.values()))
