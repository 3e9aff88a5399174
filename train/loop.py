"""The training loop every job shares: AdamW, warm-up and cosine, averaged weights, exact resume.

Everything random in a job is drawn from (seed, epoch), and the state is saved atomically after each epoch; so a run that
is killed and started again walks through the same batches with the same numbers as one that was left alone. Several processes,
or several slices of a batch, give the gradient of the whole batch (train/processes.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Iterable, Mapping, Protocol

import torch
from torch import nn

from msademo.checkpoint import write_atomically
from msademo.errors import InputError
from train.execution import Execution, adding_in_order
from train.plots import write_curves
from train.processes import Share, add_up, from_main, is_main, rank, share_weights, sum_gradients, sums_over_processes


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and in what manner. lr is the peak of a linear warm-up followed by a cosine to zero."""

    epochs: int = 10
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1          # share of all steps
    clip: float = 1.0            # gradient norm
    ema: float = 0.0             # decay of the averaged weights that are validated and kept; 0 = the raw weights
    seed: int = 1111
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self):
        if self.epochs < 1 or self.lr <= 0 or not 0 <= self.warmup < 1 or not 0 <= self.ema < 1 or self.clip <= 0:
            raise InputError(f"This schedule cannot be trained: {asdict(self)}; epochs, lr and clip must be positive, "
                             "warmup and ema in [0, 1).")


class Task(Protocol):
    """What a job brings to the loop. Batches are on the model's device. Several models that are trained side by side on one sum of
    losses are the model's `members`, and each has its gradient clipped on its own. One whose batches can be cut is train.processes.Sliced besides."""

    name: str
    model: nn.Module
    steps_per_epoch: int

    def batches(self, epoch: int) -> Iterable: ...                 # the same for the same epoch, always
    def loss(self, batch) -> torch.Tensor | Mapping[str, torch.Tensor]: ...      # with "total", and parts of it for the curves
    def validate(self) -> dict[str, float]: ...                    # "score": the higher the better


@dataclass(frozen=True)
class Fitted:
    """The best epoch on valid: its weights, which one it was, what it scored, and the history of all epochs."""

    weights: dict[str, torch.Tensor]
    epoch: int
    metrics: dict[str, float]
    history: list[dict[str, float]]


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def learning_rate(step: int, steps: int, schedule: Schedule) -> float:
    """Linear to the peak over the warm-up steps, then half a cosine down to zero at the last step."""
    warm = max(1, round(schedule.warmup * steps))
    if step < warm:
        return schedule.lr * (step + 1) / warm
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def parameter_groups(model: nn.Module, schedule: Schedule) -> list[dict]:
    """Matrices decay; biases, norms, prompts and single numbers do not. A model may scale its own learning rates
    through `lr_scale(name) -> float`."""
    scale = getattr(model, "lr_scale", lambda name: 1.0)
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = schedule.weight_decay if parameter.ndim >= 2 and "prompt" not in name and "token" not in name else 0.0
            groups.setdefault((decay, scale(name)), []).append(parameter)
    return [{"params": params, "weight_decay": decay, "scale": factor} for (decay, factor), params in groups.items()]


def fingerprint(task: Task, schedule: Schedule, settings: dict) -> str:
    """Names one exact run; a state saved by another one is not resumed."""
    shapes = {name: list(value.shape) for name, value in task.model.state_dict().items()}
    told = {name: value for name, value in asdict(schedule).items() if name != "execution"}
    if schedule.execution.changed:
        told["execution"] = schedule.execution.changed
    return hashlib.sha256(json.dumps([task.name, told, settings, shapes], sort_keys=True, default=str).encode()).hexdigest()


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of what a run changes: trainable parameters and the buffers (running statistics)."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name not in frozen}


