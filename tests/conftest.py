"""Fixtures the test modules share: a tiny data folder, and a folder of small, quickly made checkpoints."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from pathlib import Path

import pytest
import torch

from msademo.backbones.expression import ExpressionNet, save_expression
from msademo.backbones.voice import VoiceConfig, VoiceNet, save_voice
from msademo.checkpoint import save_checkpoint
from msademo.features.text import TextEncoder
from msademo.features.vision import VISION_NAMES
from msademo.features.voice import VOICE_NAMES
from msademo.models.pglh import PGLHConfig
from msademo.models.pgmf import PGMFConfig
from tests.post_support import write_spro
from tests.synthetic import make_data, untrained

ROOT = Path(__file__).resolve().parent.parent
WORDS = "I really loved this movie! The story is wonderful, the actors are brilliant."


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def encoders(tmp_path_factory) -> Path:
    """A folder with untrained text, face and voice checkpoints, as the trainers of clip models need them."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    save_expression(folder / "face.safetensors", ExpressionNet())
    save_voice(folder / "voice.safetensors", VoiceNet(VoiceConfig(width=24, attention_heads=2, folds=2, rank=2, hidden=8)), unheard=[[], ["s-train"]])
    encoder = TextEncoder(tuned=1)
    save_checkpoint(folder / "text.safetensors", "text", {"backbone": encoder.backbone.name, "tuned_layers": 1}, encoder.tuned_weights())
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, encoders) -> Path:
    """A folder with all that an Analyzer needs, untrained: its scores mean nothing, but everything moves them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("text", "face", "voice"):
        shutil.copy(encoders / f"{name}.safetensors", folder)
    dims = {"text": 384, "audio": len(VOICE_NAMES), "vision": len(VISION_NAMES)}
    untrained(folder / "pglh.safetensors", "pglh", PGLHConfig(dims=dims))
    untrained(folder / "pgmf_teacher.safetensors", "pgmf-teacher", PGMFConfig(dims=dims, alignment_layers=4, fusion_layers=2))
    untrained(folder / "pgmf_student.safetensors", "pgmf-student", PGMFConfig(guided=False, dims=dims, alignment_layers=2, fusion_layers=2))
    return folder


@pytest.fixture(scope="session")
def post_checkpoints(tmp_path_factory) -> Path:
    """A folder with all that a PostAnalyzer needs: an untrained SPRO and the expression network."""
    folder = tmp_path_factory.mktemp("post-checkpoints")
    shutil.copy(ROOT / "checkpoints" / "face.safetensors", folder)
    write_spro(folder / "spro.safetensors")
    return folder


@pytest.fixture(scope="module")
def analyzer(checkpoints):
    from msademo.analyzer import Analyzer       # seconds that most test modules need not wait
    return Analyzer(checkpoints)


@pytest.fixture(scope="module")
def opened(analyzer):
    """The happy example, taken apart by the untrained models."""
    return analyzer.open(ROOT / "examples" / "happy.mp4", WORDS)


@pytest.fixture(scope="module")
def client(served):
    """gradio_client on what a test module serves: (analyzer, address)."""
    from gradio_client import Client
    client = Client(served[1], verbose=False)
    yield client
    client.close()
