"""The pieces the methods share. Everywhere: padding and missing are bool, True = not to be looked at."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def positions(length: int, width: int, device=None) -> torch.Tensor:
    """Sinusoidal positions (length, width): they need no training, so longer clips than the training ones are no stranger."""
    place = torch.arange(length, device=device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    return torch.stack([torch.sin(place * rate), torch.cos(place * rate)], dim=-1).flatten(1)[:, :width]


class Attention(nn.Module):
    """Multi-head attention, softmax(Q K^T / sqrt(d_head)) V, from queries (B, Q, d) to memory (B, T, d).

    hidden: (B, T) bool, True = may not be looked at (missing or padding); each row needs one visible place.
    head_width: d_head, where heads are wider than their share of the width.
    Returns the mixed values (B, Q, d), and the weights (B, heads, Q, T) when asked for.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, head_width: int | None = None):
        super().__init__()
        if head_width is None and width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads, self.dropout = heads, dropout
        inner = heads * head_width if head_width else width
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)

    def forward(self, queries, memory, hidden, weights: bool = False):
        def split(x):
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)        # (B, heads, length, d_head)
        q, k, v = split(self.query(queries)), split(self.key(memory)), split(self.value(memory))
        seen = ~hidden[:, None, None, :]
        if not weights:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=self.dropout if self.training else 0.0)
            return self.out(mixed.transpose(1, 2).flatten(2)), None
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~seen, -torch.inf)
        attention = scores.softmax(-1)
        return self.out((attention @ v).transpose(1, 2).flatten(2)), attention


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward over the visible places; (B, T, d) -> (B, T, d).

    first: compute only so many places from the front, (B, first, d); they look at all the same.
    attention_dropout: dropout of the attention's weights, where it is another than the rest's.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, head_width: int | None = None,
                 attention_dropout: float | None = None):
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout if attention_dropout is None else attention_dropout, head_width)
        self.mlp = nn.Sequential(nn.Linear(width, feed_forward), nn.GELU(), nn.Dropout(dropout), nn.Linear(feed_forward, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, hidden: torch.Tensor, first: int | None = None) -> torch.Tensor:
        normed = self.norm_attention(x)
        x = x[:, :first] + self.dropout(self.attention(normed[:, :first], normed, hidden)[0])
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


def absent_slot(x: torch.Tensor, hidden: torch.Tensor, token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Put a place with the learnt "absent" token (d,) in front of x (B, T, d) and hidden (B, T): it is open only where all else
    is shut, so a modality without a visible token can still be looked at."""
    x = torch.cat([token.expand(len(x), 1, -1), x], dim=1)
    return x, torch.cat([(~hidden).any(1, keepdim=True), hidden], dim=1)


def visible_first(hidden: torch.Tensor) -> torch.Tensor:
    """(B, T) bool -> (B, n) places, n the most visible places of any sample: each sample's visible places in their order, then
    hidden ones. Reading a sequence at these places alone leaves out what nothing may look at."""
    count = int((~hidden).sum(1).max())
    return torch.sort(hidden.to(torch.uint8), dim=1, stable=True).indices[:, :count]


def stretch(tokens: torch.Tensor, lengths: torch.Tensor, longest: int) -> torch.Tensor:
    """Linear interpolation of tokens (B, K, d) to each sample's own length: (B, longest, d), the first and the last token
    at the ends; places behind a sample's length repeat its last token."""
    count = tokens.shape[1]
    place = torch.arange(longest, device=tokens.device)[None] * (count - 1) / (lengths[:, None] - 1).clamp(min=1)
    place = place.clamp(max=count - 1)
    low = place.floor().long()
    share = (place - low)[..., None]
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return tokens[rows, low] * (1 - share) + tokens[rows, (low + 1).clamp(max=count - 1)] * share


def visible_mean(x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """(B, T, d) -> (B, d), the mean over the places that may be looked at."""
    seen = (~hidden)[..., None].to(x.dtype)
    return (x * seen).sum(1) / seen.sum(1).clamp(min=1)