def swap_in(model: nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put `weights` into the model and hand back what was there."""
    before = trained_weights(model)
    state = model.state_dict()
    with torch.no_grad():
        for name, value in weights.items():
            state[name].copy_(value)
    return before


def backward(task: Task, slices: list, share: Share, schedule: Schedule, scaler: torch.amp.GradScaler) -> dict[str, float]:
    """Leave the gradient of one batch in the parameters; returns the loss ("total") of the whole batch, and of its parts what these slices bring."""
    device, told = device_of(task.model), {"total": 0.0}
    counts = None
    if share.parts > 1:
        counts = add_up(sum((task.counts(batch).to(device, torch.float32) for batch in slices), start=torch.zeros(task.counted, device=device)))
    for batch in slices:
        with schedule.execution.autocast(device):
            losses = task.loss(batch) if counts is None else task.loss(batch, counts)
        losses = losses if isinstance(losses, Mapping) else {"total": losses}
        scaler.scale(losses["total"]).backward()
        for name, value in losses.items():
            told[name] = told.get(name, 0.0) + value.item()
    return {**told, "total": sum_gradients(task.model.parameters(), told["total"])}


def read_state(path: Path, device: torch.device) -> dict | None:
    """What process 0 finds there, in every process; None where there is nothing. Half-written files of a run that was killed are swept away."""
    content = None
    if is_main():
        for left in path.parent.glob(f".{path.name}.*"):
            left.unlink(missing_ok=True)
        content = path.read_bytes() if path.is_file() else None
    content = from_main(content)
    return None if content is None else torch.load(io.BytesIO(content), map_location=device, weights_only=True)


def fit(task: Task, schedule: Schedule, workdir: str | Path, settings: dict | None = None, say=print) -> Fitted:
    """Train `task` for schedule.epochs, resuming from workdir/state.pt when the very same run left one there. Ends with curves.csv and curves.png.
    Every process of a group gets the same result; process 0 validates and writes."""
    workdir = Path(workdir)
    state_file = workdir / "state.pt"
    share = Share.of(schedule.execution.accumulate)
    if share.parts > 1 and not hasattr(task, "slices"):
        raise InputError(f"The training {task.name} compares the samples of a batch with each other (batch normalisation), so no batch of it can be cut; "
                         "start it in one process and without --accumulate.")
    mark = fingerprint(task, schedule, settings or {})
    model, device = task.model, device_of(task.model)
    optimizer = torch.optim.AdamW(parameter_groups(model, schedule), lr=schedule.lr, betas=(0.9, 0.98))
    scaler = schedule.execution.scaler(device)
    share_weights(model)
    average = trained_weights(model)
    best: Fitted | None = None
    history: list[dict[str, float]] = []
    done = first = 0
    state = read_state(state_file, device)
    if state is not None:
        if state["fingerprint"] != mark:
            raise InputError(f"{workdir} holds a run with other settings, data or number of processes; give another --work folder, or delete this one.")
        swap_in(model, state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, history, done = state["average"], state["history"], state["epochs"]
        first = state["step"]
        if scaler.is_enabled():
            scaler.load_state_dict(state["scaler"])
        if state["best"]:
            best = Fitted(**state["best"], history=history)
        say(f"{task.name}: goes on after epoch {done} of {schedule.epochs}")
    total = schedule.epochs * task.steps_per_epoch
    separate = [[p for p in part.parameters() if p.requires_grad] for part in getattr(model, "members", [model])]
    started = time.monotonic()
    waited: list[float] = []          # seconds until an epoch's first batch was there: some read for minutes
    step = first
    for epoch in range(done, schedule.epochs):
        torch.manual_seed(schedule.seed * 100_003 + epoch + 7_368_787 * rank())      # dropout; batches seed themselves from the epoch
        model.train()
        sums, begun = {"total": 0.0}, time.monotonic()
        steps = task.slices(epoch, share) if share.parts > 1 else ([batch] for batch in task.batches(epoch))
        for count, slices in enumerate(steps, start=1):
            if count == 1:
                said = time.monotonic()
                waited.append(said - begun)
            rate = learning_rate(step, total, schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            optimizer.zero_grad(set_to_none=True)
            with adding_in_order(device):
                losses = backward(task, slices, share, schedule, scaler)
            if not math.isfinite(losses["total"]):
                raise RuntimeError(f"{task.name}: the loss became {losses['total']} at epoch {epoch + 1}, step {count}; lower --lr")
            scaler.unscale_(optimizer)
            for parameters in separate:
                nn.utils.clip_grad_norm_(parameters, schedule.clip)
            scaler.step(optimizer)
            scaler.update()
            step += 1
            if schedule.ema:
                # Early averages would remember the random start, so the decay grows with the steps taken.
                decay = min(schedule.ema, step / (step + 10))
                with torch.no_grad():
                    for name, value in model.state_dict().items():
                        if name in average:
                            if value.dtype.is_floating_point:
                                average[name].lerp_(value, 1 - decay)
                            else:
                                average[name].copy_(value)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            if time.monotonic() - said > 15:
                said = time.monotonic()
                left = (said - started - sum(waited)) / (step - first) * (total - step) + sum(waited) / len(waited) * (schedule.epochs - epoch - 1)
                say(f"{task.name}: epoch {epoch + 1}/{schedule.epochs} step {count}/{task.steps_per_epoch} "
                    f"loss {sums['total'] / count:.4f} lr {rate:.2e} ETA {left / 60:.1f} min")
        if not schedule.ema:
            average = trained_weights(model)
        loss = sums.pop("total") / max(1, count)
        parts = {f"loss_{name}": value / max(1, count) for name, value in sums_over_processes(sums).items()}
        live = swap_in(model, average)
        model.eval()
        metrics = from_main({"epoch": epoch + 1, "loss": loss, **task.validate(), **parts} if is_main() else None)
        swap_in(model, live)
        history.append(metrics)
        if best is None or metrics["score"] > best.metrics["score"]:
            best = Fitted({name: value.clone() for name, value in average.items()}, epoch + 1, metrics, history)
        if is_main():
            save_state(state_file, fingerprint=mark, model=live, optimizer=optimizer.state_dict(), average=average,
                       history=history, epochs=epoch + 1, step=step,
                       best={"weights": best.weights, "epoch": best.epoch, "metrics": best.metrics},
                       **({"scaler": scaler.state_dict()} if scaler.is_enabled() else {}))
        say(f"{task.name}: epoch {epoch + 1}/{schedule.epochs} " + " ".join(f"{k} {v:.4f}" for k, v in metrics.items() if k != "epoch")
            + f" ({(time.monotonic() - started) / 60:.1f} min)")
    if is_main():
        write_curves(workdir, task.name, history)
    swap_in(model, best.weights)
    model.eval()
    return best


def save_state(path: Path, **state) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())
