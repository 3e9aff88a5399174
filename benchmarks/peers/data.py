"""What the peers train and are measured on: the composed corpus as MMSA pickles, and the measured split under each rate and draw.

The pickles hold train and valid under MMSA's keys, complete or with every training clip masked at a rate of its own; valid is what an epoch is
chosen by, as ours choose theirs. Of the measured split the voices and faces are written once and whole; a rate and draw is a small file with
the words that were left, as the text encoder read them, and the masks of everything else: the very ones that `train evaluate` measures under.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from argparse import Namespace
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np

from msademo.backbones.voice import EMOTIONS, beside
from msademo.checkpoint import file_hash, written_atomically
from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.features.bundle import heard_together
from msademo.features.text import TextEncoder
from train.clips import VALID_COMPOSITIONS, VALID_RATES
from train.compose import Composer, Composition
from train.data import read_transcripts, training_transcripts
from train.evaluate import Bench, build_bench
from train.export_mmsa import clips_of, export_split, masked_arrays, ratios_of
from train.prepare import load_pool

TRAININGS = ("complete", "masked")
TEXT_STEPS = 50             # what MMSA's own pickles of MOSI and MOSEI are padded and cut to


@dataclass(frozen=True)
class Source:
    """Where everything comes from; `mark` names it, so that a file of another corpus or encoder is never taken for this one's.
    signs, compositions: which training clips, as train.export_mmsa has them. seed: of compositions and masks, whatever seed a model is trained with."""

    data: Path
    text: Path
    face: Path
    cache: Path
    corpora: tuple[str, ...] = ("mosi", "mosei")
    compositions: int = 1
    signs: str = "balanced"
    seed: int = 1111

    def __post_init__(self):
        if self.compositions < 1:
            raise InputError("--compositions must be 1 at least.")

    @cached_property
    def mark(self) -> str:
        rows = [(row.key, row.words, row.score) for row in training_transcripts(self.data, self.corpora)]
        told = [rows, file_hash(self.text), file_hash(self.face), file_hash(beside(self.face)), self.compositions, self.seed, TEXT_STEPS, self.signs]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]

    def bench(self, encoder: TextEncoder, split: str) -> Bench:
        """The split as train.evaluate measures on it: MOSI's transcripts in its fixed compositions."""
        return build_bench(Namespace(data=self.data, corpus="mosi", split=split, face=self.face, cache=self.cache, seed=self.seed), encoder)



class Once:
    """A text encoder that reads no text twice under the same mask: compositions share their words."""

    def __init__(self, encoder: TextEncoder):
        self.encoder, self.dim, self.known = encoder, encoder.dim, {}

    def encode(self, tokens: Sequence, missing: Sequence[np.ndarray]) -> list:
        keys = [(text.ids.tobytes(), gone.tobytes()) for text, gone in zip(tokens, missing)]
        new = {key: i for i, key in enumerate(keys) if key not in self.known}
        self.known |= zip(new, self.encoder.encode([tokens[i] for i in new.values()], [missing[i] for i in new.values()]) if new else ())
        return [self.known[key] for key in keys]


def joined(parts: Sequence[dict]) -> dict:
    """One split out of several under the same keys."""
    return {key: np.concatenate([part[key] for part in parts]) if isinstance(value, np.ndarray) else [entry for part in parts for entry in part[key]]
            for key, value in parts[0].items()}


def write_corpus(path: Path, source: Source, training: str, encoder: TextEncoder, say=print) -> None:
    """Train and valid as an MMSA pickle. Valid is three compositions, complete or under the rates that our trainers choose an epoch by, their
    masks drawn apart from those that are measured."""
    masked = training == "masked"
    pool = load_pool(source.data, "train", source.face, source.cache, say=say)
    train = clips_of("train", training_transcripts(source.data, source.corpora), Composer(pool), encoder, source.seed, source.compositions, source.signs)
    rows, bench = [row for row in read_transcripts(source.data, "mosi", "valid") if row.words], source.bench(encoder, "valid")
    voices = [len(values) for variants in pool.voices for values in variants] + [len(clip.audio.values) for clips in bench.clips for clip in clips]
    steps = {"text": TEXT_STEPS, "audio": max(voices), "vision": Composition().frames[1]}
    content = {"train": export_split(f"{training} train", train, encoder, ratios_of(len(train), None if masked else 0.0, seed=source.seed), source.seed, 0, steps, say)}
    cases = [(rate, list(zip(rows, clips))) for rate in (VALID_RATES if masked else (0.0,)) for clips in bench.clips[:VALID_COMPOSITIONS]]
    once = Once(encoder)
    content["valid"] = joined([export_split(f"{training} valid", clips, once, ratios_of(len(clips), rate), 0, 0, steps, say) for rate, clips in cases])
    content["about"] = {"corpus": "composed corpus, train and valid", "training": training, "corpora": list(source.corpora), "signs": source.signs, "seed": source.seed,
                        "emotions": len(EMOTIONS)}
    with written_atomically(path) as file:
        pickle.dump(content, file, protocol=4)
    say(f"peers: wrote {path.name}: train {len(train)}, valid {len(content['valid']['id'])} clips")


