"""What the models say about themselves, brought into the typed results: recovery, prompt attention, alignments."""

from __future__ import annotations

import numpy as np
import torch

from msademo.backbones.expression import EXPRESSIONS
from msademo.backbones.voice import EMOTIONS
from msademo.explain import Alignment, fold
from msademo.features.bundle import Features, Statistics, heard_together
from msademo.features.vision import VISION_NAMES
from msademo.features.voice import VOICE_NAMES
from msademo.models.pgmf import SOURCES
from msademo.models.pglh import Batch, Explained
from msademo.results import PromptAttention, Recovery
from msademo.transcript import Word


def token_times(words: tuple[Word, ...], end: float, features: Features) -> np.ndarray:
    """(T, 2) seconds of the text tokens: their words' times; CLS at the start, SEP at the end."""
    tokens = features.tokens
    times = [(words[a].start or 0.0, words[b].end or 0.0) if a >= 0 else (0.0, 0.0) for a, b in zip(tokens.first, tokens.last)]
    times[-1] = (end, end)
    return np.array(times, dtype=np.float64)


def recovery(clean: Features, clean_text: torch.Tensor, features: Features, times: np.ndarray, m: str, gone: np.ndarray, batch: Batch,
             explained: Explained, statistics: Statistics) -> Recovery:
    """Original, corrupted and recovered, standardised; errors on tokens that were masked and have an original.

    clean: the clip's own features; features: the corrupted ones; times: (T_text, 2), used for the words; gone: (T,) bool.
    """
    corrupted, recovered = batch.values[m][0].numpy().copy(), explained.recovered[m][0].numpy()
    if m == "text":
        same = len(features.tokens) == len(clean.tokens)
        original = statistics.standardise(clean_text, m).numpy() if same else corrupted.copy()
        lacking = np.zeros(len(corrupted), bool)
    else:
        track = clean.track(m)
        original = statistics.standardise(torch.from_numpy(statistics.read(track, m, track.missing)), m).numpy()
        times, lacking = track.times, track.missing
    names = {"text": tuple(f"e5_{i}" for i in range(original.shape[1])), "audio": VOICE_NAMES, "vision": VISION_NAMES}[m]
    corrupted[gone] = np.nan
    original = original.copy()
    original[lacking] = np.nan
    judged = gone & ~lacking
    errors = [float(np.square(guess - original[judged]).mean()) if judged.any() else None for guess in (recovered[judged], 0.0)]
    return Recovery(original, corrupted, recovered, gone, times, names, *errors)


def shown(features: Features, m: str, hidden: np.ndarray) -> dict[str, float]:
    """The probability of each emotion by all of a voice, or of a face, that is not hidden (T,); nothing where nothing is left, and of words."""
    if m == "text" or hidden.all():
        return {}
    values = features.track(m).values
    names, read = (EMOTIONS, heard_together(values, hidden, len(EMOTIONS))) if m == "audio" else (EXPRESSIONS, values)
    return dict(zip(names, read[~hidden, -len(names):].mean(0).tolist()))


def prompt_attention(features: Features, m: str, explained: Explained) -> PromptAttention:
    pieces = tuple(piece.replace("▁", "") or "▁" for piece in features.tokens.pieces)
    labels = pieces if m == "text" else tuple(f"{t:.1f} s" for t in features.track(m).times[:, 0]) + pieces
    return PromptAttention(explained.self_attention[m][0].numpy(), explained.language_attention[m][0].numpy(), labels)


def alignments(features: Features, words: tuple[Word, ...], gone: dict[str, np.ndarray], drawn: dict[str, dict[str, torch.Tensor]]) -> dict[str, Alignment]:
    """Maps of words instead of pieces, by source; only of a source the clip has tokens of. gone: token masks.

    drawn: by view, per source (layers, heads, T_text, T_source) as PGMF.explain gives them for one clip.
    """
    tokens, found = features.tokens, {}
    weights = torch.from_numpy(fold(tokens.first, tokens.last, gone["text"], len(words)))
    for m in SOURCES:
        if drawn and words and features.units(m):
            maps = {view: (weights @ maps[m]).numpy() for view, maps in drawn.items()}
            found[m] = Alignment(maps, tuple(word.text for word in words), ~weights.any(1).numpy(), features.track(m).times, gone[m])
    return found
