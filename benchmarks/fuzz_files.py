"""Spoilt files through everything that reads a file of somebody's, in a child process: it may crash or hang, and that is told as what it is.

As a program (`python -m benchmarks.fuzz_files SEED FOLDER`) this is the child: numbers of cases come in, a line of JSON a case goes out.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Iterator

import numpy as np

from benchmarks.mutations import Case, case, corpus
from msademo.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 20.0              # of the processor, for one file; a good one of the corpus takes some hundredths
PATIENCE = 10               # times as long by the clock, for a child that waits instead of working, on a machine that may be busy
MEMORY = 12 << 30           # address space of the child; a file that wants more gets a MemoryError, which is a fault
GREEDY = 1 << 30            # bytes one small file may make the child grow by
READ, REFUSED, FAULT, CRASH, HANG = "read", "refused", "fault", "crash", "hang"
LONGEST_SENTENCE = 600


@dataclass(frozen=True)
class Verdict:
    """What became of a case. what: READ, REFUSED, or one of the three that are found faults; told: the sentence, or the traceback."""

    number: int
    kind: str
    name: str
    what: str
    told: str
    seconds: float

    @property
    def bad(self) -> bool:
        return self.what not in (READ, REFUSED)


def trouble_with(sentence: str) -> str:
    """What is wrong with a sentence for people, "" if nothing."""
    if not sentence.strip() or "\n" in sentence or len(sentence) > LONGEST_SENTENCE:
        return f"this is no sentence: {sentence[:2000]!r}"
    return f"a traceback in a sentence: {sentence!r}" if "Traceback" in sentence or 'File "' in sentence else ""


def read(spoilt: Case, folder: Path) -> None:
    """Give a file to what reads its kind, and look at what comes back. InputError is a good answer, AssertionError and all others are not."""
    from msademo import inventory
    from msademo.backbones.expression import load_expression
    from msademo.backbones.voice import load_voice
    from msademo.media import MAX_SECONDS, load_clip
    from msademo.picture import MAX_SIDE, read_picture
    from msademo.registry import load_fusion
    from msademo.study.archive import read_upload
    from msademo.ui.models import card
    path = folder / f"case{spoilt.suffix}"
    path.write_bytes(spoilt.data)
    if spoilt.kind == "media":
        clip = load_clip(path, "some words", asr=False)
        assert 0 <= clip.duration <= MAX_SECONDS and len(clip.frames) == len(clip.frame_times)
        assert clip.audio is None or np.isfinite(clip.audio).all() and np.abs(clip.audio).max() <= 1
        assert np.isfinite(clip.frame_times).all() and (np.diff(clip.frame_times) > 0).all() and clip.frames.dtype == np.uint8
    elif spoilt.kind == "picture":
        picture = read_picture(path)
        assert picture.rgb.dtype == np.uint8 and picture.rgb.ndim == 3 and picture.rgb.shape[2] == 3 and 0 < max(picture.rgb.shape[:2]) <= MAX_SIDE
    elif spoilt.kind == "set":
        found = read_upload(path, "a set", lambda found: folder / "unpacked")
        assert found.items and not any("\n" in note for note in found.notes)
    elif spoilt.kind == "subtitles":
        assert load_clip(None, subtitles=str(path)).words
    else:
        for part in ("text", "face", "voice"):
            (folder / f"{part}.safetensors").write_bytes(part.encode())
        analyzer = SimpleNamespace(folder=folder, shelf=SimpleNamespace(files={}), posts=SimpleNamespace(file=path.name))
        assert all(card(found, None) for found in inventory.found_in(analyzer))
        if spoilt.name.startswith("expression"):
            load_expression(path)
            return
        if spoilt.name.startswith("hearing"):
            load_voice(path)
            return
        model = load_fusion(path, folder / "text.safetensors", folder / "face.safetensors", spoilt.name.removesuffix(".safetensors"))
        numbers = [*(value for part in (model.statistics.mean, model.statistics.deviation) for value in part.values()), model.meta["scale"], model.meta["median"]]
        assert all(np.isfinite(np.asarray(value, float)).all() for value in numbers) and len(model.meta["scale"]) == 2


def judge(spoilt: Case) -> Verdict:
    """Read one case here and now."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            read(spoilt, Path(folder))
            what, told = READ, ""
        except InputError as error:
            told = trouble_with(str(error))
            what, told = (FAULT, told) if told else (REFUSED, str(error))
        except Exception:
            what, told = FAULT, traceback.format_exc()
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > GREEDY and what in (READ, REFUSED):
        what, told = FAULT, f"{len(spoilt.data)} bytes made the reader grow by {grown >> 20} MB"
    return Verdict(spoilt.number, spoilt.kind, spoilt.name, what, told, round(time.process_time() - started, 3))


