"""A stand-in for the Analyzer with its interface and no models, so that tests of the page are tests of the page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import av
import numpy as np

from msademo.corruption import KINDS, MODALITIES, check_kind, check_ratio, check_seed, missing
from msademo.errors import InputError
from msademo.media import Clip, load_clip
from msademo.results import ClipResult, Curve, ModalityView, Prediction, PromptAttention, Recovery
from msademo.transcript import assign_times, split_words

WIDTHS = {"text": 384, "audio": 33, "vision": 71}
TRUST = {"text": 1.5, "audio": 0.6, "vision": 0.3}      # what each modality adds to the fake score


@dataclass(frozen=True)
class FakeOpened:
    clip: Clip
    faces: object
    features: object
    notes: tuple = ("These words were heard by nobody: this is a fake.",)


class FakeAnalyzer:
    """Opens real files; its score falls as words, voice and face go. Counts what it was asked to do."""

    def __init__(self):
        self.opens = self.curves = 0

    def warm(self):
        return None

    def open(self, path, transcript=None, subtitles=None, asr=True, say=None):
        self.opens += 1
        if say:
            say("Reading the file", 0.5)
        if (transcript or "").startswith("explode"):
            raise RuntimeError(f"a message that quotes the user: {transcript}")
        return opened_from(load_clip(path, "heard by ear" if transcript is None else transcript, asr=False))

    def with_transcript(self, opened, transcript):
        return opened_from(replace(opened.clip, words=assign_times(split_words(transcript), opened.clip.duration)))

    def analyze(self, opened, missing=None, kind="random", seed=0):
        return fake_result(opened, missing or {}, kind, seed)

    def curve(self, opened, kind="random", seed=0, masks=5):
        self.curves += 1
        rates = np.arange(10) / 10
        return Curve(rates, 2 * (1 - rates) + np.linspace(-0.2, 0.2, masks)[:, None] * rates, 0.1, check_kind(kind))

    def clip(self, path, transcript=None, missing=None, kind="random", seed=0):
        return self.analyze(self.open(path, transcript), missing, kind, seed)


def opened_from(clip: Clip) -> FakeOpened:
    count = len(clip.frames)
    found = np.arange(count) % 5 != 4
    faces = SimpleNamespace(found=found, boxes=np.tile(np.array([20.0, 10, 60, 60]), (count, 1)))
    voice = 0 if clip.audio is None else max(1, int(clip.duration * 10))
    tracks = {"audio": track(voice, clip.duration, np.zeros(voice, bool)), "vision": track(count, clip.duration, ~found)}
    return FakeOpened(clip, faces if count else None, SimpleNamespace(track=tracks.__getitem__))


def track(count: int, duration: float, lacking: np.ndarray) -> SimpleNamespace:
    edges = np.linspace(0, duration, count + 1)
    return SimpleNamespace(missing=lacking, times=np.stack([edges[:-1], edges[1:]], 1))


def fake_result(opened, ratios=None, kind="random", seed=0) -> ClipResult:
    words, ratios = opened.clip.words, {m: check_ratio((ratios or {}).get(m, 0.0)) for m in MODALITIES}
    kinds = dict(kind) if not isinstance(kind, str) else dict.fromkeys(MODALITIES, check_kind(kind))
    check_seed(seed)
    rng, views, recovery, attention = np.random.default_rng(seed), {}, {}, {}
    for m in MODALITIES:
        times = np.array([(w.start or 0, w.end or 0) for w in words]).reshape(-1, 2) if m == "text" else opened.features.track(m).times
        lacking = np.zeros(len(times), bool) if m == "text" else opened.features.track(m).missing
        gone = missing(len(times), ratios[m], m, seed, kinds[m]) if kinds[m] in KINDS else np.zeros(len(times), bool)
        views[m] = ModalityView(ratios[m], kinds[m], gone | lacking, times, bool(len(times)))
        if len(times):
            original = rng.standard_normal((len(times), WIDTHS[m])).cumsum(0) / 3
            corrupted, recovered, judged = original.copy(), original * 0.8, gone & ~lacking
            original[lacking], corrupted[gone | lacking] = np.nan, np.nan
            error = float(np.square((recovered - original)[judged]).mean()) if judged.any() else None
            recovery[m] = Recovery(original, corrupted, recovered, gone | lacking, times, tuple(map(str, range(WIDTHS[m]))),
                                   error, float(np.square(original[judged]).mean()) if judged.any() else None)
            columns = len(times) + (0 if m == "text" else len(words))
            own, language = rng.dirichlet(np.ones(len(times)), 8), rng.dirichlet(np.ones(columns), 8)
            spoken = tuple(word.text for word in words)
            labels = spoken if m == "text" else tuple(f"{t:.1f} s" for t in times[:, 0]) + spoken
            attention[m] = PromptAttention(own, language, labels)
    score = sum(TRUST[m] * (1 - ratios[m]) for m in MODALITIES)
    return ClipResult({"pglh": Prediction("pglh", score, sum(TRUST.values()))}, views, words, recovery, attention,
                      {m: 0.5 for m in MODALITIES}, {"audio": 0.4, "vision": 0.45}, opened.clip.transcript_source, opened.clip.duration, seed,
                      opened.notes, provenance={"checkpoint": "fake", "data": "none at all"})


def write_clip(path, seconds=3.0, picture=True) -> str:
    """A small file that a browser plays: a moving pattern (H.264) and a buzz (AAC)."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=22050, layout="mono")
        video = container.add_stream("libx264", rate=10, options={"g": "10"}) if picture else None
        if video:
            video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
            y, x = np.mgrid[:120, :160]
            for i in range(int(seconds * 10)):
                image = np.stack([128 + 100 * np.sin(x / 9 + i / 3), 128 + 90 * np.cos(y / 7), np.full((120, 160), 90 + 3 * i % 100)], -1)
                container.mux(video.encode(av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")))
            container.mux(video.encode())
        time = np.arange(int(seconds * 22050)) / 22050
        wave = (0.3 * np.sin(2 * np.pi * 180 * time) * (1 + np.sin(9 * time)) / 2).astype(np.float32)
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start:start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 22050, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return str(path)


__all__ = ["FakeAnalyzer", "InputError", "fake_result", "opened_from", "write_clip"]
