"""Our voice network: what a tenth of a second of a voice tells of the emotion it is spoken with.

It hears through the first layers of Whisper tiny.en (Radford et al. 2022; MIT licence), which were trained on so many speakers that they
tell an emotion from a speaker better than our measured dimensions do. Each piece is heard within its own surroundings (0.23 s) and no
further, so a piece that is hidden leaves no trace in the others. Several judges say how much the piece speaks for each emotion; a judge
hears through Whisper's weights and a low-rank change of its own (LoRA; Hu et al. 2022). All judges but the last were trained without a
part of the speakers: a training recording is judged by the one that has never heard its speaker, every other voice by the last, which
has heard them all. So a voice is as telling in training as it will be later. `python -m train voice` trains it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msademo.checkpoint import described_by, from_eight_bits, in_eight_bits, load_weights, read_checkpoint, save_checkpoint
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
FLOOR = 1e-6                # of a variance, so that its root has a slope
AT_ONCE = 1024              # pieces that pass the layers together, bounds the memory


@dataclass(frozen=True)
class VoiceConfig:
    """width, attention_heads, layers: of Whisper's encoder, and how many of its layers are used. side: positions a piece hears on either side
    of its own. folds: judges that are each trained without a part of the speakers; one more hears all. rank: of a judge's changes to Whisper's
    matrices. hidden: units of the small network it judges with."""

    width: int = 384
    attention_heads: int = 6
    layers: int = 1
    side: int = 2
    folds: int = 6
    rank: int = 16
    hidden: int = 256
    dropout: float = 0.4

    def __post_init__(self):
        if min(self.width, self.attention_heads, self.folds, self.rank, self.hidden) < 1 or min(self.layers, self.side) < 0 or not 0 <= self.dropout < 1:
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


class Ears(nn.Module):
    """Whisper's convolutions and first layers, frozen."""

    def __init__(self, config: VoiceConfig):
        super().__init__()
        width, self.side = config.width, config.side
        self.first, self.second = nn.Conv1d(N_MEL, width, 3, padding=1), nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.places = nn.Parameter(torch.zeros(STEPS + 2 * config.side, width))
        # torch's layer is Whisper's exactly: normalised first, GELU, four times the width within.
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, config.attention_heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
                                    for _ in range(config.layers))
        self.requires_grad_(False)

    def matrices(self) -> list[str]:
        """Names of the weights that a judge may change."""
        return [name for name, weight in self.named_parameters() if weight.ndim > 1 and name != "places"]

    def forward(self, mel: Tensor, lengths: Tensor, rows: Tensor, pieces: Tensor) -> Tensor:
        """mel (B, T, N_MEL), of which row i has lengths[i] frames -> (N, 2 * width): mean and deviation of what the layers make of piece
        pieces[n] of row rows[n]. In single precision always: the deviations within a piece are small."""
        with torch.autocast(mel.device.type, enabled=False):
            there = torch.arange(mel.shape[1], device=mel.device) < lengths[:, None]
            heard = F.gelu(self.first(mel.transpose(1, 2))) * there[:, None]       # nothing of a longer neighbour's padding
            heard = F.gelu(self.second(heard)).transpose(1, 2)
            last, reach = (lengths + 1) // 2 - 1, torch.arange(-self.side, STEPS + self.side, device=mel.device)
            parts = []
            for row, piece in zip(rows.split(AT_ONCE), pieces.split(AT_ONCE)):
                around = piece[:, None] * STEPS + reach
                x = heard[row[:, None], torch.minimum(around.clamp(min=0), last[row][:, None])] + self.places
                for layer in self.layers:
                    x = layer(x)
                own = x[:, self.side:self.side + STEPS]
                parts.append(torch.cat([own.mean(1), (own.var(1, unbiased=False) + FLOOR).sqrt()], 1))
            return torch.cat(parts)


class Judge(nn.Module):
    """Low-rank changes to the ears' matrices, and a network that reads what is heard through them."""

    def __init__(self, config: VoiceConfig, shapes: list[torch.Size]):
        super().__init__()
        sizes = [(shape[0], shape[1:].numel()) for shape in shapes]
        self.down = nn.ParameterList(torch.randn(config.rank, inner) / inner**0.5 for _, inner in sizes)
        self.up = nn.ParameterList(torch.zeros(outer, config.rank) for outer, _ in sizes)
        self.register_buffer("mean", torch.zeros(2 * config.width))
        self.register_buffer("deviation", torch.ones(2 * config.width))
        self.network = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(2 * config.width, config.hidden), nn.GELU(), nn.Dropout(config.dropout),
                                     nn.Linear(config.hidden, len(EMOTIONS)))

    def forward(self, heard: Tensor) -> Tensor:
        """(N, 2 * width) -> (N, 9) evidence for EMOTIONS, logits."""
        return self.network((heard - self.mean) / self.deviation)


