"""python -m benchmarks fuzz: thousands of spoilt files through what reads files, and of spoilt requests to a running server. Exit status 1 when a fault was found.

`--files N` and `--payloads N` say how many; `--only N` has one case again, by the seed and the number that were printed. Files that found a
fault are kept under --keep with the seed and the number in their names.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

from benchmarks import fuzz_files, fuzz_payloads
from benchmarks.fuzz_files import Verdict
from benchmarks.visitor import ROOT, Server, temporary
from msademo.ui.examples import EXAMPLES

SHOWN = 1500            # characters of what is told of a fault


class Report:
    """Counts verdicts, and prints each new kind of fault once with what it takes to have it again."""

    def __init__(self, seed: int):
        self.seed, self.faults = seed, 0
        self._counts: Counter = Counter()
        self._kinds: Counter = Counter()
        self._slowest: dict[str, Verdict] = {}

    def take(self, verdict: Verdict, more: str = "") -> None:
        self._counts[verdict.kind, verdict.what] += 1
        if verdict.seconds > getattr(self._slowest.get(verdict.kind), "seconds", -1.0):
            self._slowest[verdict.kind] = verdict
        if not verdict.bad:
            return
        self.faults += 1
        kind = (verdict.kind, verdict.what, verdict.told.strip().rpartition("\n")[2][:60])
        self._kinds[kind] += 1
        if self._kinds[kind] == 1:
            print(f"FAULT {verdict.what}: --seed {self.seed} {'--payloads' if verdict.kind == 'payload' else '--files'} --only {verdict.number} "
                  f"({verdict.kind}, {verdict.name})\n{verdict.told[-SHOWN:]}\n{more}", flush=True)

    def dumps(self, **more) -> str:
        by_kind: dict[str, dict] = {}
        for (kind, what), count in sorted(self._counts.items()):
            by_kind.setdefault(kind, {})[what] = count
        for kind, verdict in self._slowest.items():
            by_kind[kind]["slowest_s"], by_kind[kind]["slowest"] = verdict.seconds, verdict.number
        return json.dumps({"benchmark": "fuzz", "seed": self.seed, **more, "faults": self.faults, "kinds_of_faults": len(self._kinds), "cases": by_kind}, indent=1)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fuzz", description="Spoilt files and requests; every fault is printed with its seed and number.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, nargs="?", const=1, default=0, metavar="N", help="spoilt files")
    parser.add_argument("--payloads", type=int, nargs="?", const=1, default=0, metavar="N", help="spoilt requests, to app.py on a loopback port")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this case alone")
    parser.add_argument("--minutes", type=float, default=30.0, help="stop then, whatever is left (default 30)")
    parser.add_argument("--port", type=int, help="of the server; any free one by default")
    parser.add_argument("--keep", type=Path, default=ROOT / "runs" / "fuzz", help="where files that found a fault are kept")
    args = parser.parse_args(arguments)
    if not args.files and not args.payloads:
        args.files, args.payloads = 3000, 1000
    report, started = Report(args.seed), time.monotonic()
    until, which = started + 60 * args.minutes, lambda count: range(count) if args.only is None else [args.only]
    if args.files:
        for verdict in fuzz_files.run(args.seed, which(args.files), args.keep, until):
            report.take(verdict)
    if args.payloads:
        with temporary() as folder, Server(Path(folder), port=args.port) as server:
            for verdict, request in fuzz_payloads.run(server.url, args.seed, which(args.payloads), EXAMPLES / "happy.mp4", EXAMPLES / "cat.jpg", until):
                report.take(verdict, f"data {str(request.data)[:SHOWN]} more {str(request.more)[:300]}\n")
                if not server.alive:
                    break
            log = server.log.read_text(errors="replace")
            if not server.alive or "alert(1)" in log:
                report.take(Verdict(-1, "server", "app.py", fuzz_files.FAULT, log[-SHOWN:] if not server.alive else "the log quotes what a visitor sent", 0.0))
    print(report.dumps(seconds=round(time.monotonic() - started), stopped_early=time.monotonic() > until))
    return int(report.faults > 0)
