"""What an analysis gives back: typed results with .to_dict() for programs, and the arrays the page draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

import numpy as np

from msademo.explain import Alignment, Comparison
from msademo.guidance.given import Guidance
from msademo.transcript import Word

# Acc-7's classes: the score rounded to a whole number.
CLASSES = {-3: "strongly negative", -2: "negative", -1: "weakly negative", 0: "neutral", 1: "weakly positive", 2: "positive", 3: "strongly positive"}


def class_of(score: float) -> str:
    """The name of the whole number a score in [-3, 3] rounds to (half to even, as in Acc-7)."""
    return CLASSES[int(np.clip(np.round(score), -3, 3))]


@dataclass(frozen=True)
class Prediction:
    """One model's answer. score: on the label scale; complete: the same model's score with nothing taken away by us."""

    model: str
    score: float
    complete: float

    @property
    def label(self) -> str:
        return class_of(self.score)

    @property
    def change(self) -> float:
        return self.score - self.complete

    def to_dict(self) -> dict:
        return {"score": round(self.score, 4), "label": self.label, "complete_score": round(self.complete, 4),
                "complete_label": class_of(self.complete), "change": round(self.change, 4) + 0.0}      # no minus zero


@dataclass(frozen=True)
class ModalityView:
    """One modality after corruption. ratio: what was asked for; kind: how. units are words for text, else feature tokens.

    missing: (n,) bool over the units; times: (n, 2) seconds. present: did the clip bring this modality at all? shows: what the voice or
    expression network makes of all that is left, the probability of each emotion; empty for words, and where nothing is left.
    """

    ratio: float
    kind: str
    missing: np.ndarray
    times: np.ndarray
    present: bool
    shows: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict:
        return {"ratio": self.ratio, "kind": self.kind, "present": self.present, "units": int(len(self.missing)),
                "missing": int(self.missing.sum()), "shows": {name: round(value, 4) for name, value in self.shows.items()}}


@dataclass(frozen=True)
class Recovery:
    """Features of one modality, standardised: original, corrupted (NaN where missing) and recovered, each (T, D).

    missing: (T,) bool; times: (T, 2) seconds; names: (D,). error: mean squared error of the recovery on the masked tokens
    only (tokens that the clip itself lacks have no original and do not count), mean_error: the same of filling with the
    training mean; both None when no token with an original is masked.
    """

    original: np.ndarray
    corrupted: np.ndarray
    recovered: np.ndarray
    missing: np.ndarray
    times: np.ndarray
    names: tuple[str, ...]
    error: float | None
    mean_error: float | None

    def to_dict(self) -> dict:
        return {"error": self.error, "mean_error": self.mean_error}


@dataclass(frozen=True)
class PromptAttention:
    """Where UBPF's prompts of one modality look. own: (P, T) first stage (12); language: (P, T) for text, else (P, T + T_text)
    second stage (13)/(14). labels: a name for each column of `language` (its first T columns are `own`'s)."""

    own: np.ndarray
    language: np.ndarray
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Curve:
    """Robustness over the linked missing ratio. rates: (R,); scores: (masks, R), a row a mask seed.

    constant: what a predictor that always answers the training median says, the line every curve can fall back to.
    """

    rates: np.ndarray
    scores: np.ndarray
    constant: float
    kind: str

    def to_dict(self) -> dict:
        return {"rates": [round(float(r), 2) for r in self.rates], "mean": [round(float(s), 4) for s in self.scores.mean(0)],
                "low": [round(float(s), 4) for s in self.scores.min(0)], "high": [round(float(s), 4) for s in self.scores.max(0)],
                "masks": len(self.scores), "constant": round(self.constant, 4), "kind": self.kind}


COMPARED = (("teacher", "without"), ("teacher", "student"), ("without", "student"))      # the third only where the teacher was told nothing


def compared(alignment: Alignment) -> list[tuple[str, str]]:
    """The pairs of views there are maps of: what the prompt changes, and how far the student is from its teacher."""
    pairs = [pair for pair in COMPARED if set(pair) <= set(alignment.maps)]
    return pairs[:2]


def _comparison(alignment: Alignment, first: str, second: str, found: Comparison) -> dict:
    moment = lambda t: {"start": round(float(alignment.times[t, 0]), 3), "end": round(float(alignment.times[t, 1]), 3)}
    return {
        "first": first, "second": second, "js_divergence": round(found.js, 4), "l1": round(found.l1, 4), "top5_overlap": round(found.overlap, 4),
        "words": [{"text": alignment.words[w], "index": w, "moved": round(share, 4), "towards": moment(t)} for w, share, t in found.words],
        "moments": [{**moment(t), "gained": round(gain, 4)} for t, gain in found.moments],
    }


def _rows(attention: np.ndarray) -> list[list[float | None]]:
    """A map for JSON: None where something is missing."""
    return [[None if np.isnan(value) else round(float(value), 4) for value in row] for row in attention]


def summary(alignment: Alignment, maps: bool = False) -> dict:
    """Numbers of the last layer, mean of the heads (null where nothing is left), and with `maps` the maps they are of."""
    numbers = [(first, second, alignment.compare(first, second)) for first, second in compared(alignment)]
    entropies = {view: alignment.entropy(view) for view in alignment.maps}
    told = {"layers": {view: len(m) for view, m in alignment.maps.items()}, "heads": alignment.heads,
            "entropy": {view: None if bits is None else round(bits, 4) for view, bits in entropies.items()}, "entropy_if_even": round(alignment.even, 4),
            "comparisons": [_comparison(alignment, *pair, found) if found else {"first": pair[0], "second": pair[1], "js_divergence": None}
                            for *pair, found in numbers]}
    if maps:
        told |= {"words": list(alignment.words), "times": np.round(alignment.times, 3).tolist(),
                 "maps": {view: _rows(alignment.map(view)) for view in alignment.maps}}
    return told


@dataclass(frozen=True)
class ClipResult:
    """A clip analysed under one corruption. `predictions` by model name, in the order they are shown; the first is the result's own.

    recovery, attention, alpha, beta: PGLH's account of itself, empty when it was not asked. guidance: what the teacher was told.
    alignments: by source ("vision", "audio"), what the words look at in PGMF's teacher and student; empty when neither was asked.
    """

    predictions: Mapping[str, Prediction]
    modalities: Mapping[str, ModalityView]
    words: tuple[Word, ...]
    recovery: Mapping[str, Recovery]
    attention: Mapping[str, PromptAttention]
    alpha: Mapping[str, float]
    beta: Mapping[str, float]
    transcript_source: str
    duration: float
    seed: int
    notes: tuple[str, ...] = ()
    scale: tuple[float, float] = (-3.0, 3.0)
    provenance: Mapping[str, str] = field(default_factory=dict)      # what the models were trained on, for the page's footnote
    guidance: Guidance | None = None
    alignments: Mapping[str, Alignment] = field(default_factory=dict)

    @property
    def own(self) -> Prediction:
        return next(iter(self.predictions.values()))

    @property
    def score(self) -> float:
        return self.own.score

    @property
    def label(self) -> str:
        return self.own.label

    def to_dict(self, maps: bool = False) -> dict:
        """JSON-ready; floats are rounded to 4 places, arrays of the page left out - but for the attention maps when `maps` asks for them."""
        gone = self.modalities["text"].missing
        return {
            **self.own.to_dict(),
            "model": self.own.model,
            "scale": list(self.scale),
            "predictions": {name: prediction.to_dict() for name, prediction in self.predictions.items()},
            "guidance": None if self.guidance is None else self.guidance.to_dict(),
            "alignments": {name: summary(alignment, maps) for name, alignment in self.alignments.items()},
            "modalities": {name: view.to_dict() for name, view in self.modalities.items()},
            "words": [{"text": word.text, "start": word.start, "end": word.end, "missing": bool(m)} for word, m in zip(self.words, gone)],
            "transcript_source": self.transcript_source,
            "recovery": {name: recovery.to_dict() for name, recovery in self.recovery.items()},
            "alpha": {name: round(value, 4) for name, value in self.alpha.items()},
            "beta": {name: round(value, 4) for name, value in self.beta.items()},
            "duration": round(self.duration, 3), "seed": self.seed, "notes": list(self.notes),
            "provenance": dict(self.provenance),
        }
