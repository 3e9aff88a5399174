"""What the real server holds in memory after each of its tabs was used by one visitor: its own RSS and that of the processes it started, in MB.

Not a time: --runs says how often all of it is done, since what grows from round to round is a leak.
"""

from __future__ import annotations

import re
import secrets
import time
from pathlib import Path

from benchmarks.visitor import ROOT, Page, Server, Visitor, temporary

BAR_MB = 2000
RUN_S, LOOK_S = 900, 3.0        # the longest that a run may take; seconds between two looks at it
EXAMPLES = ROOT / "examples"


class Hand:
    """A visitor who presses what is on the page: the event and all that the page does after it, values carried along as a browser does."""

    def __init__(self, visitor: Visitor):
        self.visitor, self.page, self.values = visitor, visitor.page, {}

    def __call__(self, name: str, trigger: str = "click") -> list:
        """Outputs of the first event. RuntimeError where one of them fails."""
        target = [self.page.named[name], trigger]
        first = next(event for event in self.page.events if target in [list(one) for one in event["targets"]])
        return self._do(first)

    def _do(self, event: dict) -> list:
        data = []
        if event["backend_fn"]:
            answer = self.visitor.ask(event, self.page.inputs(event, self.values))
            if answer.error or answer.data is None:
                raise RuntimeError(f"{event['targets']}: {answer.error}")
            data = answer.data
            for part, value in zip(event["outputs"], data):
                if isinstance(value, dict) and value.get("__type__") == "update":
                    value = value.get("value")
                if value is not None:
                    self.values[part] = value
        for later in self.page.events:
            if later["trigger_after"] == event["id"]:
                self._do(later)
        return data

    def set(self, name: str, value) -> None:
        self.values[self.page.named[name]] = value


def clip(hand: Hand) -> None:
    """A clip whose speech is recognised, a slider's move, a look at the maps; and every clip at hand through the endpoint."""
    hand.set("video", hand.visitor.upload(EXAMPLES / "happy.mp4"))
    hand.set("transcript", "")
    hand("analyse")
    hand.set("text", 0.5)
    hand.set("vision", 0.5)
    hand.set("seed", 1)
    hand("seed", "change")
    files = [hand.visitor.upload(path) for path in sorted(EXAMPLES.glob("*.mp4"))]
    event = hand.page.api("analyze_clips")
    answer = hand.visitor.ask(event, hand.page.inputs(event, dict(zip(event["inputs"], [files, [None] * len(files)]))))
    if answer.error or any(row["error"] for row in answer.data[0]):
        raise RuntimeError(f"/analyze_clips: {answer.error or answer.data}")


def post(hand: Hand) -> None:
    for path in sorted(EXAMPLES.glob("*.jpg")):
        hand.set("post-image", hand.visitor.upload(path))
        hand.set("post-text", "What a day, I could not be happier with all of this.")
        hand("post-analyse")
    hand.set("post-seed", 1)
    hand("post-seed", "change")


def errors(hand: Hand) -> None:
    """Both sets that come with the page, to their end, and what is written of them; each on a page of its own, as its choices differ."""
    for title in ("bundled:Example clips", "bundled:Example posts"):
        visitor = Visitor(hand.page, timeout=600)
        own = Hand(visitor)
        own.set("study-key", secrets.token_hex(18))
        own.set("study-set", title)
        own("study-go")
        end = time.monotonic() + RUN_S
        while not re.search(r"\b(\d+) of \1 items", said := str(own("study-again")[1])):
            if time.monotonic() > end:
                raise RuntimeError(f"the run over {title} does not end")
            time.sleep(LOOK_S)
        if "failed" in said or "trouble" in said:
            raise RuntimeError(f"the run over {title}: {said[:500]}")
        own("study-export")
        visitor.close()


def models(hand: Hand) -> None:
    hand("models-measure")


TABS = {"Clip": clip, "Post": post, "Errors": errors, "Models": models}


def held(server: Server) -> dict[str, int]:
    """Now, of all processes; and the most that the server's own ever held."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return {"now": server.memory() // 1_000_000, "most": int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 // 1_000_000}


def measure(runs: int = 1) -> dict:
    with temporary() as folder, Server(Path(folder)) as server:
        report = {"page answers": held(server)}
        for number in range(runs):
            visitor = Visitor(Page(server.url), timeout=600)
            hand = Hand(visitor)
            for name, use in TABS.items():
                started = time.perf_counter()
                use(hand)
                report[name if runs == 1 else f"{name}, round {number + 1}"] = held(server) | {"seconds": round(time.perf_counter() - started, 1)}
            visitor.close()
        time.sleep(LOOK_S)
        report["visitor gone"] = held(server)
    return {"megabytes": report, "bar": BAR_MB, "below": max(part["most"] for part in report.values()) < BAR_MB}
