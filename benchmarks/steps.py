"""python -m benchmarks.steps --python VENV/bin/python: seconds of a training step (forward, loss, backward, optimizer) and of a forward pass, of PGLH and
PGMF's student here and of MMSA's models in the other environment, at the shapes of MOSI's unaligned features. One step of each in turn, so that
whatever else the machine does meets all alike; medians."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.peers.__main__ import PEERS, RUNNER, TITLES, check_python
from benchmarks.peers.ours import Timed, parameters
from benchmarks.peers.report import table
from msademo.errors import InputError
from msademo.models.pglh import PGLH, Batch, PGLHConfig
from msademo.models.pgmf import PGMF, STUDENT_LAYERS, PGMFConfig

SHAPES = {"text": (50, 768), "audio": (375, 5), "vision": (500, 20)}
RATE = 0.45                 # of tokens missing: the mean of U[0, 0.9]
PROMPT = 120                # tokens of the teacher's guidance
OURS = ("pglh", "pgmf-student", "pgmf-student alone")


def example(size: int, rate: float) -> Batch:
    """Random clips with their targets and prompts."""
    rng = torch.Generator().manual_seed(0)
    values = {m: torch.randn(size, *shape, generator=rng) for m, shape in SHAPES.items()}
    gone = {m: torch.rand(size, shape[0], generator=rng) < rate for m, shape in SHAPES.items()}
    return Batch(values, gone, {m: torch.zeros_like(mask) for m, mask in gone.items()}, values, torch.rand(size, generator=rng) * 6 - 3,
                 torch.randn(size, PROMPT, SHAPES["text"][1], generator=rng), torch.zeros(size, PROMPT, dtype=torch.bool))


def own(name: str, batch: Batch, clock: str) -> Timed:
    """The shipped architecture at these widths. A student's step has its teacher's pass in it, as in training; "alone": without one."""
    torch.manual_seed(0)
    dims = {m: width for m, (_, width) in SHAPES.items()}
    if name == "pglh":
        return Timed(PGLH(PGLHConfig(dims=dims)), batch, clock=clock)
    student = PGMF(PGMFConfig(guided=False, dims=dims, **STUDENT_LAYERS))
    return Timed(student, batch, None if name.endswith("alone") else PGMF(PGMFConfig(dims=dims)).eval().requires_grad_(False), clock)


class Other:
    """MMSA's models in the other interpreter, asked over its pipes."""

    def __init__(self, python: str, threads: int):
        self.process = subprocess.Popen([python, str(RUNNER), "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, "OMP_NUM_THREADS": str(threads)})

    def ask(self, **request) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise InputError(f"MMSA's process ended with {self.process.wait()} at {request['model']}; what it said is above. Where memory was short, give a smaller --batch.")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Remote:
    """One of its models, timed as ours are."""

    def __init__(self, other: Other, name: str, size: int, clock: str):
        self.other, self.name = other, name
        self.parameters = other.ask(model=name, shapes=SHAPES, batch=size, rate=RATE, clock=clock)["parameters"]

    def step(self) -> float:
        return self.other.ask(model=self.name, do="step")["seconds"]

    def forward(self) -> float:
        return self.other.ask(model=self.name, do="forward")["seconds"]


def measure(models: dict, runs: int, say=print) -> list[dict]:
    """models: by name, each with step() and forward(). One uncounted step and pass of each, then `runs` of each in turn."""
    taken = {name: {"step": [], "forward": []} for name in models}
    started = time.monotonic()
    for number in range(runs + 1):
        for name, model in models.items():
            for part, seconds in taken[name].items():
                seconds.append(getattr(model, part)())
        say(f"steps: round {number + 1} of {runs + 1}, ETA {(time.monotonic() - started) / (number + 1) * (runs - number) / 60:.1f} min")
    return [{"model": name, **{part: statistics.median(seconds[1:]) for part, seconds in parts.items()},
             **{f"{part}_range": [min(seconds[1:]), max(seconds[1:])] for part, seconds in parts.items()}} for name, parts in taken.items()]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description="Seconds of a training step, ours and MMSA's, in turn.")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has MMSA (benchmarks/peers/requirements.txt)")
    parser.add_argument("--models", nargs="+", choices=(*OURS, *PEERS), default=[*OURS, "mult", "tfr_net"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", action="store_true", help="count processor seconds of all threads instead of the time that passes, where others work beside")
    args = parser.parse_args(argv)
    clock = "process_time" if args.busy else "perf_counter"
    torch.set_num_threads(args.threads)
    other = None
    try:
        if args.batch < 2 or args.runs < 1 or args.threads < 1:
            raise InputError("--batch must be 2 at least, --runs and --threads 1.")
        if set(args.models) & set(PEERS):
            check_python(args.python)
            other = Other(args.python, args.threads)
        batch = example(args.batch, RATE)
        models = {name: Remote(other, name, args.batch, clock) if name in PEERS else own(name, batch, clock) for name in args.models}
        rows = measure(models, args.runs, lambda text: print(text, file=sys.stderr, flush=True))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if other:
            other.close()
    count = {name: model.parameters if name in PEERS else parameters(model.model) for name, model in models.items()}
    spread = lambda row, part: f"{1000 * row[part]:.0f} ({1000 * row[f'{part}_range'][0]:.0f} to {1000 * row[f'{part}_range'][1]:.0f})"
    print(f"Batch {args.batch}, " + ", ".join(f"{m} {length}x{width}" for m, (length, width) in SHAPES.items())
          + f", {RATE:.0%} of the tokens missing, float32, {args.threads} threads; milliseconds{' of the processor' if args.busy else ''}, median of {args.runs} (fastest to slowest)\n")
    print(table(["model", "parameters", "training step", "forward pass"],
                [[TITLES.get(row["model"], row["model"]), f"{count[row['model']]:,}", spread(row, "step"), spread(row, "forward")] for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
