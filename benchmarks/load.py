"""python -m benchmarks load: many visitors at once on the real server, each with a clip and a post of their own. Exit status 1 when a check fails.

Checked: no error but sentences that ask to wait; nobody's answer holds anything of another visitor's; the server's memory does not grow once everybody
has opened a clip and a post and moved their sliders. Loopback only; it ends by itself and takes its server with it. Needs at least 90 s for a statement on memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from benchmarks.visitor import Answer, Page, Server, Visitor, temporary
from msademo.media import load_clip
from msademo.ui.examples import EXAMPLES
from tests.ui_support import write_clip

WORDS = "what a lovely day it was, and then the rain came and I was sad"
ACTIONS = {"slider": 0.5, "clip": 0.15, "post": 0.1, "post slider": 0.1, "/analyze_clip": 0.08, "/analyze_post": 0.07}
OPENING = ("clip", "post", "slider", "post slider")        # what everybody does first: from then on a page holds all that it ever will
PAUSE = (0.2, 1.5)          # seconds between two actions of a visitor
SETTLED_S = 60.0            # after which, and once everybody has done these, memory should stay where it is
MOST_GROWTH = 40.0          # MB a minute after that. A clip left behind at each analysis would be some hundreds: its frames alone take 10 to 60 MB
SAMPLE_S = 2.0
LAST_S = 180.0              # what is begun may take so long to end


@dataclass(frozen=True)
class Belongings:
    """A visitor's clip, picture and words, by which their answers are known. marker: a word nobody else has; duration: seconds of the clip."""

    marker: str
    clip: Path
    duration: float
    picture: Path

    @property
    def words(self) -> str:
        return f"{self.marker} {WORDS}"


