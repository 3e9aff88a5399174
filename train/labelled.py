"""A labelled folder as what train.featured trains on: words, voices and faces by the extractors of the demo, and what a checkpoint tells of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np

from msademo.backbones.voice import beside
from msademo.checkpoint import file_hash
from msademo.features.bundle import Features, Track
from msademo.features.voice import VOICE_NAMES
from msademo.transcript import split_words
from train.data import FILLER, SPLITS
from train.featured import Featured
from train.raw import Folder, make_features, nothing
from train.readers import Encoder, Texts, shortened


@dataclass(frozen=True)
class Part:
    """One split of a folder, as train.pickles.Split is one of a pickle: N ids, scores (N,), and the words as they are read. digest names the
    files; there are no padded arrays, so none of their lengths either."""

    folder: str
    name: str
    ids: tuple[str, ...]
    scores: np.ndarray
    raw: tuple[str, ...]
    digest: str
    text = audio = vision = bert = prompts = None
    lengths = {"text": None, "audio": None, "vision": None}

    def __len__(self) -> int:
        return len(self.scores)


def track(arrays: Mapping[str, np.ndarray], modality: str, longest: int | None) -> Track:
    values, times = arrays[modality][:longest], arrays[f"{modality}_times"][:longest]
    missing = arrays["vision_missing"][:longest] if modality == "vision" else np.zeros(len(values), bool)
    return Track(values, missing, times)


def read_labelled(folder: Folder, encoder: Encoder, longest: Mapping[str, int] | None, network: Path, cache: Path, workers: int | None,
                  splits: Sequence[str] = SPLITS, say=print) -> dict[str, Featured]:
    """The wanted splits there are; features are made now where the cache lacks them, and clips that cannot be read are told and left out."""
    jobs, failures = make_features(folder, network, cache, workers, say)
    longest, found = longest or {}, {}
    for split in splits:
        rows = [i for i, name in enumerate(folder.splits) if name == split and (not folder.items[i].file or jobs[i] and jobs[i].target.is_file())]
        if not rows:
            continue
        items, texts, samples = [folder.items[i] for i in rows], [], []
        for i, item in zip(rows, items):
            arrays = nothing()
            if jobs[i]:
                with np.load(jobs[i].target) as stored:
                    arrays = dict(stored)
            texts.append(FILLER.sub("", item.text) if item.text is not None else " ".join(arrays["words"]))
            tokens = shortened(encoder.tokenize(split_words(texts[-1])), longest.get("text"))
            samples.append(Features(tokens, track(arrays, "audio", longest.get("audio")), track(arrays, "vision", longest.get("vision")), item.label))
        digest = hashlib.sha256("\n".join([*texts, *(jobs[i].target.name if jobs[i] else "" for i in rows)]).encode()).hexdigest()
        part = Part(folder.name, split, tuple(item.key for item in items), np.array([item.label for item in items], np.float64), tuple(texts), digest)
        found[split] = Featured(part, samples, Texts([sample.tokens for sample in samples], None, encoder), bundled=True)
    for reason in failures:
        say(f"left out - {reason}")
    return found


def extractor_of(text: Mapping, network: Path) -> dict:
    """What a checkpoint says of its extractors, by which the demo knows whether it can use it. network: the expression network, the voice network beside it."""
    return {"text": Path(text["encoder"]).name, "text_sha256": text["sha256"], "face": Path(network).name, "face_sha256": file_hash(network),
            "voice_sha256": file_hash(beside(network)), "audio_names": list(VOICE_NAMES)}
