"""Tiny towers with the bundled pair's interface, so that SPRO's tests take milliseconds: words are ids by spelling, pixels are patches."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from msademo.backbones.prompted import Tokens, Tower, spread, torch_layer
from msademo.features.text import TextTokens, pack

WIDTH, DEPTH, VOCABULARY = 16, 3, 97


def layers(dropout: float = 0.0) -> nn.ModuleList:
    return nn.ModuleList([nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout, nn.functional.gelu, batch_first=True, norm_first=True) for _ in range(DEPTH)])


class TinyText(Tower):
    width = dim = WIDTH
    depth, place = DEPTH, 1

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = layers()

    def tokenize(self, words):
        ids = [1, *(3 + sum(map(ord, word)) % (VOCABULARY - 3) for word in words), 2]
        owner = np.array([-1, *range(len(words)), -1])
        return TextTokens(np.array(ids), owner, owner.copy(), ("[CLS]", *words, "[SEP]"), len(words))

    def stem(self, texts, missing=None):
        ids, _, there = pack(texts, missing, 0, self.words.weight.device)
        there[:, 0] |= ~there.any(1)
        return self.words(ids), there

    def tokens(self, values, there):
        return Tokens(values, ~there, spread(there))

    def block(self, index, x, seen, record):
        return torch_layer(self.layers[index], x, seen, record)


class TinyImage(Tower):
    width = dim = WIDTH
    depth = DEPTH
    grid = (2, 3)

    def __init__(self, channels: int = 5):
        super().__init__()
        self.embed = nn.Linear(channels, WIDTH)
        self.position_token = nn.Parameter(torch.randn(6, WIDTH) * 0.1)
        self.layers = layers()

    def tokens(self, patches, missing=None):
        missing = torch.zeros(patches.shape[:2], dtype=torch.bool) if missing is None else missing
        return Tokens(self.embed(patches) + self.position_token, missing, spread(~missing))

    def block(self, index, x, seen, record):
        return torch_layer(self.layers[index], x, seen, record)
