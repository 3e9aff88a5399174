"""Words -> tokens -> contextual features, for whichever words are left.

A missing word is taken away *before* the encoder reads the sentence: its tokens are not passed at all, the others keep
their positions. Masking the encoder's outputs instead would leak, since every contextual token has read all words.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

import numpy as np
import torch
from torch import nn

from msademo.backbones.e5 import load_e5
from msademo.checkpoint import in_eight_bits, load_weights, read_checkpoint
from msademo.errors import InputError

MAX_TOKENS = 256      # with CLS and SEP; the corpora's longest transcript has some 340, everything else is far below
BATCH = 64            # texts encoded at once where there are many


def is_unspaced(character: str) -> bool:
    """Is it of a script that writes no blanks between words (Han, kana, CJK punctuation)?"""
    return unicodedata.name(character, "").startswith(("CJK", "HIRAGANA", "KATAKANA", "FULLWIDTH", "IDEOGRAPHIC"))


@dataclass(frozen=True)
class TextTokens:
    """ids: (T,) int64 with CLS first and SEP last. first, last: (T,) the words a token touches (inclusive); -1 at CLS and SEP.
    pieces: (T,) the tokens as text. cut: how many words did not fit."""

    ids: np.ndarray
    first: np.ndarray
    last: np.ndarray
    pieces: tuple[str, ...]
    words: int
    cut: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def missing(self, words: np.ndarray) -> np.ndarray:
        """(words,) bool -> (T,) bool. A token is missing when any word it touches is; CLS and SEP stay - unless no token
        of a word is left at all, for then the modality is absent as a whole."""
        gone, of_words = np.concatenate([[0], np.cumsum(words)]), self.first >= 0
        out = np.zeros(len(self.ids), dtype=bool)
        out[of_words] = gone[self.last[of_words] + 1] > gone[self.first[of_words]]
        return out | out[of_words].all()           # all() of no token at all is true: words without a token are no text


def pack(tokens: Sequence[TextTokens], missing: Sequence[np.ndarray] | None, pad: int, device: torch.device):
    """The tokens left of a batch of texts, moved together: ids (B, T), their places in the text (B, T), and which entries
    are tokens (B, T) bool; T is what the longest has left, and at least 1. missing: a (T_i,) bool array a text."""
    kept = [np.flatnonzero(~m) for m in missing] if missing is not None else [np.arange(len(t)) for t in tokens]
    longest = max(1, max(len(k) for k in kept))
    ids = np.full((len(tokens), longest), pad, dtype=np.int64)
    places = np.zeros((len(tokens), longest), dtype=np.int64)
    there = np.zeros((len(tokens), longest), dtype=bool)
    for row, (text, keep) in enumerate(zip(tokens, kept)):
        ids[row, :len(keep)], places[row, :len(keep)], there[row, :len(keep)] = text.ids[keep], keep, True
    return tuple(torch.from_numpy(part).to(device) for part in (ids, places, there))


class TextEncoder(nn.Module):
    """The text backbone with its tokenizer; its upper layers may be our own, tuned ones.

    tuned: layers opened for tuning, counted from the top (0 = the backbone as it came).
    """

    def __init__(self, tuned: int = 0):
        super().__init__()
        self.backbone, self.tokenizer, self.special = load_e5()
        self.dim = self.backbone.dim
        if not isinstance(tuned, int) or not 0 <= tuned <= len(self.backbone.layers):
            raise InputError(f"The text encoder has {len(self.backbone.layers)} layers, so {tuned!r} of them cannot be tuned; train it again.")
        self.tuned = tuned
        self.trainable = self.backbone.tune(tuned)

    def tokenize(self, words: Sequence[str]) -> TextTokens:
        """Tokens of the words as one text: blanks between words, none between two characters of a script without blanks."""
        text, starts = "", []
        for word in words:
            if text and not (is_unspaced(text[-1]) and word and is_unspaced(word[0])):
                text += " "
            starts.append(len(text))
            text += word
        encoded = self.tokenizer.encode(text, add_special_tokens=False) if text else None
        ids, first, last, pieces = [self.special["cls"]], [-1], [-1], ["[CLS]"]
        for token, piece, (a, b) in (zip(encoded.ids, encoded.tokens, encoded.offsets) if encoded else ()):
            if b <= a and piece != "▁":
                continue
            here = int(np.searchsorted(starts, a, side="right")) - 1
            # A Metaspace piece starts at the blank before its word, which still belongs to the word before.
            if a < len(text) and text[a] == " ":
                here += 1
            there = max(here, int(np.searchsorted(starts, max(a, b - 1), side="right")) - 1)
            ids.append(token), first.append(here), last.append(there), pieces.append(piece)
        cut = 0
        if len(ids) > MAX_TOKENS - 1:
            cut = len(words) - first[MAX_TOKENS - 1]
            ids, first, last, pieces = (part[:MAX_TOKENS - 1] for part in (ids, first, last, pieces))
        ids.append(self.special["sep"]), first.append(-1), last.append(-1), pieces.append("[SEP]")
        return TextTokens(np.array(ids), np.array(first), np.array(last), tuple(pieces), len(words), cut)

    def forward(self, tokens: Sequence[TextTokens], missing: Sequence[np.ndarray] | None = None) -> torch.Tensor:
        """Contextual features of the tokens left, (B, T, dim) float32, T the longest text of the batch.

        missing: a (T_i,) bool array a text, True = not to be read. Missing and padded places hold zeros, which nothing
        may attend to; the caller keeps the masks.
        """
        lengths = [len(t) for t in tokens]
        ids, where, there = pack(tokens, missing, self.special["pad"], self.backbone.norm.weight.device)
        # A text with nothing left reads its first padding, so that no row of the softmax is empty; it is dropped below.
        readable = there.clone()
        readable[:, 0] |= ~there.any(1)
        hidden = self.backbone(ids, where, readable)
        out = hidden.new_zeros(len(tokens), max(lengths), self.dim)
        rows = torch.arange(len(tokens), device=where.device)[:, None].expand_as(where)
        out[rows[there], where[there]] = hidden[there]
        return out

    @torch.no_grad()
    def encode(self, tokens: Sequence[TextTokens], missing: Sequence[np.ndarray], told: Callable[[int], None] | None = None) -> list[torch.Tensor]:
        """forward for many texts: features (T_i, dim) of each, computed in batches of similar length, the shortest first; `told` hears after every
        batch how many are read."""
        order = np.argsort([len(t) - int(gone.sum()) for t, gone in zip(tokens, missing)], kind="stable")
        features: list[torch.Tensor] = [torch.empty(0)] * len(tokens)
        for start in range(0, len(order), BATCH):
            rows = order[start:start + BATCH]
            for i, row in zip(rows, self([tokens[i] for i in rows], [missing[i] for i in rows])):
                features[i] = row[:len(tokens[i])]
            if told:
                told(start + len(rows))
        return features

    def tuned_weights(self) -> dict[str, torch.Tensor]:
        """The trained layers in 8 bits, by name: what a text checkpoint holds."""
        state = self.backbone.state_dict()
        return in_eight_bits({name: state[name] for name in self.trainable})


class TunedLayers(nn.Module):
    """Shows the trained layers alone as a module, so that names and shapes are checked the way every checkpoint's are."""

    def __init__(self, encoder: TextEncoder):
        super().__init__()
        self._encoder = [encoder]

    def state_dict(self, *args, **kwargs):
        state = self._encoder[0].backbone.state_dict()
        return {name: state[name] for name in self._encoder[0].trainable}

    def load_state_dict(self, weights):
        state = self._encoder[0].backbone.state_dict()
        with torch.no_grad():
            for name, value in weights.items():
                state[name].copy_(value)


def load_text_encoder(path: str | Path | None) -> TextEncoder:
    """The tuned encoder of a text checkpoint in eval mode; None gives the backbone as it came."""
    if path is None:
        return TextEncoder().eval().requires_grad_(False)
    checkpoint = read_checkpoint(path, "text")
    if checkpoint.config.get("backbone") != "multilingual-e5-small":
        raise InputError(f"{Path(path).name} was tuned from {checkpoint.config.get('backbone')}, which is not available here; "
                         "give a checkpoint tuned from multilingual-e5-small.")
    encoder = TextEncoder(tuned=checkpoint.config.get("tuned_layers"))
    load_weights(TunedLayers(encoder), checkpoint)
    return encoder.eval().requires_grad_(False)
