"""PGLH and PGMF's student on the measured split, into files like the peers'. Seed 1111 is the shipped checkpoint; others are trained by the same commands."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Sequence

import numpy as np
import torch

from benchmarks.peers.data import Source, save_arrays
from msademo.checkpoint import read_checkpoint
from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.features.bundle import collate, predict, token_masks
from msademo.models.pgmf import distillation
from msademo.models.pglh import Batch
from msademo.registry import FusionModel, load_fusion
from train.evaluate import Bench

SHIPPED = {"pglh": "pglh.safetensors", "pgmf-student": "pgmf_student.safetensors"}
TEACHER = "pgmf_teacher.safetensors"


def checkpoint_of(name: str, seed: int, folder: Path, checkpoints: Path, source: Source) -> Path:
    """The shipped checkpoint where it has this seed, or one that is trained now with the shipped one's epochs, close epochs (older checkpoints had none), learning rate
    and (student) weights of its losses."""
    shipped = checkpoints / SHIPPED[name]
    meta = read_checkpoint(shipped, name).meta
    if meta.get("seed", 1111) == seed:
        return shipped
    path = folder / "model.safetensors"
    if not path.is_file():
        if not (schedule := meta.get("schedule")):
            raise InputError(f"{shipped.name} does not say how it was trained, so {name} cannot be trained like it with seed {seed}.")
        close = (meta.get("settings") or {}).get("close_epochs", 0)
        command = [sys.executable, "-m", "train", name, "--data", source.data, "--epochs", schedule["epochs"], "--close-epochs", close, "--lr", schedule["lr"],
                   "--seed", seed, "--out", path, "--work", folder / "work", "--cache", source.cache, "--text", source.text, "--face", source.face]
        if name == "pgmf-student":
            config = meta["config"]
            command += ["--teacher", checkpoints / TEACHER, "--prompts", checkpoints / "prompts.jsonl.gz", "--alpha", config["alpha"], "--beta", config["beta"]]
        if subprocess.run([str(part) for part in command]).returncode or not path.is_file():
            raise InputError(f"{name} could not be trained with seed {seed}; see above.")
    return path


def load(name: str, path: Path, source: Source) -> FusionModel:
    return load_fusion(path, source.text, source.face, name)


def masks_of(bench: Bench, clips: Sequence, rate: float, draw: int) -> list[dict[str, np.ndarray]]:
    return [token_masks(clip, gone) for clip, gone in zip(clips, bench.masks(clips, dict.fromkeys(MODALITIES, rate), draw))]


def words_of(case: Path) -> list[torch.Tensor]:
    """The words left of every clip, as the text encoder read them when the measured split was written."""
    with np.load(case) as arrays:
        return [torch.from_numpy(text[:length]) for text, length in zip(arrays["text"], arrays["text_lengths"])]


def write_predictions(fusion: FusionModel, bench: Bench, measured: Path, folder: Path, cases: Sequence[tuple[float, int, str]], label: str, say=print) -> None:
    """What train.evaluate predicts for each rate, draw and composition; a file a case, and those that are there are kept."""
    todo = [case for case in cases if not (folder / case[2]).is_file()]
    started = said = time.monotonic()
    for number, (rate, draw, name) in enumerate(todo, start=1):
        words = words_of(measured / name)
        rows = [predict(fusion.model, fusion.statistics, clips, masks_of(bench, clips, rate, draw), words) for clips in bench.clips]
        save_arrays(folder / name, scores=np.stack(rows))
        if time.monotonic() - said > 15 or number == len(todo):
            said = time.monotonic()
            say(f"{label}: {number} of {len(todo)} masks predicted, ETA {(said - started) / number * (len(todo) - number) / 60:.1f} min")


class Timed:
    """A model on one batch that carries its targets, with the trainer's optimizer. step(), forward() -> seconds. teacher: for a student, a frozen
    PGMF whose pass is part of the step, as it is in training. clock: the name of one of module time's."""

    def __init__(self, model: torch.nn.Module, batch: Batch, teacher: torch.nn.Module | None = None, clock: str = "perf_counter"):
        self.model, self.batch, self.teacher, self.clock = model.requires_grad_(True), batch, teacher, getattr(time, clock)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def loss(self) -> torch.Tensor:
        if self.teacher is None:
            return self.model.loss(self.batch)["total"]
        with torch.no_grad():
            guide = self.teacher.align(self.batch, "last")
        config = self.model.config
        return distillation(self.model.align(self.batch, "last"), guide, self.batch.score, config.alpha, config.beta)["total"]

    def step(self) -> float:
        self.model.train()
        started = self.clock()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return self.clock() - started

    @torch.inference_mode()
    def forward(self) -> float:
        self.model.eval()
        started = self.clock()
        self.model(self.batch)
        return self.clock() - started


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def timing(fusion: FusionModel, teacher: FusionModel | None, bench: Bench, measured: Path, case: tuple[float, int, str], complete: Path, size: int) -> dict:
    """Medians of seven steps and forward passes on the first clips of one case. The student's step has its teacher's pass in it, without prompts."""
    rate, draw, name = case
    clips = bench.clips[0][:size]
    padded = lambda words: torch.nn.utils.rnn.pad_sequence(words[:size], batch_first=True)
    batch = collate(clips, masks_of(bench, clips, rate, draw), padded(words_of(measured / name)), fusion.statistics, padded(words_of(complete)))
    timed = Timed(fusion.model, batch, teacher.model if teacher else None)
    median = lambda action: statistics.median([action() for _ in range(9)][2:])
    return {"step": median(timed.step), "forward": median(timed.forward), "parameters": parameters(fusion.model)}
