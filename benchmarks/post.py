"""The Post tab: a picture file with its words to the full result, overlays drawn, and a slider's move without and with overlays. Server
side, models warm. Without a checkpoint for posts an untrained model of the same size is timed, and the report says so."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from itertools import count, cycle
from pathlib import Path

from benchmarks.__main__ import timed
from msademo.analyzer import CHECKPOINTS
from msademo.checkpoint import save_checkpoint
from msademo.models.spro import CLASSES, SPROConfig
from msademo.post_analyzer import PostAnalyzer
from msademo.registry import build_spro
from msademo.ui import post_figures
from msademo.ui.examples import examples
from msademo.ui.page import share_cores
from msademo.ui.post_tab import Opened, details

BARS = {"file_to_result": 1500, "slider_without_overlays": 300, "slider_with_overlays": 900}       # ms, on 2 cores


def untrained(folder: Path) -> Path:
    """A folder with the expression network and a SPRO that was never trained."""
    model = build_spro(SPROConfig())
    save_checkpoint(folder / "spro.safetensors", "spro", asdict(model.config), model.state_dict(), classes=list(CLASSES), data="none: untrained")
    shutil.copy(CHECKPOINTS / "face.safetensors", folder)
    return folder


def measure(runs: int = 20) -> dict:
    share_cores()
    with tempfile.TemporaryDirectory() as folder:
        trained = (CHECKPOINTS / "spro.safetensors").is_file()
        return {"trained": trained, **measure_with(PostAnalyzer(CHECKPOINTS if trained else untrained(Path(folder))), runs)}


def measure_with(posts: PostAnalyzer, runs: int) -> dict:
    posts.warm()
    listed, seeds = cycle(examples(index="posts.json")), count()

    def from_file():
        item = next(listed)
        opened = Opened(item["file"], item["text"], posts.open(item["file"], item["text"]))
        result = posts.analyze(opened.post)
        return opened, post_figures.answer(result), details(opened, result)

    opened = from_file()[0]

    def move():
        return post_figures.answer(posts.analyze(opened.post, {"text": 0.4, "image": 0.4}, seed=next(seeds), overlays=False))

    def move_with_overlays():
        result = posts.analyze(opened.post, {"text": 0.4, "image": 0.4}, seed=next(seeds))
        return post_figures.answer(result), details(opened, result)

    return {"bars_ms": BARS, "file_to_result": timed(from_file, runs), "slider_without_overlays": timed(move, runs),
            "slider_with_overlays": timed(move_with_overlays, runs), "robustness_curve": timed(lambda: posts.curve(opened.post, seed=next(seeds)), 2)}