class Child:
    """The process that reads. It is started again when it crashed or hung."""

    def __init__(self, seed: int, folder: Path, limit_s: float = LIMIT_S):
        self._command = [sys.executable, "-m", "benchmarks.fuzz_files", str(seed), str(folder)]
        self._limit, self._log, self._process = limit_s, folder / "child.log", None

    def _start(self) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        if not self._line(6 * LIMIT_S):
            raise RuntimeError(f"the reading process does not start:\n{self._log.read_text(errors='replace')[-2000:]}")

    def _line(self, seconds: float) -> bytes | None:
        """Its next line, empty when it has ended; None when none came in time."""
        worked, end = self._worked(), time.monotonic() + PATIENCE * seconds
        while not select.select([self._process.stdout], [], [], 1.0)[0]:
            if self._worked() - worked > seconds or time.monotonic() > end:
                return None
        return self._process.stdout.readline()

    def _worked(self) -> float:
        """Seconds of the processor that the child has used."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def judge(self, wanted: Case) -> Verdict:
        if self._process is None:
            self._start()
        try:
            self._process.stdin.write(f"{wanted.number}\n".encode())
            self._process.stdin.flush()
            line = self._line(self._limit)
        except BrokenPipeError:
            line = b""
        if line:
            return Verdict(**json.loads(line))
        self.close()
        if line is None:
            return Verdict(wanted.number, wanted.kind, wanted.name, HANG, f"no end within {self._limit:g} s of work", self._limit)
        return Verdict(wanted.number, wanted.kind, wanted.name, CRASH, f"the process ended with {self._code}", 0.0)

    def close(self) -> None:
        if self._process is not None:
            try:
                self._process.stdin.close()
                self._code = self._process.wait(2)
            except (subprocess.TimeoutExpired, BrokenPipeError):
                self._process.kill()
                self._code = self._process.wait()
            self._process = None


def run(seed: int, numbers: range | list[int], keep: Path, until: float, limit_s: float = LIMIT_S) -> Iterator[Verdict]:
    """Verdicts of cases, one after the other, until the clock (time.monotonic) says `until`. A case that found a fault is kept in `keep`."""
    files = corpus()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "corpus.json").write_text(json.dumps({kind: {name: data.hex() for name, data in group.items()} for kind, group in files.items()}))
        child = Child(seed, place, limit_s)
        try:
            for number in numbers:
                if time.monotonic() > until:
                    return
                wanted = case(seed, number, files)
                verdict = child.judge(wanted)
                if verdict.bad:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"seed{seed}-case{number}-{wanted.kind}{wanted.suffix}").write_bytes(wanted.data)
                yield verdict
        finally:
            child.close()


def main() -> None:
    """The child."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    seed, folder = int(sys.argv[1]), Path(sys.argv[2])
    files = {kind: {name: bytes.fromhex(data) for name, data in group.items()} for kind, group in json.loads((folder / "corpus.json").read_text()).items()}
    out = os.fdopen(os.dup(1), "w", buffering=1)        # what a library prints goes to the log
    os.dup2(2, 1)
    judge(Case(-1, "checkpoint", "pglh.safetensors", ".safetensors", b""))      # imports, which are no file's fault
    out.write("ready\n")
    for line in sys.stdin:
        out.write(json.dumps(vars(judge(case(seed, int(line), files)))) + "\n")


if __name__ == "__main__":
    main()