def belongings(number: int, folder: Path) -> Belongings:
    """Every third visitor has an example, with a face; the others films of their own lengths, without one."""
    marker = "quokka" + "".join(chr(97 + digit) for digit in divmod(number, 26))
    films = [EXAMPLES / name for name in ("happy.mp4", "sad.mp4", "conflict.mp4")]
    clip = films[number // 3 % 3] if number % 3 == 0 else Path(write_clip(folder / f"{marker}.mp4", 2.0 + 0.1 * number))
    pictures = sorted(EXAMPLES.glob("*.jpg"))
    return Belongings(marker, clip, load_clip(clip, "", asr=False).duration, pictures[number % len(pictures)])


class Tally:
    """What all visitors saw, kept under one lock."""

    def __init__(self):
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.busy: Counter = Counter()
        self.errors: Counter = Counter()
        self.strangers: list[str] = []
        self.settled: dict[str, float] = {}             # when each visitor had done all of OPENING, by the clock
        self._lock = threading.Lock()

    def take(self, kind: str, seconds: float, told: str | None, busy: bool, strange: str | None) -> None:
        with self._lock:
            if busy:
                self.busy[kind] += 1
            elif told is not None:
                self.errors[f"{kind}: {told[:300]}"] += 1
            else:
                self.seconds[kind].append(seconds)
            if strange:
                self.strangers.append(f"{kind}: {strange}")


class Somebody:
    """A visitor at work until the clock says so."""

    def __init__(self, number: int, mine: Belongings, others: list[str], page: Page, endpoints: dict, tally: Tally, until: float):
        self.mine, self.page, self.endpoints, self.tally, self.until = mine, page, endpoints, tally, until
        self.rng = np.random.default_rng(number)
        self._others = re.compile("|".join(other for other in others if other != mine.marker) or "(?!)")
        self.visitor: Visitor | None = None
        self.opened: set[str] = set()

    def work(self) -> None:
        try:
            self.visitor = Visitor(self.page, LAST_S)
            while time.monotonic() < self.until:
                first = next((kind for kind in OPENING if kind not in self.opened), None)
                kind = first or str(self.rng.choice(list(ACTIONS), p=np.array(list(ACTIONS.values())) / sum(ACTIONS.values())))
                self.act(kind)
                time.sleep(float(self.rng.uniform(*PAUSE)))
        finally:
            if self.visitor is not None:
                self.visitor.close()

    def act(self, kind: str) -> None:
        started = time.monotonic()
        try:
            if kind in ("clip", "post", "/analyze_clip", "/analyze_post"):
                file = self.upload(self.mine.picture if "post" in kind else self.mine.clip)
                started = time.monotonic()
            else:
                file = None
            answer = self.ask(kind, file)
        except (httpx.HTTPError, OSError) as error:
            self.tally.take(kind, 0.0, f"connection: {error!r}", False, None)
            return
        told = answer.error if answer.error is not None else next(iter(answer.warned), None)
        strange = None if told is not None else self.strange(kind, answer)
        self.tally.take(kind, time.monotonic() - started, told, answer.busy, strange)
        if told is None:
            self.opened.add(kind)
            if self.opened.issuperset(OPENING):
                self.tally.settled.setdefault(self.mine.marker, time.monotonic())

    def upload(self, path: Path) -> dict:
        started = time.monotonic()
        file = self.visitor.upload(path, f"{self.mine.marker}{path.suffix}")
        self.tally.take("upload", time.monotonic() - started, None, False, None)
        return file

    def ask(self, kind: str, file: dict | None) -> Answer:
        page, ratio = self.page, lambda: round(float(self.rng.integers(0, 19)) / 20, 2)
        named = lambda **given: {page.named[name.replace("_", "-")]: value for name, value in given.items()}
        if kind == "clip":
            event, given = page.event("analyse", "click"), named(video=file, transcript=self.mine.words)
        elif kind == "slider":
            event, given = page.event("text", "release", 10), named(transcript=self.mine.words, text=ratio(), audio=ratio(), vision=ratio())
        elif kind == "post":
            event, given = page.event("post-analyse", "click"), named(post_image=file, post_text=self.mine.words)
        elif kind == "post slider":
            event, given = page.event("post-missing-text", "release", 5), named(post_missing_text=ratio(), post_missing_image=ratio())
        elif kind == "/analyze_clip":
            return self.visitor.ask(page.api("analyze_clip"), self.data(kind, video=file, transcript=self.mine.words, text_ratio=ratio()))
        else:
            return self.visitor.ask(page.api("analyze_post"), self.data(kind, image=file, text=self.mine.words, image_ratio=ratio()))
        return self.visitor.ask(event, page.inputs(event, given))

    def data(self, endpoint: str, **given) -> list:
        return [given.get(part["parameter_name"], part.get("parameter_default")) for part in self.endpoints[endpoint]["parameters"]]

    def strange(self, kind: str, answer: Answer) -> str | None:
        """What in an answer is not this visitor's; None when all of it is."""
        if found := self._others.search(answer.raw):
            return f"{self.mine.marker} saw {found[0]}"
        if kind.startswith("/"):
            answered = answer.data[0]
            words = [word["text"] for word in answered["words"]]
            if words != self.mine.words.split():
                return f"{self.mine.marker} got the words {words[:3]}"
            if "duration" in answered and abs(answered["duration"] - self.mine.duration) > 0.01:
                return f"{self.mine.marker} brought {self.mine.duration:.2f} s and got {answered['duration']:.2f} s"
            return None
        return None if self.mine.marker in answer.raw else f"{self.mine.marker} is not in its own answer"


def growth(samples: list[tuple[float, int]], settled: float) -> float | None:
    """MB a minute of the server's memory after so many seconds, by least squares; None where less than half a minute was seen of it."""
    later = [(at, size) for at, size in samples if at >= settled]
    if len(later) < 3 or later[-1][0] - later[0][0] < 28:
        return None
    at, size = np.array(later, float).T
    return float(np.polyfit(at / 60, size / 1e6, 1)[0])


def measure(visitors: int, seconds: float, port: int | None = None) -> dict:
    tally, samples = Tally(), []
    with temporary() as folder:
        all_mine = [belongings(number, Path(folder)) for number in range(visitors)]
        markers = [mine.marker for mine in all_mine]
        # Everybody comes from one address here, which elsewhere would be one visitor asking too often.
        with Server(Path(folder), port=port, environment={"MSADEMO_PER_MINUTE": "100000"}) as server:
            page = Page(server.url)
            endpoints = httpx.get(f"{server.url}gradio_api/info", timeout=60).json()["named_endpoints"]
            warm = Somebody(visitors, all_mine[0], [], page, endpoints, Tally(), 0.0)        # the models load at the first use, which is nobody's waiting here
            warm.visitor = Visitor(page, 2 * LAST_S)
            for kind in ("clip", "post"):
                warm.act(kind)
            warm.visitor.close()
            if warm.tally.errors:
                raise SystemExit(f"the first visitor is not served: {dict(warm.tally.errors)}")
            started = time.monotonic()
            until, over = started + seconds, threading.Event()

            def watch():
                while not over.wait(SAMPLE_S):
                    samples.append((time.monotonic() - started, server.memory()))

            watching = threading.Thread(target=watch)
            watching.start()
            try:
                with ThreadPoolExecutor(visitors) as pool:
                    for done in [pool.submit(Somebody(number, mine, markers, page, endpoints, tally, until).work) for number, mine in enumerate(all_mine)]:
                        done.result()
            finally:
                over.set()
                watching.join()
            took, alive = time.monotonic() - started, server.alive
            log = server.log.read_text(errors="replace")
    kinds = {kind: {"count": len(taken), "per_minute": round(60 * len(taken) / took, 1), **{f"p{q}_s": round(float(np.percentile(taken, q)), 2) for q in (50, 90, 95, 99)},
                    "max_s": round(max(taken), 2)} for kind, taken in sorted(tally.seconds.items())}
    settled = max([SETTLED_S, *(at - started for at in tally.settled.values())]) if len(tally.settled) == visitors else took
    slope = growth(samples, settled)
    report = {"visitors": visitors, "seconds": round(took), "cores": os.cpu_count(), "actions": kinds, "asked_to_wait": dict(tally.busy), "errors": dict(tally.errors),
              "saw_anothers_data": tally.strangers, "server_alive": alive, "tracebacks_in_log": log.count("Traceback"), "markers_in_log": sum(marker in log for marker in markers),
              "memory_mb_at_s": {round(at): round(size / 1e6) for at, size in samples[::max(1, len(samples) // 15)] + samples[-1:]}, "settled_s": round(settled), "growth_mb_per_minute": None if slope is None else round(slope, 1),
              "growth_allowed": MOST_GROWTH}
    report["passed"] = bool(kinds) and alive and not tally.errors and not tally.strangers and not report["markers_in_log"] and (slope is None or slope <= MOST_GROWTH)
    return report


def markdown(report: dict) -> str:
    """The measured part of the section "Under load" of docs/operations.md."""
    rows = "\n".join(f"| {kind} | {of['count']} | {of['per_minute']} | {of['p50_s']} | {of['p95_s']} | {of['p99_s']} | {of['max_s']} |" for kind, of in report["actions"].items())
    memory = report["memory_mb_at_s"]
    at = lambda second: memory[min(memory, key=lambda sample: abs(sample - second))] if memory else "?"
    slope = "too short to tell" if report["growth_mb_per_minute"] is None else f"{report['growth_mb_per_minute']} MB a minute (allowed: {report['growth_allowed']:g})"
    return (f"{report['visitors']} visitors for {report['seconds']} s on {report['cores']} cores:\n\n| Action | done | a minute | median s | p95 s | p99 s | longest s |\n|---|---|---|---|---|---|---|\n"
            f"{rows}\n\nErrors: {sum(report['errors'].values())}; asked to wait: {sum(report['asked_to_wait'].values())}; answers with anything of another visitor's: "
            f"{len(report['saw_anothers_data'])}. Memory of the server: {at(0)} MB at the start, {at(report['settled_s'])} MB after {report['settled_s']} s, when everybody had opened a clip and a post and moved their sliders, {at(report['seconds'])} MB at the end; "
            f"growth after that {slope}.")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks load", description="Many visitors at once on the real server, on loopback.")
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--port", type=int, help="of the server; any free one by default")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/operations.md instead of JSON")
    args = parser.parse_args(arguments)
    if not 1 <= args.visitors <= 200 or not 5 <= args.seconds <= 3600:
        parser.error("1 to 200 visitors, and 5 to 3600 seconds")
    report = measure(args.visitors, args.seconds, args.port)
    print(markdown(report) if args.markdown else json.dumps(report, indent=1))
    return int(not report["passed"])
