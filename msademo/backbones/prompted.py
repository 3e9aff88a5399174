"""One small interface for every backbone of SPRO: token embeddings in, blocks one by one, a pooled embedding out.

A tower says how its tokens enter, what a block does, and how the pooled vector leaves; `encode` walks through it with prompts.
Equation numbers are SPRO's. Attention is written out here once, for towers of any origin, so that prompts can be put in
between blocks and the weights be had for relevance (which torch's fused layers do not give).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Sequence

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Tokens:
    """What goes into a tower: values (B, T, d); hidden (B, T) bool, True = not to be looked at (missing or padding);
    pool (B, T), the weights by which the last block's tokens are pooled, summing to 1."""

    values: torch.Tensor
    hidden: torch.Tensor
    pool: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)


@dataclass
class Record:
    """What one pass leaves behind for relevance: each block's attention (B, heads, b + T, b + T) and the pooling weights (B, T),
    all parts of the graph; where the b prompts stood, and in which blocks they were put in anew."""

    attention: list[torch.Tensor] = field(default_factory=list)
    pool: torch.Tensor | None = None
    place: int = 0
    prompts: int = 0
    renewed: list[bool] = field(default_factory=list)


class Tower(nn.Module):
    """A transformer as `encode` sees it.

    width: of its tokens. depth: blocks. dim: of the pooled vector. place: how many tokens stand before the prompts (None: all do).
    causal: a token looks only at those before it.
    """

    width: int
    depth: int
    dim: int
    place: int | None = None
    causal = False

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens and prompts together, before the first block."""
        return x

    def block(self, index: int, x: torch.Tensor, seen: torch.Tensor, record: Record | None) -> torch.Tensor:
        raise NotImplementedError

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens after the last block, prompts taken out, (B, T, width)."""
        return x

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, width) -> (B, dim)."""
        return pooled


def attend(attention: nn.MultiheadAttention, x: torch.Tensor, seen: torch.Tensor, record: Record | None) -> torch.Tensor:
    """Self-attention with the weights of torch's layer. seen: bool, broadcast to (B, heads, T, T), True = may be looked at."""
    q, k, v = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
               for part in F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1))
    dropout = attention.dropout if attention.training else 0.0
    if record is None:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
    else:
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf).softmax(-1)
        record.attention.append(weights)
        mixed = weights @ v
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def torch_layer(layer: nn.TransformerEncoderLayer, x: torch.Tensor, seen: torch.Tensor, record: Record | None) -> torch.Tensor:
    """torch's encoder layer, pre- or post-norm, block of the bundled towers."""
    def mlp(y):
        return layer.dropout2(layer.linear2(layer.dropout(layer.activation(layer.linear1(y)))))

    if layer.norm_first:
        x = x + layer.dropout1(attend(layer.self_attn, layer.norm1(x), seen, record))
        return x + mlp(layer.norm2(x))
    x = layer.norm1(x + layer.dropout1(attend(layer.self_attn, x, seen, record)))
    return layer.norm2(x + mlp(x))


def encode(tower: Tower, tokens: Tokens, prompts: Sequence[torch.Tensor] = (), record: Record | None = None) -> torch.Tensor:
    """The pooled embedding (B, dim) of tokens under prompts.

    prompts: none, or the shared ones (b, width) of (1), (2), (4) followed by the deep ones Q^(l) of (5), one a later block; where
    those end, what became of the prompts before goes on through the blocks.
    """
    count = len(prompts[0]) if prompts else 0
    place = tokens.values.shape[1] if tower.place is None else tower.place

    def put(x: torch.Tensor, prompt: torch.Tensor, rest: int) -> torch.Tensor:
        return torch.cat([x[:, :place], prompt.to(x.dtype).expand(len(x), -1, -1), x[:, rest:]], dim=1)

    x, hidden = tokens.values, tokens.hidden
    if count:
        x = put(x, prompts[0], place)
        hidden = torch.cat([hidden[:, :place], hidden.new_zeros(len(hidden), count), hidden[:, place:]], dim=1)
    seen = ~hidden[:, None, None, :]
    if tower.causal:
        seen = seen & torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
    if record is not None:
        record.place, record.prompts = place, count
    x = tower.enter(x)
    for index in range(tower.depth):
        renewed = 0 < index < len(prompts)
        if renewed:
            x = put(x, prompts[index], place + count)                                     # (6)
        if record is not None:
            record.renewed.append(renewed)
        x = tower.block(index, x, seen, record)
    if count:
        x = torch.cat([x[:, :place], x[:, place + count:]], dim=1)
    pool = tokens.pool
    if record is not None:
        pool = record.pool = pool.clone().requires_grad_()
    return tower.project((pool[..., None] * tower.leave(x)).sum(1))


def spread(keep: torch.Tensor) -> torch.Tensor:
    """Pooling weights of a mean over the places kept, (B, T) bool -> (B, T) float; a row that keeps nothing is all 0."""
    kept = keep.float()
    return kept / kept.sum(1, keepdim=True).clamp(min=1)
