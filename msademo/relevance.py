"""Where a similarity comes from: gradient x attention over the blocks of a tower (Chefer et al. 2021, "Generic Attention-model
Explainability"), for patches and for words.

Each block adds what its tokens took from each other, weighted by how much the similarity wanted it: R <- R + (grad A * A)^+ R,
averaged over heads. Prompts carry nothing of the post, so their rows start at 0, and again wherever a block puts in new ones. The pooling at
the end is attention too: one query with the pooling weights.
"""

from __future__ import annotations

import numpy as np
import torch

from msademo.backbones.prompted import Record, Tokens
from msademo.features.text import TextTokens
from msademo.models.spro import SPRO


def rollout(record: Record, gradients: list[torch.Tensor]) -> torch.Tensor:
    """Relevance of every token for the pooled embedding, (B, T) >= 0, prompts left out. gradients: of record.attention, then of
    record.pool, in that order."""
    batch, tokens = record.pool.shape
    place, count = record.place, record.prompts
    relevance = torch.eye(tokens, device=record.pool.device).expand(batch, -1, -1)
    relevance = torch.cat([relevance[:, :place], relevance.new_zeros(batch, count, tokens), relevance[:, place:]], dim=1)
    for attention, gradient, renewed in zip(record.attention, gradients, record.renewed):
        if renewed:
            relevance = relevance.clone()
            relevance[:, place:place + count] = 0
        relevance = relevance + (gradient * attention).clamp(min=0).mean(1) @ relevance
    relevance = torch.cat([relevance[:, :place], relevance[:, place + count:]], dim=1)
    pool, one_token = record.pool.detach(), record.pool.max(1, keepdim=True).values == 1
    wanted = torch.where(one_token, pool, (gradients[-1] * pool).clamp(min=0))       # a pooling by one token has no choice to weigh
    return (wanted[:, None] @ relevance)[:, 0]


def _relevance(forward, tokens: Tokens, directions: torch.Tensor) -> torch.Tensor:
    """Relevance (K, T) of tokens, the same in all K rows, for the cosine of their embedding and each direction (K, J)."""
    record = Record()
    with torch.inference_mode(False), torch.enable_grad():
        # Nothing in a frozen model needs a gradient, so the graph starts at the tokens.
        values = tokens.values.detach().clone().requires_grad_()
        embedded = forward(Tokens(values, tokens.hidden.clone(), tokens.pool.clone()), record)
        target = (embedded * directions.detach().clone()).sum()
        gradients = torch.autograd.grad(target, [*record.attention, record.pool])
        return rollout(record, list(gradients)).detach()


def image_relevance(spro: SPRO, patches: torch.Tensor, missing: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Relevance (K, P) >= 0 of one picture's patches (1, P, C) for its similarity to each direction (K, J): a caption's embedding,
    or `class_direction`. Missing patches (1, P) have 0. Not normalised."""
    count = len(directions)
    with torch.no_grad():
        one = spro.image.tokens(patches, missing)
    tokens = Tokens(*(part.expand(count, *part.shape[1:]) for part in (one.values, one.hidden, one.pool)))
    relevance = _relevance(spro.forward_image, tokens, directions)
    relevance = relevance[:, relevance.shape[1] - missing.shape[1]:]      # without a class token in front
    return relevance.masked_fill(missing.expand_as(relevance), 0.0)


def text_relevance(spro: SPRO, tokens: TextTokens, gone: np.ndarray, direction: torch.Tensor) -> np.ndarray:
    """Relevance (words,) >= 0 of one post's words for its similarity to `direction` (J,); a word has the sum of its tokens, a token of
    several words gives each its share. gone: (T,) bool, the tokens not read; missing words have 0."""
    with torch.no_grad():
        one = spro.text.tokens(*spro.text.stem([tokens], [gone]))
    found = _relevance(spro.forward_text, one, direction[None])[0].numpy()
    words = np.zeros(tokens.words, dtype=np.float32)
    for value, first, last in zip(found, tokens.first[~gone], tokens.last[~gone]):
        if first >= 0:
            words[first:last + 1] += value / (last - first + 1)
    return words


@torch.no_grad()
def class_direction(spro: SPRO, index: int) -> torch.Tensor:
    """(J,) the prototype of a class minus the mean of the others: what speaks for this class and not for all."""
    prototypes = spro.prototypes()
    others = [i for i in range(len(prototypes)) if i != index]
    return prototypes[index] - prototypes[others].mean(0)


def combine(maps: torch.Tensor) -> torch.Tensor:
    """Maps (K, P) -> (P,), summing to 1: each map counts alike, whatever its scale; a map that is 0 everywhere does not count."""
    shares = maps / maps.sum(1, keepdim=True).clamp(min=1e-12)
    total = shares.sum(0)
    return total / total.sum().clamp(min=1e-12)


def hide_top(relevance: torch.Tensor, share: float, missing: torch.Tensor) -> torch.Tensor:
    """(P,) bool: `missing` and, on top, the most relevant `share` of the patches that are there (rounded, at least one)."""
    there = int((~missing).sum())
    count = min(there, max(1, round(share * there)))
    order = relevance.masked_fill(missing, -torch.inf).argsort(descending=True, stable=True)
    hidden = missing.clone()
    hidden[order[:count]] = True
    return hidden
