"""The words of training clips, read once: features of every transcript whole, and under each epoch's masks, kept on disk.

Reading masked text is most of the work of training a small fusion model, and what the frozen encoder says does not depend on
the model. So each epoch's draw of transcripts and of missing words has a random stream of its own, and its features are a file in
the cache that every model trained with the same seed and masking uses again. They are rounded to half precision before any
use, so a run that finds the file and a run that makes it see the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Sequence

import numpy as np
import torch
from safetensors.torch import load_file, save

from msademo.checkpoint import write_atomically
from msademo.corruption import missing
from msademo.errors import InputError
from msademo.features.prompt import PromptReader
from msademo.features.text import TextEncoder, TextTokens
from train.compose import BROAD, CLOSE, Mixture, epoch_rows
from train.data import Transcript
from train.prompts import PromptBook

ABSENT = (("text",), ("audio",), ("vision",), ("text", "audio"), ("text", "vision"), ("audio", "vision"))


@dataclass(frozen=True)
class Masking:
    """How training clips lose tokens: r ~ U[0, highest] a sample and modality, or 0 for clean_share of them; span_share of
    the masks fail in bursts; `absent` of the clips lose one or two whole modalities, text among them with text_absent."""

    highest: float = 0.9
    clean_share: float = 0.2
    span_share: float = 0.3
    absent: float = 0.10
    text_absent: float = 0.7

    def __post_init__(self):
        if not all(0 <= share <= 1 for share in asdict(self).values()):
            raise InputError(f"Masks cannot be drawn with {self}; every number must be in [0, 1].")

    def absent_modalities(self, rng: np.random.Generator) -> tuple[str, ...]:
        """The whole modalities one clip lacks, mostly none."""
        if rng.random() >= self.absent:
            return ()
        with_text = rng.random() < self.text_absent
        return ABSENT[int(rng.choice([i for i, names in enumerate(ABSENT) if ("text" in names) == with_text]))]

    def draw(self, units: int, modality: str, absent: tuple[str, ...], rng: np.random.Generator) -> np.ndarray:
        """The mask of one modality over its units."""
        rate = 0.0 if rng.random() < self.clean_share else rng.random() * self.highest
        kind = "span" if rng.random() < self.span_share else "random"
        return missing(units, 1.0 if modality in absent else rate, modality, int(rng.integers(2**31)), kind)


@dataclass(frozen=True)
class EpochWords:
    """One epoch's texts, in order: which transcripts, what each clip lacks altogether, the words taken away, and the features
    of those left (T_i, D) float32 one after the other."""

    rows: np.ndarray
    absent: list[tuple[str, ...]]
    gone: list[np.ndarray]
    features: list[torch.Tensor]


def reading(lengths: Sequence[int], say=print) -> Callable[[int], None]:
    """For TextEncoder.encode: says every 15 s how many texts of these lengths (tokens left) are read, and how long the others take."""
    tokens = np.cumsum(np.sort(lengths))
    started = said = time.monotonic()

    def told(done: int) -> None:
        nonlocal said
        if (now := time.monotonic()) - said > 15:
            said = now
            left = (now - started) * (tokens[-1] / tokens[done - 1] - 1)
            say(f"words: {done}/{len(tokens)} texts read, kept for later runs, ETA {left / 60:.1f} min")

    return told


def cached(path: Path, encoder: TextEncoder, tokens: Sequence[TextTokens], gone: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Features of texts under masks over tokens, from the file or computed and written to it; half precision either way."""
    lengths = [len(t) for t in tokens]
    if not path.is_file():
        told = reading([length - int(g.sum()) for length, g in zip(lengths, gone)])
        flat = torch.cat(encoder.encode(tokens, gone, told)).half().cpu()
        write_atomically(path, save({"features": flat}))
    else:
        flat = load_file(path)["features"]
        if len(flat) != sum(lengths):
            raise InputError(f"{path} does not belong to this data; delete it and start again.")
    return list(flat.split(lengths))


def read_sentences(book: PromptBook, reader: PromptReader, folder: Path, text_hash: str) -> PromptReader:
    """The reader, having read every sentence of the book's prompts; what it read is a file in `folder` for the next run."""
    sentences = sorted({sentence for key in book for sentence in book.lookup(key).sentences()})
    if sentences:
        mark = hashlib.sha256(json.dumps([text_hash, sentences]).encode()).hexdigest()[:12]
        tokens = [reader.tokenize(sentence) for sentence in sentences]
        features = cached(Path(folder) / f"sentences-{mark}.safetensors", reader.encoder, tokens, [np.zeros(len(t), bool) for t in tokens])
        for sentence, token, feature in zip(sentences, tokens, features):
            reader.remember(sentence, token, feature)
    return reader


class WordReader:
    """Reads the transcripts of a training run. `folder` is where features are kept; `text_hash` names the encoder; close_from: the
    number of the first epoch of the mixture CLOSE, before which they are BROAD (None: all are)."""

    def __init__(self, encoder: TextEncoder, transcripts: Sequence[Transcript], masking: Masking, seed: int, folder: Path, text_hash: str,
                 close_from: int | None = None):
        self.encoder, self.transcripts, self.masking, self.seed, self.close_from = encoder, transcripts, masking, seed, close_from
        self.tokens = [encoder.tokenize(row.words) for row in transcripts]
        content = hashlib.sha256(json.dumps([(row.words, row.score) for row in transcripts]).encode()).hexdigest()
        whole = hashlib.sha256(f"{text_hash}{content}".encode()).hexdigest()[:12]
        drawn = hashlib.sha256(json.dumps([whole, seed, asdict(masking)], sort_keys=True).encode()).hexdigest()[:12]
        self.folder = Path(folder) / f"words-{drawn}"
        self.clean = cached(Path(folder) / f"words-{whole}.safetensors", encoder, self.tokens, [np.zeros(len(t), bool) for t in self.tokens])

    def mixture(self, epoch: int) -> Mixture:
        return BROAD if self.close_from is None or epoch < self.close_from else CLOSE

    def rows(self, epoch: int) -> np.ndarray:
        return epoch_rows(self.transcripts, self.seed, epoch, self.mixture(epoch))

    def epoch(self, number: int) -> EpochWords:
        rows, rng = self.rows(number), np.random.default_rng([self.seed, number, 2])
        absent = [self.masking.absent_modalities(rng) for _ in rows]
        gone = [self.masking.draw(self.tokens[i].words, "text", without, rng) for i, without in zip(rows, absent)]
        tokens = [self.tokens[i] for i in rows]
        name = f"epoch-{number}{'-close' if self.mixture(number) is CLOSE else ''}.safetensors"
        features = cached(self.folder / name, self.encoder, tokens, [t.missing(g) for t, g in zip(tokens, gone)])
        return EpochWords(rows, absent, gone, features)
