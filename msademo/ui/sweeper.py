"""What visitors left behind goes when its time is over: uploads and copies of them, states of closed pages, runs where nothing is kept."""

from __future__ import annotations

import datetime
import logging
import os
import threading
import time
from pathlib import Path
from typing import Callable

import gradio as gr
from gradio.utils import get_upload_folder

from msademo import limits, temporary
from msademo.errors import InputError

log = logging.getLogger("msademo.ui")


def private_uploads() -> None:
    """Uploads go to a folder that only this process's user can read, unless GRADIO_TEMP_DIR names another."""
    os.environ.setdefault("GRADIO_TEMP_DIR", str(temporary.folder() / "uploads"))


def old_files(folder: Path, seconds: float, now: float) -> int:
    """Remove files older than `seconds` and folders that hold nothing; gives how many files. Nothing of what links lead to."""
    removed = 0
    for at, folders, files in os.walk(folder, topdown=False):
        for path in (Path(at, name) for name in [*files, *folders]):
            if path.is_dir() and not path.is_symlink():
                continue
            try:
                if now - path.lstat().st_ctime > seconds:
                    path.unlink()
                    removed += 1
            except OSError:             # gone meanwhile, or not ours
                pass
        if Path(at) != folder:
            try:
                if now - os.lstat(at).st_ctime > 60:        # an upload makes its folder just before it moves its file into it
                    os.rmdir(at)
            except OSError:
                pass
    return removed


def old_sessions(demo: gr.Blocks, seconds: float) -> int:
    """Forget sessions that nothing was asked in for so long, with all that stood on their pages; gives how many."""
    holder = getattr(demo, "state_holder", None)
    if holder is None:
        return 0
    limit, gone = datetime.datetime.now() - datetime.timedelta(seconds=seconds), 0
    with holder.lock:
        for session, used in list(holder.time_last_used.items()):
            if used < limit:
                holder.time_last_used.pop(session, None)
                gone += holder.session_data.pop(session, None) is not None
    return gone


def sweep(demo: gr.Blocks, tidy: Callable[[], None]) -> None:
    """Everything once. tidy: what the store of runs does with runs that have rested long enough."""
    seconds = 3600 * limits.current().keep_hours
    old_files(Path(get_upload_folder()), seconds, time.time())
    old_sessions(demo, seconds)
    try:
        tidy()
    except InputError as error:
        log.error("%s", error)


def keep_swept(once: Callable[[], None]) -> threading.Thread:
    """Sweep from now on, until the process ends. once: sweeps everything once, as `sweep` does."""

    def go_on():
        while True:
            time.sleep(limits.current().sweep_seconds)
            try:
                once()
            except Exception as error:          # by type alone: a message may hold a visitor's file name
                log.error("clearing away failed: %s", type(error).__name__)

    thread = threading.Thread(target=go_on, name="sweep", daemon=True)
    thread.start()
    return thread
