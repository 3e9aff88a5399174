"""Extraction as jobs, one cache file each: made in parallel by processes of this machine or on a cluster, and written atomically.

A run that is cut off goes on where it stopped. A file that cannot be read is listed and left out.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np

from msademo.checkpoint import write_atomically
from train.cluster import Cluster

CACHE = Path(".cache/features")


@dataclass(frozen=True)
class Job:
    """One cache file to be made: `make(*arguments)` returns its arrays."""

    target: Path
    make: object
    arguments: tuple
    what: str


def code_mark(*modules) -> str:
    """Names the code that makes a feature, so that a changed extractor never meets its old cache."""
    return hashlib.sha256(b"".join(Path(module.__file__).read_bytes() for module in modules)).hexdigest()[:12]


def content(job: Job) -> tuple[bytes | None, str | None]:
    """What belongs into a job's cache file, or the reason why it cannot be made; never an exception."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch
    torch.set_num_threads(1)
    try:
        buffer = io.BytesIO()
        np.savez(buffer, **job.make(*job.arguments))
        return buffer.getvalue(), None
    except Exception as error:                      # one bad file never stops the run; its reason is reported
        return None, f"{job.what}: {error}"


def keep(job: Job, made: bytes | None, reason: str | None) -> str | None:
    """Write what was made; the reason when there is nothing."""
    try:
        if made is not None:
            write_atomically(job.target, made)
    except OSError as error:
        return f"{job.what}: {error}"
    return reason


def run_job(job: Job) -> str | None:
    return keep(job, *content(job))


def leave_with(parent: int) -> None:
    """In a worker: end when the process that started it is gone. One that was killed cannot tell its workers, and they would wait for ever."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def run_all(jobs: list[Job], workers: int | Cluster) -> Iterator[str | None]:
    """Reasons, one a job, as they are done: by processes of this machine or on a cluster, whose results are written here."""
    if isinstance(workers, Cluster):
        yield from (keep(jobs[place], *made) for place, made in workers.map(content, jobs))
        return
    with ProcessPoolExecutor(workers, initializer=leave_with, initargs=(os.getpid(),)) as pool:
        yield from pool.map(run_job, jobs)


def make_all(jobs: list[Job], workers: int | Cluster, say=print) -> list[str]:
    """Make what the cache lacks; returns the reasons of what could not be made."""
    todo = [job for job in jobs if not job.target.is_file()]
    failures: list[str] = []
    started = said = time.monotonic()
    for done, reason in enumerate(run_all(todo, workers) if todo else (), start=1):
        failures += [reason] if reason else []
        if time.monotonic() - said > 10 or done == len(todo):
            said = time.monotonic()
            say(f"prepare: {done}/{len(todo)} made, {len(jobs) - len(todo)} were there, {len(failures)} failed, "
                f"ETA {(said - started) / done * (len(todo) - done) / 60:.1f} min")
    return failures
