"""Voice -> the tokens that models read: the 33 measured dimensions of features/audio.py and the voice network's evidence for nine emotions.

Evidence is a token's own, so that it can be hidden like the rest; a model reads what the tokens left amount to (features/bundle.py).
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from msademo.backbones.voice import EMOTIONS, STEPS, Voice
from msademo.features.audio import AUDIO_NAMES, HOP, AudioTokens, audio_tokens
from msademo.media import SAMPLE_RATE

VOICE_NAMES = (*AUDIO_NAMES, *(f"sounds_{emotion}" for emotion in EMOTIONS))


def voice_tokens(wave: np.ndarray, voice: Voice, judge: int | None = None) -> AudioTokens:
    """(S,) float mono in [-1, 1] at SAMPLE_RATE -> audio_tokens with the evidence beside: values (T, 42) float32, columns named by VOICE_NAMES.
    judge: which of the network's is to judge, None = the one that has heard every speaker. T = 0 and InputError as there."""
    tokens = audio_tokens(wave)
    if not len(tokens.values):
        return replace(tokens, values=np.zeros((0, len(VOICE_NAMES)), np.float32))
    pieces = voice.net.evidence(wave - wave.mean(), judge)
    # A piece is five of the frames that a token is made of; a long clip's tokens are longer than a piece.
    frames = np.repeat(pieces, STEPS, axis=0)
    frames = frames[np.minimum(np.arange(ceil(len(wave) / HOP)), len(frames) - 1)]
    starts = np.round(tokens.times[:, 0] * SAMPLE_RATE / HOP).astype(int)
    evidence = np.add.reduceat(frames, starts, axis=0) / np.diff(np.append(starts, len(frames)))[:, None]
    return replace(tokens, values=np.concatenate([tokens.values, evidence.astype(np.float32)], axis=1))
