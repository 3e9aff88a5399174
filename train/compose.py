"""The composed corpus: real transcripts with their human scores, each joined to a real voice and a sequence of real faces.

There is no freely usable corpus of whole clips, so clips are put together: voice and face are drawn apart, each from
emotions that agree with the score's sign (0.60), are neutral (0.25) or conflict with it (0.15). The label stays the human
score of the transcript. A training epoch is composed anew; valid and test are fixed by their seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np
import torch

from msademo.errors import InputError
from msademo.features.bundle import Features, Track
from msademo.features.text import TextTokens
from train.data import Transcript

# Surprise is left out on both sides: it is as often pleasant as not.
VOICE_POLARITY = {"happy": 1, "neutral": 0, "calm": 0, "bored": 0, "sad": -1, "angry": -1, "fearful": -1, "disgust": -1}
FACE_POLARITY = {"happy": 1, "neutral": 0, "sad": -1, "angry": -1, "fear": -1, "disgust": -1}
AROUSED = {"angry", "fearful", "fear", "disgust"}       # the strong ones among the negative


@dataclass(frozen=True)
class Composition:
    """How clips are put together. frames: shortest and longest face sequence; a frame is 1 / frame_rate seconds."""

    agree: float = 0.60
    neutral: float = 0.25
    frames: tuple[int, int] = (10, 60)
    frame_rate: float = 5.0
    same_face: float = 0.7          # share of the frames that show the clip's main face

    def __post_init__(self):
        if not 0 <= self.agree + self.neutral <= 1 or not 0 < self.frames[0] <= self.frames[1]:
            raise InputError(f"Clips cannot be composed with {self}; shares must add up to at most 1 and frames be a range.")


@dataclass(frozen=True)
class Mixture:
    """What an epoch's transcripts are: MOSI's so many times, of MOSEI's a share. blur: most that the words of one clip take on of another's."""

    mosi_repeats: int
    mosei_share: float
    blur: float

    def __post_init__(self):
        if self.mosi_repeats < 1 or not 0 <= self.mosei_share <= 1 or not 0 <= self.blur <= 1:
            raise InputError(f"Transcripts cannot be drawn with {self}; MOSI's are needed once at least, and shares must be in [0, 1].")


BROAD = Mixture(mosi_repeats=2, mosei_share=1.0, blur=0.0)
# The scores that models are measured on are MOSI's: half as far again from 0 as MOSEI's (1.33 and 0.85 on average), on sentences two thirds as
# long. Ending on them, under many masks and beside many voices and faces, a model learns how far a voice may move such a score. The encoder
# knows MOSI's sentences best, hence the blur.
CLOSE = Mixture(mosi_repeats=6, mosei_share=0.25, blur=0.5)


@dataclass(frozen=True)
class Pool:
    """The voices and faces of one split, as features. Variants of one original differ by augmentation; the first is clean.

    voices: per recording its variants, each (T, 33); faces: (N, variants, D); *_emotion: (n,) names; strength: (n,) bool,
    a recording spoken with strong emotion. voice_file, face_file: names, by which a clip's voice and faces are found again.
    """

    voices: Sequence[Sequence[np.ndarray]]
    voice_times: Sequence[Sequence[np.ndarray]]
    voice_emotion: np.ndarray
    voice_strong: np.ndarray
    faces: np.ndarray
    face_emotion: np.ndarray
    voice_file: Sequence[str]
    face_file: Sequence[str]

    def __post_init__(self):
        for what, emotions, polarity in (("voices", self.voice_emotion, VOICE_POLARITY), ("faces", self.face_emotion, FACE_POLARITY)):
            lacking = {-1, 0, 1} - {polarity[e] for e in set(emotions) & set(polarity)}
            if lacking:
                raise InputError(f"The {what} lack {'/'.join({-1: 'negative', 0: 'neutral', 1: 'positive'}[p] for p in sorted(lacking))} "
                                 "emotions, so no clip can be composed; check that the data folder is complete.")


class Composer:
    """Draws voices and faces from a pool. Everything is decided by the random generator a call is given."""

    def __init__(self, pool: Pool, composition: Composition = Composition()):
        self.pool, self.composition = pool, composition
        index = lambda emotions, polarity, p: np.array([i for i, e in enumerate(emotions) if polarity.get(e) == p])
        self.voice_of = {p: index(pool.voice_emotion, VOICE_POLARITY, p) for p in (-1, 0, 1)}
        self.face_of = {p: index(pool.face_emotion, FACE_POLARITY, p) for p in (-1, 0, 1)}
        self.aroused_voice = np.array([e in AROUSED for e in pool.voice_emotion])
        self.aroused_face = np.array([e in AROUSED for e in pool.face_emotion])

    def polarity(self, score: float, rng: np.random.Generator) -> int:
        """The sign an emotion shows: with the score's, neutral, or against it. A score of 0 agrees with neutral and takes
        either side for the rest."""
        sign, u = int(np.sign(score)), rng.random()
        if u < self.composition.agree:
            return sign
        if sign == 0:
            return int(rng.choice([-1, 1]))
        return 0 if u < self.composition.agree + self.composition.neutral else -sign

    def pick(self, candidates: np.ndarray, strong: np.ndarray, score: float, rng: np.random.Generator) -> int:
        """One of the candidates; the stronger the score, the likelier a strong emotion (one to three at the ends)."""
        share = 0.25 + 0.5 * min(abs(score), 3.0) / 3.0
        weights = np.where(strong[candidates], share, 1 - share)
        return int(rng.choice(candidates, p=weights / weights.sum()))

    def voice(self, score: float, rng: np.random.Generator, augmented: bool) -> Track:
        """One recording; in training one of its augmented variants as often as not."""
        polarity = self.polarity(score, rng)
        strong = self.pool.voice_strong | (self.aroused_voice if polarity < 0 else False)
        chosen = self.pick(self.voice_of[polarity], strong, score, rng)
        variant = int(rng.integers(len(self.pool.voices[chosen]))) if augmented else 0
        values = self.pool.voices[chosen][variant]
        return Track(values, np.zeros(len(values), dtype=bool), self.pool.voice_times[chosen][variant], (f"{self.pool.voice_file[chosen]}#{variant}",))

    def face(self, score: float, rng: np.random.Generator) -> Track:
        """A sequence that stands for a video: mostly one face seen again with jitter, in runs, now and then another face of
        the same emotion or a neutral one, as people look in between."""
        polarity = self.polarity(score, rng)
        candidates = self.face_of[polarity]
        main, other = (self.pick(candidates, self.aroused_face, score, rng) for _ in range(2))
        calm = int(rng.choice(self.face_of[0]))
        length = int(rng.integers(self.composition.frames[0], self.composition.frames[1] + 1))
        rest = (1 - self.composition.same_face) / 2
        who = np.empty(length, dtype=int)
        start = 0
        while start < length:
            end = start + int(rng.integers(2, 9))
            who[start:end] = (main, other, calm)[int(rng.choice(3, p=[self.composition.same_face, rest, rest]))]
            start = end
        variants = rng.integers(self.pool.faces.shape[1], size=length)
        values = self.pool.faces[who, variants].astype(np.float32)
        edges = np.arange(length + 1) / self.composition.frame_rate
        return Track(values, np.zeros(length, dtype=bool), np.stack([edges[:-1], edges[1:]], axis=1),
                     tuple(f"{self.pool.face_file[i]}#{v}" for i, v in zip(who, variants)))

    def clip(self, tokens: TextTokens, score: float, rng: np.random.Generator, augmented: bool = False) -> Features:
        return Features(tokens, self.voice(score, rng, augmented), self.face(score, rng), score)


def blurred(words: Sequence[torch.Tensor], gone: Sequence[np.ndarray], mean: np.ndarray, most: float, rng: np.random.Generator) -> list[torch.Tensor]:
    """The words of a batch of training clips, made less telling, since the text encoder was tuned on them: to each is added a share, U[0, most],
    of what sets the mean of another's words apart from `mean` (D,), that of the training data. words: (T, D) a clip; gone: (T,) bool, what
    is missing of it. Missing words stay as they are, and a clip without a word lends nothing."""
    shares, lenders = rng.uniform(0, most, len(words)), rng.permutation(len(words))
    left = [torch.from_numpy(~g) for g in gone]
    apart = [w[there].float().mean(0) - torch.from_numpy(mean) if there.any() else torch.zeros(len(mean)) for w, there in zip(words, left)]
    return [w + float(share) * there[:, None] * apart[lender] for w, there, share, lender in zip(words, left, shares, lenders)]


def balanced_epoch(transcripts: Sequence[Transcript], rng: np.random.Generator, mixture: Mixture = BROAD) -> np.ndarray:
    """Rows of one training epoch: MOSI several times, MOSEI or a share of it, of its many near-zero rows half of that, and as many positive as
    negative ones (what the majority has too many of is left out this time)."""
    rows = []
    for index, row in enumerate(transcripts):
        if row.corpus == "mosi":
            rows += [index] * mixture.mosi_repeats
            continue
        chance = mixture.mosei_share * (1 if abs(row.score) > 0.4 else 0.5)
        if chance >= 1 or rng.random() < chance:
            rows.append(index)
    rows = rng.permutation(rows)
    signs = np.sign([transcripts[i].score for i in rows])
    fewer = min((signs > 0).sum(), (signs < 0).sum())
    kept = np.concatenate([rows[signs > 0][:fewer], rows[signs < 0][:fewer], rows[signs == 0]])
    return rng.permutation(kept)


def epoch_rows(transcripts: Sequence[Transcript], seed: int, epoch: int, mixture: Mixture = BROAD) -> np.ndarray:
    """The rows of training epoch `epoch`, from 0, with this seed; the same wherever they are asked for."""
    return balanced_epoch(transcripts, np.random.default_rng([seed, epoch]), mixture)
