"""Runs go on in a thread, one after the other, and every item's answer is stored before the next begins.

Who works at a run holds a lock on a file; the system lets go of it when the process ends, however it ends. So a run that says it is
going on and whose lock is free was interrupted, and anybody may take it up where it stopped.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Callable

from msademo.errors import InputError
from msademo.study.measure import measure
from msademo.study.plan import AT_WORK, DONE, FAILED, INTERRUPTED, QUEUED, RUNNING
from msademo.study.store import Run, Store, unwritable

TRIES = 2                   # an item that the server went down with so often is left out
MOST_WAITING = 20           # runs of everybody together
UNEXPECTED = "Something went wrong on our side with this item; the others are not touched by it."
STOPPED = "The server stopped every time this item was analysed, so it is left out."
OTHER_MODELS = "This run was begun with other checkpoints than those in use now ({}); choose them again in the Models tab, or start a new run."
log = logging.getLogger("msademo.study")


class Runner:
    """Works at runs in the background.

    resolve(run, file) -> the media file of an item, None when it is not there. checkpoints() -> file name and hash by slot, as now in use.
    """

    def __init__(self, store: Store, analyzer, resolve: Callable[[Run, str], Path | None], checkpoints: Callable[[], dict]):
        self.store, self.analyzer, self._resolve, self._checkpoints = store, analyzer, resolve, checkpoints
        self._waiting: deque[str] = deque()
        self._held: dict[str, int] = {}                 # locks by run
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Is this process at work?"""
        with self._lock:
            return bool(self._held)

    def state(self, run: Run) -> str:
        """A run's state, "interrupted" found out."""
        return INTERRUPTED if run.state in AT_WORK and not self._locked(run.id) else run.state

    def _locked(self, run_id: str) -> bool:
        with self._lock:
            if run_id in self._held:
                return True
        if not self.store.lock(run_id).is_file():       # nobody ever held it; runs are also listed where nothing can be written
            return False
        handle = self._take(run_id)
        if handle is not None:
            os.close(handle)
        return handle is None

    def _take(self, run_id: str) -> int | None:
        """The lock of a run; None when somebody holds it."""
        path = self.store.lock(run_id)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unwritable(error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle

    def start(self, run_id: str) -> None:
        """Begin a run, or go on with it where it stopped. InputError when it is going on, or the models have changed since."""
        run = self.store.run(run_id)
        now = self._checkpoints()
        changed = [entry["file"] for slot, entry in run.checkpoints.items() if now.get(slot, {}).get("sha256") != entry["sha256"]]
        if changed:
            raise InputError(OTHER_MODELS.format(", ".join(changed)))
        if len(self._waiting) >= MOST_WAITING:
            raise InputError(f"{MOST_WAITING} runs are waiting already; resume this one in a while.")
        handle = self._take(run_id)
        if handle is None:
            raise InputError("This run is going on already.")
        try:
            self.store.turn(run_id, QUEUED)
        except InputError:                              # a full disk must not leave a lock that nobody works under
            os.close(handle)
            raise
        with self._lock:
            self._held[run_id] = handle
            self._waiting.append(run_id)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="study", daemon=True)
                self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until nothing is waiting any more."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                run_id = self._waiting.popleft()
            try:
                if self.store.turn(run_id, RUNNING, only_from=QUEUED):
                    self._go(self.store.run(run_id))
            except InputError as error:                 # the run or its folder is gone, or the disk is full
                self._give_up(run_id, str(error))
            except Exception as error:
                _log(error)
                self._give_up(run_id, "Something went wrong on our side; resume the run to go on.")
            finally:
                with self._lock:
                    os.close(self._held.pop(run_id))

    def _give_up(self, run_id: str, why: str) -> None:
        try:
            self.store.turn(run_id, FAILED, why, only_from=RUNNING)
        except InputError:
            log.error("a run could not be marked as failed: the store does not answer")

    def _go(self, run: Run) -> None:
        for stored in self.store.rows(run):
            if stored.answer is not None or stored.error is not None:
                continue
            if not self.store.still_wanted(run.id):
                return
            number, started = stored.item.number, time.perf_counter()
            tries, answer, error, picture = self.store.begin(run.id, number), None, None, None
            try:
                if tries >= TRIES:
                    raise InputError(STOPPED)
                path = None
                if stored.item.file:
                    path = self._resolve(run, stored.item.file)
                    if path is None:
                        raise InputError("Its file is not in the set.")
                answer, picture = measure(self.analyzer, stored.item, path, run.kind, run.plan)
            except InputError as trouble:
                error = str(trouble)
            except Exception as trouble:                # one bad file never stops a run
                _log(trouble)
                error = UNEXPECTED
            self.store.finish(run.id, number, answer, error, time.perf_counter() - started, picture)
        self.store.turn(run.id, DONE, only_from=RUNNING)


def _log(error: Exception) -> None:
    """Place and type alone: a message may quote what a person gave."""
    log.error("unexpected %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))


