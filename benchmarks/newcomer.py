"""A newcomer's path through the page, timed: an own clip, a set with errors, the worst of them, the report on the own disk.

Only what is to be seen on the page is used, in a browser that has never been here; the server is warm, as on a page that is up.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

from benchmarks.browser import PATIENCE, chromium, served
from benchmarks.visitor import ROOT

CLIP = ROOT / "examples" / "sad.mp4"
ELSEWHERE = re.compile(r"""(?:src|href)\s*=\s*["'](?!data:|#)|url\(\s*["']?(?!data:)|@import|<script|<link|<iframe""", re.IGNORECASE)


def self_contained(report: str) -> bool:
    """Does a report bring everything with it, pictures too, and ask nobody for anything?"""
    return report.lower().startswith("<!doctype html>") and "data:image/" in report and not ELSEWHERE.search(report)


def path(browser, url: str, folder: Path) -> dict[str, float]:
    """Seconds of every step, in order."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page, taken = context.new_page(), {}
    page.set_default_timeout(1000 * PATIENCE)
    begun = time.perf_counter()

    def done(step: str) -> None:
        nonlocal begun
        taken[step] = round(time.perf_counter() - begun, 2)
        begun = time.perf_counter()

    page.goto(url)
    page.get_by_role("button", name="Analyse", exact=True).wait_for()
    done("page opened")
    with page.expect_file_chooser() as chooser:
        page.locator("#video").get_by_text("Click to Upload").click()
    chooser.value.set_files(CLIP)
    page.locator("#video video").wait_for()
    done("own clip uploaded")
    page.get_by_role("button", name="Analyse", exact=True).click()
    page.locator("#score .msa-score").first.wait_for()
    done("own clip analysed, its words recognised")
    page.get_by_role("tab", name="Errors").click()
    page.get_by_role("button", name="Analyse the set").click()
    page.locator("#study-table tr[data-pick]").first.wait_for()
    done("bundled set analysed")
    page.locator("#study-table button[data-pick^='item:']").first.click()
    page.locator("#study-item .msa-score").first.wait_for()
    done("worst case opened")
    page.get_by_role("button", name="Write CSV, JSON and a report").click()
    with page.expect_download() as download:
        page.locator("#study-files a[href$='.html']").first.click()
    report = folder / "report.html"
    download.value.save_as(report)
    done("report saved")
    context.close()
    if not self_contained(report.read_text("utf-8")):
        raise SystemExit("The report that was saved asks for something outside itself.")
    return taken


def measure(runs: int) -> dict:
    """Seconds of every step of each walk. The first one's models may still be loading."""
    with served() as url, chromium() as browser, tempfile.TemporaryDirectory() as folder:
        walks = [path(browser, url, Path(folder)) for _ in range(runs)]
    return {"clip": CLIP.name, "seconds": walks, "total_s": [round(sum(walk.values()), 2) for walk in walks],
            "load_average": os.getloadavg()[0], "cores": os.cpu_count()}
