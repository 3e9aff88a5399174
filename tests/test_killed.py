"""Killed (SIGKILL) at random moments again and again, and started again: what a run leaves in the end is what an undisturbed one leaves."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch

from msademo.checkpoint import read_checkpoint
from msademo.models.spro import SPRO, SPROConfig
from tests.pickle_support import write_mmsa
from tests.test_pickled import SMALL
from tests.test_posts_data import Brightness, posts      # noqa: F401 (a fixture)
from tests.test_spro import SMALL as SPRO_SMALL
from tests.test_training import Line
from tests.towers import TinyText
from train.__main__ import main
from train.loop import Schedule, fit
from train.posts import read_captions, read_posts
from train.spro_task import SPROSettings, SPROTask

FORK = multiprocessing.get_context("fork")              # a process of its own at once, for torch is imported already


def started(work) -> multiprocessing.Process:
    def run() -> None:
        torch.set_num_threads(1)                        # the threads of the process that forked are not there, and torch would wait for them
        sys.exit(work())

    process = FORK.Process(target=run)
    process.start()
    return process


def undisturbed(work) -> float:
    """Seconds it takes when left alone."""
    begun = time.monotonic()
    process = started(work)
    process.join(1800)          # a loaded machine is slow, and nothing here waits
    assert process.exitcode == 0
    return time.monotonic() - begun


def killed_and_resumed(work, folder: Path, seconds: float, seed: int, kills: int = 3) -> None:
    """Start `work`, kill it at a random moment, start it again ..., and let it end after so many kills. One that ended before its kill starts anew."""
    rng, landed = random.Random(seed), 0
    for _ in range(20 * kills):
        process = started(work)
        process.join(rng.uniform(0.02, 0.7) * seconds)
        if process.is_alive():
            process.kill()
            process.join()
            landed += 1
        else:
            shutil.rmtree(folder)
            landed, seconds = 0, seconds / 2
        if landed == kills:
            break
    assert landed == kills
    undisturbed(work)


def contents(folder: Path) -> dict[str, str]:
    """Hashes of all files but half-written ones, which nobody reads."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] != "."}


def test_training_on_a_pickle(tmp_path):
    mosi = write_mmsa(tmp_path / "unaligned_9.pkl")
    command = lambda out: ["pglh", "--config", "mosi", "--pickle", str(mosi), "--out", str(tmp_path / out), "--rates", "0,0.5", "--set", *SMALL, "epochs=5"]
    seconds = undisturbed(lambda: main(command("alone")))
    killed_and_resumed(lambda: main(command("killed")), tmp_path / "killed", seconds, seed=1)
    for seed in (1, 2):
        alone, killed = (read_checkpoint(tmp_path / out / f"seed-{seed}" / "model.safetensors") for out in ("alone", "killed"))
        assert all(torch.equal(alone.tensors[name], killed.tensors[name]) for name in alone.tensors) and alone.meta["history"] == killed.meta["history"]
    tables = ("report.json", "curves.csv")
    left = {name: mark for name, mark in contents(tmp_path / "killed").items() if name.endswith(tables)}
    assert left == {name: mark for name, mark in contents(tmp_path / "alone").items() if name.endswith(tables)} and len(left) == 4
    assert not list((tmp_path / "killed").rglob(".state*")), "half-written states are swept away"


def test_a_state_is_never_half_written(tmp_path):
    """Epochs of a few milliseconds: most kills fall into the writing of the state."""
    schedule = Schedule(epochs=40, lr=0.01, ema=0.9)

    def work(folder):
        torch.save(fit(Line(), schedule, tmp_path / folder, say=lambda line: None).weights, tmp_path / f"{folder}.pt")

    seconds = undisturbed(lambda: work("alone"))
    killed_and_resumed(lambda: work("killed"), tmp_path / "killed", seconds / 2, seed=2, kills=5)
    alone, killed = (torch.load(tmp_path / f"{name}.pt") for name in ("alone", "killed"))
    assert all(torch.equal(alone[name], killed[name]) for name in alone)


def test_spro(posts, tmp_path):                         # noqa: F811
    train, valid = (read_posts(posts, split) for split in ("train", "valid"))
    captions = read_captions(posts / "captions.jsonl.gz")

    def work(folder):
        torch.manual_seed(5)
        model = SPRO(SPROConfig(**SPRO_SMALL), TinyText(), Brightness(1))
        model.text.words.requires_grad_(False)
        with torch.no_grad():
            task = SPROTask(model, train, valid, captions, SPROSettings(batch=4, views=1), 5, tmp_path / folder / "cache", ("t", "b"), lambda line: None)
        torch.save(fit(task, Schedule(epochs=6, lr=1e-3, ema=0.9, seed=5), tmp_path / folder, say=lambda line: None).weights, tmp_path / f"{folder}.pt")

    seconds = undisturbed(lambda: work("alone"))
    killed_and_resumed(lambda: work("killed"), tmp_path / "killed", seconds, seed=3)
    alone, killed = (torch.load(tmp_path / f"{name}.pt") for name in ("alone", "killed"))
    assert all(torch.equal(alone[name], killed[name]) for name in alone)
    assert contents(tmp_path / "alone" / "cache") == contents(tmp_path / "killed" / "cache")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are looked up in /proc")
def test_prepare_and_its_workers(data, encoders, tmp_path):
    command = lambda cache: ["prepare", "--data", str(data), "--face", str(encoders / "face.safetensors"), "--cache", str(tmp_path / cache), "--workers", "2"]
    seconds = undisturbed(lambda: main(command("alone")))
    killed_and_resumed(lambda: main(command("killed")), tmp_path / "killed", seconds, seed=4)
    made = contents(tmp_path / "alone")
    assert len(made) == 36 + 3 and contents(tmp_path / "killed") == made
    process = started(lambda: main(command("orphans")))
    until = time.monotonic() + 600
    while not (workers := children(process.pid)) and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.join()
    while any(os.path.exists(f"/proc/{worker}") for worker in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert workers and not any(os.path.exists(f"/proc/{worker}") for worker in workers), "workers of a killed run end as well"


def test_guidance(data, encoders, tmp_path):
    def work(folder):
        made = ["--out", str(tmp_path / folder / "prompts.jsonl.gz"), "--cache", str(tmp_path / folder / "cache"), "--compositions", "2"]
        return main(["guidance", "--data", str(data), "--source", "offline", "--text", str(encoders / "text.safetensors"), "--face", str(encoders / "face.safetensors"), *made])

    seconds = undisturbed(lambda: work("alone"))
    killed_and_resumed(lambda: work("killed"), tmp_path / "killed", seconds, seed=5)
    assert contents(tmp_path / "alone") == contents(tmp_path / "killed")
