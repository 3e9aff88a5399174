"""The real page in a real browser, for what is timed or pictured there: app.py in a process of its own, and a chromium through Playwright."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

ROOT = Path(__file__).resolve().parent.parent
NEEDS = "This needs Playwright (pip install -r requirements-dev.txt) and a chromium (Debian: apt install chromium; elsewhere its path in CHROMIUM)."
PATIENCE = 600              # seconds: the machine may be busy
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


@contextmanager
def served() -> Iterator[str]:
    """The address of a page that keeps nothing; it ends with the block."""
    with tempfile.TemporaryDirectory() as kept:
        port = _free_port()
        url = f"http://127.0.0.1:{port}/"
        environment = os.environ | {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "MSADEMO_DATA": kept}
        process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    urllib.request.urlopen(url, timeout=10).close()
                    break
                except (urllib.error.URLError, OSError) as error:
                    if process.poll() is not None or time.monotonic() > end:
                        raise SystemExit("The page did not start; `python app.py` says why.") from error
                    time.sleep(1)
            yield url
        finally:
            process.terminate()
            process.wait(30)


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