def cases_of(rates: Sequence[float], draws: int) -> Iterator[tuple[float, int, str]]:
    """(rate, draw, name of its file): nothing is drawn where all or nothing is missing."""
    for rate in rates:
        for draw in range(draws if 0 < rate < 1 else 1):
            yield rate, draw, f"r{rate:g}-d{draw}.npz"


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    with written_atomically(path) as file:
        np.savez_compressed(file, **arrays)


def write_measured(folder: Path, bench: Bench, rates: Sequence[float], draws: int, say=print) -> None:
    """The measured split: base.npz with what is there of every composition (audio, vision: (C, N, T, D)), and a file a rate and draw with the words
    left (text (N, T, D), not cut, text_lengths (N,)), the masks (*_missing; voices and faces (C, N, T)) and what the voice left amounts to (sounds
    (C, N, E), which stands in each voice token's last dimensions). Files that are there are kept."""
    every = [clip for clips in bench.clips for clip in clips]
    longest = {"text": max(len(clip.tokens) for clip in every), **{m: max(len(clip.track(m).values) for clip in every) for m in ("audio", "vision")}}
    encoder, count = bench.encoder, len(bench.truth)
    if not (folder / "base.npz").is_file():
        tracks = {m: np.zeros((len(bench.clips), count, longest[m], bench.clips[0][0].track(m).values.shape[1]), np.float32) for m in ("audio", "vision")}
        lengths = {m: np.array([[len(clip.track(m).values) for clip in clips] for clips in bench.clips]) for m in tracks}
        for m, values in tracks.items():
            for number, clips in enumerate(bench.clips):
                for i, clip in enumerate(clips):
                    values[number, i, :lengths[m][number, i]] = clip.track(m).values
        save_arrays(folder / "base.npz", **tracks, **{f"{m}_lengths": lengths[m] for m in tracks}, labels=bench.truth.astype(np.float32))
    todo = [case for case in cases_of(rates, draws) if not (folder / case[2]).is_file()]
    started = said = time.monotonic()
    for number, (rate, draw, name) in enumerate(todo, start=1):
        ratios = dict.fromkeys(MODALITIES, rate)
        found = masked_arrays(name, bench.clips[0], encoder, [ratios] * count, bench.seed, draw, longest, say)
        gone = {m: np.zeros((len(bench.clips), count, longest[m]), bool) for m in ("audio", "vision")}
        sounds = np.zeros((len(bench.clips), count, len(EMOTIONS)), np.float32)
        for composition, clips in enumerate(bench.clips):
            for i, masks in enumerate(bench.masks(clips, ratios, draw)):
                for m, array in gone.items():
                    array[composition, i, :len(masks[m])] = masks[m] | clips[i].track(m).missing
                if len(clips[i].audio.values):
                    sounds[composition, i] = heard_together(clips[i].audio.values, masks["audio"] | clips[i].audio.missing, len(EMOTIONS))[0, -len(EMOTIONS):]
        save_arrays(folder / name, text=found["text"], text_lengths=found["text_lengths"], text_missing=found["text_missing"], sounds=sounds,
                    **{f"{m}_missing": array for m, array in gone.items()})
        if time.monotonic() - said > 15 or number == len(todo):
            said = time.monotonic()
            say(f"peers: {folder.name} under {number} of {len(todo)} masks, ETA {(said - started) / number * (len(todo) - number) / 60:.1f} min")
