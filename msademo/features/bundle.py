"""Clip -> Features, and Features + masks -> Batch: one path from a clip to a model's input, for the trainer and the demo alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from msademo.corruption import MODALITIES
from msademo.features.text import TextTokens
from msademo.models.pglh import Batch

EPSILON = 1e-3        # some dimensions hardly vary at all; dividing by their deviation would blow up noise


@dataclass(frozen=True)
class Track:
    """Tokens over time of the voice or the face. values (T, D) float32, not standardised; missing (T,) bool, True where the
    clip itself has nothing (no face in the frame); times (T, 2) seconds. T = 0 when the modality is absent. origin: where a clip was composed
    (train/compose.py), the names of what the track is made of."""

    values: np.ndarray
    missing: np.ndarray
    times: np.ndarray
    origin: tuple[str, ...] = ()

    @property
    def present(self) -> bool:
        return bool(len(self.values)) and not bool(self.missing.all())


@dataclass(frozen=True)
class Features:
    """All that a model needs of one clip. tokens has no word in it when the words are absent."""

    tokens: TextTokens
    audio: Track
    vision: Track
    score: float | None = None

    def track(self, modality: str) -> Track:
        return self.audio if modality == "audio" else self.vision

    def units(self, modality: str) -> int:
        """How many things can go missing: words of the text, tokens of the others."""
        return self.tokens.words if modality == "text" else len(self.track(modality).values)


def heard_together(values: np.ndarray, hidden: np.ndarray, emotions: int) -> np.ndarray:
    """A voice as a model reads it. values: (T, D) tokens whose last `emotions` numbers are a token's evidence for each emotion (logits);
    hidden: (T,) bool. In their place every token gets the probabilities that the evidence of the tokens not hidden amounts to: softmax of its
    mean. So what is hidden is never heard, as words that are hidden are never read. 0 emotions: the tokens as they are."""
    if not emotions or not len(values):
        return values
    evidence = values[~hidden, -emotions:]
    mean = evidence.mean(0) if len(evidence) else np.zeros(emotions, np.float32)
    odds = np.exp(mean - mean.max())
    read = values.copy()
    read[:, -emotions:] = odds / odds.sum()
    return read


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation of each feature dimension over the training data, per modality; they live in the checkpoint. emotions: how many of the
    voice's dimensions, the last ones, are evidence to be heard together (heard_together); the statistics are those of the probabilities."""

    mean: Mapping[str, np.ndarray]
    deviation: Mapping[str, np.ndarray]
    emotions: int = 0

    @classmethod
    def of(cls, values: Mapping[str, np.ndarray], emotions: int = 0) -> "Statistics":
        """values: per modality (N, D), all tokens of a sample of the training data, voices heard together."""
        return cls({m: v.mean(0, dtype=np.float64).astype(np.float32) for m, v in values.items()},
                   {m: np.maximum(v.std(0, dtype=np.float64), EPSILON).astype(np.float32) for m, v in values.items()}, emotions)

    def read(self, track: Track, modality: str, hidden: np.ndarray) -> np.ndarray:
        """(T, D) float32: what a model is given of a track of which `hidden` (T,) is gone, before it is standardised."""
        return heard_together(track.values, hidden, self.emotions if modality == "audio" else 0)

    def standardise(self, values: torch.Tensor, modality: str) -> torch.Tensor:
        mean, deviation = (torch.from_numpy(part[modality]).to(values) for part in (self.mean, self.deviation))
        return (values - mean) / deviation

    def to_dict(self) -> dict:
        parts = {m: {"mean": self.mean[m].tolist(), "deviation": self.deviation[m].tolist()} for m in self.mean}
        return parts | ({"emotions": self.emotions} if self.emotions else {})

    @classmethod
    def from_dict(cls, stored: dict) -> "Statistics":
        part = lambda key: {m: np.asarray(entry[key], dtype=np.float32) for m, entry in stored.items() if m != "emotions"}
        return cls(part("mean"), part("deviation"), int(stored.get("emotions", 0)))


