"""An untrained SPRO on the bundled towers, for tests of everything around it: its answers mean nothing, but everything moves them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from msademo.checkpoint import save_checkpoint
from msademo.models.spro import CLASSES, SPROConfig
from msademo.registry import build_spro

SHARES = {"negative": 0.3, "neutral": 0.1, "positive": 0.6}
ROOT = Path(__file__).resolve().parent.parent
TEAM, COFFEE = ROOT / "examples" / "team.jpg", ROOT / "examples" / "coffee.jpg"
WORDS = "So proud and happy to be part of this amazing team! Thank you all, what a wonderful day."


def write_spro(path: Path, seed: int = 0) -> None:
    torch.manual_seed(seed)
    model = build_spro(SPROConfig(prompts=2, text_blocks=2, tuned_layers=1, image_width=32, image_depth=2, joint=24, image_weight=0.4))
    rng = torch.Generator().manual_seed(seed + 1)
    for name, parameter in model.named_parameters():
        if name.startswith("image.") and parameter.ndim == 2:          # its blocks start as the identity, under which nothing attends
            parameter.data.normal_(0, 0.2, generator=rng)
        parameter.data.mul_(3.0 if "projection" in name else 1.0)
    save_checkpoint(path, "spro", asdict(model.config), model.state_dict(), classes=list(CLASSES), data="none: untrained, for tests", class_shares=SHARES)


def scene(seed: int = 0, shape: tuple[int, int] = (140, 180)) -> np.ndarray:
    """(H, W, 3) uint8: coloured noise in blocks, so that every patch looks different."""
    blocks = np.random.default_rng(seed).integers(0, 256, (14, 18, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((shape[0] // 14, shape[1] // 18, 1), np.uint8))
