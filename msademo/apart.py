"""Decoding in a process apart (decoder_child.py): a file that makes the decoder crash, hang or eat memory costs one sentence, not the server.

What comes back is checked like anything from a stranger, for a decoder may have been taken over by its file: arrays of known types whose
sizes add up, and short texts. Nothing is unpickled. Where a system cannot hand files from process to process (Windows), it is decoded here,
and the log says so once.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from msademo import limits
from msademo.decoding import FRAME_RATE, MAX_SIDE, SAMPLE_RATE, Media, decode
from msademo.errors import InputError
from msademo.link import send
from msademo.picture import Picture, read_picture

AT_ONCE = 2                     # files decoded at the same time; more only wait for each other's cores
GRACE = 5.0                     # seconds for a killed child to be gone
KINDS = {"clip": {"frames": (np.uint8, 4), "times": (np.float64, 1), "audio": (np.float32, 1)}, "picture": {"rgb": (np.uint8, 3)}}
MOST_NOTES, LONGEST_NOTE, LONGEST_ANSWER = 20, 600, 65_536
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV")
SLOW = ("Reading the file took longer than {0.decode_seconds} s, so it was given up; cut it shorter, scale it down or convert it to mp4 and try again.")
LARGE = ("Reading the file needs more than the {0.decode_mb} MB of memory that one file may take; scale it down or cut it shorter and try again.")
CRASHED = "The file made its decoder fail: it is damaged or made to do so; export it again from where it comes from."
GONE = "The file cannot be read; check its permissions, or upload it again."
log = logging.getLogger("msademo.apart")


class Ended(Exception):
    """The decoder itself is gone: it can be started again."""


class Decoder:
    """The process apart, started at the first use, again when it has died, and ended with this one. Usable from many threads."""

    def __init__(self, module: str = "msademo.decoder_child") -> None:
        self._module = module
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None

    def start(self) -> subprocess.Popen:
        """Start it, if it does not run; it can be given work at once and does it when its imports are done."""
        with self._lock:
            self._running()
            return self._process

    def _running(self) -> socket.socket:
        if self._process is None or self._process.poll() is not None:
            self._end()
            ours, theirs = socket.socketpair()
            with theirs:
                # None of the server's variables goes along but what a Python needs, so no key does. A session of its own keeps Ctrl-C away.
                environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
                environment |= {"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
                self._process = subprocess.Popen([sys.executable, "-P", "-m", self._module, str(theirs.fileno())], env=environment,
                                                 pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                                 stderr=subprocess.DEVNULL, start_new_session=True)
            self._control = ours
        return self._control

    def stop(self) -> None:
        with self._lock:
            self._end()

    def _end(self, at_once: bool = False) -> None:
        if self._control is not None:
            self._control.close()                       # which it understands
        if self._process is not None:
            try:
                self._process.wait(0 if at_once else GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._process = self._control = None

    def ask(self, job: dict, given: bytes | None, bounds: limits.Limits) -> tuple[dict, dict[str, np.ndarray]]:
        """What is told of the file and its arrays. InputError, one sentence, when there is nothing to tell."""
        with self._room:
            for _ in range(2):
                process = self.start()
                try:
                    return self._ask(job, given, bounds)
                except Ended:
                    log.warning("the decoder's process is gone; it is started again")
                    with self._lock:
                        if self._process is process:
                            self._end(at_once=True)
            raise InputError(CRASHED)

    def _ask(self, job: dict, given: bytes | None, bounds: limits.Limits) -> tuple[dict, dict[str, np.ndarray]]:
        link, theirs = socket.socketpair()
        with link, _nameless() as out, _nameless() as handed:
            with theirs:
                files = [theirs.fileno(), out.fileno()]
                if given is not None:
                    handed.write(given), handed.seek(0)
                    files.append(handed.fileno())
                text = json.dumps(job).encode()
                try:
                    with self._lock:
                        send(self._running(), text, files)
                except OSError as error:
                    raise Ended from error
            lines = self._listen(link, time.monotonic() + bounds.decode_seconds)
            return _checked(job["kind"], lines, out, bounds)

    def _listen(self, link: socket.socket, deadline: float) -> list[dict]:
        """The child's answer, if it gave one, and how it ended; at the deadline it is killed."""
        data, late = b"", False
        while len(data) <= LONGEST_ANSWER:
            link.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                part = link.recv(LONGEST_ANSWER)
            except TimeoutError:
                if late:                                # not even its death is told: the decoder itself hangs
                    with self._lock:
                        if self._process is not None:
                            os.killpg(self._process.pid, signal.SIGKILL)
                    break
                late, deadline = True, time.monotonic() + GRACE
                link.shutdown(socket.SHUT_WR)           # hanging up kills the child
                continue
            if not part:
                break
            data += part
        if late:
            return [{"ended": "time"}]
        try:
            lines = [json.loads(line) for line in data.splitlines()]
        except ValueError:
            return [{"status": 0}]
        return [line for line in lines if isinstance(line, dict)]


