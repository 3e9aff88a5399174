"""The Clip tab: a slider's release to the new panels, a new look at the attention maps, and a ten-second 480p file to its result.

Server side, models warm; all three models answer where PGMF's checkpoints are there, and the report says which did.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from itertools import count, cycle
from pathlib import Path

import av
import numpy as np

from benchmarks.__main__ import timed
from msademo.analyzer import Analyzer
from msademo.corruption import MODALITIES
from msademo.media import SAMPLE_RATE, load_clip
from msademo.ui.alignment import VIEWS, Look
from msademo.ui.clip_panels import Controls, map_panel, update
from msademo.ui.page import share_cores

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SECONDS, SIZE, RATE = 10, (854, 480), 25


def write_clip(path: Path, source: Path) -> None:
    """A ten-second 480p film: the example's frames and sound over again, enlarged."""
    with av.open(str(source)) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    sound = np.resize(load_clip(source, "").audio, SECONDS * SAMPLE_RATE)
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("libx264", rate=RATE), out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        for picture, number in zip(cycle(pictures), range(SECONDS * RATE)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(*SIZE, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(video.encode(frame))
        frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        out.mux(audio.encode(frame))
        out.mux(video.encode()), out.mux(audio.encode())


def measure(runs: int) -> dict:
    transcript = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))[0]["transcript"]
    share_cores()                               # as the page does
    started = time.perf_counter()
    analyzer = Analyzer()
    models = list(analyzer.warm().fusion)
    warm = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ten_seconds.mp4"
        write_clip(path, EXAMPLES / "happy.mp4")
        opening = timed(lambda: update(analyzer, analyzer.open(path, transcript), Controls()), max(3, runs // 4))
        opened = analyzer.open(path, transcript)
        moves = count(1)

        def controls() -> Controls:
            step = next(moves)
            return replace(Controls(), missing={m: (step % 10) / 10 for m in MODALITIES}, seed=step)

        curve = analyzer.curve(opened)
        slider = timed(lambda: update(analyzer, opened, controls(), curve), runs)
        alone = timed(lambda: analyzer.analyze(opened, controls().missing, seed=next(moves)), runs)
        robustness = timed(lambda: analyzer.curve(opened), max(3, runs // 4))
        maps = analyzer.analyze(opened, 0.3).alignments
        looks = cycle([Look(source, view) for source in ("vision", "audio") for view in VIEWS])
        look = timed(lambda: map_panel(maps, next(looks), opened), runs) if maps else None
    return {"clip": {"seconds": SECONDS, "size": SIZE, "words": len(opened.clip.words), "frames": len(opened.clip.frames)}, "models": models,
            "models_warm_s": round(warm, 2), "slider_to_panels": slider, "of_it_the_models": alone, "new_look_at_the_maps": look,
            "file_to_result": opening, "robustness_curve": robustness}
