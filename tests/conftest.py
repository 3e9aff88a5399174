"""Fixtures the test modules share: a tiny data folder, and a folder of small, quickly made checkpoints."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch

from msademo.backbones.expression import ExpressionNet, save_expression
from msademo.checkpoint import save_checkpoint
from msademo.features.text import TextEncoder
from tests.synthetic import make_data

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def encoders(tmp_path_factory) -> Path:
    """A folder with untrained text and face checkpoints, as the trainers of clip models need them."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    save_expression(folder / "face.safetensors", ExpressionNet())
    encoder = TextEncoder(tuned=1)
    save_checkpoint(folder / "text.safetensors", "text", {"backbone": encoder.backbone.name, "tuned_layers": 1}, encoder.tuned_weights())
    return folder
