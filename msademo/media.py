"""File -> Clip: frames with times, waveform, words with times (design: one typed result, never a silent default)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np

from msademo import asr as recognition
from msademo import limits
from msademo.apart import decode_apart
from msademo.decoding import FRAME_RATE, MAX_SECONDS, SAMPLE_RATE, Media, decode
from msademo.errors import InputError
from msademo.transcript import (Word, assign_times, looks_like_subtitles, parse_subtitles, read_text_file, split_words,
                                subtitle_words)

__all__ = ["Clip", "Word", "load_clip", "FRAME_RATE", "MAX_SECONDS", "MAX_WORDS", "SAMPLE_RATE"]

MAX_WORDS = 500
MAX_TEXT = 1_000_000       # characters of a transcript; beyond it, it is no transcript


@dataclass(frozen=True)
class Clip:
    """A decoded clip. An absent modality is empty (or None), never invented.

    frames: (N, H, W, 3) uint8 RGB, upright, long side at most 640; N = 0 without a video stream.
    frame_times: (N,) float64, seconds from the start.
    audio: (S,) float32 mono in [-1, 1] at SAMPLE_RATE, or None without sound.
    words: the transcript's words in order; empty when there are none.
    transcript_source: "given", "subtitles", "asr" or "none".
    duration: seconds of media kept (0 for a transcript alone).
    notes: sentences for the user: what is missing, what was cut, where the words come from. media_notes: those of them that
    speak of the file alone, and stay true with other words.
    """

    frames: np.ndarray
    frame_times: np.ndarray
    audio: np.ndarray | None
    words: tuple[Word, ...]
    transcript_source: str
    duration: float
    notes: tuple[str, ...] = ()
    media_notes: tuple[str, ...] = ()


def load_clip(path: str | os.PathLike | None, transcript: str | None = None, *, subtitles: str | None = None, asr: bool = True,
              apart: bool = False) -> Clip:
    """Decode a media file and settle its words.

    path: a local media file; None for a transcript alone.
    transcript: plain text, or the content of an .srt/.vtt; "" says that there are no words; None leaves them to speech
    recognition (if `asr` and there is sound). subtitles: path of an .srt/.vtt file, instead of a transcript.
    apart: decode in a process of its own, which a hostile file may take down without harm; for what strangers give.
    InputError, one sentence, for what cannot be used.
    """
    if subtitles is not None and transcript is not None:
        raise InputError("Both a transcript and a subtitle file were given; give only one of them.")
    if subtitles is not None:
        transcript = read_text_file(subtitles)
        parse_subtitles(transcript)         # a file given as subtitles must be one, not a plain text
    bounds = limits.current()
    read = decode_apart if apart else decode
    media = Media() if path is None else read(os.fspath(path), bounds.clip_seconds, bounds.pixels)
    notes = list(media.notes)
    words, source = _words(transcript, media.audio if asr else None, media.duration, notes)
    if not (len(media.frames) or media.audio is not None or words):
        raise InputError("The file has neither a picture nor a sound that can be used, and no words were given; "
                         "choose another file.")
    return Clip(media.frames, media.times, media.audio, words, source, media.duration, tuple(notes), media.notes)


def replace_words(clip: Clip, transcript: str | None) -> Clip:
    """The same clip with other words: text, subtitles' content, "" for none, or None to have the speech recognised."""
    notes = list(clip.media_notes)
    words, source = _words(transcript, clip.audio, clip.duration, notes)
    return replace(clip, words=words, transcript_source=source, notes=tuple(notes))


def _words(transcript: str | None, audio: np.ndarray | None, duration: float, notes: list[str]) -> tuple[tuple[Word, ...], str]:
    """The words and their source; `notes` gets a sentence on how far to trust them. `audio` None: no recognition."""
    if transcript is not None and not isinstance(transcript, str):
        raise InputError(f"The transcript must be text, not {type(transcript).__name__}; give the words spoken in the clip.")
    if transcript is not None and len(transcript) > MAX_TEXT:
        raise InputError(f"The transcript has more than {MAX_TEXT} characters; give only the words spoken in the clip.")
    if transcript is None:
        words, source = _recognised(audio, notes), "asr"
    elif looks_like_subtitles(transcript):
        words, source = subtitle_words(transcript), "subtitles"
        if duration > 0:
            inside = [word for word in words if word.start < duration]
            if len(inside) < len(words):
                notes.append(f"{len(words) - len(inside)} words of the subtitles come after the end of the clip and were left out.")
            words = tuple(Word(word.text, word.start, min(word.end, duration)) for word in inside)
    else:
        words, source = split_words(transcript), "given"
    most = min(MAX_WORDS, limits.current().words)
    if len(words) > most:
        notes.append(f"The transcript has {len(words)} words; only the first {most} are used.")
        words = words[:most]
    if source == "given" and words:
        words = assign_times(words, duration)
        if duration > 0:
            notes.append("The word times are estimated: the transcript is spread evenly over the clip.")
    if transcript is not None and not words:
        notes.append("No words were given, so the words count as missing.")
    return tuple(words), source if words else "none"


def _recognised(audio: np.ndarray | None, notes: list[str]) -> tuple[Word, ...]:
    if audio is None:
        notes.append("There is no transcript, so the words count as missing.")
    elif not recognition.available():
        notes.append("There is no transcript and speech recognition is not installed, so the words count as missing.")
    else:
        words = recognition.transcribe(audio, SAMPLE_RATE)
        name = recognition.model_name()
        limits = "English only, may be wrong" if name.endswith(".en") else "may be wrong"
        notes.append(f"The words come from speech recognition ({name}: {limits}); correct them where needed." if words else
                     f"Speech recognition ({name}: {limits}) understood no words, so the words count as missing.")
        return words
    return ()
