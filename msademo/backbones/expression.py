"""Our own facial-expression network: a small residual net on 48 x 48 grey crops, framed as in FER2013.

Its embedding and class probabilities are the vision tokens of a clip, so it is kept compact (48 + 7 numbers a face) and
cheap enough for the live demo. `python -m train face` trains it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msademo.checkpoint import described_by, in_half, load_weights, read_checkpoint, save_checkpoint
from msademo.errors import InputError

METHOD = "face"
CROP = 48                                                                            # pixels a side, as in FER2013
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")    # the order of the logits
VIEWS = (0.25, 0.75)        # where along a crop's diagonal the windows lie; two and their mirrors gain 1.5 points over the whole crop


@dataclass(frozen=True)
class ExpressionConfig:
    """widths and blocks: channels and residual blocks of the stages; every stage after the first halves the resolution, and `stride`,
    the stem's, divides it before. window: side of the part of a crop that the network sees at once, in training (at random places)
    and afterwards (at fixed ones)."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 2, 1)
    embedding: int = 48
    dropout: float = 0.2
    window: int = 40
    stride: int = 2

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(self.widths))       # JSON brings lists
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if not self.widths or len(self.widths) != len(self.blocks) or min(self.widths + self.blocks) < 1:
            raise InputError(f"An expression network needs one positive width and block count a stage, not {self.widths} "
                             f"and {self.blocks}; give two lists of the same length.")
        if self.embedding < 1 or not 0 <= self.dropout < 1 or not 32 <= self.window <= CROP:
            raise InputError(f"An expression network needs an embedding of 1 or more, dropout in [0, 1) and a window of 32 to {CROP} "
                             f"pixels, not {self.embedding}, {self.dropout} and {self.window}; correct the config.")
        if self.stride not in (1, 2):
            raise InputError(f"The stem of an expression network moves 1 or 2 pixels at a time, not {self.stride}; correct the config.")


def conv(width_in: int, width: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width_in, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.first = conv(width_in, width, stride)
        self.second = conv(width, width)
        self.shortcut = nn.Identity() if stride == 1 and width_in == width else conv(width_in, width, stride, size=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def standardise(crops: Tensor) -> Tensor:
    """Each crop to mean 0 and deviation about 1, so a dark or flat picture looks like a bright one; a blank one stays 0."""
    mean, deviation = crops.mean((1, 2, 3), keepdim=True), crops.std((1, 2, 3), keepdim=True)
    return (crops - mean) / (deviation + 0.02)


class ExpressionNet(nn.Module):
    """pictures (B, 1, S, S) in [0, 1] -> embedding (B, D), logits (B, 7); S from 32 pixels, since it pools at the end."""

    def __init__(self, config: ExpressionConfig = ExpressionConfig()):
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = conv(1, widths[0], stride=config.stride, size=5)
        stages, width_in = [], widths[0]
        for stage, (width, blocks) in enumerate(zip(widths, config.blocks)):
            for block in range(blocks):
                # The first stage keeps the resolution that the stem leaves.
                stages.append(Block(width_in, width, stride=2 if block == 0 and stage > 0 else 1))
                width_in = width
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(config.dropout)
        self.embed = nn.Sequential(nn.Linear(width_in, config.embedding), nn.BatchNorm1d(config.embedding))
        self.classify = nn.Linear(config.embedding, len(EXPRESSIONS))
        self.to(memory_format=torch.channels_last)      # measured 15-25 % faster on a CPU

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.stem(standardise(crops).contiguous(memory_format=torch.channels_last)))
        pooled = self.stages(x).mean((2, 3))
        embedding = self.embed(self.dropout(pooled))
        return embedding, self.classify(embedding)

    @torch.inference_mode()
    def predict(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """crops (B, 1, 48, 48) -> embedding (B, D), probabilities (B, 7): means over VIEWS of each crop and of its mirror image."""
        both, room = torch.cat([crops, crops.flip(-1)]), CROP - self.config.window
        starts = [round(room * view) for view in VIEWS]
        views = torch.cat([both[..., at:at + self.config.window, at:at + self.config.window] for at in starts])
        embedding, logits = self(views)
        parts = 2 * len(VIEWS)
        return embedding.view(parts, len(crops), -1).mean(0), logits.softmax(-1).view(parts, len(crops), -1).mean(0)


def save_expression(path: str | Path, net: ExpressionNet, **meta) -> None:
    """Matrices go to half precision, which halves the file; statistics and biases stay as they are."""
    save_checkpoint(path, METHOD, asdict(net.config), in_half(net.state_dict()), expressions=list(EXPRESSIONS), **meta)


def load_expression(path: str | Path = "checkpoints/face.safetensors") -> ExpressionNet:
    """The network of a checkpoint, in eval mode. Raises InputError with one sentence for a file that is not one."""
    checkpoint = read_checkpoint(path, METHOD)
    with described_by(checkpoint):
        net = ExpressionNet(ExpressionConfig(**checkpoint.config))
    if checkpoint.meta.get("expressions") != list(EXPRESSIONS):
        raise InputError(f"{Path(path).name} was trained on other expressions than {', '.join(EXPRESSIONS)}; train it again.")
    load_weights(net, checkpoint)
    return net.eval()
