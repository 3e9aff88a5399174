"""A stand-in for the Analyzer with its interface and no models, so that tests of the page are tests of the page."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np

from msademo.corruption import KINDS, MODALITIES, check_kind, check_ratio, check_seed, missing
from msademo.errors import InputError
from msademo.explain import Alignment
from msademo.guidance.given import COMPLETE, LEFT, Guidance, given_guidance
from msademo.guidance.prompt import Prompt
from msademo.media import Clip, load_clip
from msademo.options import MODELS, models_of
from msademo.results import ClipResult, Curve, ModalityView, Prediction, PromptAttention, Recovery
from msademo.shelf import FILES
from msademo.transcript import assign_times, split_words
from msademo.ui.theme import launch_options

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
WIDTHS = {"text": 384, "audio": 42, "vision": 71}
TRUST = {"text": 1.5, "audio": 0.6, "vision": 0.3}      # what each modality adds to the fake score


@dataclass(frozen=True)
class FakeOpened:
    clip: Clip
    faces: object
    features: object
    guidance: Guidance
    notes: tuple = ("These words were heard by nobody: this is a fake.",)


class FakeAnalyzer:
    """Opens real files; its score falls as words, voice and face go. Counts what it was asked to do. pgmf: are its checkpoints there?"""

    def __init__(self, pgmf: bool = True):
        self.opens = self.curves = self.moves = 0
        self.models = MODELS if pgmf else ("pglh",)
        self.posts = SimpleNamespace(available=False, file="spro.safetensors")
        self.folder, self.shelf = CHECKPOINTS, SimpleNamespace(files=dict(FILES))

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

    def analyze(self, opened, missing=None, kind="random", seed=0, models=None, guidance=None):
        self.moves += 1
        return fake_result(opened, missing or {}, kind, seed, models_of(models) or self.models, opened.guidance if guidance is None else guidance)

    def write_guidance(self, opened, source="offline", missing=None, kind="random", seed=0):
        if missing is None and source == "offline":
            return opened.guidance
        said = f"{sum(missing.values()) / 3:.0%} was missing." if missing else "All was there."
        note = "These cues were written offline, for nobody could be asked." if source == "openai" else ""
        return Guidance(Prompt("A face.", said, "A voice.", "offline", note), LEFT if missing else COMPLETE, note)

    def curve(self, opened, kind="random", seed=0, masks=5):
        self.curves += 1
        rates = np.arange(10) / 10
        return Curve(rates, 2 * (1 - rates) + np.linspace(-0.2, 0.2, masks)[:, None] * rates, 0.1, check_kind(kind))

    def clip(self, path, transcript=None, missing=None, kind="random", seed=0, models=None, guidance=None):
        models_of(models), given_guidance(guidance)
        opened = self.open(path, transcript)
        guidance = given_guidance(guidance)
        return self.analyze(opened, missing, kind, seed, models, self.write_guidance(opened, guidance) if isinstance(guidance, str) else guidance)


def opened_from(clip: Clip) -> FakeOpened:
    count = len(clip.frames)
    found = np.arange(count) % 5 != 4
    faces = SimpleNamespace(found=found, boxes=np.tile(np.array([20.0, 10, 60, 60]), (count, 1)))
    voice = 0 if clip.audio is None else max(1, int(clip.duration * 10))
    tracks = {"audio": track(voice, clip.duration, np.zeros(voice, bool)), "vision": track(count, clip.duration, ~found)}
    guidance = Guidance(Prompt("A face.", f"{len(clip.words)} words.", "A voice.", "offline"), COMPLETE)
    return FakeOpened(clip, faces if count else None, SimpleNamespace(track=tracks.__getitem__), guidance)


def track(count: int, duration: float, lacking: np.ndarray) -> SimpleNamespace:
    edges = np.linspace(0, duration, count + 1)
    return SimpleNamespace(missing=lacking, times=np.stack([edges[:-1], edges[1:]], 1))


def fake_alignments(words, views: dict, told: bool) -> dict:
    """Attention that only depends on what is left; the teacher's with its prompt leans to the first moment left."""
    found = {}
    for m in ("vision", "audio"):
        hidden, there = views["text"].missing, ~views[m].missing
        if not len(words) or not len(there):
            continue
        maps = {}
        for view, layers in {"teacher": 3, "without": 3, "student": 2}.items():
            if view == "teacher" and not told:
                continue
            whole = np.zeros((layers, 2, len(words), len(there)), np.float32)
            if there.any():
                whole[..., there] = np.random.default_rng(len(view)).dirichlet(np.ones(there.sum()), whole.shape[:3])
                if view == "teacher":
                    whole *= 0.5
                    whole[..., np.flatnonzero(there)[0]] += 0.5
            whole[..., hidden, :] = 0
            maps[view] = whole
        found[m] = Alignment(maps, tuple(word.text for word in words), hidden, views[m].times, ~there)
    return found


def fake_result(opened, ratios=None, kind="random", seed=0, models=tuple(MODELS), guidance=None) -> ClipResult:
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
    score, whole = sum(TRUST[m] * (1 - ratios[m]) for m in MODALITIES), sum(TRUST.values())
    guided = guidance if "pgmf-teacher" in models else None
    told = guided is not None and guided.prompt is not None
    factor = {"pglh": 1.0, "pgmf-student": 0.5, "pgmf-teacher": 0.8 if told else 0.3}
    predictions = {name: Prediction(name, score * factor[name], whole * factor[name]) for name in models}
    notes = (*opened.notes, *([] if len(models) > 1 else ["PGMF is left out."]), *([guided.note] if guided is not None and guided.note else []))
    return ClipResult(predictions, views, words, recovery, attention,
                      {m: 0.5 for m in MODALITIES}, {"audio": 0.4, "vision": 0.45}, opened.clip.transcript_source, opened.clip.duration, seed,
                      notes, provenance={"checkpoint": "fake", "data": "none at all"}, guidance=guided,
                      alignments=fake_alignments(words, views, told) if len(models) > 1 else {})


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


@contextmanager
def serving(demo, **more):
    """The address under which a demo answers, on a free port, until the block ends."""
    _, url, _ = demo.queue().launch(prevent_thread_lock=True, quiet=True, **more, **launch_options())
    try:
        yield url
    finally:
        demo.close()
