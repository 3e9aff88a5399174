"""File -> Clip: frames with times, waveform, words with times (design: one typed result, never a silent default)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 22_050        # Hz, mono; what librosa features are computed at
FRAME_RATE = 5.0            # frames kept per second of video
MAX_SECONDS = 60.0          # longer clips: the first minute, and a note says so


@dataclass(frozen=True)
class Word:
    """One word of the transcript. start/end in seconds; None where no time is known."""

    text: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Clip:
    """A decoded clip. An absent modality is empty (or None), never invented.

    frames: (N, H, W, 3) uint8 RGB, upright, long side at most 640; N = 0 without a video stream.
    frame_times: (N,) float64, seconds from the start.
    audio: (S,) float32 mono in [-1, 1] at SAMPLE_RATE, or None without sound.
    words: the transcript's words in order; empty when there are none.
    transcript_source: "given", "subtitles", "asr" or "none".
    duration: seconds of media kept (0 for a transcript alone).
    notes: sentences for the user: what is missing, what was cut, where the words come from.
    """

    frames: np.ndarray
    frame_times: np.ndarray
    audio: np.ndarray | None
    words: tuple[Word, ...]
    transcript_source: str
    duration: float
    notes: tuple[str, ...] = ()
