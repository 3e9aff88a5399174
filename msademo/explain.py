"""Numbers beside attention maps: how spread out one map is, how far two maps are apart, and where the difference lies.

A map is (words, moments): each row says how one word shares out its attention over the moments of the voice or the face, so a
row sums to 1. What is missing or padded is taken out before any number is made (`visible`). Bits throughout: an entropy of
log2(n) is an even look at n moments, a Jensen-Shannon divergence of 1 means that two words look at no moment in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

import numpy as np

from msademo.errors import InputError

TOP = 5                     # moments a row counts as looked at most, for the overlap of two maps
NAMED = 3                   # words and moments named as having changed most


def visible(attention: np.ndarray, words_hidden: np.ndarray, moments_hidden: np.ndarray) -> np.ndarray:
    """The map without the rows and columns of what is missing or padded. attention (..., W, M); hidden (W,) and (M,) bool."""
    return np.asarray(attention)[..., ~np.asarray(words_hidden), :][..., ~np.asarray(moments_hidden)]


def entropy(attention: np.ndarray) -> np.ndarray:
    """Bits of each row, (..., W, M) -> (..., W): 0 looks at one moment only, log2(M) at all alike."""
    p = np.asarray(attention, np.float64)
    return -(p * np.log2(np.where(p > 0, p, 1.0))).sum(-1) + 0.0


def js_divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of each pair of rows in bits, in [0, 1]: the entropy of their mean less their mean entropy."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return np.clip(entropy((a + b) / 2) - (entropy(a) + entropy(b)) / 2, 0.0, 1.0)


def l1(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sum of absolute differences of each pair of rows, in [0, 2]; half of it is the share of attention that moved."""
    return np.abs(np.asarray(first, np.float64) - np.asarray(second, np.float64)).sum(-1)


def top_overlap(first: np.ndarray, second: np.ndarray, top: int = TOP) -> np.ndarray:
    """Of the `top` moments a row looks at most, the share that the other map's row has among its own; (..., W) in [0, 1].
    Of equal weights the earlier moment counts. With fewer moments than `top`, all of them are in both."""
    top = min(top, np.shape(first)[-1])
    if not top:
        raise InputError("There is no moment left to look at, so there is no overlap; take less away.")
    best = [np.argsort(-np.asarray(part), axis=-1, kind="stable")[..., :top] for part in (first, second)]
    return (best[0][..., :, None] == best[1][..., None, :]).any(-1).mean(-1)


