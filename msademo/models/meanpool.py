"""The yardstick: means of the visible tokens of each modality, side by side, into a small MLP."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Mapping

import torch
from torch import nn

from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.models.layers import visible_mean
from msademo.models.pglh import Batch


@dataclass(frozen=True)
class MeanPoolConfig:
    """dims: widths of the token features; hidden: width of the MLP's one hidden layer."""

    dims: Mapping[str, int] = field(default_factory=lambda: {"text": 384, "audio": 33, "vision": 71})
    hidden: int = 128
    dropout: float = 0.3

    def __post_init__(self):
        if set(self.dims) != set(MODALITIES) or min(*self.dims.values(), self.hidden) < 1 or not 0 <= self.dropout < 1:
            raise InputError(f"The mean-pool MLP cannot be built from {asdict(self)}.")


class MeanPool(nn.Module):
    """forward(batch) -> scores (B,). A modality without a visible token gives zeros and a flag."""

    def __init__(self, config: MeanPoolConfig):
        super().__init__()
        self.config = config
        self.mlp = nn.Sequential(nn.Linear(sum(config.dims.values()) + len(MODALITIES), config.hidden), nn.GELU(),
                                 nn.Dropout(config.dropout), nn.Linear(config.hidden, 1))

    def forward(self, batch: Batch) -> torch.Tensor:
        means = [visible_mean(batch.values[m], batch.hidden(m)) for m in MODALITIES]
        flags = [batch.hidden(m).all(1, keepdim=True).to(means[0].dtype) for m in MODALITIES]
        return self.mlp(torch.cat(means + flags, dim=1))[:, 0]

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"total": (self(batch) - batch.score).abs().mean()}