class VoiceNet(nn.Module):
    """The ears and the judges that listen through them."""

    def __init__(self, config: VoiceConfig = VoiceConfig()):
        super().__init__()
        self.config, self.ears = config, Ears(config)
        self.matrices = self.ears.matrices()
        shapes = [self.ears.get_parameter(name).shape for name in self.matrices]
        self.members = nn.ModuleList(Judge(config, shapes) for _ in range(config.folds + 1))

    def lr_scale(self, name: str) -> float:
        """What is changed in the ears learns at half the pace (train/loop.py)."""
        return 0.5 if ".down." in name or ".up." in name else 1.0

    def hear(self, judge: int, mel: Tensor, lengths: Tensor, rows: Tensor, pieces: Tensor) -> Tensor:
        """Ears.forward with the changes of one judge."""
        member = self.members[judge]
        changed = {name: self.ears.get_parameter(name) + (up @ down).view(self.ears.get_parameter(name).shape)
                   for name, down, up in zip(self.matrices, member.down, member.up)}
        return torch.func.functional_call(self.ears, changed, (mel, lengths, rows, pieces))

    def judge(self, judge: int, mel: Tensor, lengths: Tensor, rows: Tensor, pieces: Tensor) -> Tensor:
        """-> (N, 9) evidence of the pieces named as in Ears.forward."""
        return self.members[judge](self.hear(judge, mel, lengths, rows, pieces))

    @torch.inference_mode()
    def evidence(self, wave: np.ndarray, judge: int | None = None) -> np.ndarray:
        """(S,) float32 mono at SAMPLE_RATE -> (P, 9) float32, evidence of each piece of 100 ms, the last of which may be shorter. judge: its
        number, None = the last, which has heard every speaker."""
        mel = log_mel(wave)[None]
        lengths = torch.tensor([mel.shape[1]])
        pieces = torch.arange(pieces_of(mel.shape[1]))
        return self.judge(-1 if judge is None else judge, mel, lengths, torch.zeros_like(pieces), pieces).numpy()


def pieces_of(frames: int) -> int:
    """How many pieces a spectrum of so many frames has."""
    return -(-((frames + 1) // 2) // STEPS)


def kept(net: VoiceNet) -> dict[str, Tensor]:
    """The tensors of a checkpoint: weights in 8 bits, the statistics as they are."""
    tensors = net.state_dict()
    exact = {name: tensors.pop(name) for name in list(tensors) if name.endswith((".mean", ".deviation"))}
    return in_eight_bits(tensors) | exact


def to_kept_precision(net: VoiceNet) -> None:
    """Round the weights to what a checkpoint of them holds, so that figures are those of the file."""
    net.load_state_dict(from_eight_bits(kept(net)))


def save_voice(path: str | Path, net: VoiceNet, **meta) -> None:
    """meta must hold unheard: the speakers that judge 0, 1, ... has not heard in training."""
    save_checkpoint(path, METHOD, asdict(net.config), kept(net), emotions=list(EMOTIONS), **meta)


@dataclass(frozen=True)
class Voice:
    """A network of a checkpoint and, by speaker of its training recordings, the judge that has not heard them."""

    net: VoiceNet
    unheard: dict[str, int]


def load_voice(path: str | Path = "checkpoints/voice.safetensors") -> Voice:
    """The network of a checkpoint, in eval mode. Raises InputError with one sentence for a file that is not one."""
    import scipy.signal         # noqa: F401 - takes a second, which the first voice that is heard need not wait

    checkpoint = read_checkpoint(path, METHOD)
    with described_by(checkpoint):
        net = VoiceNet(VoiceConfig(**checkpoint.config))
        unheard = {speaker: judge for judge, speakers in enumerate(checkpoint.meta["unheard"]) for speaker in speakers}
    if checkpoint.meta.get("emotions") != list(EMOTIONS):
        raise InputError(f"{Path(path).name} was trained on other emotions than {', '.join(EMOTIONS)}; train it again.")
    load_weights(net, checkpoint)
    return Voice(net.eval().requires_grad_(False), unheard)


opened = lru_cache(maxsize=1)(load_voice)      # for workers that hear many recordings


def beside(face: str | Path) -> Path:
    """The voice network that belongs to an expression network: the one in the same folder."""
    return Path(face).with_name("voice.safetensors")
