"""MMSA pickles with the keys, shapes and quirks of the published ones, and random values in which words and voice tell a little of the score."""

from __future__ import annotations

import pickle
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Callable, Iterator

import numpy as np
import pytest

WORDS = {1: ("great", "lovely", "fun"), -1: ("awful", "boring", "bad")}
SHAPES = {      # steps and widths of the published files: text, audio, vision
    "mosi": ((50, 768), (375, 5), (500, 20)), "mosei": ((50, 768), (500, 74), (500, 35)), "sims": ((39, 768), (400, 33), (55, 709)),
    "small": ((9, 12), (11, 4), (7, 5)),
}
VOCABULARY = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "this", "film", "was", "i", "think", *WORDS[1], *WORDS[-1], "the", "words",
              "are", "one", "sentiment", "word", ".", ",", '"', ":"]


def make_split(dataset: str, shapes: str, count: int, rng: np.random.Generator, aligned: bool) -> dict:
    """One split as MMSA's scripts wrote them: float ids, lengths as lists and now and then too long, -inf in the voice."""
    (text_steps, text_width), (audio_steps, audio_width), (vision_steps, vision_width) = SHAPES[shapes]
    if aligned:
        audio_steps = vision_steps = text_steps
    limit = 1.0 if dataset == "sims" else 3.0
    scores = np.where(np.arange(count) % 2, 1, -1) * (rng.integers(1, 6, count) / 5 if limit == 1 else np.round(rng.uniform(0.4, 3, count), 1))
    split = {"raw_text": [], "id": [], "annotations": [], "text": np.zeros((count, text_steps, text_width), np.float32), "text_bert": np.zeros((count, 3, text_steps), np.float32),
             "audio": np.zeros((count, audio_steps, audio_width)), "vision": np.zeros((count, vision_steps, vision_width), np.float32)}
    lengths = {"audio": [], "vision": []}
    for i, score in enumerate(scores):
        sign = 1 if score > 0 else -1
        words = f"this film was {rng.choice(WORDS[sign])} i think".split()[:int(rng.integers(4, 7))]
        ids = [VOCABULARY.index(word) for word in ("[CLS]", *words, "[SEP]")]
        split["raw_text"].append(" ".join(words))
        split["id"].append(f"v{i}$_$000{i}")
        split["annotations"].append("Positive" if sign > 0 else "Negative")
        split["text_bert"][i, 0, :len(ids)], split["text_bert"][i, 1, :len(ids)] = ids, 1
        split["text"][i, :len(ids)] = rng.standard_normal((len(ids), text_width)) + 0.5 * sign
        for m, steps, width in (("audio", audio_steps, audio_width), ("vision", vision_steps, vision_width)):
            length = len(ids) if aligned else int(rng.integers(2, steps))
            split[m][i, :length] = rng.standard_normal((length, width)) + 0.3 * sign
            lengths[m].append(length)
    split["audio"][0, 0, 0] = -np.inf
    split["regression_labels"] = scores if dataset == "mosi" else scores.tolist()
    split["classification_labels"] = (scores > 0) * 2.0
    if not aligned:
        split |= {"audio_lengths": lengths["audio"], "vision_lengths": lengths["vision"]}
        split["vision"][1] += (split["vision"][1] == 0) * 0.1                  # a clip that fills all steps, and whose length is longer still
        split["vision_lengths"][1] = vision_steps + 7
    if dataset == "sims":
        split |= {f"regression_labels_{m}": scores for m in "TAV"}
    return split


def write_mmsa(path: Path, dataset: str = "mosi", shapes: str = "small", counts=(16, 8, 8), aligned: bool = False, change=None, protocol: int = 4) -> Path:
    """change(content) may spoil or extend the file before it is written."""
    rng = np.random.default_rng(1)
    content = {name: make_split(dataset, shapes, count, rng, aligned) for name, count in zip(("train", "valid", "test"), counts)}
    if change:
        change(content)
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def write_bert(folder: Path, width: int = 12) -> Path:
    """A tiny BERT with random weights and a vocabulary in which [UNK] is 100, as in bert-base-uncased."""
    from msademo.backbones.torchvision_trap import mend
    mend()
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(VOCABULARY), hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                         max_position_embeddings=64)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab={word: i for i, word in enumerate(VOCABULARY)}).save_pretrained(folder)
    return folder


@contextmanager
def loaded_once(loader: Callable, *modules) -> Iterator[Callable]:
    """What a loader gives, kept until the block ends: each command loads its encoder, and in these modules they share it."""
    with pytest.MonkeyPatch.context() as patch:
        kept = cache(loader)
        for module in modules:
            patch.setattr(module, loader.__name__, kept)
        yield kept
