"""The real page in a real browser, for what is timed or pictured there: app.py in a process of its own, and a chromium through Playwright."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from benchmarks.visitor import Server, temporary

NEEDS = "This needs Playwright (pip install -r requirements-dev.txt) and a chromium (Debian: apt install chromium; elsewhere its path in CHROMIUM)."
PATIENCE = 600              # seconds: the machine may be busy
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


@contextmanager
def served() -> Iterator[str]:
    """The address of a page that keeps nothing; it ends with the block. SystemExit, with what the server said, where it does not start."""
    with temporary() as folder:
        server = Server(Path(folder), start_s=PATIENCE)
        try:
            server.start()
        except RuntimeError as error:
            raise SystemExit(f"The page did not start: {error}") from error
        try:
            yield server.url
        finally:
            server.stop()


@contextmanager
def chromium() -> Iterator:
    """A headless browser; SystemExit with what is needed where there is none."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit(NEEDS) from None
    if not path:
        raise SystemExit(NEEDS)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