def moved(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(W,) the share of each word's attention that `first` has elsewhere than `second`. A word always shares out all of it, so it
    cannot gain any: what sets words apart is how much of it moved."""
    return l1(first, second) / 2


def gained(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(M,) what each moment has more in `first` than in `second`, a mean over words; sums to 0."""
    return (np.asarray(first, np.float64) - np.asarray(second, np.float64)).mean(-2)


@dataclass(frozen=True)
class Comparison:
    """Two maps of one clip, rows averaged.

    words: those whose attention moved most, as (word's number, share moved, moment that gained most of it). moments: those that
    gained most in the first map, as (moment's number, gain); only what did gain. Numbers count all words and moments of the clip.
    """

    js: float
    l1: float
    overlap: float
    words: tuple[tuple[int, float, int], ...]
    moments: tuple[tuple[int, float], ...]


def compare(first: np.ndarray, second: np.ndarray, words_hidden: np.ndarray, moments_hidden: np.ndarray) -> Comparison | None:
    """The numbers of two maps (W, M) under one mask; None when no word or no moment is left."""
    a, b = (visible(part, words_hidden, moments_hidden) for part in (first, second))
    if not a.size:
        return None
    word_at, moment_at = np.flatnonzero(~np.asarray(words_hidden)), np.flatnonzero(~np.asarray(moments_hidden))
    change, towards, shift = moved(a, b), (a - b).argmax(-1), gained(a, b)
    words = tuple((int(word_at[w]), float(change[w]), int(moment_at[towards[w]])) for w in np.argsort(-change, kind="stable")[:NAMED] if change[w] > 0)
    moments = tuple((int(moment_at[t]), float(shift[t])) for t in np.argsort(-shift, kind="stable")[:NAMED] if shift[t] > 0)
    return Comparison(float(js_divergence(a, b).mean()), float(l1(a, b).mean()), float(top_overlap(a, b).mean()), words, moments)


def fold(first: Sequence[int], last: Sequence[int], hidden: np.ndarray, words: int) -> np.ndarray:
    """(words, tokens) weights that turn a token's row into its word's: the mean over the visible tokens that touch the word.

    first, last: (tokens,) the words a token touches, inclusive, -1 for CLS and SEP. A word without a visible token has a row of zeros.
    """
    number = np.arange(words)[:, None]
    touch = (np.asarray(first) <= number) & (number <= np.asarray(last)) & ~np.asarray(hidden)
    return (touch / np.maximum(touch.sum(1, keepdims=True), 1)).astype(np.float32)


@dataclass(frozen=True)
class Alignment:
    """What the words of a clip look at in its voice or face, in each model under one mask.

    maps: by view, (layers, heads, W, M) float32; views: "teacher" (with its prompt), "without" (the same weights without it), "student".
    words: the texts; words_hidden: (W,) bool, taken away or not read. times: (M, 2) seconds; moments_hidden: (M,) bool, taken away or
    never there.
    """

    maps: Mapping[str, np.ndarray]
    words: tuple[str, ...]
    words_hidden: np.ndarray
    times: np.ndarray
    moments_hidden: np.ndarray

    @property
    def layers(self) -> int:
        """Of the deepest model; layers are counted on it."""
        return max((len(m) for m in self.maps.values()), default=0)

    @property
    def heads(self) -> int:
        return max((m.shape[1] for m in self.maps.values()), default=0)

    @property
    def even(self) -> float:
        """Bits of an even look at the moments that are left."""
        return float(np.log2(max(1, int((~self.moments_hidden).sum()))))

    def layer_of(self, view: str, layer: int | None) -> int:
        """The view's own layer, from 1 on, that stands at the same relative depth as `layer` of the deepest model; None = the last.
        The last always meets the last: with 6 and 2 layers, 1-3 meet the first and 4-6 the second."""
        own = len(self.maps[view])
        if layer is None:
            return own
        if not 1 <= layer <= self.layers:
            raise InputError(f"There is no layer {layer}; choose one from 1 to {self.layers}, or the last.")
        return -(-layer * own // self.layers)

    def map(self, view: str, layer: int | None = None, head: int | None = None) -> np.ndarray:
        """(W, M) of one view: a head (from 1 on) or, with None, the mean of all; a layer (see layer_of) or the last. NaN where
        something is missing."""
        if view not in self.maps:
            raise InputError(f"There is no map of {view!r} here; choose among {', '.join(self.maps) or 'none: no model drew any'}.")
        chosen = self.maps[view][self.layer_of(view, layer) - 1]
        if head is not None and not 1 <= head <= len(chosen):
            raise InputError(f"There is no head {head}; choose one from 1 to {len(chosen)}, or the mean.")
        out = (chosen.mean(0) if head is None else chosen[head - 1]).astype(np.float64)
        out[self.words_hidden], out[:, self.moments_hidden] = np.nan, np.nan
        return out

    def entropy(self, view: str, layer: int | None = None, head: int | None = None) -> float | None:
        """Bits of one view, a mean over the words left; None when no word or no moment is left."""
        seen = visible(self.map(view, layer, head), self.words_hidden, self.moments_hidden)
        return float(entropy(seen).mean()) if seen.size else None

    def compare(self, first: str, second: str, layer: int | None = None, head: int | None = None) -> Comparison | None:
        """The numbers of two views under the same mask; None when no word or no moment is left."""
        return compare(self.map(first, layer, head), self.map(second, layer, head), self.words_hidden, self.moments_hidden)
