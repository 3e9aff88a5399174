"""The server is killed (SIGKILL) in the middle of a run of the Errors tab and started again: its visitor is told, and goes on where it stopped."""

import os
import re
import secrets
import signal
import time

import pytest

pytest.importorskip("fcntl", reason="runs are locked by fcntl")

from benchmarks.memory import Hand
from benchmarks.visitor import Page, Server, Visitor

PAGE = """
import time
from tests.ui_support import FakeAnalyzer
from msademo.ui.page import build_demo, launch

class Slow(FakeAnalyzer):
    def open(self, *args, **more):
        time.sleep(0.5)
        return super().open(*args, **more)

analyzer = Slow()
launch(build_demo(analyzer), analyzer)
"""
KEY = secrets.token_hex(18)


def opened(server: Server) -> Hand:
    hand = Hand(Visitor(Page(server.url), timeout=120))
    hand.set("study-key", KEY)
    return hand


def done(hand: Hand, least: int, seconds: float = 120.0) -> str:
    """What the page says of the run once so many items are done."""
    end = time.monotonic() + seconds
    while True:
        said = str(hand("study-again")[1])
        found = re.search(r"\b(\d+) of (\d+) items", said)
        if found and int(found[1]) >= least:
            return said
        assert time.monotonic() < end, said[:500]
        time.sleep(1.0)


def test_a_run_outlives_its_server(tmp_path):
    server = Server(tmp_path, program=("-c", PAGE))
    try:
        hand = opened(server.start())
        hand.set("study-set", "bundled:Example clips")
        hand("study-go")
        assert "going on" in done(hand, 2)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        hand = opened(server.start())
        hand("study-key", "submit")                     # as the page does with the key that the browser kept
        said = str(hand("study-again")[1])
        before = int(re.search(r"\b(\d+) of 12 items", said)[1])
        assert "interrupted: the server stopped" in said and 2 <= before < 12
        hand("study-resume")
        assert "done, 12 of 12 items" in done(hand, 12)
        hand.visitor.close()
    finally:
        server.stop(grace_s=1)