def token_masks(features: Features, missing: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Masks over units (words, tokens) -> masks over tokens, with what the clip itself lacks added. All (T,) bool."""
    return {"text": features.tokens.missing(missing["text"]),
            "audio": missing["audio"] | features.audio.missing,
            "vision": missing["vision"] | features.vision.missing}


def pad(arrays: Sequence[np.ndarray], longest: int, fill) -> torch.Tensor:
    out = np.full((len(arrays), longest, *arrays[0].shape[1:]), fill, dtype=arrays[0].dtype)
    for row, array in enumerate(arrays):
        out[row, :len(array)] = array
    return torch.from_numpy(out)


def collate(samples: Sequence[Features], masks: Sequence[Mapping[str, np.ndarray]], text: torch.Tensor, statistics: Statistics,
            clean_text: torch.Tensor | None = None, prompts: Sequence[torch.Tensor] | None = None) -> Batch:
    """One batch. masks: token_masks of each sample; text: (B, T, D) features of the words left (TextEncoder's output);
    clean_text: the same of all words, given when the batch is to carry targets for recovery; prompts: (T_P, D) features of each
    sample's guidance (PromptReader's output), (0, D) where a sample has none."""
    values, missing, padding, target, lacking = {}, {}, {}, {}, {}
    for m in MODALITIES:
        gone = [mask[m] for mask in masks]
        longest = max([1] + [len(g) for g in gone])
        padding[m] = pad([np.zeros(len(g), dtype=bool) for g in gone], longest, True)
        missing[m] = pad(gone, longest, False)
        if m == "text":
            values[m] = statistics.standardise(text, m)
            target[m] = values[m] if clean_text is None else statistics.standardise(clean_text, m)
            lacking[m] = torch.tensor([[not s.tokens.words] for s in samples]).expand(-1, longest)
        else:
            lacking[m] = pad([s.track(m).missing for s in samples], longest, False)
            read = lambda hidden: statistics.standardise(pad([statistics.read(s.track(m), m, h) for s, h in zip(samples, hidden)], longest, 0.0), m)
            values[m] = read(gone)
            target[m] = read([s.track(m).missing for s in samples]) if m == "audio" and statistics.emotions else values[m]
    device = text.device
    score = None if samples[0].score is None else torch.tensor([s.score for s in samples], dtype=torch.float32, device=device)
    moved = lambda part: {m: tensor.to(device) for m, tensor in part.items()}
    prompt = prompt_padding = None
    if prompts is not None and any(len(p) for p in prompts):
        prompt = nn.utils.rnn.pad_sequence(list(prompts), batch_first=True).to(device)
        prompt_padding = torch.arange(prompt.shape[1], device=device)[None] >= torch.tensor([len(p) for p in prompts], device=device)[:, None]
        prompt = statistics.standardise(prompt, "text")
    return Batch(moved(values), moved(missing), moved(padding), moved(target), score, prompt, prompt_padding, moved(lacking))


@torch.inference_mode()
def predict(model: nn.Module, statistics: Statistics, clips: Sequence[Features], masks: Sequence[Mapping[str, np.ndarray]],
            words: Sequence[torch.Tensor], batch: int = 32, prompts: Sequence[torch.Tensor] | None = None) -> np.ndarray:
    """Scores (N,) of clips under token masks, given the features of the words left (TextEncoder.encode) and of the guidance."""
    scores = np.empty(len(clips), np.float32)
    # Clips with as many words left go together: padding costs time, and small batches stay in the processor's cache.
    order = np.argsort([np.count_nonzero(~mask["text"]) for mask in masks], kind="stable")
    for rows in (order[start:start + batch] for start in range(0, len(order), batch)):
        pick = lambda values: [values[i] for i in rows]
        text = nn.utils.rnn.pad_sequence(pick(words), batch_first=True)
        guidance = None if prompts is None else pick(prompts)
        scores[rows] = model(collate(pick(clips), pick(masks), text, statistics, prompts=guidance)).float().cpu().numpy()
    return scores
