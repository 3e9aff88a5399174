"""What is missing: the one place that the trainer, the evaluator and the demo take their masks from.

A mask is bool, True = missing. Each (seed, modality) has its own stream, from which one number U in [0, 1) a token is drawn
once; a token is missing where U < r. So masks are nested: a higher ratio only takes more away, and r = 1 takes everything.
"""

from __future__ import annotations

import math

import numpy as np

from msademo.errors import InputError, shown

MODALITIES = ("text", "audio", "vision")
SPAN = (3, 8)          # shortest and longest block that fails at once, in tokens


def random_levels(n: int, rng: np.random.Generator) -> np.ndarray:
    """Each token fails by itself: n independent uniform numbers."""
    return rng.random(n)


def span_levels(n: int, rng: np.random.Generator) -> np.ndarray:
    """Tokens fail in bursts, as sensors do: the sequence is cut into blocks, the blocks fail one after the other in random
    order, each from its first token on. The share that is missing at ratio r is exactly round-down-free: rank / n < r."""
    blocks, start = [], 0
    while start < n:
        end = min(n, start + int(rng.integers(SPAN[0], SPAN[1] + 1)))
        blocks.append(np.arange(start, end))
        start = end
    order = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))]) if blocks else np.zeros(0, int)
    levels = np.empty(n)
    levels[order] = np.arange(n) / max(n, 1)
    return levels


KINDS = {"random": random_levels, "span": span_levels}


def check_ratio(ratio: float, what: str = "The missing ratio") -> float:
    """The ratio as a float in [0, 1], or InputError."""
    try:
        value = float(ratio)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0.0 <= value <= 1.0:                       # NaN fails the comparison too
        raise InputError(f"{what} must be a number from 0 (nothing missing) to 1 (all of it); {shown(ratio)} is not.")
    return value


def check_kind(kind: str) -> str:
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"There is no corruption called {shown(kind)}; choose one of: {', '.join(KINDS)}.")
    return kind


def check_seed(seed: int) -> int:
    try:
        value = int(seed)
    except (TypeError, ValueError, OverflowError):
        value = -1
    if value < 0 or value != seed:
        raise InputError(f"The seed must be a whole number from 0 on; {shown(seed)} is not.")
    return value


def levels(n: int, modality: str, seed: int, kind: str = "random") -> np.ndarray:
    """(n,) the ratio above which each token (for text: each word) is missing; the same for the same seed, always."""
    return KINDS[check_kind(kind)](n, np.random.default_rng([check_seed(seed), MODALITIES.index(modality)]))


def missing(n: int, ratio: float, modality: str, seed: int, kind: str = "random") -> np.ndarray:
    """(n,) bool, True = missing: `ratio` of the tokens of one modality taken away. Words, for text."""
    return levels(n, modality, seed, kind) < check_ratio(ratio)


def lnln_missing(valid: np.ndarray, rate: float, seed: int, text: bool) -> np.ndarray:
    """The protocol of LNLN (Zhang et al. 2024, "Towards Robust Multimodal Sentiment Analysis with Incomplete Data"), bit for bit.

    valid: (N, L) bool, True = a token (no padding), the whole split at once since one stream runs through it. The stream is
    seeded afresh for every modality, so equally long ones share masks. With `text`, the first and the last valid token
    (CLS, SEP) stay. Returns (N, L) bool, True = missing; padding is not missing.
    """
    valid = np.asarray(valid, dtype=bool)
    kept = np.random.RandomState(seed).uniform(size=valid.shape) > check_ratio(rate)
    if text:
        last = valid.sum(axis=1) - 1
        kept[:, 0] = True
        kept[np.arange(len(valid)), last] = True
    return valid & ~kept
