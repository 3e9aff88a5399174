"""How a training is executed, beside what is trained: precision, slices of a batch, deterministic algorithms. The same options for every job."""

from __future__ import annotations

import argparse
import os
import random
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from typing import Iterator

import numpy as np
import torch

from msademo.errors import InputError
from train.processes import world

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Execution:
    """precision: "auto" is bf16 on a GPU that has it and fp32 elsewhere; fp16 needs a GPU and scales the loss. accumulate: slices of a batch that are
    worked on one after the other. deterministic: only algorithms that always add up in the same order. processes: told by the launcher."""

    precision: str = "auto"
    accumulate: int = 1
    deterministic: bool = False
    processes: int = field(init=False, default_factory=world)

    def __post_init__(self):
        if self.precision not in PRECISIONS or self.accumulate < 1:
            raise InputError(f"Precision {self.precision!r} with batches in {self.accumulate} slices cannot be trained; precision is one of "
                             f"{', '.join(PRECISIONS)}, and there is at least 1 slice.")
        if self.precision == "fp16" and not torch.cuda.is_available():
            raise InputError("fp16 is trained on a GPU, and there is none here; give --precision bf16 or fp32.")

    @property
    def changed(self) -> dict:
        """What differs from the plain run; it changes results, in the last digits at least."""
        return {name: value for name, value in asdict(self).items() if value != DEFAULTS[name]}

    def start(self) -> Execution:
        """Switch torch to deterministic algorithms where they are wanted, before anything is computed. They stay on until the process ends."""
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
            random.seed(0)                          # no job draws from these two, but a library might
            np.random.seed(0)
        return self

    def autocast(self, device: torch.device):
        """The context a loss is computed in. CPUs stay in float32 unless told otherwise, for there it was measured to be faster."""
        if self.precision == "auto":
            half = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
        else:
            half = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        return nullcontext() if half is None else torch.autocast(device.type, half)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Keeps fp16's small gradients from becoming 0; does nothing for the other precisions."""
        return torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    def options(self) -> str:
        """As a command line has them, a space in front of each; nothing for a plain run."""
        told = {name: value for name, value in self.changed.items() if name != "processes"}
        return "".join(f" --{name}" + ("" if value is True else f" {value}") for name, value in told.items())


@contextmanager
def adding_in_order(device: torch.device) -> Iterator[None]:
    """On a CPU, only algorithms that always add up in the same order, for a run that was killed has to end with the weights of one that was not.
    Left alone, torch's threads add the parts of an indexed tensor's gradient as they finish; in order is no slower there."""
    before, filling = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    if device.type != "cpu" or before:
        yield
        return
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False        # a check for programs that read memory before they write it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = filling


OPTIONS = {part.name: part.default for part in fields(Execution) if part.init}        # the plain run's
DEFAULTS = {**OPTIONS, "processes": 1}


def add_execution_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every training. Those that are not given are left to the job (or its configuration)."""
    parser.add_argument("--precision", choices=PRECISIONS, help="auto (the default): bf16 on a GPU that has it, fp32 elsewhere; fp16 scales the loss")
    parser.add_argument("--accumulate", type=int, metavar="N", help="work on every batch in N slices, for less memory; the result stays the same within rounding")
    parser.add_argument("--deterministic", action="store_true", default=None, help="only deterministic algorithms, also on a GPU: the same run twice gives the same figures")


def given(args: argparse.Namespace) -> dict:
    """The options that the command line names."""
    return {name: value for name in OPTIONS if (value := getattr(args, name, None)) is not None}


def execution_of(args: argparse.Namespace) -> Execution:
    return Execution(**given(args)).start()
