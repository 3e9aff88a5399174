"""python -m benchmarks NAME: time what people wait for, and print JSON. Compare runs of one machine; nothing here fails a build."""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from typing import Callable

NAMES = ("clip", "pgmf", "post", "memory", "newcomer")
CHECKS = ("load", "faults", "fuzz")         # with options of their own; these do fail, by their exit status
RUNS = {"memory": 1, "newcomer": 1}            # times, where it is not 20


def timed(action: Callable[[], object], runs: int) -> dict[str, float]:
    """Milliseconds of `action` over `runs` calls, after one that is not counted."""
    action()
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        taken.append(1000 * (time.perf_counter() - started))
    return {"median_ms": round(statistics.median(taken), 1), "min_ms": round(min(taken), 1), "max_ms": round(max(taken), 1), "runs": runs}


def matrix_rate(size: int = 1024, runs: int = 20) -> dict[str, float]:
    """The machine's float32 matrix-product rate, to hold the times against."""
    import torch
    a, b = torch.randn(size, size), torch.randn(size, size)
    for _ in range(3):
        a @ b
    started = time.perf_counter()
    for _ in range(runs):
        a @ b
    return {"gflops": round(2 * size**3 * runs / (time.perf_counter() - started) / 1e9, 1), "threads": torch.get_num_threads()}


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in CHECKS:
        sys.exit(importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time what people wait for; prints JSON.",
                                     epilog=f"Or {', '.join(CHECKS)}: see --help of each.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--runs", type=int, help="how often each thing is done")
    args = parser.parse_args()
    before = matrix_rate()
    report = importlib.import_module(f"benchmarks.{args.name}").measure(args.runs or RUNS.get(args.name, 20))
    print(json.dumps({"benchmark": args.name, "matrix_product_before": before, **report, "matrix_product_after": matrix_rate()}, indent=1))


if __name__ == "__main__":
    main()
