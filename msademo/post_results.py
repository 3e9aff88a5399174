"""What the analysis of a post gives back: typed, with .to_dict() for programs, and the arrays the page draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

import numpy as np

from msademo.guidance.posts import Captions

PATHS = ("image", "text", "fusion")


def rounded(values) -> list[float]:
    return [round(float(value), 4) + 0.0 for value in values]        # no minus zero


@dataclass(frozen=True)
class Path:
    """One path's answer: probabilities (3,) now and with the post complete, in the order of `classes`. None where that half is absent."""

    classes: tuple[str, ...]
    now: np.ndarray | None
    complete: np.ndarray | None

    @property
    def label(self) -> str | None:
        return None if self.now is None else self.classes[int(self.now.argmax())]

    @property
    def complete_label(self) -> str | None:
        return None if self.complete is None else self.classes[int(self.complete.argmax())]

    def to_dict(self) -> dict:
        by_class = lambda values: None if values is None else dict(zip(self.classes, rounded(values)))
        return {"label": self.label, "probabilities": by_class(self.now),
                "complete_label": self.complete_label, "complete_probabilities": by_class(self.complete)}


@dataclass(frozen=True)
class Overlay:
    """Where a similarity comes from. relevance: (P,) >= 0 over the grid's patches, summing to 1 (or 0 everywhere), 0 where hidden.

    similarity: cosine of image and caption; None for the final overlay, which belongs to all captions and the predicted class together.
    on_faces: share of the relevance that lies on faces, face_area: the share of the picture that they cover; None without a face.
    concentration in [0, 1]: 0 spread evenly over the patches left, 1 all on one. half: the fewest patches that hold half of it.
    """

    relevance: np.ndarray
    similarity: float | None
    on_faces: float | None
    face_area: float | None
    concentration: float
    half: int

    def to_dict(self) -> dict:
        pick = lambda value: None if value is None else round(value, 4)
        return {"similarity": pick(self.similarity), "relevance_on_faces": pick(self.on_faces), "faces_cover": pick(self.face_area),
                "concentration": round(self.concentration, 4), "patches_with_half": self.half, "relevance": rounded(self.relevance)}


@dataclass(frozen=True)
class PostCurve:
    """Robustness: probability of the class that the complete post gets, over the share of words and patches missing together.

    rates (R,); by path (masks, R), a row a mask seed, NaN where nothing of that half was left. share: how often the class occurs in the
    training posts, what a predictor that always answers the same would be worth; None when the checkpoint does not say.
    """

    label: str
    rates: np.ndarray
    paths: Mapping[str, np.ndarray]
    share: float | None

    def spread(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, lowest and highest (R,) of a path over the masks that left anything of it; NaN where none did."""
        values = self.paths[name]
        there = (~np.isnan(values)).sum(0)
        mean = np.where(there > 0, np.nansum(values, 0) / np.maximum(there, 1), np.nan)
        return mean, np.fmin.reduce(values), np.fmax.reduce(values)

    def to_dict(self) -> dict:
        pick = lambda values: [None if np.isnan(v) else round(float(v), 4) for v in values]
        told = {name: dict(zip(("mean", "low", "high"), map(pick, self.spread(name)))) for name in self.paths}
        return {"class": self.label, "rates": [round(float(r), 2) for r in self.rates], "masks": len(self.paths["fusion"]), "share": self.share, **told}


@dataclass(frozen=True)
class PostResult:
    """A post analysed under one mask.

    paths: "image", "text", "fusion". words, word_missing (W,) bool; word_relevance (W,) >= 0, summing to 1 (or 0 everywhere), None where
    no words are left. patch_missing (P,) bool over `grid` (rows, columns), which covers `box` (x1 y1 x2 y2) of the picture; () without one.
    overlays: by stage and "final"; None when they were not asked for, {} without a picture.
    """

    classes: tuple[str, ...]
    paths: Mapping[str, Path]
    words: tuple[str, ...]
    word_missing: np.ndarray
    word_relevance: np.ndarray | None
    patch_missing: np.ndarray
    grid: tuple[int, int]
    box: tuple[int, int, int, int]
    captions: Captions | None
    overlays: Mapping[str, Overlay] | None
    image_weight: float
    ratios: Mapping[str, float]
    seed: int
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.paths["fusion"].label

    @property
    def probability(self) -> float:
        return float(self.paths["fusion"].now.max())

    @property
    def change(self) -> float:
        """How the probability of the complete post's class moved."""
        fusion = self.paths["fusion"]
        return float(fusion.now[fusion.complete.argmax()] - fusion.complete.max())

    def to_dict(self) -> dict:
        """JSON-ready; floats are rounded to 4 places."""
        relevance = [None] * len(self.words) if self.word_relevance is None else rounded(self.word_relevance)
        return {
            "label": self.label, "probability": round(self.probability, 4), "complete_label": self.paths["fusion"].complete_label,
            "change": round(self.change, 4) + 0.0, "classes": list(self.classes),
            "paths": {name: path.to_dict() for name, path in self.paths.items()}, "image_weight": round(self.image_weight, 4),
            "words": [{"text": word, "missing": bool(gone), "relevance": r} for word, gone, r in zip(self.words, self.word_missing, relevance)],
            "patches": {"grid": list(self.grid), "box": list(self.box), "missing": [int(i) for i in np.flatnonzero(self.patch_missing)]},
            "captions": None if self.captions is None else self.captions.to_dict(),
            "overlays": None if self.overlays is None else {name: overlay.to_dict() for name, overlay in self.overlays.items()},
            "missing": dict(self.ratios), "seed": self.seed, "notes": list(self.notes), "provenance": dict(self.provenance),
        }
