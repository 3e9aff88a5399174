"""A stand-in for the Analyzer that takes no time: what it answers is a function of the words, so tests know what must come out."""

from __future__ import annotations

import io
import time
import zipfile
from types import SimpleNamespace

import numpy as np

from msademo.errors import InputError
from msademo.options import MODELS

KEY, OTHER = "a key of a visitor, long enough", "another visitor's key, as long"
TRUST = {"text": 1.0, "audio": -0.4, "vision": 0.3}


def score(words: int, missing: dict) -> float:
    """Of a clip of so many words; the voice pulls the other way."""
    return round((words - 3) * (1 - missing["text"]) + sum(TRUST[m] * (1 - missing[m]) for m in ("audio", "vision")), 4)


class QuickAnalyzer:
    """wait: seconds an item takes; before(words): called when an item is opened."""

    def __init__(self, wait: float = 0.0, before=lambda words: None):
        self.wait, self.before, self.opens = wait, before, 0
        self.posts = SimpleNamespace(open=self.open_post, analyze=self.analyze_post, available=True)

    def open(self, path, transcript=None):
        self.opens += 1
        self.before(transcript)
        time.sleep(self.wait)
        if (transcript or "").startswith("explode"):
            raise RuntimeError(f"a message that quotes the user: {transcript}")
        if transcript == "unreadable":
            raise InputError("This file cannot be read.")
        words = [SimpleNamespace(text=word) for word in (transcript or "heard by ear").split()]
        frames = np.full((4, 60, 80, 3), 90, np.uint8)
        return SimpleNamespace(clip=SimpleNamespace(frames=frames if path else frames[:0], words=words), faces=None, path=path)

    def analyze(self, opened, missing, seed=0, models=None):
        value = score(len(opened.clip.words), missing)
        there = {"text": bool(opened.clip.words), "audio": opened.path is not None, "vision": opened.path is not None}
        names = models or tuple(MODELS)
        return SimpleNamespace(predictions={name: SimpleNamespace(score=value * (1 - 0.5 * names.index(name))) for name in names},
                               modalities={m: SimpleNamespace(present=here) for m, here in there.items()}, notes=("A note.",))

    def open_post(self, path, text):
        return SimpleNamespace(post=SimpleNamespace(words=tuple(text.split()), picture=np.full((50, 90, 3), 120, np.uint8) if path else None))

    def analyze_post(self, opened, ratios, seed, overlays):
        glad = "good" in opened.post.words and ratios["text"] < 1
        row = lambda p: SimpleNamespace(now=np.array([0.1, 0.2, 0.7] if p else [0.6, 0.3, 0.1]))
        none = SimpleNamespace(now=None)
        return SimpleNamespace(classes=("negative", "neutral", "positive"), notes=(), paths={
            "fusion": row(glad), "text": row(glad) if opened.post.words and ratios["text"] < 1 else none, "image": row(True) if opened.post.picture is not None else none})


def zipped(files: dict[str, bytes | str], compression=zipfile.ZIP_DEFLATED) -> bytes:
    """A zip without dates, so that the same files make the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return out.getvalue()
