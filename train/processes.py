"""Several processes on one training: which one this is, and what they tell each other.

torchrun and accelerate launch start the same command once a process and set RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR; without these a run is
alone and every function here does nothing. Process 0 speaks, validates and writes; the launcher ends all when one fails.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import Iterable, Iterator

import torch
from torch import distributed as dist
from torch import nn

from msademo.errors import InputError

PATIENCE = timedelta(days=1)         # process 0 may measure for hours while the others wait; a dead process is the launcher's to notice
_store: dist.Store | None = None


def launched() -> bool:
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    return rank() == 0


@contextmanager
def joined(command: str, trains: bool) -> Iterator[None]:
    """The group of processes that a launcher started, for as long as a command runs; only process 0 prints. Within a group there is nothing to join.
    InputError for a command that is no training."""
    global _store
    if not launched() or dist.is_initialized():
        yield
        return
    cuda = torch.cuda.is_available()
    with still_there():
        _store, number, count = next(dist.rendezvous("env://", timeout=timedelta(minutes=10)))
    if not trains and count > 1:
        raise InputError(f"{command} works in one process; start it as python -m train {command}.")
    if cuda:
        local, cards = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= cards:
            raise InputError(f"There are more processes than GPUs here; start {cards} (--nproc-per-node={cards}).")
        torch.cuda.set_device(local)
    with still_there():
        dist.init_process_group("nccl" if cuda else "gloo", store=dist.PrefixStore("train", _store), rank=number, world_size=count, timeout=PATIENCE)
    with ExitStack() as quiet:
        if not is_main():
            quiet.enter_context(redirect_stdout(quiet.enter_context(open(os.devnull, "w", encoding="utf-8"))))
        yield
    dist.destroy_process_group()                    # not after a failure: it could wait for others that are gone


def speaks_for_all() -> bool:
    """True in the first process that asks: what all of them found wrong is said once."""
    if _store is None:
        return True
    try:
        return _store.add("said", 1) == 1
    except RuntimeError:                            # whoever kept the store is gone
        return is_main()


@contextmanager
def still_there() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise InputError("Another process of this training ended or cannot be reached; see what it said, and start the same command again: it goes on "
                         f"from the last saved epoch ({str(error).strip().splitlines()[0][:160]}).") from error


def add_up(values: torch.Tensor) -> torch.Tensor:
    """The sum of what every process brings, in place."""
    if dist.is_initialized():
        with still_there():
            dist.all_reduce(values)
    return values


def from_main(value):
    """Process 0's value, in every process."""
    if not dist.is_initialized():
        return value
    box = [value]
    with still_there():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def sums_over_processes(values: dict[str, float]) -> dict[str, float]:
    """By name; a name that a process lacks counts as 0 there."""
    if not dist.is_initialized():
        return values
    found: list = [None] * world()
    with still_there():
        dist.all_gather_object(found, values)
    return {name: sum(part.get(name, 0.0) for part in found) for name in sorted({name for part in found for name in part})}


@contextmanager
def main_first() -> Iterator[None]:
    """Process 0 does it, then the others: what it leaves in a cache they find there."""
    if not is_main():
        from_main(None)
    yield
    if is_main():
        from_main(None)


def share_weights(model: nn.Module) -> None:
    """Process 0's weights in every process, so that no difference between machines is there from the start."""
    if dist.is_initialized():
        with torch.no_grad(), still_there():
            for value in model.state_dict().values():
                dist.broadcast(value, src=0)


def sum_gradients(parameters: Iterable[nn.Parameter], loss: float) -> float:
    """Add the processes' gradients up, in place, in one message; returns the sum of their losses. A parameter that no process has a gradient for
    keeps none, as it would in a run alone: the optimiser leaves it as it is."""
    if not dist.is_initialized():
        return loss
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
    there = torch.tensor([float(p.grad is not None) for p in parameters] + [loss], device=flat[0].device, dtype=flat[0].dtype)
    message = add_up(torch.cat([*flat, there]))
    *gradients, there = message.split([p.numel() for p in parameters] + [len(parameters) + 1])
    *present, total = there.tolist()
    for parameter, gradient, found in zip(parameters, gradients, present):
        parameter.grad = gradient.view_as(parameter) if found else None
    return total


@dataclass(frozen=True)
class Share:
    """What of every batch this process works on: slices `own` of `parts`, which differ by at most one row."""

    parts: int = 1
    own: range = range(1)

    @classmethod
    def of(cls, accumulate: int) -> Share:
        """Each process takes `accumulate` slices, one after the other."""
        return cls(world() * accumulate, range(rank() * accumulate, (rank() + 1) * accumulate))

    def cut(self, rows: int) -> list[slice]:
        """Own slices of a batch with so many rows; fewer, or none, where there are more slices than rows."""
        edges = [rows * part // self.parts for part in range(self.parts + 1)]
        return [slice(edges[part], edges[part + 1]) for part in self.own if edges[part] < edges[part + 1]]


class Sliced:
    """A task whose batches can be cut: the losses of the slices add up to the loss of the whole batch, for every mean in it is divided by the count
    of the whole batch. `slices(epoch, share)` gives this process's slices of each batch; the whole batch is drawn by all, but read only in part."""

    @property
    def counted(self) -> int:
        """How many numbers `counts` gives."""
        return getattr(self.model, "counted", 1)

    def counts(self, batch) -> torch.Tensor:
        """What the means of the loss divide by, first the rows; they add up over slices."""
        own = getattr(self.model, "counts", None)
        return own(batch) if own else torch.tensor([rows_of(batch)])

    def batches(self, epoch: int):
        return (batch for slices in self.slices(epoch, Share()) for batch in slices)

    def weighted(self, losses: dict[str, torch.Tensor], batch, counts: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Losses that are means over a slice's rows, as this slice's part of the mean over the whole batch."""
        return losses if counts is None else {name: value * (rows_of(batch) / float(counts[0])) for name, value in losses.items()}

    def model_losses(self, batch, counts: torch.Tensor | None) -> dict[str, torch.Tensor]:
        if counts is not None and hasattr(self.model, "counts"):
            return self.model.loss(batch, counts)
        return self.weighted(self.model.loss(batch), batch, counts)


def rows_of(batch) -> int:
    return len(batch) if isinstance(batch, list) else len(batch.label if hasattr(batch, "label") else batch.score)
