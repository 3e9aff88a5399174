"""The models by method name, and how a checkpoint becomes one that can be used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

import numpy as np
import torch
from torch import nn

from msademo.backbones.voice import beside
from msademo.checkpoint import Checkpoint, check_fits, described_by, file_hash, load_weights, read_checkpoint
from msademo.errors import InputError
from msademo.features.bundle import Statistics
from msademo.features.text import load_text_encoder
from msademo.models.meanpool import MeanPool, MeanPoolConfig
from msademo.models.pglh import PGLH, PGLHConfig
from msademo.models.pgmf import PGMF, PGMFConfig
from msademo.models.spro import CLASSES, SPRO, SPROConfig

METHODS = {"pglh": (PGLH, PGLHConfig), "pgmf-teacher": (PGMF, PGMFConfig), "pgmf-student": (PGMF, PGMFConfig),
           "baseline": (MeanPool, MeanPoolConfig)}


@dataclass(frozen=True)
class FusionModel:
    """A fusion model in eval mode with the statistics its features are standardised by."""

    model: nn.Module
    statistics: Statistics
    meta: dict


def build(checkpoint: Checkpoint) -> nn.Module:
    """The model a checkpoint describes, with its weights, in eval mode and frozen."""
    if checkpoint.method not in METHODS:
        raise InputError(f"{checkpoint.path.name} holds a {checkpoint.method} model; the models of clips are {', '.join(METHODS)}.")
    model_class, config_class = METHODS[checkpoint.method]
    with described_by(checkpoint):
        config = config_class(**checkpoint.config)
        with torch.device("meta"):          # a config of other sizes than the file's takes no memory
            check_fits(model_class(config), checkpoint)
        model = model_class(config)
    load_weights(model, checkpoint)
    return model.eval().requires_grad_(False)


def check_same(checkpoint: Checkpoint, part: Path, wanted: str) -> None:
    """InputError unless `part` is the very file the checkpoint was trained with."""
    if not part.is_file():
        raise InputError(f"{checkpoint.path.name} needs {part}, which is not there; restore it from the repository.")
    if file_hash(part) != wanted:
        raise InputError(f"{checkpoint.path.name} was trained with another {part.name} than the one beside it; "
                         f"give the matching pair or train it again.")


def load_fusion(path: str | Path, text: str | Path, face: str | Path, method: str | None = None) -> FusionModel:
    """Read a fusion checkpoint and check that the text and face checkpoints, and the voice network beside the latter, are the very ones it was trained with."""
    checkpoint = read_checkpoint(path, method)
    model = build(checkpoint)
    try:
        statistics = Statistics.from_dict(checkpoint.meta["statistics"])
        extractor = checkpoint.meta["extractor"]
        trained_with = {Path(text): extractor["text_sha256"], Path(face): extractor["face_sha256"], beside(face): extractor["voice_sha256"]}
        low, high = checkpoint.meta["scale"]                # an analysis reads them, later
        if not all(math.isfinite(float(number)) for number in (low, high, checkpoint.meta["median"])) or not isinstance(checkpoint.meta["data"], str):
            raise ValueError("scale and median must be finite numbers, data a text")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{checkpoint.path.name} lacks its feature statistics, extractor, scale, median or data; train it again.") from error
    for m, width in model.config.dims.items():
        for part in (statistics.mean, statistics.deviation):
            if (shape := np.shape(part.get(m, ()))) != (width,):
                raise InputError(f"{checkpoint.path.name} expects {width} {m} features and has statistics of "
                                 f"{shape[0] if len(shape) == 1 else 'another shape'}; train it again.")
            if not np.isfinite(part[m]).all():
                raise InputError(f"{checkpoint.path.name} has {m} statistics that are no finite numbers; train it again.")
    if not 0 <= statistics.emotions <= model.config.dims["audio"]:
        raise InputError(f"{checkpoint.path.name} hears {statistics.emotions} emotions in {model.config.dims['audio']} audio features; train it again.")
    for part, wanted in trained_with.items():
        check_same(checkpoint, part, wanted)
    return FusionModel(model, statistics, checkpoint.meta)


def build_spro(config: SPROConfig, text: str | Path | None = None, meta: Mapping | None = None) -> SPRO:
    """SPRO on the towers its config names; `text` is the tuned text encoder that the bundled text tower starts from."""
    if config.backbone == "bundled":
        from msademo.backbones.bundled import E5Tower, GridTower
        towers = (E5Tower(load_text_encoder(text), config.text_blocks, config.tuned_layers),
                  GridTower(config.image_width, config.image_depth, input_dropout=config.image_dropout))
    elif config.backbone.startswith("open_clip:"):
        from msademo.backbones.openclip import ClipImageTower, ClipTextTower, load_clip
        clip = load_clip(config.backbone)
        towers = ClipTextTower(clip, config.tuned_layers), ClipImageTower(clip, config.tuned_layers)
    else:
        raise InputError(f"There is no backbone called {config.backbone!r}; choose bundled or open_clip:MODEL:TAG_OR_FILE.")
    return SPRO(config, *towers, meta)


def load_spro(path: str | Path, text: str | Path | None = None) -> SPRO:
    """SPRO of a checkpoint, in eval mode and frozen; text: the tuned text encoder its stem may be of, by default the one beside it.
    Raises InputError with one sentence for a file that is not one, or whose text encoder is another."""
    checkpoint = read_checkpoint(path, "spro")
    if checkpoint.meta.get("classes") != list(CLASSES):
        raise InputError(f"{checkpoint.path.name} names its classes otherwise than {', '.join(CLASSES)}; train it again.")
    with described_by(checkpoint):
        config = SPROConfig(**checkpoint.config)
        wanted = (checkpoint.meta.get("start") or {}).get("text_sha256")
    text = None if wanted is None else Path(text or checkpoint.path.with_name("text.safetensors"))
    if text is not None:
        check_same(checkpoint, text, wanted)
    with described_by(checkpoint):
        model = build_spro(config, text, checkpoint.meta)
    load_weights(model, checkpoint)
    return model.eval().requires_grad_(False)
