"""Our voice network: what a tenth of a second of a voice tells of the emotion it is spoken with.

It hears through the first layers of Whisper tiny.en (Radford et al. 2022; MIT licence), which were trained on so many speakers that they
tell an emotion from a speaker better than our measured dimensions do. They are frozen, and each piece is heard within its own surroundings
(0.23 s) and no further, so a piece that is hidden leaves no trace in the others. Small heads then say how much the piece speaks for each
emotion. There are several, each trained without a part of the speakers: a training recording is judged by the one that has never heard
its speaker, every other voice by all of them. So a voice is as telling in training as it will be later. `python -m train voice` trains it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msademo.checkpoint import described_by, in_eight_bits, load_weights, read_checkpoint, save_checkpoint
from msademo.errors import InputError
from msademo.media import SAMPLE_RATE
from msademo.mel import mel_bank

METHOD = "voice"
EMOTIONS = ("angry", "bored", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised")      # the order of the logits
WHISPER_RATE = 16_000       # Hz
N_MEL, WINDOW, HOP = 80, 400, 160
STEPS = 5                   # positions of 20 ms that make a piece
PEAK = 0.5                  # every voice is brought to this peak, so a gain changes nothing
RANGE = 8.0                 # powers of ten below the loudest band at which Whisper's spectrum ends
AT_ONCE = 256               # pieces listened to together, bounds the memory


@dataclass(frozen=True)
class VoiceConfig:
    """width, attention_heads, layers: of Whisper's encoder, and how many of its layers are used. side: positions a piece hears on either side
    of its own. heads: networks that judge, of `hidden` units each."""

    width: int = 384
    attention_heads: int = 6
    layers: int = 1
    side: int = 2
    heads: int = 6
    hidden: int = 256
    dropout: float = 0.4

    def __post_init__(self):
        if min(self.width, self.attention_heads, self.heads, self.hidden) < 1 or min(self.layers, self.side) < 0 or not 0 <= self.dropout < 1:
            raise InputError(f"A voice network cannot be made of {asdict(self)}; sizes must be positive and dropout in [0, 1).")
        if self.width % self.attention_heads:
            raise InputError(f"A voice network's width {self.width} must be divisible by its {self.attention_heads} attention heads.")


def log_mel(wave: np.ndarray) -> Tensor:
    """(S,) float32 mono at SAMPLE_RATE -> (T, N_MEL), a frame every 10 ms: Whisper's spectrum of the sound brought to PEAK."""
    from scipy.signal import resample_poly      # imported here: see load_voice

    sound = resample_poly(np.asarray(wave, np.float32), 320, 441).astype(np.float32)       # 22.05 kHz -> 16 kHz
    sound = torch.from_numpy(sound * (PEAK / max(np.abs(sound).max(), 1e-9)))
    short = WINDOW // 2 + 1 - len(sound)        # reflected at both ends, which takes half a window
    sound = F.pad(sound, (0, max(0, short)))
    spectrum = torch.stft(sound, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)[:, :-1].abs().square()
    mel = (torch.from_numpy(mel_bank(N_MEL, WINDOW, WHISPER_RATE)) @ spectrum).clamp(min=1e-10).log10()
    return ((mel.clamp(min=mel.max().item() - RANGE) + 4) / 4).T.contiguous()


class VoiceNet(nn.Module):
    """Frozen ears and the heads that judge what they hear."""

    def __init__(self, config: VoiceConfig = VoiceConfig()):
        super().__init__()
        self.config = config
        width = config.width
        self.first, self.second = nn.Conv1d(N_MEL, width, 3, padding=1), nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.places = nn.Parameter(torch.zeros(STEPS + 2 * config.side, width))
        # torch's layer is Whisper's exactly: normalised first, GELU, four times the width within.
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, config.attention_heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
                                    for _ in range(config.layers))
        for part in self.ears():
            part.requires_grad_(False)
        self.register_buffer("mean", torch.zeros(2 * width))
        self.register_buffer("deviation", torch.ones(2 * width))
        self.members = nn.ModuleList(nn.Sequential(nn.Dropout(config.dropout), nn.Linear(2 * width, config.hidden), nn.GELU(), nn.Dropout(config.dropout),
                                                   nn.Linear(config.hidden, len(EMOTIONS))) for _ in range(config.heads))

    def ears(self) -> list:
        return [self.first, self.second, self.places, self.layers]

    @torch.inference_mode()
    def listen(self, wave: np.ndarray) -> Tensor:
        """(S,) float32 mono at SAMPLE_RATE -> (P, 2 * width): mean and deviation of what the layers make of each piece of 100 ms."""
        heard = F.gelu(self.second(F.gelu(self.first(log_mel(wave).T[None]))))[0].T
        side, count = self.config.side, -(-len(heard) // STEPS)
        around = torch.arange(count)[:, None] * STEPS + torch.arange(-side, STEPS + side)
        pieces = []
        for places in around.clamp(0, len(heard) - 1).split(AT_ONCE):
            x = heard[places] + self.places
            for layer in self.layers:
                x = layer(x)
            own = x[:, side:side + STEPS]
            pieces.append(torch.cat([own.mean(1), own.std(1, unbiased=False)], 1))
        return torch.cat(pieces)

    def judge(self, heard: Tensor, head: int | None = None) -> Tensor:
        """(..., 2 * width) -> (..., 9) evidence for EMOTIONS: one head's logits, or the mean of all heads'."""
        x = (heard - self.mean) / self.deviation
        members = self.members if head is None else [self.members[head]]
        return torch.stack([member(x) for member in members]).mean(0)

    @torch.inference_mode()
    def evidence(self, wave: np.ndarray, head: int | None = None) -> np.ndarray:
        """(S,) float32 mono at SAMPLE_RATE -> (P, 9) float32, evidence of each piece of 100 ms; the last may be shorter."""
        return self.judge(self.listen(wave), head).numpy()


def save_voice(path: str | Path, net: VoiceNet, **meta) -> None:
    """meta must hold unheard: the speakers that head 0, 1, ... has not heard in training. Weights go to 8 bits, the statistics stay as they are."""
    tensors = net.state_dict()
    exact = {name: tensors.pop(name) for name in ("mean", "deviation")}
    save_checkpoint(path, METHOD, asdict(net.config), in_eight_bits(tensors) | exact, emotions=list(EMOTIONS), **meta)


@dataclass(frozen=True)
class Voice:
    """A network of a checkpoint and, by speaker of its training recordings, the head that has not heard them."""

    net: VoiceNet
    unheard: dict[str, int]


def load_voice(path: str | Path = "checkpoints/voice.safetensors") -> Voice:
    """The network of a checkpoint, in eval mode. Raises InputError with one sentence for a file that is not one."""
    import scipy.signal         # noqa: F401 - takes a second, which the first voice that is heard need not wait

    checkpoint = read_checkpoint(path, METHOD)
    with described_by(checkpoint):
        net = VoiceNet(VoiceConfig(**checkpoint.config))
        unheard = {speaker: head for head, speakers in enumerate(checkpoint.meta["unheard"]) for speaker in speakers}
    if checkpoint.meta.get("emotions") != list(EMOTIONS):
        raise InputError(f"{Path(path).name} was trained on other emotions than {', '.join(EMOTIONS)}; train it again.")
    load_weights(net, checkpoint)
    return Voice(net.eval().requires_grad_(False), unheard)


opened = lru_cache(maxsize=1)(load_voice)      # for workers that hear many recordings


def beside(face: str | Path) -> Path:
    """The voice network that belongs to an expression network: the one in the same folder."""
    return Path(face).with_name("voice.safetensors")