def _nameless():
    """A file that nobody else can open and that goes when it is closed; in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("msademo"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _checked(kind: str, lines: list[dict], out, bounds: limits.Limits) -> tuple[dict, dict[str, np.ndarray]]:
    """An answer whose parts are what they must be. InputError for a refusal or a death; Ended when nothing at all was said."""
    if not lines:
        raise Ended
    answer = lines[0]
    if isinstance(answer.get("refused"), str):
        raise InputError(" ".join(answer["refused"].split())[:LONGEST_NOTE])
    if answer.get("ended") == "time" or answer.get("status") == -signal.SIGXCPU:
        raise InputError(SLOW.format(bounds))
    if answer.get("ended") == "memory":
        raise InputError(LARGE.format(bounds))
    if answer.get("ended") == "file":
        raise InputError(GONE)
    try:
        return _told(kind, answer["told"], bounds), _arrays(kind, answer["shapes"], out)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(CRASHED) from error


def _told(kind: str, told: dict, bounds: limits.Limits) -> dict:
    notes = tuple(" ".join(note.split())[:LONGEST_NOTE] for note in told["notes"][:MOST_NOTES])
    if kind == "clip":
        return {"duration": min(max(0.0, float(told["duration"])), float(bounds.clip_seconds)), "notes": notes}
    width, height = (int(side) for side in told["size"])
    return {"size": (width, height), "notes": notes}


def _arrays(kind: str, shapes: dict, out) -> dict[str, np.ndarray]:
    """The arrays, copied out of the child's file: what it does with that file later changes nothing here."""
    arrays, left = {}, os.fstat(out.fileno()).st_size
    out.seek(0)
    for name, (dtype, axes) in KINDS[kind].items():
        if name not in shapes and name == "audio":
            continue
        shape = tuple(shapes[name])
        if len(shape) != axes or not all(isinstance(side, int) and 0 <= side < 1 << 31 for side in shape):
            raise ValueError(name)
        size = int(np.prod([int(side) for side in shape], dtype=object)) * np.dtype(dtype).itemsize
        if size > left:
            raise ValueError(name)
        left -= size
        array = np.empty(shape, dtype)
        view = memoryview(array).cast("B") if size else memoryview(b"")
        while len(view):
            got = out.readinto(view)
            if not got:
                raise ValueError(name)
            view = view[got:]
        arrays[name] = array
    return arrays


_decoder = Decoder()
atexit.register(_decoder.stop)
if hasattr(os, "register_at_fork"):
    # A fork of this process would share the line to the decoder with it, and mix up the answers.
    os.register_at_fork(after_in_child=lambda: globals().update(_decoder=Decoder()))


def possible() -> bool:
    return hasattr(socket, "send_fds") and hasattr(os, "fork")


def prepare() -> None:
    """Start the decoder, so that the first file need not wait for it; what cannot be limited here is logged."""
    if not possible():
        log.warning("This system cannot decode in a process apart: a file that makes the decoder fail takes the server down with it.")
        return
    if sys.platform != "linux":
        log.warning("On this system the decoder's time is limited, its memory and its reach are not.")
    _decoder.start()


def _job(kind: str, path: str | None, bounds: limits.Limits, **more) -> dict:
    frames = int(bounds.clip_seconds * FRAME_RATE + 1) * MAX_SIDE * MAX_SIDE * 3
    return {"kind": kind, "path": path, "memory": bounds.decode_mb << 20, "cpu": 2 * bounds.decode_seconds,
            "written": frames + (bounds.clip_seconds + 1) * SAMPLE_RATE * 4 + (1 << 20), **more}


def _there(path) -> bool:
    return isinstance(path, str) and "\0" not in path and os.path.isfile(path)


def decode_apart(path: str, seconds: float, pixels: int) -> Media:
    """decoding.decode in a process apart."""
    if not possible() or not _there(path):
        return decode(path, seconds, pixels)            # which says what is wrong with a path
    bounds = limits.current()
    told, arrays = _decoder.ask(_job("clip", os.path.abspath(path), bounds, seconds=seconds, pixels=pixels), None, bounds)
    frames, times = arrays["frames"], arrays["times"]
    if len(frames) != len(times) or frames.shape[3] not in (0, 3) or max(frames.shape[1:3]) > MAX_SIDE or not np.isfinite(times).all():
        raise InputError(CRASHED)
    return Media(frames, times, arrays.get("audio"), told["duration"], told["notes"])


def picture_apart(source, pixels: int) -> Picture:
    """picture.read_picture in a process apart."""
    given = source if isinstance(source, bytes) else None
    if not possible() or (given is None and not _there(os.fspath(source))):
        return read_picture(source, pixels)             # which says what is wrong with a path
    bounds = limits.current()
    told, arrays = _decoder.ask(_job("picture", None if given is not None else os.path.abspath(source), bounds, pixels=pixels), given, bounds)
    if arrays["rgb"].shape[2] != 3 or not arrays["rgb"].size:
        raise InputError(CRASHED)
    return Picture(arrays["rgb"], told["size"], told["notes"])
